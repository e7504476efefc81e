"""Data of the scheduler, and the bookkeeping that keeps its invariants.

Invariant (`scheduler_invariants` of the tests checks it): each unfinished task is in exactly one
place, granted slots never exceed those of a node, and resources that a worker reserves or a task is
granted are released exactly once. Only modules of `simenv.scheduler` write to it; the service reads
it.
"""

from __future__ import annotations

import msgspec

from simenv.model import PoolSpec, TaskState, WorkerState
from simenv.model.views import base_of
from simenv.scheduler.core.actions import Action, KillWorker, RetireWorker
from simenv.scheduler.core.cost_estimator import Estimator
from simenv.scheduler.core.types import (
    ATTEMPT_BITS,
    END_MARGIN_NS,
    FINAL,
    RUNS,
    ClusterLimits,
    Route,
    TaskRecord,
)
from simenv.scheduler.reservations.ledger import ReservationLedger
from simenv.scheduler.routing.capacity import Capacity, all_nodes, unplaceable_reason
from simenv.scheduler.routing.restart import reroute_after_restart
from simenv.scheduler.state import crashes
from simenv.scheduler.state.dependencies import Dependencies
from simenv.scheduler.state.device_controls import DeviceControls
from simenv.scheduler.state.indexes import HARDWARE_GRACE_NS, STOP_GRACE_NS, Deadlines, TasksByOwner
from simenv.scheduler.state.nodes import NodeTable, gpus_by_host, vacate
from simenv.scheduler.state.owner_quotas import Quotas
from simenv.scheduler.state.paced import LOOKAHEAD_NS, PacedDevice, PacedDevices
from simenv.scheduler.state.pools import DedicatedWorkers, Pool, Worker, gang_spec

KEPT_MARGIN_NS = 2_000_000_000  # margin between the drop of a kept state and the end of its grant


