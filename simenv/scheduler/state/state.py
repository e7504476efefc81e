"""What the machine remembers, and the bookkeeping under every event.

Invariant (see `check`): each unfinished task is in exactly one place, granted slots never exceed a
node's, and what a worker reserves or a task is granted goes back exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simenv.model import PoolSpec, TaskState, WorkerState
from simenv.scheduler.core.types import (
    ATTEMPT_BITS,
    FINAL,
    RUNNING,
    Action,
    ClusterLimits,
    RetireWorker,
    Route,
    TaskRecord,
    base_of,
)
from simenv.scheduler.reservations.ledger import Reservations
from simenv.scheduler.state import crashes
from simenv.scheduler.state.cost_estimator import Estimator
from simenv.scheduler.state.device_controls import DeviceControls
from simenv.scheduler.state.indexes import MACHINE_GRACE_NS, STOP_GRACE_NS, Deadlines, TasksByOwner
from simenv.scheduler.state.nodes import NodeTable, vacate
from simenv.scheduler.state.owner_quotas import Quotas
from simenv.scheduler.state.pools import DedicatedWorkers, Pool, Worker, gang_spec

if TYPE_CHECKING:
    from simenv.scheduler.routing.capacity import Capacity


class Books:
    """All tasks, workers, pools and nodes. `epoch` marks the fences; `next_task` is the first id to
    give out; `next_start` numbers the starts of workers."""

    def __init__(
        self, pools: tuple[PoolSpec, ...], limits: ClusterLimits, epoch: int, next_task: int = 1
    ) -> None:
        self.limits = limits
        self.epoch = epoch
        self.next_task = next_task
        self.next_start = 1
        self.starts_left = 0  # workers that may still be started in this tick
        self.tasks: dict[int, TaskRecord] = {}
        self.owned = TasksByOwner()
        self.quotas = Quotas()
        self.reservations = Reservations()
        self.steers = DeviceControls()
        self.keeps = DedicatedWorkers()
        self.pools: dict[str, Pool] = {}
        self.gangs: list[Pool] = []  # those of `pools` whose workers have several ranks
        self.workers: dict[str, Worker] = {}
        self.wide: dict[str, Worker] = {}  # whose tasks may give slots back, see `resizing`
        self.unreaped_workers: dict[
            str, int
        ] = {}  # lost workers whose processes may still be there
        self.ledger = NodeTable(limits)
        self.capacity: tuple[int, Capacity] | None = None  # see `capacity.of`
        self.estimator = Estimator()
        self.queued_bytes = 0
        self.running = 0
        self.ended = dict.fromkeys(TaskState, 0)
        self.lost_attempts = 0
        self.last_short_ns = -(10**18)  # when a short task last came in
        self.taken_ns = -(10**18)  # when a running task last lost a slot to a short one
        self.gang_ended_ns = -(10**18)  # when a task of several ranks last gave back its slots
        self.draining = False
        self.incidents = crashes.CrashIncidents()
        self.deadlines = Deadlines()
        self.later: list[Action] = []  # for the next tick
        for spec in pools:
            self._open(Pool(spec))

    @property
    def free_slots(self) -> int:
        """Slots that no task has, over all nodes."""
        return self.ledger.free_slots

    @property
    def free_memory(self) -> int:
        """Bytes that nobody has, over all nodes."""
        return self.ledger.free_memory

    def fence(self, record: TaskRecord) -> int:
        return (self.epoch << ATTEMPT_BITS) + record.attempts

    # --- pools ---------------------------------------------------------------------------------

    def pool_of(self, route: Route) -> Pool:
        """The pool a task waits in; one for programs too big for one rank is made on demand."""
        pool = self.pools.get(route.pool)
        if pool is None:
            base = self.pools[base_of(route.pool)]
            pool = Pool(gang_spec(base.spec, route.ranks, self.limits), base.spec.name)
            self._open(pool)
        return pool

    def _open(self, pool: Pool) -> None:
        self.pools[pool.spec.name] = pool
        pool.queue.arrange(self.steers.order(pool.device))
        if pool.spec.ranks > 1:
            self.gangs.append(pool)

    def close_pool(self, pool: Pool) -> None:
        """A pool made on demand that nobody needs now."""
        del self.pools[pool.spec.name]
        self.gangs.remove(pool)
        self.ledger.forget_slot_claims()  # whoever waits claims again

    # --- tasks and workers ---------------------------------------------------------------------

    def end(self, record: TaskRecord, state: TaskState) -> None:
        """A task became final."""
        self.ended[state] += 1
        self.leave(record)

    def end_all(self, records: list[TaskRecord], states: list[TaskState]) -> None:
        """Tasks became final, each in its state."""
        running = freed = 0
        rare: list[TaskRecord] = []
        under = bool(self.reservations.by_task)
        for record in records:
            running += record.phase == RUNNING
            record.phase = FINAL
            batch = record.batch
            freed += batch.share_bytes or len(record.spec.program)
            if under or batch.owner or record.incident:
                rare.append(record)
        self.running -= running
        self.queued_bytes -= freed
        for record in rare:
            self._let_go(record)
        for state in set(states):
            self.ended[state] += states.count(state)

    def leave(self, record: TaskRecord) -> None:
        """The record is no longer ours; entries of it in lanes are stale from now on."""
        self.running -= record.phase == RUNNING
        record.phase = FINAL
        self.queued_bytes -= record.size_bytes
        self._let_go(record)

    def _let_go(self, record: TaskRecord) -> None:
        """Whoever keeps a list that it may be in."""
        self.owned.drop(record)
        if record.incident:
            self.incidents.cleared(record)
        if self.reservations.by_task:
            self.reservations.settle(record.number, 0)  # what ran has been settled before

    def grace_ns(self, record: TaskRecord) -> int:
        """Within which a worker stops a task it was asked to stop."""
        held = self.pools[record.route.pool].is_exclusive
        return MACHINE_GRACE_NS if held else STOP_GRACE_NS

    def worker_became_idle(self, worker: Worker, now_ns: int) -> None:
        """A worker holds nothing any more."""
        self.give_back(worker)
        worker.held_us = 0.0
        if worker.ranks > 1:
            self.gang_ended_ns = now_ns
        if worker.state == WorkerState.BUSY:
            worker.state = WorkerState.IDLE
            worker.since_ns = now_ns
            if worker.leaving:
                self.begin_retirement(worker, worker.leaving, now_ns)

    def begin_retirement(self, worker: Worker, why: str, now_ns: int) -> None:
        """An idle worker gets nothing more; the next tick tells it."""
        worker.leaving = why
        self.release_from_reservation(worker)
        worker.state, worker.since_ns = WorkerState.DRAINING, now_ns
        self.later.append(RetireWorker(worker.name, why, worker.start))

    def release_from_reservation(self, worker: Worker) -> None:
        """It will not work for its reservation any more."""
        worker.kept_for = 0
        if worker.slots and not worker.held:
            self.give_back(worker)

    def give_back(self, worker: Worker) -> None:
        """The slots and the memory of what it ran; a kept worker keeps a slot."""
        host, kept = worker.host, 0
        if worker.most_slots:
            worker.most_slots, worker.resized = 0, False
            self.wide.pop(worker.name, None)
        if worker.ranks == 1:
            kept = min(worker.slots, 1) if worker.kept_for else 0
            host.free_slots += worker.slots - kept
        elif worker.slots:
            for place, ranks in worker.places:
                place.free_slots += ranks
        host.free_memory += worker.memory_bytes
        worker.slots, worker.memory_bytes = kept, 0

    def remove(self, worker: Worker) -> None:
        """A worker is gone, with all it had."""
        del self.workers[worker.name]
        del self.pools[worker.pool].workers[worker.name]
        worker.held, worker.kept_for = {}, 0
        self.give_back(worker)
        vacate(worker.places, worker.reserved, bool(self.pools[worker.pool].base))
