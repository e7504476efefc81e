"""Tasks that wait for the end of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from simenv.model import TaskState, views
from simenv.scheduler import core


class DependentTasks(msgspec.Struct, eq=False):
    """Tasks of one submission, and their parents that have not ended."""

    tasks: dict[int, core.TaskRecord]
    parents: set[int]
    failed_parent: int = 0  # the first parent that did not end as DONE


class Dependencies:
    """Table of dependent tasks; empty while no task waits for another one."""

    def __init__(self) -> None:
        self.by_task: dict[int, DependentTasks] = {}
        self.by_parent: dict[int, dict[DependentTasks, None]] = {}
        self.ready: dict[DependentTasks, None] = {}  # all parents are DONE: to be queued
        self.failed: dict[DependentTasks, None] = {}  # a parent did not end as DONE: to be ended
        self._pools: Counter[str] = Counter()

    def add(self, records: list[core.TaskRecord], parents: set[int], failed_parent: int) -> None:
        """Let new tasks, which are in no queue yet, wait for their unfinished `parents`.
        `failed_parent`: a parent that did not end as DONE, 0 if there is none."""
        group = DependentTasks({record.number: record for record in records}, parents)
        for record in records:
            self.by_task[record.number] = group
            self._pools[record.route.pool] += 1
            if record.phase == core.WAITING:  # and not parked
                record.phase = core.DEPENDENT
        for parent in parents:
            self.by_parent.setdefault(parent, {})[group] = None
        if failed_parent:
            self._fail(group, failed_parent)

    def parent_ended(self, number: int, final: TaskState) -> None:
        """Record the end of a task on which others may depend."""
        for group in self.by_parent.pop(number, ()):
            group.parents.discard(number)
            if final is not TaskState.DONE:
                self._fail(group, number)
            elif not group.parents:
                self.ready[group] = None

    def drop(self, number: int) -> None:
        """Remove a task that ends, or is rolled back, before its parents have ended."""
        group = self.by_task.pop(number, None)
        if group is not None:
            self._pools[group.tasks.pop(number).route.pool] -= 1
            if not group.tasks:
                self._forget_parents(group)
                self.ready.pop(group, None)
                self.failed.pop(group, None)

    def take_ready(self) -> list[core.TaskRecord]:
        """Remove the groups whose parents are all DONE; return their tasks that no reservation has
        parked."""
        ready, self.ready = self.ready, {}
        results: list[core.TaskRecord] = []
        for group in ready:
            for number, record in group.tasks.items():
                del self.by_task[number]
                self._pools[record.route.pool] -= 1
                if record.phase == core.DEPENDENT:
                    record.phase = core.WAITING
                    results.append(record)
        return results

    def count(self, device: str) -> int:
        """Return the number of a device's tasks in the table; of all devices for ""."""
        pools = self._pools.items()
        return sum(count for name, count in pools if device in ("", views.base_of(name) or name))

    def first_parent(self, record: core.TaskRecord) -> tuple[int, int]:
        """Return the first unfinished parent of a task and the number of such parents; (0, 0) if
        none is left."""
        group = self.by_task[record.number]
        parents = (number for number in record.batch.terms.after if number in group.parents)
        return next(parents, 0), len(group.parents)

    def _fail(self, group: DependentTasks, parent: int) -> None:
        group.failed_parent = parent
        self._forget_parents(group)
        group.parents.clear()
        self.failed[group] = None

    def _forget_parents(self, group: DependentTasks) -> None:
        for parent in group.parents:
            children = self.by_parent[parent]
            del children[group]
            if not children:
                del self.by_parent[parent]


def unfinished(after: Iterable[int], tasks: dict[int, core.TaskRecord]) -> set[int]:
    """Return the parents that have not ended."""
    return {number for number in after if number in tasks}
