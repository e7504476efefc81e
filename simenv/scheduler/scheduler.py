"""Scheduler: one method for each event, which changes the state and returns actions.

A pure state machine without clock, I/O or randomness: times are arguments, in monotonic nanoseconds
unless a name says `wall_ns`. The caller executes the returned actions in their order. The
invariants that `scheduler_invariants` of the tests checks hold after every call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from simenv import model
from simenv.scheduler import scaling
from simenv.scheduler.core import Action, ClusterLimits, RecordEvent
from simenv.scheduler.dispatch import batching, dispatcher, gang_scheduling
from simenv.scheduler.events import devices, reservations, tasks, workers
from simenv.scheduler.reservations.circuit_times import DeviceFigures, DeviceTimes
from simenv.scheduler.reservations.ledger import StoredReservations
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.state import device_state, scheduler_state

SUSPENDED_NS = 3_000_000_000  # a longer gap between ticks means that the service was suspended


P = ParamSpec("P")
R = TypeVar("R")


def event(
    function: Callable[Concatenate[scheduler_state.SchedulerState, P], R],
) -> Callable[Concatenate[Scheduler, P], R]:
    """Return a method of `Scheduler` that calls a function of `events` with its state."""

    def method(self: Scheduler, /, *args: P.args, **named: P.kwargs) -> R:
        return function(self.state, *args, **named)

    functools.update_wrapper(method, function)
    return method


class Scheduler:
    """Event handlers of one `SchedulerState`, which callers read and never write."""

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

    # --- tasks ---------------------------------------------------------------------------------

    submit = event(tasks.submit)
    rollback_submit = event(tasks.rollback_submit)

    def reopen(self, ended: Mapping[model.TaskState, int]) -> list[Action]:
        """Count tasks, by their final state, as unfinished: their results are lost."""
        for final, count in ended.items():
            self.state.ended[final] -= count
        return []

    tasks_finished = event(tasks.tasks_finished)
    cancel = event(tasks.cancel)

    def dispatch(self, now_ns: int) -> list[Action]:
        """Release tasks that reservations and parents no longer hold, then assign waiting tasks to
        workers."""
        state = self.state
        actions: list[Action] = [*devices.end_due_runs(state, now_ns)] if state.paced else []
        ledger = state.reservations
        if ledger.emptying:
            actions += reservations.cancel_parked(state, now_ns)
        if ledger.freed:
            actions += reservations.release_parked(state, now_ns)
        if state.dependencies.ready:
            tasks.release_children(state, now_ns)
        if not state.draining:
            actions += dispatcher.assign(state, now_ns)
        return actions

    # --- workers -------------------------------------------------------------------------------

    worker_joined = event(workers.worker_joined)
    task_started = event(workers.task_started)
    heartbeat_received = event(workers.heartbeat_received)
    worker_unusable = event(workers.worker_unusable)
    worker_lost = event(workers.worker_lost)
    service_memory = event(workers.service_memory)

    def kernels_compiled(self, compiled: bool) -> list[Action]:
        """Record whether all kernels are compiled. If not, tasks that may compile some count as
        long, and leave one worker of their pool to others."""
        self.state.estimator.kernels_compiled = compiled
        return []

    # --- pools and nodes -----------------------------------------------------------------------

    scale = event(workers.scale)
    drain_node = event(workers.drain_node)
    resume = event(workers.resume)
    node_lost = event(workers.node_lost)
    node_back = event(workers.node_back)

    # --- devices -------------------------------------------------------------------------------

    device_described = event(devices.device_described)
    set_device_state = event(devices.set_device_state)
    set_max_inflight = event(devices.set_max_inflight)
    set_queue_policy = event(devices.set_queue_policy)
    set_profile = event(devices.set_profile)
    set_admission_policy = event(devices.set_admission_policy)

    def begin_outage(self, device: str, begun_wall_ns: int | None) -> list[Action]:
        """Begin an outage: the device starts nothing more.

        Tasks that it runs at `begun_wall_ns` run again after the outage; None: they continue.
        """
        offset_ns = self.state.paced.offset_ns
        begun_ns = None if begun_wall_ns is None else begun_wall_ns - offset_ns
        return devices.begin_outage(self.state, device, begun_ns)

    def end_outage(self, device: str) -> list[Action]:
        """End an outage: the device starts tasks again."""
        self.state.outages.discard(device)
        return []

    # --- reservations and owners ---------------------------------------------------------------

    reserve = event(reservations.reserve)
    renew_reservation = event(reservations.renew_reservation)

    def close_reservation(
        self,
        reservation: ReservationEntry,
        end_state: model.ReservationState,
        reason: str,
        wall_ns: int,
        now_ns: int,
    ) -> list[Action]:
        """End a reservation and its tasks that were never assigned; if `end_state` is CANCELLED,
        ask the others to stop."""
        state = self.state
        actions = reservations.close(state, reservation, end_state, reason, wall_ns, now_ns)
        return actions + reservations.cancel_parked(state, now_ns)

    def set_owner_limits(
        self, table: Mapping[str, model.OwnerLimits], default: model.OwnerLimits
    ) -> list[Action]:
        """Replace the limits of owners; `default`: limits of owners that are not in the table."""
        self.state.quotas.set(table, default)
        return []

    # --- restart -------------------------------------------------------------------------------

    def restore_controls(
        self, stored: StoredReservations, controls: Mapping[str, device_state.DeviceControl]
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

    def restore_paced(self, stored: Mapping[int, device_state.StoredRun]) -> list[Action]:
        """Restore the runs of paced devices, after tasks are restored."""
        devices.restore_runs(self.state, stored)
        return []

    def finish_restore(self, next_task: int) -> list[Action]:
        """Complete a restart: all unfinished tasks are restored. `next_task`: the first unused
        number."""
        self.state.next_task = max(self.state.next_task, next_task)
        reservations.finish_restore(self.state)
        return []

    # --- time ----------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[Action]:
        """Handle the passage of time: enforce timeouts, end tasks after failed parents, detect
        silent workers, resize pools."""
        state = self.state
        if state.last_tick_ns and now_ns - state.last_tick_ns > SUSPENDED_NS:
            for worker in state.workers.values():  # heartbeats could not be received
                worker.heard_ns = now_ns
        state.last_tick_ns = now_ns
        actions, state.deferred_actions = state.deferred_actions, []
        actions += tasks.end_overdue(state, now_ns)
        batching.expire(state, now_ns)
        if state.dependencies.failed:
            actions += tasks.end_failed(state, now_ns)
        actions += workers.detect_silent_nodes(state, now_ns)
        if not state.draining:
            actions += gang_scheduling.return_slots(state, now_ns)
            actions += batching.reclaim(state)
            actions += scaling.resize(state, now_ns)
        return actions

    def wall_clock_tick(self, wall_ns: int) -> list[Action]:
        """Handle the passage of wall-clock time: expire reservations, complete drains of
        devices."""
        return reservations.expire(self.state, wall_ns) + devices.complete_drains(
            self.state, wall_ns
        )

    def begin_drain(self, environment: str) -> list[Action]:
        """Stop assigning and starting, because the service is shutting down."""
        if self.state.draining:
            return []
        self.state.draining = True
        running = f"{self.state.running} running"
        return [RecordEvent("service.draining", environment, running)]
