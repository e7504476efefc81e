"""Queries about history, devices, engines and stored results, and their answers.

Invariants: no answer takes more than a slice of the event loop; a long history is sent in pages.
The service verifies a result itself when a client reports it as damaged.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import EngineInfo, TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.bounds import FEW, Text
from simenv.model.devices import DeviceInfo
from simenv.wire.messages.common import Number

NEWEST = 2**63 - 1  # as `GetHistory.before`: from the newest task on


class Spent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a client did between two submissions, in microseconds; the second one tells it."""

    packed_us: Number = 0  # circuits and angles to bytes
    accepted_us: Number = 0  # waiting for acceptance
    late_us: Number = 0  # summed over results: ready, and not read yet
    results: Number = 0  # that were read


class LogRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task as the journal knows it. Times of day are seconds since 1970."""

    id: str
    name: str
    app: str  # of which run of an application; "": of none
    state: TaskState
    submitted_s: float
    ended_s: float  # 0.0: not yet
    timing: Timing  # zeros as far as it has not come
    engine: str
    pool: str
    worker: str
    node: str
    shots: int
    num_qubits: int
    bindings: int  # rows of the task
    seed: int
    binding: int  # number of its first row in the caller's sweep
    attempts: int
    slots: int
    message: str  # id of the first task that came in the same message
    structure: str = ""  # hex, 32 characters: programs that differ in angles only share it
    reason: str = ""  # why it waits, or why it failed
    ranks: int = 1
    owner: str = ""  # the name of the key it came with; "": the environment's own user
    spent: Spent = Spent()  # of its client; told with the first task of a message


class GetHistory(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Tasks numbered above `after`, in the order of their submission; answered by History.

    `since_s`: accepted at this time of day or later. `app`: only of this run. `structure`: tell the
    structure of each program too, which is what takes time. `before`: if not 0, tasks numbered
    below it instead, the newest first. `states`: only in these; empty: in any. An earlier service
    ignores these two: see `History.newest_first`.
    """

    request: Number
    after: Number = 0
    limit: Number = 1000
    since_s: float = 0.0
    app: Text = ""
    structure: bool = False
    before: Number = 0
    states: Annotated[tuple[TaskState, ...], FEW] = ()


class GetSpec(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """What was submitted as this task; answered by Submitted."""

    request: Number
    task: Number


class GetApp(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Which run of an application submitted last; answered by App."""

    request: Number


class History(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """As many rows as fit into one slice of the loop; ask again from `last` until `complete`."""

    request: int
    rows: list[LogRow]
    last: int  # everything up to this task, or down to it, was looked at
    complete: bool
    newest_first: bool = False  # as `GetHistory.before` asks for; False where it is not known


class Submitted(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """`terms.engine` is the one that was chosen; `at_s`: time of day."""

    request: int
    terms: TaskOptions
    spec: TaskSpec
    route: str
    at_s: float


class App(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Its id; empty where there was none."""

    request: int
    app: str


class GetDevices(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Answered by Devices. `name`: this emulated device alone, whether a pool holds it or not;
    "": every pool. `names`: the names that `device=` takes, and no pools. An earlier service
    ignores both."""

    request: Number
    name: Text = ""
    names: bool = False


class StoreNoise(msgspec.Struct, frozen=True, array_like=True, tag=46):
    """Store a noise document, which tasks then name by its digest; answered by NoiseStored."""

    request: Number
    body: bytes


class NoiseStored(msgspec.Struct, frozen=True, array_like=True, tag=46):
    request: int
    digest: str  # hex


class Devices(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Every pool as a device; one whose machine has not told yet what it is has 0 qubits."""

    request: int
    devices: list[DeviceInfo]
    names: list[
        tuple[str, str]
    ] = []  # of devices, with the source of each: see `CalibrationSource`


class DeviceDescribed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A worker that holds a machine says what it is; sent before Join, and when it has changed."""

    name: str
    epoch: Number
    start: Number
    device: DeviceInfo


class GetEngines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    request: Number


class Engines(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """In the order of preference; one that is not installed says what is missing."""

    request: int
    engines: list[EngineInfo]


class Explain(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Which engine would run this program, and why; nothing is run. Answered by Explained."""

    request: Number
    terms: TaskOptions
    program: bytes
    shots: Number
    count: Number = 1  # bindings


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """One engine that was considered."""

    engine: str
    chosen: bool
    able: bool  # it could run the program
    why: str  # it was chosen, or was not
    hint: str  # what would change that; "" if nothing would
    pool: str  # "": it is able to run nowhere
    memory_bytes: int  # of each rank; 0: unknown, it is not able
    seconds: float  # expected, of all bindings on one slot
    reproducible: bool  # the same bits on every machine and version
    ranks: int = 1
    nodes: int = 1  # that its ranks would be on, with nothing else about
    truncation: float = 0.0  # weight that may be cut off from the state, at most; -1.0: not known
    sampling_error: float = 0.0  # largest standard error of a probability; 0.0: no shots
    runs: int = 0  # that the expected time was learned from
    off_by: float = 1.0  # the factor by which expected times of such runs were off, typically


class Sizes(msgspec.Struct, frozen=True, array_like=True):
    """What was looked at of the program."""

    num_qubits: int
    operations: int
    gates_1q: int
    gates_2q: int
    gates_many: int
    measurements: int
    dynamic: bool  # it measures, resets or branches before its end
    clifford: bool
    bond_bits: int  # at most 2 to this power values cross any cut between its qubits; -1: unknown
    trial_bond: int = 0  # the largest bond in a trial of its gates; 0: there was none
    trial_part: float = 0.0  # of the gates that the trial applied


class Explanation(msgspec.Struct, frozen=True, array_like=True):
    """The engines considered, the chosen one first."""

    sizes: Sizes
    engines: list[Choice]

    @property
    def engine(self) -> str:
        """The chosen engine; "" if none can run the program here."""
        return next((each.engine for each in self.engines if each.chosen), "")


class Explained(msgspec.Struct, frozen=True, array_like=True, tag=24):
    request: int
    explanation: Explanation


CHUNK_BYTES = 2**20  # the most that one FetchResult brings


class FetchResult(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """A part of the file that holds a task's large arrays; answered by ResultChunk."""

    request: Number
    task: Number
    file: Text
    offset: Number
    size_bytes: Number


class VerifyResult(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """A task's result is not what was written; answered by Rerunning when that has been checked."""

    request: Number
    task: Number


class CollectGarbage(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Give up what is kept of tasks that ended longer ago, or of all that the limits do not allow.

    `older_s` < 0: what retention would remove by itself. `dry`: only say what would go. Answered by
    Collected when it is done.
    """

    request: Number
    older_s: float = -1.0
    dry: bool = False


class ResultChunk(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The bytes asked for, CHUNK_BYTES at most; fewer where the file ends."""

    request: int
    data: bytes


class VerifyReply(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """One word: "again" (it is queued again), "waits" (it has not ended), "intact" (what is stored
    is whole: fetch it again), "removed" (its file went by retention), "unknown"."""

    request: int
    word: str


class RetainedData(msgspec.Struct, frozen=True):
    """What is kept of ended tasks, or what was given up of them."""

    tasks: int = 0
    files: int = 0
    file_bytes: int = 0
    journal_bytes: int = 0  # rows given up; of what is kept: the journal's file
    unread: int = 0  # completions among them that a cursor had not passed
    oldest_s: float = 0.0  # time of day when the oldest of them ended; 0.0: none


class GarbageCollected(msgspec.Struct, frozen=True, array_like=True, tag=19):
    request: int
    freed: RetainedData
    left: RetainedData
