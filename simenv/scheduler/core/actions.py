"""The actions that events return, for the service to execute in their order."""

from __future__ import annotations

import msgspec

from launcher.base import Share
from simenv.model import TaskState, Timing
from simenv.scheduler.core.types import TaskRecord


class AssignTasks(msgspec.Struct, frozen=True):
    """Send a chunk of tasks to a worker."""

    worker: str
    slots: int  # of each rank
    memory_bytes: int  # of each rank
    announce: bool
    records: list[TaskRecord]
    kept_bytes: int = 0  # granted for states that the worker keeps between tasks


class TaskEnded(msgspec.Struct, frozen=True, gc=False):
    """End of a task. `index`: place of the task in the worker's message; -1: no message ended it;
    HELD_RESULT: that message was held."""

    record: TaskRecord
    state: TaskState
    slots: int
    timing: Timing
    index: int = -1
    reason: str = ""
    message: str = ""
    hint: str = ""
    host: str = ""
    log: str = ""
    run_limit_s: float = 0.0  # of run_timeout: limit by the task's terms or its owner
    parent: int = 0  # parent that did not end as DONE


class DropHeldResult(msgspec.Struct, frozen=True):
    """Discard the held result of a task that will run again."""

    task: int


class StopAttempt(msgspec.Struct, frozen=True):
    """Ask a worker to end one attempt."""

    worker: str
    task: int
    fence: int
    reason: str


class SetThreads(msgspec.Struct, frozen=True):
    """Tell a worker how many slots one attempt has from now on."""

    worker: str
    task: int
    fence: int
    slots: int


class StartWorker(msgspec.Struct, frozen=True):
    """Start a worker. `start` grows with each start; name and start together identify the
    worker."""

    pool: str
    worker: str
    start: int = 0
    shares: tuple[Share, ...] = ()  # (): one rank on the service's own node
    gpus: tuple[str, ...] = ()  # as in `Node.gpu_names`; one for each rank, in their order


class DropKeptStates(msgspec.Struct, frozen=True):
    """Tell an idle worker to drop the states that it keeps between tasks by a grant of memory."""

    worker: str


class RetireWorker(msgspec.Struct, frozen=True):
    """Ask an idle worker to end."""

    worker: str
    reason: str
    start: int = 0


class KillWorker(msgspec.Struct, frozen=True):
    """Kill a worker's processes; the launcher reports their end as an event."""

    worker: str
    reason: str
    start: int = 0


class RecordEvent(msgspec.Struct, frozen=True):
    """A line for the event log."""

    kind: str
    subject: str
    message: str
    owner: str = ""  # reader besides admins; "": everybody, or the task's owner


Action = (
    AssignTasks
    | TaskEnded
    | DropHeldResult
    | StopAttempt
    | SetThreads
    | StartWorker
    | DropKeptStates
    | RetireWorker
    | KillWorker
    | RecordEvent
)
