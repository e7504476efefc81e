"""Data of the scheduler, and the bookkeeping that keeps its invariants.

Invariant (`scheduler_invariants` of the tests checks it): each unfinished task is in exactly one
place, granted slots never exceed those of a node, and resources that a worker reserves or a task is
granted are released exactly once. Only modules of `simenv.scheduler` write to it; the service reads
it.

Pools, limits and task counts of one device: a pool with the pools made on demand for it. The device
"" is all pools together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import msgspec

from simenv.errors import NotFoundError
from simenv.model import OwnerUse, PoolSpec, TaskState, WorkerState, views
from simenv.model.accounts import AccountTree, Billing, Qos, WaitReason
from simenv.scheduler import core
from simenv.scheduler.queueing import fair_share
from simenv.scheduler.reservations.ledger import ReservationLedger
from simenv.scheduler.reservations.reservation import DedicatedWorkers
from simenv.scheduler.routing import live_routing
from simenv.scheduler.state import (
    candidates,
    device_state,
    maintenance,
    owner_quotas,
    pools as state_pools,
    task_index,
)

_SLOTS = "max_running_slots"
MAX_METERS = 32  # of a pool
HEARTBEATS_PER_S = 1_000  # of all workers; each takes about 50 us of the service
SILENT_BEATS = 2.5  # heartbeats in `silent_ns`, however many workers there are
SUSPENDED_NS = 3_000_000_000  # a longer gap between ticks means that the service was suspended
MAX_CUT_OFF = 5  # workers that say so, whose losses are not charged to a task
KEPT_MARGIN_NS = 2_000_000_000  # margin between the drop of a kept state and the end of its grant


class SchedulerState:
    """All tasks, workers, pools, nodes and reservations of one environment. `epoch` is the high
    part of every fence, `next_task` the number of the next task to be accepted, `next_start` that
    of the next worker start: no start of an earlier epoch has one of these numbers."""

    def __init__(
        self,
        pools: tuple[PoolSpec, ...],
        limits: core.ClusterLimits,
        epoch: int,
        next_task: int = 1,
    ) -> None:
        # The environment, and the service.
        self.limits = limits
        # Time after which no task may run, by the monotonic clock: the end of the allocation, less
        # a margin, or the next maintenance of all nodes; 0: never.
        self.closing_ns = max(0, limits.end_ns - core.END_MARGIN_NS) if limits.end_ns else 0
        self.calendar = maintenance.Calendar()
        self.epoch = epoch
        self.draining = False
        self.service_bytes = 0  # resident memory of the service
        self.lacks_memory = False  # the service uses more than its limit, and takes no tasks
        self.last_tick_ns = 0
        self.deferred_actions: list[core.Action] = []  # returned by the next tick
        # Tasks, their indexes and their numbers.
        self.tasks: dict[int, core.TaskRecord] = {}
        self.tasks_by_owner = task_index.TasksByOwner()
        self.use_by_association = task_index.UseByAssociation()
        self.dependencies = task_index.Dependencies()
        self.deadlines = task_index.Deadlines()
        self.incidents = task_index.CrashIncidents()
        self.estimator = core.Estimator()
        self.next_task = next_task
        self.queued_bytes = 0
        self.running = 0
        self.ended = dict.fromkeys(TaskState, 0)
        self.lost_attempts = 0
        self.lost_launchers: set[str] = set()  # DVMs that are lost and not started again yet
        self.lost_workers: dict[str, int] = {}  # by configured pool, since the start
        self._rerouted: dict[core.Route, core.Route] = {}
        # Nodes, pools and workers.
        self.nodes = state_pools.NodeTable(limits)
        self.capacity = live_routing.all_nodes(limits)  # of the nodes that are up
        self.pools: dict[str, state_pools.Pool] = {}
        self.gangs: list[state_pools.Pool] = []  # pools whose workers have several ranks
        self.deferred_gangs = False  # some wait for tasks of one rank of accounts that go first
        self.workers: dict[str, state_pools.Worker] = {}
        self.grants = 0  # chunks that were sent to workers; answers to heartbeats carry the number
        self.assigns_left = 1  # of the work that one pass of assignments may cause the service
        # Of the present pass, and large ones of passes before, by pool and order.
        self.candidates: dict[tuple[str, str], candidates.Candidates] = {}
        # Workers whose task may give slots back, see `gang_scheduling`.
        self.multi_slot_workers: dict[str, state_pools.Worker] = {}
        self.state_keepers: dict[str, state_pools.Worker] = {}  # with a grant for kept states
        self.unreaped_workers: dict[str, int] = {}  # start of lost workers that may still run
        # By name of a lost worker: its task, charged if the launcher reports the worker's own end.
        self.uncharged: dict[str, core.TaskRecord] = {}
        self.next_start = (epoch << core.START_BITS) + 1
        self.starts_left = 0  # workers that may still be started in this tick
        self.lacks_workers = False  # since the last tick a task came to a pool without workers
        self.last_short_ns = -(10**18)  # last submission of a short task
        self.slot_taken_ns = -(10**18)  # time when a running task last lost a slot to a short one
        self.gang_ended_ns = -(10**18)  # time when a task of several ranks last released its slots
        # Devices, reservations and owners.
        self.controls = device_state.DeviceControls()
        self.paced = device_state.PacedDevices()
        self.outages: set[str] = set()  # devices that start nothing
        self.reservations = ReservationLedger()
        self.dedicated = DedicatedWorkers()
        self.quotas = owner_quotas.Quotas()
        self.fair_share = fair_share.FairShare()
        self.qos: Mapping[str, Qos] = {}
        for spec in pools:
            self._open(state_pools.Pool(spec))

    def copy(self, max_tasks: int) -> SchedulerState:
        """Return a copy for a forecast, in which a scheduler can go on once it has `own_tasks`: of
        each pool with at least the first `max_tasks` tasks. Left out are tasks that wait for others
        or for units, deadlines, maintenance, and what is not stored yet.

        Takes some microseconds for each worker and node, and hardly any for a task."""
        result = SchedulerState((), self.limits, self.epoch, self.next_task)
        result.calendar = self.calendar.copy_reservations()
        result.draining, result.last_tick_ns = self.draining, self.last_tick_ns
        result.estimator = self.estimator.copy()
        result.nodes, result.capacity = self.nodes.copy(), self.capacity
        result.fair_share, result.qos = self.fair_share.copy(), self.qos
        for name, pool in self.pools.items():
            own = result.pools[name] = pool.copy(result.nodes.hosts, result.fair_share, max_tasks)
            result.workers.update(own.workers)
            if pool.spec.ranks > 1:
                result.gangs.append(own)
        for name in self.multi_slot_workers:
            result.multi_slot_workers[name] = result.workers[name]
        for name in self.state_keepers:
            result.state_keepers[name] = result.workers[name]
        result.unreaped_workers, result.next_start = self.unreaped_workers.copy(), self.next_start
        result.grants, result.deferred_gangs = self.grants, self.deferred_gangs
        result.last_short_ns, result.slot_taken_ns = self.last_short_ns, self.slot_taken_ns
        result.gang_ended_ns = self.gang_ended_ns
        result.controls, result.paced = self.controls.copy(), self.paced.copy()
        result.outages, result.quotas = {*self.outages}, self.quotas.copy()
        result.reservations = self.reservations.copy_without_parked()
        result.dedicated = self.dedicated.copy()
        return result

    def own_tasks(self, most: Mapping[str, int], pause: Callable[[], object]) -> None:
        """Replace the tasks of a copy by copies of them. `most`: waiting tasks of each pool; those
        behind them are left out. `pause` is called often. May be called in another thread than that
        of the copied state: tasks that have started since then are left out, and ones that have
        ended still run."""
        for pool in self.pools.values():
            pool.queue.own_tasks(self._own_waiting, most[pool.spec.name], pause)
        for worker in self.workers.values():
            pause()
            worker.held = {number: self._own_sent(each) for number, each in worker.held.items()}
            for leaf, newest in list(worker.newest_of.items()):
                if newest.number in worker.held:
                    worker.newest_of[leaf] = worker.held[newest.number]
                else:
                    del worker.newest_of[leaf]
        for device in self.paced.all.values():
            for number, run in list(device.runs.items()):
                if number in self.paced.held:
                    self._own(run.record).phase = core.HELD
                if number in self.tasks:
                    run.record = self.tasks[number]
                else:
                    del device.runs[number]
            device.arrange()
        by_batch: dict[int, list[core.TaskRecord]] = {}
        for record in self.tasks.values():
            by_batch.setdefault(id(record.batch), []).append(record)
        for records in by_batch.values():
            pause()
            self.queued_bytes += sum(record.size_bytes for record in records)
            self.tasks_by_owner.count_in(records)
            self.use_by_association.count_in(records)
        for reservation in self.reservations.all.values():
            held = reservation.holds.items()
            reservation.holds = {number: units for number, units in held if number in self.tasks}
        self.running = sum(record.phase in core.RUNS for record in self.tasks.values())

    def _own(self, record: core.TaskRecord) -> core.TaskRecord:
        own = self.tasks[record.number] = copy.copy(record)
        return own

    def _own_waiting(self, record: core.TaskRecord) -> core.TaskRecord:
        own = self._own(record)
        own.phase, own.worker = core.WAITING, ""
        return own

    def _own_sent(self, record: core.TaskRecord) -> core.TaskRecord:
        own = self._own(record)
        own.phase = core.RUNNING if record.phase in core.RUNS else core.SENT
        return own

    @property
    def is_busy(self) -> bool:
        """True if a worker holds a task or a paced device runs one."""
        return bool(self.paced.held) or any(pool.busy_workers for pool in self.pools.values())

    @property
    def is_active(self) -> bool:
        """True if the next tick should come soon: actions are deferred, tasks are to be ended, or
        workers run, start or end."""
        return bool(self.deferred_actions or self.dependencies.failed or self.paced.held) or any(
            pool.is_active for pool in self.pools.values()
        )

    @property
    def heartbeat_intervals_s(self) -> tuple[float, float]:
        """Least and most seconds between two heartbeats of one worker, or of one agent."""
        longest_s = self.limits.silent_ns / 1e9 / SILENT_BEATS
        return min(len(self.workers) / HEARTBEATS_PER_S, longest_s), longest_s

    def was_suspended(self, now_ns: int) -> bool:
        """Return whether nothing was received since the last tick, too long ago."""
        return bool(self.last_tick_ns) and now_ns - self.last_tick_ns > SUSPENDED_NS

    def may_be_cut_off(self, name: str, now_ns: int, quiet_ns: int) -> bool:
        """Return False if a worker that says that it lost the service cannot have: it holds tasks,
        and it was heard within `quiet_ns`, which a lease is longer than by a heartbeat at least; or
        if the first of them has lost MAX_CUT_OFF workers, which it may have silenced and ended."""
        worker = self.workers.get(name)
        record = next(iter(worker.held.values()), None) if worker else self.uncharged.get(name)
        if record is None or self.was_suspended(now_ns):
            return True
        if sum(reason == WaitReason.LOST for reason, _ in record.waits) >= MAX_CUT_OFF:
            return False
        return worker is None or now_ns - worker.heard_ns > quiet_ns

    def allocation_ends(self, now_ns: int) -> bool:
        """Return whether the end of the allocation is so near that the service should drain."""
        end_ns = self.limits.end_ns
        return bool(end_ns) and now_ns >= end_ns - core.END_MARGIN_NS

    def nodes_changed(self) -> None:
        """Compute the capacity again, because a node came into use or went out of use."""
        limits, hosts = self.limits, list(self.nodes.hosts.values())
        up = [host.node for host in hosts if host.is_up or host.job is not None]
        has_jobs = any(host.job is not None for host in hosts)
        if not up or (len(up) == len(hosts) and not has_jobs):
            self.capacity = live_routing.all_nodes(limits)
            return
        away = [
            f"{h.node.name} is {h.state}: {h.lost or h.drained}"
            for h in hosts
            if not (h.is_up or h.job is not None)
        ]
        present = msgspec.structs.replace(
            limits,
            nodes=tuple(up),
            slots=sum(node.slots for node in up),
            memory_bytes=sum(node.memory_bytes for node in up),
        )
        self.capacity = live_routing.Capacity(limits, present, "; ".join(away))

    def unplaceable_reason(self, route: core.Route) -> str:
        """Return why a route fits none of the nodes that are up; "" if it fits, or if no node is
        up."""
        capacity = self.capacity
        pool = self.pools.get(views.base_of(route.pool) or route.pool)
        if capacity.is_whole or pool is None or pool.is_exclusive:
            return ""
        return live_routing.unplaceable_reason(capacity, pool.spec, route)

    def reroute(self, route: core.Route) -> core.Route:
        """Return the route, on this start's pools and nodes, of a task accepted before. Raises
        ConfigError."""
        cached = self._rerouted.get(route)
        if cached is None:
            pools = tuple(pool.spec for pool in self.pools.values() if not pool.base)
            cached = self._rerouted[route] = live_routing.reroute_after_restart(
                route, pools, self.limits
            )
        return cached

    def pool_of(self, route: core.Route) -> state_pools.Pool:
        """Return the pool in which a task waits; a pool of several ranks is made on demand."""
        pool = self.pools.get(route.pool)
        if pool is None:
            base = self.pools[views.base_of(route.pool)]
            pool = state_pools.Pool(
                state_pools.gang_spec(base.spec, route.ranks, self.limits), base.spec.name
            )
            self._open(pool)
        return pool

    @property
    def accounts(self) -> AccountTree:
        return self.fair_share.tree

    @property
    def billing(self) -> Billing:
        return self.fair_share.billing

    @property
    def remembers_usage(self) -> bool:
        """True if usage decides the order of tasks, and is to be stored."""
        return bool(self.accounts) or any(pool.queue.is_shared for pool in self.pools.values())

    def set_accounts(self, tree: AccountTree, billing: Billing, qos: Mapping[str, Qos]) -> None:
        """Replace accounts, weights of billing units and classes of service. With accounts, pools
        without a policy of their own have the policy `fair_share`."""
        self.qos = qos
        self.fair_share.set(tree, billing)
        self.controls.has_accounts = bool(tree)
        self.quotas.set_accounts([account.limits for account in tree.accounts.values()])
        for pool in self.pools.values():
            self._bill(pool)
            pool.queue.arrange(self.controls.queue_policy(pool.device))

    def _bill(self, pool: state_pools.Pool) -> None:
        """Set the billing units of a microsecond of expected work in a pool."""
        weights, spec = self.fair_share.billing, pool.spec
        each = weights.slot_s + weights.gpu_s * pool.rank_gpus
        on_device = weights.device_s.get(pool.device, 0.0) if spec.pace or spec.provider else 0.0
        pool.meters.clear()
        pool.queue.rate = (each * max(1, spec.ranks) + on_device) / 1e6

    def _open(self, pool: state_pools.Pool) -> None:
        self.pools[pool.spec.name] = pool
        pool.queue.fair_share = self.fair_share
        self._bill(pool)
        if pool.spec.pace:
            lookahead_ns = 0 if pool.spec.drift else device_state.LOOKAHEAD_NS
            self.paced.all.setdefault(pool.device, device_state.PacedDevice(lookahead_ns))
        pool.queue.arrange(self.controls.queue_policy(pool.device))
        if pool.spec.ranks > 1:
            self.gangs.append(pool)

    def close_pool(self, pool: state_pools.Pool) -> None:
        """Remove a pool made on demand that has no tasks and no workers."""
        del self.pools[pool.spec.name]
        self.gangs.remove(pool)
        self.nodes.forget_slot_claims()  # waiting tasks claim again

    def finalize(self, record: core.TaskRecord, state: TaskState) -> None:
        """Record that a task became final in this state."""
        self.ended[state] += 1
        self.forget_task(record)
        if self.dependencies.by_parent:
            self.dependencies.parent_ended(record.number, state)

    def finalize_many(self, records: list[core.TaskRecord], states: list[TaskState]) -> None:
        """Record that tasks became final, each in its state."""
        first, batch = 0, None
        running = 0
        for index, record in enumerate(records):
            running += record.phase in core.RUNS
            record.phase = core.FINAL
            if record.batch is not batch:
                self._drop_from_indexes(records[first:index])
                first, batch = index, record.batch
        self._drop_from_indexes(records[first:])
        self.running -= running
        for state in set(states):
            self.ended[state] += states.count(state)
        if self.dependencies.by_parent:
            for record, state in zip(records, states, strict=True):
                self.dependencies.parent_ended(record.number, state)

    def forget_task(self, record: core.TaskRecord) -> None:
        """Drop a task; its entries in lanes are stale from now on."""
        self.running -= record.phase in core.RUNS
        if record.phase not in core.UNSENT:
            self.release_units(record)
        record.phase = core.FINAL
        if self.dependencies.by_task:
            self.dependencies.drop(record.number)
        self._drop_from_indexes([record])

    def _drop_from_indexes(self, records: list[core.TaskRecord]) -> None:
        """Remove tasks of one batch from the indexes by owner, account, crash incident and
        reservation."""
        if not records:
            return
        batch = records[0].batch
        size_bytes = batch.share_bytes * len(records) or sum(r.size_bytes for r in records)
        self.queued_bytes -= size_bytes
        if batch.owner:
            self.tasks_by_owner.drop(batch.owner, records, size_bytes)
        if batch.account or batch.qos:
            self.use_by_association.drop(batch, len(records), size_bytes)
        reserved = bool(self.reservations.by_task)
        if not (reserved or self.incidents.has_suspects):
            return
        for record in records:
            if record.incident:
                self.incidents.clear_suspect(record)
            if reserved:
                self.reservations.settle(record.number, 0)  # those that ran were settled before

    def release_units(self, record: core.TaskRecord) -> None:
        """Count the expected billing units of an assigned task no more."""
        pool = self.pools.get(record.route.pool)
        if pool is not None:
            self.fair_share.ended(record.batch.association, 1, pool.queue.units(record))

    def charge_ended(
        self,
        pool: state_pools.Pool,
        batch: core.SubmitBatch,
        count: int,
        cost_us: float,
        units: float,
    ) -> None:
        """Charge ended tasks of one batch. `cost_us`: their expected work; `units`: what they
        used."""
        expected = cost_us * pool.queue.rate * batch.usage_factor
        self.fair_share.ended(batch.association, count, expected, units)

    def meter(self, record: core.TaskRecord, slots: int) -> state_pools.Meter:
        """Return what attempts like this one use on `slots` of each rank."""
        route, factor = record.route, record.batch.usage_factor
        key = route.ranks, route.memory_bytes, slots, factor
        return self.meter_of(self.pools[route.pool], key)

    def meter_of(
        self, pool: state_pools.Pool, key: tuple[int, int, int, float]
    ) -> state_pools.Meter:
        """Return what ranks with so many bytes and slots use, in a class with this factor."""
        if key not in pool.meters:
            if len(pool.meters) >= MAX_METERS:
                pool.meters.clear()
            pool.meters[key] = state_pools.Meter(pool, self.fair_share.billing, *key)
        return pool.meters[key]

    def reserving_owners(self) -> set[str]:
        """Return the owners of reservations that last, and of planned ones."""
        planned = {each.owner for each in self.calendar.entries.values() if each.ask is not None}
        return planned | {each.grant.owner for each in self.reservations.live.values()}

    def grace_ns(self, record: core.TaskRecord) -> int:
        """Return the time in ns within which a worker must stop a task after a stop request."""
        held = self.pools[record.route.pool].is_exclusive
        return task_index.HARDWARE_GRACE_NS if held else task_index.STOP_GRACE_NS

    def worker_became_idle(self, worker: state_pools.Worker, now_ns: int) -> None:
        """Release the resources granted to a worker that holds no task any more."""
        self.release_resources(worker)
        worker.overrun_us = 0.0
        if worker.kept_bytes:
            end_ns = worker.kept_until_ns or now_ns + round(worker.kept_s * 1e9) + KEPT_MARGIN_NS
            worker.kept_until_ns = max(end_ns, now_ns + KEPT_MARGIN_NS)
        worker.held_us = 0.0
        if worker.ranks > 1:
            self.gang_ended_ns = now_ns
        if worker.state == WorkerState.BUSY:
            self.pools[worker.pool].move(worker, WorkerState.IDLE)
            worker.since_ns = now_ns
            if worker.leaving:
                self.begin_retirement(worker, worker.leaving, now_ns)
            for (pool, _), found in self.candidates.items():
                found.changed_on(worker.host, pool, worker)

    def begin_retirement(self, worker: state_pools.Worker, reason: str, now_ns: int) -> None:
        """Stop assigning tasks to this idle worker; the next tick returns its RetireWorker."""
        self.pools[worker.pool].leave(worker, reason)
        self.release_from_reservation(worker)
        self._drain(worker, now_ns)
        self.deferred_actions.append(core.RetireWorker(worker.name, reason, worker.start))

    def kill(self, worker: state_pools.Worker, reason: str) -> list[core.Action]:
        """End a worker's processes; no task is charged with its loss."""
        worker.killed = reason
        return [core.KillWorker(worker.name, reason, worker.start)]

    def retire(self, worker: state_pools.Worker, reason: str, now_ns: int) -> list[core.Action]:
        """Assign nothing more to a worker; it ends when it holds no task, at once if it is idle."""
        self.pools[worker.pool].leave(worker, worker.leaving or reason)
        self.release_from_reservation(worker)
        if worker.state != WorkerState.IDLE:
            return []
        self._drain(worker, now_ns)
        return [core.RetireWorker(worker.name, worker.leaving, worker.start)]

    def _drain(self, worker: state_pools.Worker, now_ns: int) -> None:
        self.pools[worker.pool].move(worker, WorkerState.DRAINING)
        worker.since_ns = now_ns

    def release_from_reservation(self, worker: state_pools.Worker) -> None:
        """Take a worker from its reservation; an idle one releases its slot. Its task runs on: what
        of it the reservation has paid is not charged again."""
        first, number = next(iter(worker.held.values()), None), worker.reservation_id
        if first and first.phase == core.RUNNING and first.batch.terms.reservation == number != 0:
            since_ns = max(first.started_ns, worker.reserved_since_ns)
            _, on_device_ns = first.prepaid or (0, 0)
            first.prepaid = max(0, worker.counted_ns - since_ns) // 1000, on_device_ns
        self.pools[worker.pool].dedicate(worker, 0)
        if worker.slots and not worker.held:
            self.release_resources(worker)

    def release_resources(self, worker: state_pools.Worker) -> None:
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

    def release_kept_states(self, worker: state_pools.Worker) -> None:
        """Free the memory granted to states that a worker keeps between tasks."""
        worker.host.free_memory += worker.kept_bytes
        worker.kept_bytes = worker.kept_until_ns = 0
        self.state_keepers.pop(worker.name, None)
        worker.kept_owner, worker.kept_s = "", 0.0

    def remove_worker(self, worker: state_pools.Worker) -> None:
        """Remove a worker that is gone and free all its resources."""
        del self.workers[worker.name]
        pool = self.pools[worker.pool]
        pool.remove(worker)
        for host, _ in worker.host_ranks:
            del host.workers[worker.name]
        pool.assigned -= len(worker.held)
        worker.held = {}
        self.release_resources(worker)
        self.release_kept_states(worker)
        state_pools.vacate(worker.host_ranks, worker.reserved, bool(pool.base))
        for place, gpus in state_pools.gpus_by_host(worker.host_ranks, worker.gpus):
            place.return_gpus(gpus)


