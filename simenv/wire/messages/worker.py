"""Messages between the service and its workers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import Origin, TaskOptions, TaskState
from simenv.wire.messages.common import Number
from simenv.wire.messages.queries import DeviceDescribed

# Exit codes of a worker that ends through no fault of a task: its lease expired; its starter has
# ended; MPI did not start with the requested ranks; one of its ranks is silent, has ended or failed
# alone; its GPU failed.
EXIT_LEASE, EXIT_ORPHAN, EXIT_MPI, EXIT_RANK, EXIT_GPU = 3, 4, 5, 6, 7
STATES = tuple(TaskState)  # states travel as an index into this
FinalState = Annotated[int, msgspec.Meta(ge=2, le=len(STATES) - 1)]


class Join(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First message of a worker, sent when every kernel is loaded."""

    version: str
    name: str
    pid: Number
    node: str
    epoch: Number  # of the service that started it: workers of an earlier one are refused
    engines: tuple[str, ...]
    start: Number = 0  # number of this start; name and start identify the process
    ranks: Number = 1


class Started(msgspec.Struct, frozen=True, array_like=True, tag=1):
    task: Number
    attempt: Number


class AttemptResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Result of one attempt. `start_us` is measured from the arrival of the chunk at the worker;
    the parts of `run_us` are those of `Timing`."""

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
    """Results of one chunk, or of a part of it; the journal stores the message as received."""

    origin: Origin
    engine: str
    route: str
    slots: Number
    results: list[AttemptResult]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Sign of life that the heartbeat thread sends: every second while a task runs."""

    name: str
    epoch: Number
    task: Number  # running task; 0: none
    attempt: Number
    rss_bytes: Number  # of all its ranks together
    start: Number = 0
    passes_done: Number = 0  # over the task's states, if the engine reports them
    passes: Number = 0
    waiting: bool = True  # for a chunk; False while it runs one, loads kernels or sends results
    compiling: bool = False  # kernels that the task needs


class AssignedTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    task: int
    attempt: int  # the fencing token: epoch * 2**16 + number of times it was sent to a worker
    terms: int  # index into AssignChunk.terms
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
    """A chunk. `announce`: the worker sends Started before each task; used for long tasks only."""

    slots: int  # of each rank
    memory_bytes: int  # granted to each rank for the states of one task
    announce: bool
    engine: str
    route: str
    terms: list[TaskOptions]
    tasks: list[AssignedTask]
    kept_bytes: int = 0  # granted to states that the worker keeps between tasks


class LeaseRenewed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Answer to a Heartbeat, which renews the worker's lease."""

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
    """Set the number of threads of a running attempt; without effect if the attempt has ended."""

    task: int
    attempt: int
    threads: int


class NoiseDocument(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A noise document, which later chunks name by its digest. `alone`: drop all earlier documents
    first; the service sends them again when they are needed."""

    digest: str  # hex
    body: bytes
    alone: bool = False


ToWorker = AssignChunk | NoiseDocument | LeaseRenewed | SetTaskThreads | StopTask | StopWorker
