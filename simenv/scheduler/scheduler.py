"""Scheduler: its state, the events that change the state, and the decisions that follow.

A pure state machine without clock, I/O or randomness: times are arguments, in monotonic nanoseconds
unless a name says `wall_ns`. Events and decisions return actions, which the caller executes in
their order. The invariants that `scheduler_invariants` of the tests checks hold after every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from simenv import model
from simenv.model import WorkerState
from simenv.model.accounts import AccountTree, Billing, Qos
from simenv.scheduler.core import Action, ClusterLimits, RecordEvent
from simenv.scheduler.dispatch import (
    dedicated_workers,
    dispatcher,
    gang_scheduling,
    kept_states,
    preemption,
)
from simenv.scheduler.events import (
    calendar,
    devices,
    jobs,
    reservations,
    results,
    stops,
    submission,
    workers,
)
from simenv.scheduler.reservations.circuit_times import DeviceFigures, DeviceTimes
from simenv.scheduler.reservations.ledger import StoredReservations
from simenv.scheduler.scaling import workers as scaling
from simenv.scheduler.state import device_controls, paced_devices, scheduler_state

P = ParamSpec("P")
R = TypeVar("R")


class SchedulerEvent(Generic[P, R]):
    """Method of `Scheduler` that calls a function of `events` with the scheduler's state. The
    function is bound to the state itself, once for each scheduler, so that an event is one call."""

    def __init__(
        self, function: Callable[Concatenate[scheduler_state.SchedulerState, P], R]
    ) -> None:
        self._function = function
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(
        self, scheduler: None, owner: type
    ) -> Callable[Concatenate[scheduler_state.SchedulerState, P], R]: ...

    @overload
    def __get__(self, scheduler: Scheduler, owner: type) -> Callable[P, R]: ...

    def __get__(self, scheduler: Scheduler | None, owner: type) -> Callable[..., R]:
        if scheduler is None:
            return self._function
        method = cast("Callable[..., R]", MethodType(self._function, scheduler.state))
        vars(scheduler)[self._name] = method  # found before this descriptor from now on
        return method


class Scheduler:
    """Events and decisions of one `SchedulerState`, which callers read and never write."""

    def __init__(
        self,
        pools: tuple[model.PoolSpec, ...],
        limits: ClusterLimits,
        epoch: int,
        next_task: int = 1,
        figures: Callable[[str], DeviceFigures | None] | None = None,
    ) -> None:
        """Create the state. `figures`: of a pool's machine or emulated device; None: reservations
        use default circuit times."""
        self.state = state = scheduler_state.SchedulerState(pools, limits, epoch, next_task)
        if figures is not None:
            state.reservations.times = DeviceTimes(pools, state.estimator, figures)

    def restore_controls(
        self, stored: StoredReservations, controls: Mapping[str, device_controls.DeviceControl]
    ) -> list[Action]:
        """Restore reservations and device controls, before tasks are restored."""
        for device, control in controls.items():
            devices.restore_control(self.state, device, control)
        reservations.restore(self.state, stored)
        devices.refresh_restrictions(self.state)
        return []

    def set_clock(self, wall_ns: int, now_ns: int) -> list[Action]:
        """Relate the wall clock to the monotonic clock; the first event of a start of the
        service."""
        devices.set_clock(self.state, wall_ns, now_ns)
        return []

    def restore_paced(self, stored: Mapping[int, paced_devices.StoredRun]) -> list[Action]:
        """Restore the runs of paced devices, after tasks are restored."""
        devices.restore_runs(self.state, stored)
        return []

    def finish_restore(self, next_task: int) -> list[Action]:
        """Complete a restart: all unfinished tasks are restored. `next_task`: the first unused
        number."""
        self.state.tasks.next_number = max(self.state.tasks.next_number, next_task)
        reservations.finish_restore(self.state)
        return []

    submit = SchedulerEvent(submission.submit)
    rollback_submit = SchedulerEvent(submission.rollback_submit)
    results_arrived = SchedulerEvent(results.results_arrived)
    tasks_finished = SchedulerEvent(results.tasks_finished)
    cancel = SchedulerEvent(stops.cancel)
    end_early = SchedulerEvent(stops.end_early)

    def reopen(self, ended: Mapping[model.TaskState, int]) -> list[Action]:
        """Count tasks, by their final state, as unfinished: their results are lost."""
        for final, count in ended.items():
            self.state.tasks.ended[final] -= count
        return []

    worker_joined = SchedulerEvent(workers.worker_joined)
    task_started = SchedulerEvent(workers.task_started)
    chunk_sent = SchedulerEvent(workers.chunk_sent)
    heartbeat_received = SchedulerEvent(workers.heartbeat_received)
    worker_unusable = SchedulerEvent(workers.worker_unusable)
    worker_lost = SchedulerEvent(workers.worker_lost)
    worker_measured = SchedulerEvent(workers.worker_measured)
    worker_over_disk = SchedulerEvent(workers.worker_over_disk)
    worker_distrusted = SchedulerEvent(workers.worker_distrusted)
    service_memory = SchedulerEvent(workers.service_memory)

    def kernels_compiled(self, compiled: bool) -> list[Action]:
        """Record whether all kernels are compiled. If not, tasks that may compile some count as
        long, and leave one worker of their pool to others."""
        self.state.estimator.kernels_compiled = compiled
        return []

    scale = SchedulerEvent(workers.scale)
    drain_node = SchedulerEvent(workers.drain_node)
    resume = SchedulerEvent(workers.resume)
    node_lost = SchedulerEvent(workers.node_lost)
    node_back = SchedulerEvent(workers.node_back)
    launcher_lost = SchedulerEvent(workers.launcher_lost)
    launcher_started = SchedulerEvent(workers.launcher_started)
    job_listed = SchedulerEvent(jobs.job_listed)
    job_refused = SchedulerEvent(jobs.job_refused)
    node_joined = SchedulerEvent(jobs.node_joined)
    node_leaving = SchedulerEvent(jobs.node_leaving)
    job_over = SchedulerEvent(jobs.job_over)

    device_described = SchedulerEvent(devices.device_described)
    set_device_state = SchedulerEvent(devices.set_device_state)
    set_max_inflight = SchedulerEvent(devices.set_max_inflight)
    set_queue_policy = SchedulerEvent(devices.set_queue_policy)
    set_profile = SchedulerEvent(devices.set_profile)
    set_admission_policy = SchedulerEvent(devices.set_admission_policy)

    def begin_outage(self, device: str, begun_wall_ns: int | None) -> list[Action]:
        """Begin an outage: the device starts nothing more. Tasks that it runs at `begun_wall_ns`
        run again after the outage; None: they continue."""
        offset_ns = self.state.devices.paced.offset_ns
        begun_ns = None if begun_wall_ns is None else begun_wall_ns - offset_ns
        return devices.begin_outage(self.state, device, begun_ns)

    def end_outage(self, device: str) -> list[Action]:
        """End an outage: the device starts tasks again."""
        self.state.devices.outages.discard(device)
        return []

    reserve = SchedulerEvent(reservations.reserve)
    renew_reservation = SchedulerEvent(reservations.renew_reservation)
    close_reservation = SchedulerEvent(reservations.close_reservation)
    charge_reserved = SchedulerEvent(dedicated_workers.charge_reserved)

    def set_owner_limits(
        self, table: Mapping[str, model.Limits], default: model.Limits
    ) -> list[Action]:
        """Replace the limits of owners; `default`: limits of owners that are not in the table."""
        self.state.shares.limits.set_owners(table, default)
        return []

    def hold_removed(self, owners: frozenset[str]) -> list[Action]:
        """Start no waiting tasks of these users, and of all others, from now on."""
        self.state.shares.limits.changed |= owners != self.state.shares.limits.removed
        self.state.shares.limits.removed = owners
        return []

    def set_accounts(
        self, tree: AccountTree, billing: Billing, qos: Mapping[str, Qos]
    ) -> list[Action]:
        """Replace the accounts, the weights of billing units and the classes of service."""
        self.state.set_accounts(tree, billing, qos)
        reservations.set_default_accounts(self.state)
        return []

    def dispatch(
        self, now_ns: int, accepted: int = 0, budgets_left: Mapping[str, float] | None = None
    ) -> list[Action]:
        """Release tasks that reservations and parents no longer hold, then assign waiting tasks to
        workers. `accepted`: tasks whose clients are answered after this pass: of many, few are
        assigned before. `budgets_left`: billing units of this month that are not spent, by account
        with a budget."""
        state = self.state
        state.shares.limits.budgets_left = budgets_left or {}
        state.shares.fair_share.at(now_ns)
        is_awaited = accepted > dispatcher.FIRST_ASSIGNS
        state.dispatch.assigns_left = dispatcher.FIRST_ASSIGNS if is_awaited else dispatcher.ASSIGNS
        actions: list[Action] = (
            [*devices.end_due_runs(state, now_ns)] if state.devices.paced else []
        )
        ledger = state.reservations
        if ledger.emptying:
            actions += reservations.cancel_parked(state, now_ns)
        if ledger.freed:
            actions += reservations.release_parked(state, now_ns)
        if state.tasks.dependencies.ready:
            submission.release_children(state, now_ns)
        if not state.draining:
            actions += dispatcher.assign(state, now_ns)
            dispatcher.note_waits(state, now_ns)
        return actions

    def worker_starts(self, name: str, start: int, since_ns: int) -> list[Action]:
        """Note since when a worker that starts makes no progress, less the time in which the
        machine kept it waiting."""
        worker = self.state.cluster.workers.get(name)
        if worker is not None and worker.start == start and worker.state is WorkerState.STARTING:
            worker.heard_ns = max(worker.heard_ns, since_ns)
        return []

    def tick(self, now_ns: int, read_ns: int | None = None) -> list[Action]:
        """Handle the passage of time: enforce timeouts, end tasks after failed parents, detect
        silent workers, resize pools. `read_ns`: all messages that came before are handled; None:
        all are."""
        state = self.state
        if state.was_suspended(now_ns):
            for worker in state.cluster.workers.values():  # heartbeats could not be received
                worker.heard_ns = now_ns
        state.last_tick_ns, state.cluster.lacks_workers = now_ns, False
        actions, state.deferred_actions = state.deferred_actions, []
        if state.dedicated:
            least_us = dedicated_workers.CHARGED_US
            actions += dedicated_workers.charge_reserved(state, now_ns, least_us)
        actions += stops.end_overdue(state, now_ns)
        kept_states.expire(state, now_ns)
        if state.tasks.dependencies.failed:
            actions += stops.end_failed(state, now_ns)
        heard_ns = now_ns if read_ns is None else min(now_ns, read_ns)
        actions += workers.detect_silent_nodes(state, heard_ns)
        if not state.draining:
            actions += gang_scheduling.return_slots(state, now_ns)
            actions += kept_states.reclaim(state)
            preemption.count_overruns(state, now_ns)
            actions += preemption.preempt(state, now_ns)
            actions += scaling.resize(state, now_ns)
        return actions

    def wall_clock_tick(self, wall_ns: int, now_ns: int) -> list[Action]:
        """Handle the passage of wall-clock time: expire reservations, complete drains of devices,
        begin and end maintenance."""
        actions = reservations.expire(self.state, wall_ns, now_ns)
        actions += devices.complete_drains(self.state, wall_ns)
        return actions + calendar.advance_calendar(self.state, wall_ns, now_ns)

    def begin_drain(self, environment: str, now_ns: int) -> list[Action]:
        """Stop assigning and starting, because the service is shutting down."""
        if self.state.draining:
            return []
        charges = self.charge_reserved(now_ns)
        self.state.draining = True
        running = f"{self.state.tasks.running} running"
        return [*charges, RecordEvent("service.draining", environment, running)]
