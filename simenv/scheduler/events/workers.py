"""The life of a worker: it joins, beats, falls silent, leaves, dies; and what becomes of its tasks.

A worker is named by its name and its start: what an earlier start of the same name says or suffers
counts for nothing.
"""

from __future__ import annotations

from simenv.model import WorkerState, task_name
from simenv.scheduler.core.types import (
    Action,
    KillWorker,
    Phase,
    RecordEvent,
    RetireWorker,
    StopAttempt,
    TaskRecord,
)
from simenv.scheduler.state import crashes
from simenv.scheduler.state.indexes import STOP_GRACE_NS
from simenv.scheduler.state.nodes import AVOID_NS
from simenv.scheduler.state.owner_quotas import run_limit_s
from simenv.scheduler.state.pools import Worker
from simenv.scheduler.state.state import Books

# What a provider calls may let no other thread run; that the process ended is seen anyway.
MACHINE_SILENT_NS = 600_000_000_000
IDLE_BEATS = 3  # in a row, from a worker that should be running something


class Crew(Books):
    """Events of workers."""

    @property
    def is_busy(self) -> bool:
        """Is any task in a worker's hands?"""
        return any(worker.held for worker in self.workers.values())

    @property
    def is_active(self) -> bool:
        """Is anything going on whose end should be seen soon?"""
        return bool(self.later) or any(
            worker.state in (WorkerState.BUSY, WorkerState.STARTING, WorkerState.DRAINING)
            for worker in self.workers.values()
        )

    def joined(self, name: str, start: int, node: str, pid: int, now_ns: int) -> bool:
        """A started worker is ready; False if nobody waits for this start of it."""
        worker = self.workers.get(name)
        if worker is None or worker.start != start or worker.state != WorkerState.STARTING:
            return False
        worker.node, worker.pid = node, pid
        self.pools[worker.pool].joined(worker, now_ns)
        if worker.leaving:
            self.begin_retirement(worker, worker.leaving, now_ns)
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
            batch = record.batch
            limit_s = batch.terms.run_timeout_s
            if batch.owner:
                limit_s = run_limit_s(self.quotas.of(batch.owner), batch.terms)
            if limit_s:
                when = now_ns + round(limit_s * 1e9)
                self.deadlines.run_until(when, task, fence)
            if record.stopping:
                self.deadlines.stop_by(now_ns, task, fence, self.grace_ns(record))

    def heartbeat_received(
        self,
        name: str,
        start: int,
        task: int,
        fence: int,
        rss_bytes: int,
        now_ns: int,
        passes: tuple[int, int] = (0, 0),
    ) -> list[Action] | None:
        """A heartbeat; None if no such worker is ours."""
        worker = self.workers.get(name)
        if worker is None or worker.start != start:
            return None
        worker.heard_ns = now_ns
        worker.rss_bytes = rss_bytes
        worker.passes = (task, *passes)
        if task:
            worker.idle_beats = 0
            if task in worker.skipped:
                return self._not_skipped(worker, task, fence, now_ns)
            self.started(name, task, fence, now_ns)
        elif worker.held:
            worker.idle_beats += 1
            if worker.idle_beats >= IDLE_BEATS:  # what was sent, or answered, got lost on its way
                return self.worker_unusable(name, "it holds tasks and runs none", now_ns)
        return []

    def _not_skipped(self, worker: Worker, task: int, fence: int, now_ns: int) -> list[Action]:
        """A worker runs a task that has ended, as it began before it was told to skip it: it is
        asked to stop, and killed after the grace."""
        known, until_ns = worker.skipped[task]
        if known != fence:
            return []
        if not until_ns:
            worker.skipped[task] = fence, now_ns + STOP_GRACE_NS
            return [StopAttempt(worker.name, task, fence, "cancelled")]
        if now_ns < until_ns or worker.killed:
            return []
        return self.kill(worker, "did not stop a task that has ended")

    def worker_unusable(self, name: str, why: str, now_ns: int) -> list[Action]:
        """A worker we cannot work with: end it; its tasks go back and none of them is charged."""
        worker = self.workers.get(name)
        if worker is None:
            return []
        return [*self.kill(worker, why), *self.declare_worker_lost(worker, why, now_ns)]

    def lost(
        self, name: str, start: int, why: str, now_ns: int, log: str = "", *, blame: bool = True
    ) -> list[Action]:
        """A worker's processes are gone; `blame`: a task or the pool may be the cause."""
        worker = self.workers.get(name)
        if worker is None or worker.start != start:
            if self.unreaped_workers.get(name) == start:
                del self.unreaped_workers[name]
            return []
        actions = self.declare_worker_lost(worker, why, now_ns, log, blame=blame)
        del self.unreaped_workers[name]
        return actions

    def declare_worker_lost(
        self, worker: Worker, why: str, now_ns: int, log: str = "", *, blame: bool = True
    ) -> list[Action]:
        """A worker counts as gone; its name is not given again while its processes may live."""
        pool = self.pools[worker.pool]
        held = list(worker.held.values())
        self.remove(worker)
        self.unreaped_workers[worker.name] = worker.start
        if worker.state == WorkerState.STARTING:
            for host, _ in worker.places:
                host.avoid_until_ns = now_ns + AVOID_NS
        retired = worker.state == WorkerState.DRAINING and not held
        worker.state = WorkerState.GONE if retired else WorkerState.LOST
        if retired:
            return []
        actions: list[Action] = [RecordEvent("worker.lost", worker.name, why)]
        if held:
            charged = blame and not worker.killed
            actions += self._lose(worker, held, why, log, charged, now_ns)
        elif blame:
            actions.append(pool.failed(why, now_ns))
        else:
            pool.pause(now_ns)
        return actions

    def _lose(
        self,
        worker: Worker,
        held: list[TaskRecord],
        why: str,
        log: str,
        charged: bool,
        now_ns: int,
    ) -> list[Action]:
        """The tasks a dead worker held: back to the front, but for those that end here. These have
        spent what they ran, as if they had come to their end."""
        verdict = crashes.judge(held, why, log, worker.node, charged)
        self.incidents.record(verdict)
        actions: list[Action] = []
        again = []
        ran_ns = {r.number: now_ns - r.started_ns for r in held if r.phase == Phase.RUNNING}
        for record in held:
            self.running -= record.phase == Phase.RUNNING
            record.phase = Phase.WAITING
            record.worker = ""
        for ending in verdict.endings:
            number = ending.record.number
            self.tasks.pop(number)
            self.reservations.settle(number, ran_ns.get(number, 0))
            self.end(ending.record, ending.state)
            actions.append(ending)
        for record in held:
            if record.phase == Phase.WAITING:
                again.append(record)
                note = f"attempt {record.attempts + 1} ({worker.name} was lost: {why})"
                actions.append(RecordEvent("task.requeued", task_name(record.number), note))
        self.lost_attempts += len(held)
        self.pools[worker.pool].queue.give_back(again)
        return actions

    def kill(self, worker: Worker, why: str) -> list[Action]:
        """End its processes; no task is to blame for it."""
        worker.killed = why
        return [KillWorker(worker.name, why, worker.start)]

    def retire(self, worker: Worker, why: str, now_ns: int) -> list[Action]:
        """It gets nothing more, and ends when it has nothing: at once if it is idle."""
        worker.leaving = worker.leaving or why
        self.release_from_reservation(worker)
        if worker.state != WorkerState.IDLE:
            return []
        worker.state, worker.since_ns = WorkerState.DRAINING, now_ns
        return [RetireWorker(worker.name, worker.leaving, worker.start)]

    def silent(self, now_ns: int) -> list[Action]:
        """Workers that said nothing for too long are lost, as if they had died."""
        actions: list[Action] = []
        for worker in list(self.workers.values()):
            if worker.state == WorkerState.DRAINING and (
                now_ns - worker.since_ns > self.limits.silent_ns
            ):
                actions += self.worker_unusable(
                    worker.name, "it was asked to end and did not", now_ns
                )
                continue
            starting = worker.state == WorkerState.STARTING
            limit = self.limits.start_timeout_ns if starting else self.limits.silent_ns
            if worker.held and self.pools[worker.pool].is_exclusive:
                limit = max(limit, MACHINE_SILENT_NS)
            if now_ns - worker.heard_ns > limit:
                what = "not ready" if starting else "silent"
                why = f"{what} for {(now_ns - worker.heard_ns) / 1e9:.1f} s"
                actions.append(KillWorker(worker.name, why, worker.start))
                actions += self.declare_worker_lost(worker, why, now_ns)
        return actions