class SchedulerState:
    """All tasks, workers, pools, nodes and reservations of one environment.

    `epoch` is the high part of every fence, `next_task` the number of the next task to be accepted,
    `next_start` that of the next worker start.
    """

    def __init__(
        self, pools: tuple[PoolSpec, ...], limits: ClusterLimits, epoch: int, next_task: int = 1
    ) -> None:
        self.limits = limits
        self.epoch = epoch
        self.next_task = next_task
        self.next_start = 1
        self.starts_left = 0  # workers that may still be started in this tick
        self.tasks: dict[int, TaskRecord] = {}
        self.tasks_by_owner = TasksByOwner()
        self.quotas = Quotas()
        self.dependencies = Dependencies()
        self.reservations = ReservationLedger()
        self.controls = DeviceControls()
        self.dedicated = DedicatedWorkers()
        self.paced = PacedDevices()
        self.outages: set[str] = set()  # devices that start nothing
        self.pools: dict[str, Pool] = {}
        self.gangs: list[Pool] = []  # pools whose workers have several ranks
        self.workers: dict[str, Worker] = {}
        # Workers whose task may give slots back, see `resizing`.
        self.multi_slot_workers: dict[str, Worker] = {}
        self.unreaped_workers: dict[str, int] = {}  # start of lost workers that may still run
        self.nodes = NodeTable(limits)
        self._capacity: tuple[int, Capacity] | None = None  # with the version of `nodes`
        self._rerouted: dict[Route, Route] = {}
        self.estimator = Estimator()
        self.queued_bytes = 0
        self.running = 0
        self.ended = dict.fromkeys(TaskState, 0)
        self.lost_attempts = 0
        self.last_short_ns = -(10**18)  # last submission of a short task
        self.slot_taken_ns = -(10**18)  # time when a running task last lost a slot to a short one
        self.gang_ended_ns = -(10**18)  # time when a task of several ranks last released its slots
        self.draining = False
        self.service_bytes = 0  # resident memory of the service
        self.incidents = crashes.CrashIncidents()
        self.deadlines = Deadlines()
        self.deferred_actions: list[Action] = []  # returned by the next tick
        self.last_tick_ns = 0
        for spec in pools:
            self._open(Pool(spec))

    @property
    def free_slots(self) -> int:
        """Slots of all nodes that no task has."""
        return self.nodes.free_slots

    @property
    def free_memory(self) -> int:
        """Bytes of all nodes that are neither granted nor reserved."""
        return self.nodes.free_memory

    def fence(self, record: TaskRecord) -> int:
        return (self.epoch << ATTEMPT_BITS) + record.attempts

    @property
    def is_busy(self) -> bool:
        """True if a worker holds a task or a paced device runs one."""
        return bool(self.paced.held) or any(worker.held for worker in self.workers.values())

    @property
    def is_active(self) -> bool:
        """True if the next tick should come soon: actions are deferred, tasks are to be ended, or
        workers run, start or end."""
        return bool(self.deferred_actions or self.dependencies.failed or self.paced.held) or any(
            worker.state in (WorkerState.BUSY, WorkerState.STARTING, WorkerState.DRAINING)
            for worker in self.workers.values()
        )

    @property
    def lacks_workers(self) -> bool:
        """True if a task waits in a pool that has no worker at all."""
        return any(not pool.workers and len(pool.queue) for pool in self.pools.values())

    def allocation_ends(self, now_ns: int) -> bool:
        """Return whether the end of the allocation is so near that the service should drain."""
        end_ns = self.limits.end_ns
        return bool(end_ns) and now_ns >= end_ns - END_MARGIN_NS

    # --- nodes ---------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Return the capacity of the nodes that are up; recomputed only when a node came or
        went."""
        cached = self._capacity
        if cached is None or cached[0] != self.nodes.version:
            cached = self._capacity = (self.nodes.version, self._present_capacity())
        return cached[1]

    def _present_capacity(self) -> Capacity:
        limits, hosts = self.limits, list(self.nodes.hosts.values())
        up = [host.node for host in hosts if host.is_up]
        if not up or len(up) == len(hosts):
            return all_nodes(limits)
        away = [f"{h.node.name} is {h.state}: {h.lost or h.drained}" for h in hosts if not h.is_up]
        present = msgspec.structs.replace(
            limits,
            nodes=tuple(up),
            slots=sum(node.slots for node in up),
            memory_bytes=sum(node.memory_bytes for node in up),
        )
        return Capacity(limits, present, "; ".join(away))

    def unplaceable_reason(self, route: Route) -> str:
        """Return why a route fits none of the nodes that are up; "" if it fits, or if no node is
        up."""
        capacity = self.capacity()
        pool = self.pools.get(base_of(route.pool) or route.pool)
        if capacity.is_whole or pool is None or pool.is_exclusive:
            return ""
        return unplaceable_reason(capacity, pool.spec, route)

    def reroute(self, route: Route) -> Route:
        """Return the route, on this start's pools and nodes, of a task accepted before. Raises
        ConfigError."""
        cached = self._rerouted.get(route)
        if cached is None:
            pools = tuple(pool.spec for pool in self.pools.values() if not pool.base)
            cached = self._rerouted[route] = reroute_after_restart(route, pools, self.limits)
        return cached

    # --- pools ---------------------------------------------------------------------------------

    def pool_of(self, route: Route) -> Pool:
        """Return the pool in which a task waits; a pool of several ranks is made on demand."""
        pool = self.pools.get(route.pool)
        if pool is None:
            base = self.pools[base_of(route.pool)]
            pool = Pool(gang_spec(base.spec, route.ranks, self.limits), base.spec.name)
            self._open(pool)
        return pool

    def _open(self, pool: Pool) -> None:
        self.pools[pool.spec.name] = pool
        if pool.spec.pace:
            lookahead_ns = 0 if pool.spec.drift else LOOKAHEAD_NS
            self.paced.all.setdefault(pool.device, PacedDevice(lookahead_ns))
        pool.queue.arrange(self.controls.queue_policy(pool.device))
        if pool.spec.ranks > 1:
            self.gangs.append(pool)

    def close_pool(self, pool: Pool) -> None:
        """Remove a pool made on demand that has no tasks and no workers."""
        del self.pools[pool.spec.name]
        self.gangs.remove(pool)
        self.nodes.forget_slot_claims()  # waiting tasks claim again

    # --- tasks and workers ---------------------------------------------------------------------

    def finalize(self, record: TaskRecord, state: TaskState) -> None:
        """Record that a task became final in this state."""
        self.ended[state] += 1
        self.forget_task(record)
        if self.dependencies.by_parent:
            self.dependencies.parent_ended(record.number, state)

    def finalize_many(self, records: list[TaskRecord], states: list[TaskState]) -> None:
        """Record that tasks became final, each in its state."""
        running = freed = 0
        indexed: list[TaskRecord] = []
        reserved = bool(self.reservations.by_task)
        for record in records:
            running += record.phase in RUNS
            record.phase = FINAL
            batch = record.batch
            freed += batch.share_bytes or len(record.spec.program)
            if reserved or batch.owner or record.incident:
                indexed.append(record)
        self.running -= running
        self.queued_bytes -= freed
        for record in indexed:
            self._drop_from_indexes(record)
        for state in set(states):
            self.ended[state] += states.count(state)
        if self.dependencies.by_parent:
            for record, state in zip(records, states, strict=True):
                self.dependencies.parent_ended(record.number, state)

    def forget_task(self, record: TaskRecord) -> None:
        """Drop a task; its entries in lanes are stale from now on."""
        self.running -= record.phase in RUNS
        record.phase = FINAL
        self.queued_bytes -= record.size_bytes
        if self.dependencies.by_task:
            self.dependencies.drop(record.number)
        self._drop_from_indexes(record)

    def _drop_from_indexes(self, record: TaskRecord) -> None:
        """Remove a task from the indexes by owner, crash incident and reservation."""
        self.tasks_by_owner.drop(record)
        if record.incident:
            self.incidents.clear_suspect(record)
        if self.reservations.by_task:
            self.reservations.settle(record.number, 0)  # tasks that ran have been settled before

    def grace_ns(self, record: TaskRecord) -> int:
        """Return the time in ns within which a worker must stop a task after a stop request."""
        held = self.pools[record.route.pool].is_exclusive
        return HARDWARE_GRACE_NS if held else STOP_GRACE_NS

    def worker_became_idle(self, worker: Worker, now_ns: int) -> None:
        """Release the resources granted to a worker that holds no task any more."""
        self.release_resources(worker)
        if worker.kept_bytes:
            end_ns = worker.kept_until_ns or now_ns + round(worker.kept_s * 1e9) + KEPT_MARGIN_NS
            worker.kept_until_ns = max(end_ns, now_ns + KEPT_MARGIN_NS)
        worker.held_us = 0.0
        if worker.ranks > 1:
            self.gang_ended_ns = now_ns
        if worker.state == WorkerState.BUSY:
            worker.state = WorkerState.IDLE
            worker.since_ns = now_ns
            if worker.leaving:
                self.begin_retirement(worker, worker.leaving, now_ns)

    def begin_retirement(self, worker: Worker, reason: str, now_ns: int) -> None:
        """Stop assigning tasks to this idle worker; the next tick returns its RetireWorker."""
        worker.leaving = reason
        self.release_from_reservation(worker)
        worker.state, worker.since_ns = WorkerState.DRAINING, now_ns
        self.deferred_actions.append(RetireWorker(worker.name, reason, worker.start))

    def kill(self, worker: Worker, reason: str) -> list[Action]:
        """End a worker's processes; no task is charged with its loss."""
        worker.killed = reason
        return [KillWorker(worker.name, reason, worker.start)]

    def retire(self, worker: Worker, reason: str, now_ns: int) -> list[Action]:
        """Assign nothing more to a worker; it ends when it holds no task, at once if it is idle."""
        worker.leaving = worker.leaving or reason
        self.release_from_reservation(worker)
        if worker.state != WorkerState.IDLE:
            return []
        worker.state, worker.since_ns = WorkerState.DRAINING, now_ns
        return [RetireWorker(worker.name, worker.leaving, worker.start)]

    def release_from_reservation(self, worker: Worker) -> None:
        """Take a worker from its reservation; an idle one releases its slot."""
        worker.reservation_id = 0
        if worker.slots and not worker.held:
            self.release_resources(worker)

    def release_resources(self, worker: Worker) -> None:
        """Free the slots and memory granted to a worker; a dedicated one retains a slot."""
        host, retained = worker.host, 0
        if worker.granted_slots:
            worker.granted_slots, worker.resized = 0, False
            self.multi_slot_workers.pop(worker.name, None)
        if worker.ranks == 1:
            retained = min(worker.slots, 1) if worker.reservation_id else 0
            host.free_slots += worker.slots - retained
        elif worker.slots:
            for host, ranks in worker.host_ranks:
                host.free_slots += ranks
        host.free_memory += worker.memory_bytes
        worker.slots, worker.memory_bytes = retained, 0

    def release_kept_states(self, worker: Worker) -> None:
        """Free the memory granted to states that a worker keeps between tasks."""
        worker.host.free_memory += worker.kept_bytes
        worker.kept_bytes = worker.kept_until_ns = 0
        worker.kept_owner, worker.kept_s = "", 0.0

    def remove_worker(self, worker: Worker) -> None:
        """Remove a worker that is gone and free all its resources."""
        del self.workers[worker.name]
        del self.pools[worker.pool].workers[worker.name]
        worker.held, worker.reservation_id = {}, 0
        self.release_resources(worker)
        self.release_kept_states(worker)
        vacate(worker.host_ranks, worker.reserved, bool(self.pools[worker.pool].base))
        for place, gpus in gpus_by_host(worker.host_ranks, worker.gpus):
            place.return_gpus(gpus)