def check_device(state: SchedulerState, device: str) -> None:
    """Raise NotFoundError if there is no device of that name."""
    names = [name for name, pool in state.pools.items() if not pool.base]
    if device and device not in names:
        hint = f"pools: {', '.join(names)}; '' for all together"
        raise NotFoundError(f"there is no device {device[:64]!r}", hint=hint)


def pools_of(state: SchedulerState, device: str) -> list[state_pools.Pool]:
    return [pool for pool in state.pools.values() if device in ("", pool.device)]


def inflight_limit(state: SchedulerState, device: str) -> int:
    """Return the most tasks that the workers of a device may hold at a time; 0: no limit."""
    depth = state.reservations.terms(device).profile.max_provider_queue_depth
    return min((n for n in (state.controls.of(device).max_inflight, depth) if n), default=0)


def refresh_assignable_tasks(state: SchedulerState) -> None:
    """Recompute how many tasks may be assigned to the workers of each device."""
    state.controls.set_assignable_tasks(
        {
            device: limit - sum(inflight(state, device)) if limit else core.UNLIMITED
            for device in {*state.controls.all, *state.reservations.devices}
            for limit in (inflight_limit(state, device),)
        }
    )


def inflight(state: SchedulerState, device: str) -> tuple[int, int]:
    """Return the numbers of tasks that the workers of a device hold: not started, and running."""
    held = [
        record
        for pool in pools_of(state, device)
        for worker in pool.workers.values()
        for record in worker.held.values()
    ]
    running = sum(record.phase == core.Phase.RUNNING for record in held)
    return len(held) - running, running


