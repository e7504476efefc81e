"""History of tasks: rows of the journal, and the submitted programs.

Invariant: no answer takes more than a slice of the event loop; a long history is sent in pages.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.accounts import Used
from simenv.model.program import FEW, Text
from simenv.wire.messages.base import ClientRequest, Number, Reply

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
