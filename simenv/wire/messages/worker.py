"""Messages between the service and its workers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import Origin, TaskOptions, TaskState
from simenv.wire.messages.common import Number
from simenv.wire.messages.queries import DeviceDescribed

# How a worker ends by no task's fault: it has lost its service; its starter has gone; MPI did not
# come up as told; one of its ranks fell silent or ended; its GPU failed.
EXIT_LEASE, EXIT_ORPHAN, EXIT_MPI, EXIT_RANK, EXIT_GPU = 3, 4, 5, 6, 7
STATES = tuple(TaskState)  # states travel as an index into this
FinalState = Annotated[int, msgspec.Meta(ge=2, le=len(STATES) - 1)]


class Join(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First message of a worker, sent when every kernel is loaded."""

    version: str
    name: str
    pid: Number
    node: str
    epoch: Number  # the service's, as told at start: a worker of an earlier one is sent away
    engines: tuple[str, ...]
    start: Number = 0  # as told at start: with the name, which start of it this is
    ranks: Number = 1


class Started(msgspec.Struct, frozen=True, array_like=True, tag=1):
    task: Number
    attempt: Number


class AttemptResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`start_us` is measured from the arrival of the chunk at the worker; the parts of `run_us`
    are those of `Timing`."""

    task: Number
    attempt: Number
    state: FinalState
    payload: bytes
    checksum: Number  # CRC-32 of the payload
    file: str = ""  # of its large arrays, below the results folder
    file_bytes: Number = 0
    start_us: Number = 0
    run_us: Number = 0
    decode_us: Number = 0
    plan_us: Number = 0
    engine_us: Number = 0
    encode_us: Number = 0
    compile_us: Number = 0  # not a part of `run_us`
    device_ns: Number = 0  # on the emulated device; 0: on none, or not known


class AttemptResults(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Results of one chunk, or a part of it; journaled as it came."""

    origin: Origin
    engine: str
    route: str
    slots: Number
    results: list[AttemptResult]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Sent every second by the heartbeat thread, which also reads the answers."""

    name: str
    epoch: Number
    task: Number  # what runs now; 0: nothing
    attempt: Number
    rss_bytes: Number  # of all its ranks together
    start: Number = 0
    passes_done: Number = 0  # over the task's states, as far as the engine says
    passes: Number = 0
    waiting: bool = True  # for a chunk; False while it runs one, loads kernels or sends results
    compiling: bool = False  # kernels that the task needs


class AssignedTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    task: int
    attempt: int  # the fence: epoch * 2**16 + how often it was sent out
    terms: int  # index into Assign.terms
    program: bytes
    shots: int
    seed: int
    bindings: bytes
    binding: int
    count: int = 1
    layout: bytes = b""  # see `TaskSpec`
    initial_layout: bytes = b""
    trusted: bool = False  # of the environment's own user, not of a key's owner


class AssignChunk(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A chunk. `announce`: say Started before running (long tasks; short ones just finish)."""

    slots: int  # of each rank
    memory_bytes: int  # granted to each rank for the states of one task
    announce: bool
    engine: str
    route: str
    terms: list[TaskOptions]
    tasks: list[AssignedTask]
    kept_bytes: int = 0  # granted to states that are kept between tasks


class LeaseRenewed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Answer to a Beat: the service lives."""

    epoch: int


class StopTask(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """End this attempt at the next pass; `reason` becomes the Failure's."""

    task: int
    attempt: int
    reason: str


class StopWorker(msgspec.Struct, frozen=True, array_like=True, tag=3):
    reason: str


FromWorker = Join | Started | AttemptResults | Heartbeat | DeviceDescribed


class SetTaskThreads(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """This attempt has so many slots from now on; nothing if it is over."""

    task: int
    attempt: int
    threads: int


class NoiseDocument(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A noise document that chunks sent after it name by its digest. `alone`: drop all earlier
    ones first, which are sent again where they are needed."""

    digest: str  # hex
    body: bytes
    alone: bool = False


ToWorker = AssignChunk | NoiseDocument | LeaseRenewed | SetTaskThreads | StopTask | StopWorker