def parked(state: SchedulerState, device: str) -> int:
    """Return the number of parked tasks of a device, including tasks whose pool does not exist
    yet."""
    counts = [each.parked_in for each in state.reservations.all.values() if each.parked]
    return sum(
        count
        for by_pool in counts
        for name, count in by_pool.items()
        if device in ("", views.base_of(name) or name)
    )


def of_owner(state: SchedulerState, owner: str, kept_bytes: int = 0) -> OwnerUse:
    """Return the use of one owner; `kept_bytes`: size of stored results, which the scheduler does
    not count."""
    live = [
        reservation
        for reservation in state.reservations.live.values()
        if reservation.grant.owner == owner
    ]
    return msgspec.structs.replace(
        of_queue(state, owner),
        running_slots=running_slots(state).get(owner, 0),
        kept_bytes=kept_bytes,
        state_bytes=state_bytes(state, owner),
        reservations=len(live),
        reserved_workers=sum(reservation.grant.ask.workers for reservation in live),
    )


def of_queue(state: SchedulerState, owner: str) -> OwnerUse:
    """Return the number of unfinished tasks of an owner and their bytes."""
    if owner:
        return OwnerUse(len(state.tasks_by_owner.of(owner)), state.tasks_by_owner.bytes_of(owner))
    own = len(state.tasks) - state.tasks_by_owner.count  # tasks of the environment's own user
    return OwnerUse(own, state.queued_bytes - state.tasks_by_owner.all_bytes)


