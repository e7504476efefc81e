"""The machine: every task and worker of the environment, and what follows from each event.

Methods are events; they change memory only and return actions for the service to carry out. After
any of them `check()` holds: each unfinished task is in exactly one place, granted slots never
exceed the node's, and a task in a worker's hands carries that worker's name and a fence of its own.
"""

from __future__ import annotations

from simenv.model import PoolSpec, TaskSpec, TaskState, Timing, WorkerState, task_name
from simenv.scheduler import losses
from simenv.scheduler.deadlines import Deadlines
from simenv.scheduler.estimate import Estimator
from simenv.scheduler.owners import Owned
from simenv.scheduler.pools import Pool, Worker
from simenv.scheduler.queue import LONG_US
from simenv.scheduler.values import (
    ATTEMPT_BITS,
    Action,
    Batch,
    Ending,
    KillWorker,
    Limits,
    Note,
    Phase,
    Record,
    Route,
    StopRunning,
    early_end,
    timing_of,
)
from simenv.wire.messages import STATES, Finished

OBSERVED = 8  # of so many tasks of one chunk, one teaches the estimator: they are alike
IDLE_BEATS = 3  # in a row, from a worker that should be running something
SLEEP_NS = 3_000_000_000  # a gap between ticks from which we slept, and silence proves nothing


