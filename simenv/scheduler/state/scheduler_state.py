"""Data of the scheduler, by its owners, and the bookkeeping that concerns several of them.

Owners: `TaskTable` (tasks), `ClusterState` (nodes, pools, workers), `DeviceStates`, `ShareState`
(usage, limits, prices of users and accounts), `ReservationLedger`, `Calendar`.
`scheduler_invariants` of the tests checks the invariants of all. Only modules of
`simenv.scheduler` write to them; the service reads.

Pools, limits and task counts of one device: a pool with the pools made on demand for it. The device
"" is all pools together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import msgspec

from simenv.model import PoolSpec, ResourceUse, TaskState, WorkerState
from simenv.model.accounts import AccountTree, Billing, Qos, WaitReason
from simenv.model.views import base_of
from simenv.scheduler import core
from simenv.scheduler.reservations.ledger import ReservationLedger
from simenv.scheduler.reservations.reservation import DedicatedWorkers
from simenv.scheduler.state import (
    devices,
    nodes as state_nodes,
    paced_devices,
    pools as state_pools,
)
from simenv.scheduler.state.cluster import ClusterState
from simenv.scheduler.state.dispatch_state import DispatchState
from simenv.scheduler.state.maintenance import Calendar
from simenv.scheduler.state.shares import ShareState
from simenv.scheduler.state.task_table import TaskTable

SUSPENDED_NS = 3_000_000_000  # a longer gap between ticks means that the service was suspended
MAX_CUT_OFF = 5  # workers that say so, whose losses are not charged to a task
KEPT_MARGIN_NS = 2_000_000_000  # margin between the drop of a kept state and the end of its grant


class SchedulerState:
    """State of one environment. `epoch` is the high part of every fence, `next_task` the number of
    the next task to be accepted."""

    def __init__(
        self,
        pools: tuple[PoolSpec, ...],
        limits: core.ClusterLimits,
        epoch: int,
        next_task: int = 1,
    ) -> None:
        self.limits = limits
        self.epoch = epoch
        # Time after which no task may run, by the monotonic clock: the end of the allocation, less
        # a margin, or the next maintenance of all nodes; 0: never.
        self.closing_ns = max(0, limits.end_ns - core.END_MARGIN_NS) if limits.end_ns else 0
        self.draining = False
        self.service_bytes = 0  # resident memory of the service
        self.lacks_memory = False  # the service uses more than its limit, and takes no tasks
        self.last_tick_ns = 0
        self.deferred_actions: list[core.Action] = []  # returned by the next tick
        self.tasks = TaskTable(next_task)
        self.cluster = ClusterState(limits, epoch)
        self.devices = devices.DeviceStates()
        self.shares = ShareState()
        self.reservations = ReservationLedger()
        self.dedicated = DedicatedWorkers()
        self.calendar = Calendar()
        self.estimator = core.Estimator()
        self.dispatch = DispatchState()
        for spec in pools:
            self._open(state_pools.Pool(spec))

    def copy(self, max_tasks: int) -> SchedulerState:
        """Return a copy for a forecast, in which a scheduler can go on once it has `own_tasks`: of
        each pool with at least the first `max_tasks` tasks. Left out are tasks that wait for others
        or for units, deadlines, maintenance, and what is not stored yet.

        Takes some microseconds for each worker and node, and hardly any for a task."""
        result = SchedulerState((), self.limits, self.epoch, self.tasks.next_number)
        result.draining, result.last_tick_ns = self.draining, self.last_tick_ns
        result.shares = self.shares.copy()
        result.cluster = self.cluster.copy(self.epoch, result.shares.fair_share, max_tasks)
        result.devices = self.devices.copy()
        result.reservations = self.reservations.copy_without_parked()
        result.dedicated = self.dedicated.copy()
        result.calendar = self.calendar.copy_reservations()
        result.estimator = self.estimator.copy()
        result.dispatch = self.dispatch.copy()
        return result

    def own_tasks(self, most: Mapping[str, int], pause: Callable[[], object]) -> None:
        """Replace the tasks of a copy by copies of them. `most`: waiting tasks of each pool; those
        behind them are left out. `pause` is called often. May be called in another thread than that
        of the copied state: tasks that have started since then are left out, and ones that have
        ended still run."""
        for pool in self.cluster.pools.values():
            pool.queue.own_tasks(self._own_waiting, most[pool.spec.name], pause)
        for worker in self.cluster.workers.values():
            pause()
            for number, each in worker.held.items():
                worker.held[number] = self._own_sent(each)
            for leaf, newest in list(worker.held.newest_of.items()):
                if newest.number in worker.held:
                    worker.held.newest_of[leaf] = worker.held[newest.number]
                else:
                    del worker.held.newest_of[leaf]
        for device in self.devices.paced.all.values():
            for number, run in list(device.runs.items()):
                if number in self.devices.paced.held:
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
            self.tasks.count_in(records)
        for reservation in self.reservations.all.values():
            held = reservation.holds.items()
            reservation.holds = {number: units for number, units in held if number in self.tasks}
        self.tasks.running = sum(record.phase in core.RUNS for record in self.tasks.values())

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
        return bool(self.devices.paced.held) or any(
            pool.workers.busy for pool in self.cluster.pools.values()
        )

    @property
    def is_active(self) -> bool:
        """True if the next tick should come soon: actions are deferred, tasks are to be ended, or
        workers run, start or end."""
        return bool(
            self.deferred_actions or self.tasks.dependencies.failed or self.devices.paced.held
        ) or any(pool.workers.is_active for pool in self.cluster.pools.values())

    def was_suspended(self, now_ns: int) -> bool:
        """Return whether nothing was received since the last tick, too long ago."""
        return bool(self.last_tick_ns) and now_ns - self.last_tick_ns > SUSPENDED_NS

    def allocation_ends(self, now_ns: int) -> bool:
        """Return whether the end of the allocation is so near that the service should drain."""
        end_ns = self.limits.end_ns
        return bool(end_ns) and now_ns >= end_ns - core.END_MARGIN_NS

    # --- pools and devices ------------------------------------------------------------------------

    def pool_of(self, route: core.Route) -> state_pools.Pool:
        """Return the pool in which a task waits; a pool of several ranks is made on demand."""
        pool = self.cluster.pools.get(route.pool)
        if pool is None:
            base = self.cluster.pools[base_of(route.pool)]
            pool = state_pools.Pool(
                state_pools.gang_spec(base.spec, route.ranks, self.limits), base.spec.name
            )
            self._open(pool)
        return pool

    def _open(self, pool: state_pools.Pool) -> None:
        self.cluster.pools[pool.spec.name] = pool
        pool.queue.fair_share = self.shares.fair_share
        self.shares.set_rate(pool)
        if pool.spec.pace:
            lookahead_ns = 0 if pool.spec.drift else paced_devices.LOOKAHEAD_NS
            paced = self.devices.paced.all
            paced.setdefault(pool.device, paced_devices.PacedDevice(lookahead_ns))
        pool.queue.arrange(self.devices.controls.queue_policy(pool.device))
        if pool.spec.ranks > 1:
            self.cluster.gangs.append(pool)

    def set_accounts(self, tree: AccountTree, billing: Billing, qos: Mapping[str, Qos]) -> None:
        """Replace accounts, weights of billing units and classes of service. With accounts, pools
        without a policy of their own have the policy `fair_share`."""
        self.shares.set_accounts(tree, billing, qos)
        self.devices.controls.has_accounts = bool(tree)
        for pool in self.cluster.pools.values():
            self.shares.set_rate(pool)
            pool.queue.arrange(self.devices.controls.queue_policy(pool.device))

    @property
    def remembers_usage(self) -> bool:
        """True if usage decides the order of tasks, and is to be stored."""
        return bool(self.shares.accounts) or any(
            pool.queue.is_shared for pool in self.cluster.pools.values()
        )

    def inflight_limit(self, device: str) -> int:
        """Return the most tasks that the workers of a device may hold at a time; 0: no limit."""
        depth = self.reservations.terms(device).profile.max_provider_queue_depth
        control = self.devices.controls.of(device)
        return min((n for n in (control.max_inflight, depth) if n), default=0)

    # --- tasks ------------------------------------------------------------------------------------

    def finalize(self, record: core.TaskRecord, state: TaskState) -> None:
        """Record that a task became final in this state."""
        self.tasks.ended[state] += 1
        self.forget_task(record)
        if self.tasks.dependencies.by_parent:
            self.tasks.dependencies.parent_ended(record.number, state)

    def finalize_many(self, records: list[core.TaskRecord], states: list[TaskState]) -> None:
        """Record that tasks became final, each in its state."""
        tasks = self.tasks
        first, batch = 0, None
        running = 0
        for index, record in enumerate(records):
            running += record.phase in core.RUNS
            record.phase = core.FINAL
            if record.batch is not batch:
                self._drop_from_indexes(records[first:index])
                first, batch = index, record.batch
        self._drop_from_indexes(records[first:])
        tasks.running -= running
        for state in set(states):
            tasks.ended[state] += states.count(state)
        if tasks.dependencies.by_parent:
            for record, state in zip(records, states, strict=True):
                tasks.dependencies.parent_ended(record.number, state)

    def forget_task(self, record: core.TaskRecord) -> None:
        """Drop a task; its entries in lanes are stale from now on."""
        self.tasks.running -= record.phase in core.RUNS
        if record.phase not in core.UNSENT:
            self.release_units(record)
        record.phase = core.FINAL
        if self.tasks.dependencies.by_task:
            self.tasks.dependencies.drop(record.number)
        self._drop_from_indexes([record])

    def _drop_from_indexes(self, records: list[core.TaskRecord]) -> None:
        """Remove tasks of one batch from the indexes, and from their reservation."""
        if records:
            self.tasks.drop_from_indexes(records)
            if self.reservations.by_task:
                for record in records:  # those that ran were settled before
                    self.reservations.settle(record.number, 0)

    def release_units(self, record: core.TaskRecord) -> None:
        """Count the expected billing units of an assigned task no more."""
        pool = self.cluster.pools.get(record.route.pool)
        if pool is not None:
            self.shares.fair_share.ended(record.batch.association, 1, pool.queue.units(record))

    # --- owners -----------------------------------------------------------------------------------

    def use_of(self, owner: str, kept_bytes: int = 0) -> ResourceUse:
        """Return the use of one owner; `kept_bytes`: size of stored results, which the scheduler
        does not count."""
        asks = [
            reservation.grant.ask
            for reservation in self.reservations.live.values()
            if reservation.grant.owner == owner
        ]
        return msgspec.structs.replace(
            self.tasks.use_of(owner),
            running_slots=self.cluster.running_slots().get(owner, 0),
            kept_bytes=kept_bytes,
            state_bytes=self.cluster.state_bytes(owner),
            reservations=len(asks),
            reserved_workers=sum(ask.workers for ask in asks),
        )

    def reserving_owners(self) -> set[str]:
        """Return the owners of reservations that last, and of planned ones."""
        planned = {each.owner for each in self.calendar.entries.values() if each.ask is not None}
        return planned | {each.grant.owner for each in self.reservations.live.values()}

    # --- workers ----------------------------------------------------------------------------------

    def worker_became_idle(self, worker: state_nodes.Worker, now_ns: int) -> None:
        """Release the resources granted to a worker that holds no task any more."""
        self.cluster.release_resources(worker)
        worker.held.overrun_us = 0.0
        if worker.kept.bytes:
            end_ns = (
                worker.kept.until_ns
                or now_ns + round(worker.kept.lifetime_s * 1e9) + KEPT_MARGIN_NS
            )
            worker.kept.until_ns = max(end_ns, now_ns + KEPT_MARGIN_NS)
        worker.held.cost_us = 0.0
        if worker.ranks > 1:
            self.dispatch.gang_ended_ns = now_ns
        if worker.state == WorkerState.BUSY:
            self.cluster.pools[worker.pool].workers.move(worker, WorkerState.IDLE)
            worker.since_ns = now_ns
            if worker.leaving:
                self.begin_retirement(worker, worker.leaving, now_ns)
            for (pool, _), found in self.dispatch.candidates.items():
                found.changed_on(worker.host, pool, worker)

    def begin_retirement(self, worker: state_nodes.Worker, reason: str, now_ns: int) -> None:
        """Stop assigning tasks to this idle worker; the next tick returns its RetireWorker."""
        self.deferred_actions += self.cluster.retire(worker, reason, now_ns)

    def may_be_cut_off(self, name: str, now_ns: int, quiet_ns: int) -> bool:
        """Return False if a worker that says that it lost the service cannot have: it holds tasks,
        and it was heard within `quiet_ns`, which a lease is longer than by a heartbeat at least; or
        if the first of them has lost MAX_CUT_OFF workers, which it may have silenced and ended."""
        worker, uncharged = self.cluster.workers.get(name), self.cluster.uncharged
        record = next(iter(worker.held.values()), None) if worker else uncharged.get(name)
        if record is None or self.was_suspended(now_ns):
            return True
        if sum(reason == WaitReason.LOST for reason, _ in record.waits) >= MAX_CUT_OFF:
            return False
        return worker is None or now_ns - worker.heard_ns > quiet_ns