def running_slots(state: SchedulerState) -> dict[str, int]:
    """Return the slots granted to the tasks of each owner, see `state_pools.served`."""
    slots: dict[str, int] = {}
    for worker in state.workers.values():
        if worker.slots:
            for owner in {batch.owner for batch in state_pools.served(worker)}:
                slots[owner] = slots.get(owner, 0) + worker.slots
    return slots


def state_bytes(state: SchedulerState, owner: str) -> int:
    """Return the memory granted to states between the parts of an owner's circuits."""
    return sum(w.kept_bytes for w in state.state_keepers.values() if w.kept_owner == owner)


def slots_left(state: SchedulerState, leaf: str) -> int:
    """Return how many more slots the tasks of an association may be granted."""
    limits = slot_limits(state, leaf)
    return left_of(limits, _used_slots(state) if limits else {})


def left_of(limits: owner_quotas.SlotLimits, used: Mapping[str, int]) -> int:
    """Return how many of the slots within these limits are left; `used`: by user and account."""
    left = (max(0, limit - used.get(node, 0)) for node, limit in limits)
    return min(left, default=core.UNLIMITED)


def _used_slots(state: SchedulerState) -> dict[str, int]:
    """Return the slots granted to the tasks of each user, as @NAME, and account with a limit."""
    used: dict[str, int] = {}
    for worker in (each for pool in state.pools.values() for each in pool.busy_workers.values()):
        served = (slot_limits(state, batch.association) for batch in state_pools.served(worker))
        for node, _ in {each for limits in served for each in limits}:
            used[node] = used.get(node, 0) + worker.slots
    return used


