"""Which task has ended a worker.

A crash of a worker that held several tasks makes all of them suspects, which travel alone until one
of them is found. A task is charged with the crash of a worker that ran it, and ends with the third.
"""

from __future__ import annotations

import msgspec

from simenv.model import TaskState, Timing
from simenv.scheduler import core

POISON_DEATHS = 3


class CrashVerdict(msgspec.Struct, frozen=True):
    """Consequences of a worker crash for its tasks: tasks that end, the charged task, and
    suspects."""

    endings: list[core.TaskEnded]
    charged_task: core.TaskRecord | None
    suspects: list[core.TaskRecord]


class CrashIncidents:
    """Crashes whose cause is unknown so far."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, list[core.TaskRecord]] = {}

    def record(self, verdict: CrashVerdict) -> None:
        """Record a verdict: mark new suspects, clear those of an incident whose cause is found."""
        if verdict.charged_task is not None:
            for record in self._open.pop(verdict.charged_task.incident, ()):
                record.incident = 0
        group = verdict.suspects
        if verdict.charged_task is not None and verdict.charged_task.deaths < POISON_DEATHS:
            group = [verdict.charged_task]
        if group:
            self._last += 1
            self._open[self._last] = list(group)
            for record in group:
                record.incident = self._last

    @property
    def has_suspects(self) -> bool:
        return bool(self._open)

    def clear_suspect(self, record: core.TaskRecord) -> None:
        """Clear a suspect that finished normally."""
        group = self._open.get(record.incident)
        if group is not None and record in group:
            group.remove(record)
            if not group:
                del self._open[record.incident]


def attribute_crash(
    held: list[core.TaskRecord], reason: str, log: str, host: str, charged: bool
) -> CrashVerdict:
    """Return the verdict on a crashed worker that held these tasks, in their order. A RUNNING task
    that was announced (its worker sent Started) is the one that ran; for others a heartbeat may be
    outdated. `charged`: False if no task can be the cause, as when the service killed the
    worker."""
    endings = [_stopped(record, host) for record in held if record.stop.reason]
    remaining = [record for record in held if not record.stop.reason]
    if not charged or not remaining:
        return CrashVerdict(endings, None, [])
    running = [
        record for record in remaining if record.phase == core.Phase.RUNNING and record.announced
    ]
    if len(held) == 1:
        running = remaining
    if len(running) == 1:
        charged_task = running[0]
        charged_task.deaths += 1
        if charged_task.deaths >= POISON_DEATHS:
            endings.append(_poison(charged_task, reason, log, host))
        return CrashVerdict(endings, charged_task, [])
    return CrashVerdict(endings, None, remaining)


def _stopped(record: core.TaskRecord, host: str) -> core.TaskEnded:
    timing = Timing((record.sent_ns - record.batch.accepted_ns) // 1000, 0, 0)
    return core.TaskEnded(
        record,
        core.early_end(record.stop.reason),
        1,
        timing,
        reason=record.stop.reason,
        message=record.stop.message,
        host=host,
    )


def _poison(record: core.TaskRecord, reason: str, log: str, host: str) -> core.TaskEnded:
    return core.TaskEnded(
        record,
        TaskState.FAILED,
        1,
        Timing((record.sent_ns - record.batch.accepted_ns) // 1000, 0, 0),
        reason="poison",
        message=f"{record.deaths} workers died running this task; the last: {reason}",
        hint="check the machine with `simenv doctor`; the result has the last lines of the log",
        host=host,
        log=log,
    )
