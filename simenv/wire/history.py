"""Questions about what the journal keeps, and their answers: a part of `messages`.

Invariant: no answer takes more than a slice of the service's loop; a long history comes in pages.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import TaskSpec, TaskState, Terms, Timing
from simenv.model.bounds import FEW, Text
from simenv.wire.numbers import Number

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
    terms: Terms
    spec: TaskSpec
    route: str
    at_s: float


class App(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Its id; empty where there was none."""

    request: int
    app: str