def slot_limits(state: SchedulerState, leaf: str) -> owner_quotas.SlotLimits:
    """Return the limits of running slots of an association's user and accounts."""
    known = state.quotas.slot_limits
    if leaf not in known:
        owner, accounts = state.fair_share.user(leaf), state.fair_share.tree.accounts
        limits = {f"@{owner}": state.quotas.of(owner).max_running_slots}
        for each in state.fair_share.path(leaf)[:-1]:
            if each in accounts:
                limits[each] = accounts[each].limits.get(_SLOTS, 0)
        known[leaf] = tuple((node, limit) for node, limit in limits.items() if limit)
        for node, limit in known[leaf]:
            state.quotas.limited.setdefault(node, (limit, set()))[1].add(leaf)
    return known[leaf]


def used_up_budgets(state: SchedulerState, now_ns: int) -> set[str]:
    """Return the accounts whose budget the running tasks will use up: each counts with the billing
    units that were forecast for it, or with those of its time so far if they are more."""
    left = dict(state.quotas.budgets_left)
    for worker in state.workers.values() if left else ():
        if worker.reservation_id:  # whose time is charged in any case
            continue
        for record in worker.held.values():
            units = record.batch.units
            if record.phase == core.RUNNING:
                units *= max(1.0, (now_ns - record.started_ns) / 1e3 / max(1.0, record.cost_us))
            for account in state.accounts.path(record.batch.account):
                if account in left:
                    left[account] -= units
    return {account for account, units in left.items() if units <= 0.0}


