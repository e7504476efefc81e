"""Queries about history, devices, engines and stored results, and their answers.

Invariants: no answer takes more than a slice of the event loop; a long history is sent in pages.
The service verifies a result itself when a client reports it as damaged.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from simenv.model import EngineInfo, TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.accounts import Used
from simenv.model.devices import DeviceInfo
from simenv.model.logical_use import LogicalUse
from simenv.model.program import FEW, Text
from simenv.model.task import LinkUse
from simenv.wire.messages.base import AdminRequest, ClientRequest, Number, Reply

NEWEST = 2**63 - 1  # value of `GetHistory.before`: begin with the newest task


class Spent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Times that a client spent between two submissions, in microseconds; sent with the second."""

    packed_us: Number = 0  # encoding of circuits and angles
    accepted_us: Number = 0  # waiting for acceptance
    late_us: Number = 0  # from arrival of a result until it was read, summed over results
    results: Number = 0  # number of results that were read


class LogRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task as recorded in the journal. Times of day are seconds since 1970."""

    id: str
    name: str
    app: str  # run of an application that it belongs to; "": none
    state: TaskState
    submitted_s: float
    ended_s: float  # 0.0: not yet
    timing: Timing  # zeros for stages that it has not reached
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
    message: str  # id of the first task of the same message
    structure: str = ""  # hex, 32 characters: programs that differ in angles only share it
    reason: str = ""  # why it waits, or why it failed
    ranks: int = 1
    owner: str = ""  # the name of the key it came with; "": the environment's own user
    spent: Spent = Spent()  # of its client; only in the row of the first task of a message
    account: str = ""  # "": there were no accounts at its submission
    qos: str = ""
    used: Used = Used()
    units: float = 0.0  # billing units
    device: str = ""  # emulated, that it ran on; "": none


class GetHistory(ClientRequest["History"], frozen=True, tag=14):
    """Request the tasks numbered above `after`, in the order of submission; answered by History.

    `since_s`: only tasks accepted at this time of day or later. `app`: only tasks of this run.
    `structure`: add the structure of each program, which takes most of the time. `before`: if not
    0, the tasks numbered below it instead, newest first. `states`: only tasks in these states;
    empty: in any. `ended_since_s`: if not 0, only tasks that ended at this time of day or later.
    """

    after: Number = 0
    limit: Number = 1000
    since_s: float = 0.0
    app: Text = ""
    structure: bool = False
    before: Number = 0
    states: Annotated[tuple[TaskState, ...], FEW] = ()
    ended_since_s: float = 0.0


class GetSpec(ClientRequest["Submitted"], frozen=True, tag=15):
    """Request the submitted program and options of a task."""

    task: Number


class GetApp(ClientRequest["App"], frozen=True, tag=16):
    """Request the run of an application that submitted last."""


class History(Reply, frozen=True, tag=14):
    """Page of history: as many rows as fit into one slice of the event loop. Request the next page
    from `last` until `complete`."""

    rows: list[LogRow]
    last: int  # all tasks up to this one, or down to it, were examined
    complete: bool


class Submitted(Reply, frozen=True, tag=15):
    """Answer to GetSpec. `terms.engine` is the chosen engine; `at_s`: time of day of acceptance."""

    terms: TaskOptions
    spec: TaskSpec
    route: str
    at_s: float


class App(Reply, frozen=True, tag=16):
    """Answer to GetApp: the name of the run; "" if no run has submitted."""

    app: str


class GetDevices(ClientRequest["Devices"], frozen=True, tag=43):
    """Request descriptions of devices; answered by Devices. `name`: only this emulated device, also
    without a pool of it; "": every pool. `names`: the names that `device=` accepts, and no pools.
    `dates`: only the times of the device's stored calibrations; `at_s`: the calibration of one of
    them, 0: the present one; `calibration_id`: that with this id, and its noise document.
    `known`: of the calibrations that clients were told, the one with this id, or all ids as
    `names`."""

    name: Text = ""
    names: bool = False
    dates: bool = False
    at_s: float = 0.0
    calibration_id: Text = ""
    known: bool = False


class StoreNoise(ClientRequest["NoiseStored"], frozen=True, tag=46):
    """Store a noise document, which tasks then name by its digest."""

    body: bytes


class NoiseStored(Reply, frozen=True, tag=46):
    digest: str  # hex


class Devices(Reply, frozen=True, tag=43):
    """Every pool as a device; a pool of hardware that has not described itself yet has 0 qubits."""

    devices: list[DeviceInfo]
    # Names of devices, with the source of each: see `CalibrationSource`. Or ids of known
    # calibrations, with their times.
    names: list[tuple[str, str]] = msgspec.field(default_factory=list)
    # Since when each stored calibration was in force, in seconds since 1970, the oldest first.
    dates_s: list[float] = msgspec.field(default_factory=list)
    document: bytes = b""  # of the calibration that was asked for by its id


class DeviceDescribed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Description of the machine that a worker holds; sent before Join, and after each change."""

    name: str
    epoch: Number
    start: Number
    device: DeviceInfo


