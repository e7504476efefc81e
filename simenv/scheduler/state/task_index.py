"""Indexes of tasks: deadlines, owners, parents, and blame for crashes.

Indexes over unfinished tasks: by deadline, and by owner. Deadlines are queue timeouts, run timeouts
and the grace periods of a stop; entries of tasks that ended earlier stay until they are due, or
until there are too many. The index by owner avoids a scan of all tasks for one owner; tasks of the
environment's own user (owner "") are not in it.

Tasks that come after others (their parents): they wait in no queue until all parents are DONE.
Invariants: a parent has a smaller number than its children, so that no circle can arise; a task is
in the table from its acceptance until its parents have ended as DONE, or until it ended itself. All
tasks of one submission have the same parents, so the table holds one entry for all of them.

Attribution of worker crashes to tasks: only a task that ran is charged, never its neighbours. If it
is unknown which of the held tasks ran, all become suspects of one incident and travel alone from
then on. A suspect that finishes is cleared. One that crashes a worker again, alone, is charged, and
the other suspects of its incident are cleared. After POISON_DEATHS charges a task fails as poison.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator

import msgspec

from simenv.model import TaskState, Timing, views
from simenv.model.accounts import association
from simenv.scheduler import core

STOP_GRACE_NS = 2_000_000_000  # an engine that has not stopped by then is ended with its worker
HARDWARE_GRACE_NS = 5_000_000_000  # the request to the provider travels over a network
KEPT = 10_000  # entries of tasks that have ended, before they are cleared away


class Deadlines:
    """Deadlines of tasks and attempts. Times are monotonic nanoseconds; the fence identifies an
    attempt."""

    def __init__(self) -> None:
        self._queued: list[tuple[int, int]] = []  # (when, task)
        self._running: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._stopping: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._skipping: list[tuple[int, int, int]] = []  # (when, task, fence)

    def wait_until(self, when_ns: int, tasks: range, alive: Container[int], count: int) -> None:
        """Set the queue timeout of these tasks; `count` tasks are `alive`."""
        for task in tasks:
            heapq.heappush(self._queued, (when_ns, task))
        if len(self._queued) > 2 * count + KEPT:
            self._queued = [entry for entry in self._queued if entry[1] in alive]
            heapq.heapify(self._queued)

    def run_until(self, when_ns: int, task: int, fence: int) -> None:
        """Set the run timeout of this attempt."""
        heapq.heappush(self._running, (when_ns, task, fence))

    def stop_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that was asked to stop."""
        heapq.heappush(self._stopping, (now_ns + grace_ns, task, fence))

    def skip_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that its worker was asked to skip."""
        heapq.heappush(self._skipping, (now_ns + grace_ns, task, fence))

    def queue_timeouts(self, now_ns: int) -> Iterator[int]:
        """Yield the tasks whose queue timeout is over."""
        while self._queued and self._queued[0][0] <= now_ns:
            yield heapq.heappop(self._queued)[1]

    def run_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose run timeout is over."""
        while self._running and self._running[0][0] <= now_ns:
            yield heapq.heappop(self._running)[1:]

    def stop_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts that did not stop within the grace period."""
        while self._stopping and self._stopping[0][0] <= now_ns:
            yield heapq.heappop(self._stopping)[1:]

    def skip_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose worker did not confirm the skip in time."""
        while self._skipping and self._skipping[0][0] <= now_ns:
            yield heapq.heappop(self._skipping)[1:]


class TasksByOwner:
    """Unfinished tasks of each owner, in order of acceptance."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, core.TaskRecord]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, batch: core.SubmitBatch, tasks: dict[int, core.TaskRecord], count: int) -> None:
        """Add a batch of `count` tasks of an owner."""
        tasks_of_owner = self._records.setdefault(batch.owner, {})
        new = {n: tasks[n] for n in range(batch.first, batch.first + count)}
        tasks_of_owner.update(new)
        size = sum(record.size_bytes for record in new.values())
        self._bytes[batch.owner] = self._bytes.get(batch.owner, 0) + size

    def count_in(self, records: list[core.TaskRecord]) -> None:
        """Add tasks of one batch."""
        owner = records[0].batch.owner
        if owner:
            self._records.setdefault(owner, {}).update((each.number, each) for each in records)
            size_bytes = sum(each.size_bytes for each in records)
            self._bytes[owner] = self._bytes.get(owner, 0) + size_bytes

    def drop(self, owner: str, records: list[core.TaskRecord], size_bytes: int) -> None:
        """Remove tasks of an owner that ended or were rolled back."""
        tasks_of_owner = self._records[owner]
        for record in records:
            del tasks_of_owner[record.number]
        self._bytes[owner] -= size_bytes
        if not tasks_of_owner:
            del self._records[owner], self._bytes[owner]

    def of(self, owner: str) -> Collection[core.TaskRecord]:
        return self._records.get(owner, {}).values()

    @property
    def count(self) -> int:
        """Number of tasks of all owners except the environment's own user."""
        return sum(map(len, self._records.values()))

    @property
    def all_bytes(self) -> int:
        """Bytes of the tasks of all owners except the environment's own user."""
        return sum(self._bytes.values())

    def bytes_of(self, owner: str) -> int:
        """Return the bytes of an owner's tasks: programs and parameter values."""
        return self._bytes.get(owner, 0)


class AssociationUse(msgspec.Struct, eq=False):
    """Unfinished tasks of one user in one account and class of service, under one reservation (0:
    none)."""

    account: str
    owner: str
    qos: str
    reservation: int = 0
    tasks: int = 0
    size_bytes: int = 0
    units: float = 0.0  # forecast billing units

    @property
    def association(self) -> str:
        return association(self.account, self.owner) if self.account else self.owner


class UseByAssociation:
    """Unfinished tasks of users in accounts and classes of service. Tasks that have neither are not
    in it. Those under a reservation are counted apart, since budgets count its time, too."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str, int], AssociationUse] = {}

    def __iter__(self) -> Iterator[AssociationUse]:
        return iter(self._all.values())

    def add(self, batch: core.SubmitBatch, count: int, size_bytes: int) -> None:
        """Count the tasks of a batch, which hold `size_bytes` together."""
        key = batch.association, batch.qos, batch.terms.reservation
        use = self._all.get(key)
        if use is None:
            use = self._all[key] = AssociationUse(batch.account, batch.owner, *key[1:])
        use.tasks += count
        use.size_bytes += size_bytes
        use.units += count * batch.units

    def count_in(self, records: list[core.TaskRecord]) -> None:
        """Add tasks of one batch."""
        batch = records[0].batch
        if batch.account or batch.qos:
            self.add(batch, len(records), sum(each.size_bytes for each in records))

    def drop(self, batch: core.SubmitBatch, count: int, size_bytes: int) -> None:
        """Remove tasks of a batch that ended or were rolled back."""
        key = batch.association, batch.qos, batch.terms.reservation
        use = self._all[key]
        use.tasks -= count
        use.size_bytes -= size_bytes
        use.units -= count * batch.units
        if not use.tasks:  # rounding errors of the units end with it
            del self._all[key]


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
    endings = [_stopped(record, host) for record in held if record.stopping]
    remaining = [record for record in held if not record.stopping]
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
        core.early_end(record.stopping),
        1,
        timing,
        reason=record.stopping,
        message=record.stop_message,
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