class State:
    """All of it. `epoch` marks the fences; `next_task` is the first id to give out."""

    def __init__(
        self, pools: tuple[PoolSpec, ...], limits: Limits, epoch: int, next_task: int = 1
    ) -> None:
        self.limits = limits
        self.epoch = epoch
        self.next_task = next_task
        self.tasks: dict[int, Record] = {}
        self.owned = Owned()
        self.pools = {spec.name: Pool(spec) for spec in pools}
        self.workers: dict[str, Worker] = {}
        self.estimator = Estimator()
        self.queued_bytes = 0
        self.free_slots = limits.slots
        self.free_memory = limits.memory_bytes
        self.running = 0
        self.ended = dict.fromkeys(TaskState, 0)
        self.lost_attempts = 0
        self.last_short_ns = -(10**18)  # when a short task last came in
        self.draining = False
        self.incidents = losses.Incidents()
        self._deadlines = Deadlines()
        self._last_tick_ns = 0

    # --- tasks come ----------------------------------------------------------------------------

    def submitted(
        self, batch: Batch, specs: list[TaskSpec], routes: list[Route], attempts: list[int] | None
    ) -> None:
        """Accept tasks `batch.first ...`; at replay, `attempts`: how often each was sent out."""
        cost_us, tasks = self.estimator.cost_us, self.tasks
        by_pool: dict[str, list[Record]] = {}
        for number, spec, route in zip(
            range(batch.first, batch.first + len(specs)), specs, routes, strict=True
        ):
            record = Record(number, spec, batch, route, cost_us(route, spec))
            tasks[number] = record
            self.queued_bytes += record.size_bytes
            by_pool.setdefault(route.pool, []).append(record)
        if attempts is not None:
            for number, count in enumerate(attempts, batch.first):
                tasks[number].attempts = count
        self.owned.add(batch, tasks, len(specs))
        for pool, records in by_pool.items():
            self.pools[pool].queue.append(records)
        self.next_task = max(self.next_task, batch.first + len(specs))
        if any(r.cost_us <= LONG_US for records in by_pool.values() for r in records):
            self.last_short_ns = batch.accepted_ns
        if batch.terms.queue_timeout_s:
            when = batch.accepted_ns + round(batch.terms.queue_timeout_s * 1e9)
            span = range(batch.first, batch.first + len(specs))
            self._deadlines.wait_until(when, span, tasks, len(tasks))

    def withdraw(self, first: int, count: int, now_ns: int) -> None:
        """Accepted tasks that could not be stored: as if they had never come."""
        for number in range(first, first + count):
            record = self.tasks.pop(number)
            if record.phase == Phase.WAITING:
                self.pools[record.route.pool].queue.drop(record)
            else:
                worker = self.workers[record.worker]
                del worker.held[number]
                worker.held_us -= record.cost_us
                if not worker.held:
                    self._run_dry(worker, now_ns)
            self._leave(record)

    @property
    def lacks_workers(self) -> bool:
        """Does any task wait in a pool that has no worker at all?"""
        return any(not pool.workers and len(pool.queue) for pool in self.pools.values())

    @property
    def is_busy(self) -> bool:
        """Is any task in a worker's hands?"""
        return any(worker.held for worker in self.workers.values())

    @property
    def is_active(self) -> bool:
        """Is anything going on whose end should be seen soon?"""
        return any(
            worker.state in (WorkerState.BUSY, WorkerState.STARTING, WorkerState.DRAINING)
            for worker in self.workers.values()
        )

    # --- workers report ------------------------------------------------------------------------

    def joined(self, name: str, node: str, pid: int, now_ns: int) -> bool:
        """A started worker is ready; False if nobody waits for one of that name."""
        worker = self.workers.get(name)
        if worker is None or worker.state != WorkerState.STARTING:
            return False
        worker.node, worker.pid = node, pid
        self.pools[worker.pool].joined(worker, now_ns)
        return True

    def started(self, name: str, task: int, fence: int, now_ns: int) -> None:
        """A worker says what it runs: at once for long tasks, else with its heartbeat."""
        record = self.tasks.get(task)
        worker = self.workers.get(name)
        if worker is None or record is None or record.fence != fence:
            return
        worker.heard_ns = now_ns
        if record.phase == Phase.SENT:
            record.phase = Phase.RUNNING
            record.started_ns = now_ns
            self.running += 1
            limit_s = record.batch.terms.run_timeout_s
            if limit_s:
                when = now_ns + round(limit_s * 1e9)
                self._deadlines.run_until(when, task, fence)
            if record.stopping:
                self._deadlines.stop_by(now_ns, task, fence)

    def beaten(
        self, name: str, task: int, fence: int, rss_bytes: int, now_ns: int
    ) -> list[Action] | None:
        """A heartbeat; None if no such worker is ours."""
        worker = self.workers.get(name)
        if worker is None:
            return None
        worker.heard_ns = now_ns
        worker.rss_bytes = rss_bytes
        if task:
            worker.idle_beats = 0
            self.started(name, task, fence, now_ns)
        elif worker.held:
            worker.idle_beats += 1
            if worker.idle_beats >= IDLE_BEATS:  # what was sent, or answered, got lost on its way
                return self.dropped(name, "it holds tasks and runs none", now_ns)
        return []

    def dropped(self, name: str, why: str, now_ns: int) -> list[Action]:
        """A worker we cannot work with: end it; its tasks go back and none of them is charged."""
        if name not in self.workers:
            return []
        return [*self._kill(name, why), *self.lost(name, why, now_ns)]

    def finished(self, name: str, results: list[Finished], slots: int, now_ns: int) -> list[Ending]:
        """Those results that still count; answers of attempts that are over are left out."""
        worker = self.workers.get(name)
        if worker is None:
            return []
        worker.heard_ns = now_ns
        held, tasks, endings = worker.held, self.tasks, []
        observe = self.estimator.observe
        for index, result in enumerate(results):
            record = held.get(result.task)
            if record is None or record.fence != result.attempt:
                continue
            del held[result.task]
            worker.held_us -= record.cost_us
            timing = timing_of(record, result, now_ns)
            state = STATES[result.state]
            if not index % OBSERVED and state is TaskState.DONE:
                observe(record.route, record.spec, slots, result.run_us)
            self._end(record, state)
            reason = record.stopping
            endings.append(Ending(record, state, slots, timing, index, reason))
            tasks.pop(result.task, None)
        worker.tasks += len(endings)
        worker.idle_beats = 0
        if endings:
            self.pools[worker.pool].proved()
        if not held:
            self._run_dry(worker, now_ns)
        return endings

    def lost(
        self, name: str, why: str, now_ns: int, log: str = "", *, blame: bool = True
    ) -> list[Action]:
        """A worker's process is gone, or counts as gone; `blame`: a task may be the cause."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return []
        pool = self.pools[worker.pool]
        del pool.workers[name]
        actions: list[Action] = []
        held = list(worker.held.values())
        worker.held = {}
        self._give_back(worker)
        retired = worker.state == WorkerState.DRAINING and not held
        worker.state = WorkerState.GONE if retired else WorkerState.LOST
        if not retired:
            actions.append(Note("worker.lost", name, why))
        if held:
            charged = blame and not worker.killed
            actions += self._lose(worker, held, why, log, charged)
        elif not retired:
            actions.append(pool.failed(why, now_ns))
        return actions

    def _lose(
        self, worker: Worker, held: list[Record], why: str, log: str, charged: bool
    ) -> list[Action]:
        """The tasks a dead worker held: back to the front, but for those that end here."""
        verdict = losses.judge(held, why, log, worker.node, charged)
        self.incidents.record(verdict)
        actions: list[Action] = []
        again = []
        for record in held:
            self.running -= record.phase == Phase.RUNNING
            record.phase = Phase.WAITING
            record.worker = ""
        for ending in verdict.endings:
            self.tasks.pop(ending.record.number)
            self._end(ending.record, ending.state)
            actions.append(ending)
        for record in held:
            if record.phase == Phase.WAITING:
                again.append(record)
                note = f"attempt {record.attempts + 1} ({worker.name} was lost: {why})"
                actions.append(Note("task.requeued", task_name(record.number), note))
        self.lost_attempts += len(held)
        self.pools[worker.pool].queue.give_back(again)
        return actions

    # --- users interfere -----------------------------------------------------------------------

    def cancel(self, numbers: list[int], now_ns: int) -> tuple[list[str], list[Action]]:
        """One word a task ("cancelled", "cancelling", "unknown") and what to do about it."""
        words, actions = [], []
        for number in numbers:
            record = self.tasks.get(number)
            if record is None:
                words.append("unknown")
                continue
            words.append("cancelled" if record.phase == Phase.WAITING else "cancelling")
            actions += self._stop(record, "cancelled", now_ns)
        return words, actions

    def _stop(self, record: Record, reason: str, now_ns: int) -> list[Action]:
        """End a task early: at once if it waits, through its worker if that has it."""
        if record.phase == Phase.WAITING:
            self.pools[record.route.pool].queue.drop(record)
            self.tasks.pop(record.number)
            state = early_end(reason)
            self._end(record, state)
            waited_us = (now_ns - record.batch.accepted_ns) // 1000
            return [Ending(record, state, 0, Timing(waited_us, 0, 0), reason=reason)]
        if record.stopping:
            return []
        record.stopping = reason
        if record.phase == Phase.RUNNING or record is next(
            iter(self.workers[record.worker].held.values())
        ):  # one that waits behind another is skipped when its turn comes
            self._deadlines.stop_by(now_ns, record.number, record.fence)
        return [StopRunning(record.worker, record.number, record.fence, reason)]

    # --- time passes ---------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Action]:
        """Deadlines, silence, and the size of the pools."""
        if self._last_tick_ns and now_ns - self._last_tick_ns > SLEEP_NS:
            for worker in self.workers.values():
                worker.heard_ns = now_ns
        self._last_tick_ns = now_ns
        actions: list[Action] = []
        actions += self._overdue(now_ns)
        actions += self._silent(now_ns)
        if not self.draining:
            for pool in self.pools.values():
                actions += self.grow(pool, now_ns)
                actions += pool.shrink(now_ns)
        return actions

    def grow(self, pool: Pool, now_ns: int) -> list[Action]:
        """Start the workers a pool lacks; also called when tasks come to a pool that has none."""
        actions = pool.grow(now_ns)
        if actions:
            self.workers.update(pool.workers)
        return actions

    def _overdue(self, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        for number in self._deadlines.waited_long(now_ns):
            record = self.tasks.get(number)
            if record is not None and record.phase == Phase.WAITING:
                actions += self._stop(record, "queue_timeout", now_ns)
        for number, fence in self._deadlines.ran_long(now_ns):
            record = self.tasks.get(number)
            if record is not None and record.fence == fence:
                actions += self._stop(record, "run_timeout", now_ns)
        for number, fence in self._deadlines.disobeyed(now_ns):
            record = self.tasks.get(number)
            if record is not None and record.fence == fence and record.worker in self.workers:
                actions += self._kill(record.worker, f"did not stop ({record.stopping})")
        return actions

    def _silent(self, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        for worker in list(self.workers.values()):
            if worker.state == WorkerState.DRAINING and (
                now_ns - worker.since_ns > self.limits.silent_ns
            ):
                actions += self.dropped(worker.name, "it was asked to end and did not", now_ns)
                continue
            starting = worker.state == WorkerState.STARTING
            limit = self.limits.start_timeout_ns if starting else self.limits.silent_ns
            if now_ns - worker.heard_ns > limit:
                what = "not ready" if starting else "silent"
                why = f"{what} for {(now_ns - worker.heard_ns) / 1e9:.1f} s"
                actions.append(KillWorker(worker.name, why))
                actions += self.lost(worker.name, why, now_ns)
        return actions

    def _kill(self, name: str, why: str) -> list[Action]:
        self.workers[name].killed = why
        return [KillWorker(name, why)]

    # --- bookkeeping ---------------------------------------------------------------------------

    def _end(self, record: Record, state: TaskState) -> None:
        self.ended[state] += 1
        self._leave(record)

    def _leave(self, record: Record) -> None:
        """The record is no longer ours; entries of it in lanes are stale from now on."""
        self.running -= record.phase == Phase.RUNNING
        record.phase = Phase.FINAL
        self.queued_bytes -= record.size_bytes
        self.owned.drop(record)
        if record.incident:
            self.incidents.cleared(record)

    def _run_dry(self, worker: Worker, now_ns: int) -> None:
        self._give_back(worker)
        worker.held_us = 0.0
        if worker.state == WorkerState.BUSY:
            worker.state = WorkerState.IDLE
            worker.since_ns = now_ns

    def _give_back(self, worker: Worker) -> None:
        self.free_slots += worker.slots
        self.free_memory += worker.memory_bytes
        worker.slots = worker.memory_bytes = 0

    def fence(self, record: Record) -> int:
        return (self.epoch << ATTEMPT_BITS) + record.attempts