def is_budget_used_up(state: SchedulerState, leaf: str, used_up: set[str]) -> bool:
    """Return whether the budget of one of an association's accounts is among those that are used
    up. Associations with tasks under a reservation that has workers are exempt: its time is charged
    in any case."""
    return not used_up.isdisjoint(state.fair_share.path(leaf)[:-1]) and not any(
        use.reservation in state.dedicated.all and use.association == leaf
        for use in state.use_by_association
    )


def refresh_held_back(state: SchedulerState, now_ns: int) -> None:
    """Set, for each queue, the associations whose tasks may not start: their users are removed, the
    budget of one of their accounts is used up, or they would pass a limit of running slots of their
    user or of one of their accounts."""
    used, quotas, user_of = _used_slots(state), state.quotas, state.fair_share.user
    used_up = used_up_budgets(state, now_ns)
    for pool in state.pools.values():
        waiting = pool.queue.associations()
        for leaf in waiting.difference(quotas.slot_limits):
            slot_limits(state, leaf)
        held = {leaf for leaf in waiting if quotas.removed and user_of(leaf) in quotas.removed}
        if used_up:
            held |= {leaf for leaf in waiting if is_budget_used_up(state, leaf, used_up)}
        for node, (limit, leaves) in quotas.limited.items():
            if used.get(node, 0) + pool.spec.ranks > limit:
                held |= leaves & waiting
        pool.queue.hold_back(frozenset(held))