class GetEngines(ClientRequest["Engines"], frozen=True, tag=23):
    """Request all engines."""


class Engines(Reply, frozen=True, tag=23):
    """All engines in the order of preference; `missing` of an engine states how to install it."""

    engines: list[EngineInfo]


class Explain(ClientRequest["Explained"], frozen=True, tag=24):
    """Request the engine that would run a program, with the reason; nothing is run. Answered by
    Explained."""

    terms: TaskOptions
    program: bytes
    shots: Number
    count: Number = 1  # bindings


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """One engine that was considered."""

    engine: str
    chosen: bool
    able: bool  # it could run the program
    why: str  # reason why it was chosen or not
    hint: str  # change that would make it able; "": there is none
    pool: str  # "": no pool can run it
    memory_bytes: int  # of each rank; 0: unknown, because it is not able
    seconds: float  # expected, of all bindings on one slot
    reproducible: bool  # the same bits on every machine and version
    ranks: int = 1
    nodes: int = 1  # nodes of its ranks in an otherwise idle environment
    truncation: float = 0.0  # weight that may be cut off from the state, at most; -1.0: not known
    sampling_error: float = 0.0  # largest standard error of a probability; 0.0: no shots
    runs: int = 0  # number of runs from which the expected time was learned
    off_by: float = 1.0  # typical factor between expected and actual times of such runs
    wait_s: float = -1.0  # until such a task would start if it was accepted now; -1: not known
    wait_off_by: float = 0.0  # typical factor between such waits and real ones; 0: not known
    wait_age_s: float = 0.0  # since the forecast was made


class Sizes(msgspec.Struct, frozen=True, array_like=True):
    """Sizes of the program on which the choice of the engine depends."""

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


_MOST_CUTS = 320  # 9^320 is about 1e305


class Explanation(msgspec.Struct, frozen=True, array_like=True):
    """The engines considered, the chosen one first."""

    sizes: Sizes
    engines: list[Choice]
    # On a device of several QPUs, which the client adds: links with Bell pairs, and the gates
    # between modules, without packets.
    links: tuple[LinkUse, ...] = ()
    remote_gates: int = 0
    logical: LogicalUse | None = None  # of a device of logical qubits; the client adds it

    @property
    def cutting_overhead(self) -> float:
        """Factor of the shots, about 9^gates, if each gate between modules was cut in place of the
        pairs (Mitarai and Fujii, arXiv 1909.07534); inf: beyond floating-point numbers."""
        return 9.0**self.remote_gates if self.remote_gates < _MOST_CUTS else math.inf

    @property
    def engine(self) -> str:
        """The chosen engine; "" if none can run the program here."""
        return next((each.engine for each in self.engines if each.chosen), "")


class Explained(Reply, frozen=True, tag=24):
    explanation: Explanation


CHUNK_BYTES = 2**20  # limit of the answer to one FetchResult


class FetchResult(ClientRequest["ResultChunk"], frozen=True, tag=17):
    """Request a part of the file with a task's large arrays."""

    task: Number
    file: Text
    offset: Number
    size_bytes: Number


class VerifyResult(ClientRequest["VerifyReply"], frozen=True, tag=18):
    """Report a damaged result of a task; answered by VerifyReply after the service has checked
    it."""

    task: Number


class CollectGarbage(AdminRequest["GarbageCollected"], frozen=True, tag=19):
    """Remove stored data of tasks that ended more than `older_s` seconds ago, and data beyond the
    limits of size. `older_s` < 0: the age is that of retention, `history.keep_days`. `dry`: only
    report the amount. Answered by GarbageCollected when it is done."""

    older_s: float = -1.0
    dry: bool = False


class ResultChunk(Reply, frozen=True, tag=17):
    """The requested bytes, CHUNK_BYTES at most; fewer at the end of the file."""

    data: bytes


class VerifyReply(Reply, frozen=True, tag=18):
    """Answer to VerifyResult. `word`: "again" (the task is queued again), "waits" (it has not
    ended), "intact" (the stored result is complete: fetch it again), "removed" (retention removed
    its file) or "unknown"."""

    word: str


class RetainedData(msgspec.Struct, frozen=True):
    """Amount of stored data of ended tasks, or of data that was removed."""

    tasks: int = 0
    files: int = 0
    file_bytes: int = 0
    journal_bytes: int = 0  # of removed rows; of stored data: the journal's file
    unread: int = 0  # completions among them that some cursor has not passed
    oldest_s: float = 0.0  # time of day at which the oldest task ended; 0.0: none


class GarbageCollected(Reply, frozen=True, tag=19):
    freed: RetainedData
    left: RetainedData
