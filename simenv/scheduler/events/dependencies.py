"""Release or end of tasks whose parents have ended."""

from __future__ import annotations

import itertools

import msgspec

from simenv.model import DEPENDENCY, TaskState
from simenv.scheduler.core.actions import TaskEnded
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.events.tasks import end_unrun
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.state.state import SchedulerState

MAX_ENDED = 250  # tasks ended by one call, so that the event loop is not blocked


def release(state: SchedulerState, now_ns: int) -> None:
    """Queue the tasks whose parents have all ended as DONE."""
    by_queue: dict[tuple[str, int], list[TaskRecord]] = {}
    for record in state.dependencies.take_ready():
        by_queue.setdefault((record.route.pool, id(record.batch)), []).append(record)
        if record.route.ranks == 1 and record.cost_us <= LONG_US:
            state.last_short_ns = now_ns
    for records in by_queue.values():
        state.pool_of(records[0].route).queue.append(records)


def end_failed(state: SchedulerState, now_ns: int) -> list[TaskEnded]:
    """End tasks with a parent that did not end as DONE, and the tasks that come after these.

    A chain is followed task by task, without recursion. At most MAX_ENDED tasks are ended; the next
    call ends the rest.
    """
    endings: list[TaskEnded] = []
    failed = state.dependencies.failed
    while failed and len(endings) < MAX_ENDED:
        group = next(iter(failed))
        left = MAX_ENDED - len(endings)
        for record in list(itertools.islice(group.tasks.values(), left)):
            ended = end_unrun(state, record, TaskState.FAILED, DEPENDENCY, now_ns)
            endings.append(msgspec.structs.replace(ended, parent=group.failed_parent))
    return endings
