"""Scheduler: one method for each event, which changes the state and returns actions.

A pure state machine without clock, I/O or randomness: times are arguments, in monotonic nanoseconds
unless a name says `wall_ns`. The caller executes the returned actions in their order. The
invariants that `scheduler_invariants` of the tests checks hold after every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simenv.model import (
    AdmissionPolicy,
    Decision,
    DeviceProfile,
    OwnerLimits,
    PoolSpec,
    ReservationRequest,
    ReservationState,
    TaskSpec,
    TaskState,
)
from simenv.model.devices import DeviceInfo
from simenv.scheduler.core.actions import Action, RecordEvent, TaskEnded
from simenv.scheduler.core.types import ClusterLimits, Route, SubmitBatch, WorkerHeartbeat
from simenv.scheduler.dispatch import dispatcher, kept_states, resizing
from simenv.scheduler.events import (
    dependencies,
    devices,
    memory,
    nodes,
    outages,
    paced,
    reservations,
    tasks,
    workers,
)
from simenv.scheduler.reservations.circuit_times import DeviceTimes
from simenv.scheduler.reservations.device_figures import DeviceFigures
from simenv.scheduler.reservations.ledger import StoredReservations
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scaling import autoscaler
from simenv.scheduler.state.device_controls import DeviceControl
from simenv.scheduler.state.paced import StoredRun
from simenv.scheduler.state.state import SchedulerState
from simenv.wire.messages.client import AttemptResult

SUSPENDED_NS = 3_000_000_000  # a longer gap between ticks means that the service was suspended


class Scheduler:
    """Event handlers of one `SchedulerState`, which callers read and never write."""

    def __init__(
        self,
        pools: tuple[PoolSpec, ...],
        limits: ClusterLimits,
        epoch: int,
        next_task: int = 1,
        figures: Callable[[str], DeviceFigures | None] | None = None,
    ) -> None:
        """Create the state. `figures`: of a pool's machine or emulated device; None: reservations
        use default circuit times."""
        self.state = state = SchedulerState(pools, limits, epoch, next_task)
        if figures is not None:
            state.reservations.times = DeviceTimes(pools, state.estimator, figures)

    # --- tasks ---------------------------------------------------------------------------------

    def submit(
        self,
        batch: SubmitBatch,
        specs: list[TaskSpec],
        routes: list[Route],
        units: list[int] | None = None,
    ) -> list[Action]:
        """Queue tasks with numbers from `batch.first`; their parents are unfinished or DONE.

        `units`: units of its reservation for each task; None: no reservation.
        """
        return tasks.submit(self.state, batch, specs, routes, None, units)

    def restore_tasks(
        self,
        batch: SubmitBatch,
        specs: list[TaskSpec],
        routes: list[Route],
        attempts: list[int],
        units: list[int] | None = None,
        failed_parent: int = 0,
    ) -> list[Action]:
        """Queue tasks that were accepted before; `attempts`: number of earlier assignments of each.

        `failed_parent`: a parent that did not end as DONE, 0: none.
        """
        return tasks.submit(self.state, batch, specs, routes, attempts, units, failed_parent)

    def rollback_submit(self, first: int, count: int, now_ns: int) -> list[Action]:
        """Drop accepted tasks that could not be stored."""
        return tasks.rollback_submit(self.state, first, count, now_ns)

    def reopen(self, ended: Mapping[TaskState, int]) -> list[Action]:
        """Count tasks, by their final state, as unfinished: their results are lost."""
        for final, count in ended.items():
            self.state.ended[final] -= count
        return []

    def tasks_finished(
        self, worker: str, results: list[AttemptResult], slots: int, now_ns: int
    ) -> list[TaskEnded]:
        """Finalize the tasks of a worker's results; results of outdated attempts are ignored."""
        return tasks.tasks_finished(self.state, worker, results, slots, now_ns)

    def cancel(self, task_numbers: list[int], now_ns: int) -> tuple[list[str], list[Action]]:
        """Cancel tasks; return "cancelled", "cancelling" or "unknown" for each of them, and the
        actions."""
        return tasks.cancel(self.state, task_numbers, now_ns)

    def dispatch(self, now_ns: int) -> list[Action]:
        """Release tasks that reservations and parents no longer hold, then assign waiting tasks to
        workers."""
        state = self.state
        actions: list[Action] = [*paced.release(state, now_ns)] if state.paced else []
        ledger = state.reservations
        if ledger.emptying:
            actions += reservations.cancel_parked(state, now_ns)
        if ledger.freed:
            actions += reservations.release_parked(state, now_ns)
        if state.dependencies.ready:
            dependencies.release(state, now_ns)
        if not state.draining:
            actions += dispatcher.assign(state, now_ns)
        return actions

    # --- workers -------------------------------------------------------------------------------

    def worker_joined(
        self, name: str, start: int, node: str, pid: int, now_ns: int
    ) -> tuple[bool, list[Action]]:
        """Record that a started worker is ready; return False if this start of it is not
        expected."""
        return workers.worker_joined(self.state, name, start, node, pid, now_ns), []

    def task_started(self, worker: str, task: int, fence: int, now_ns: int) -> list[Action]:
        """Record that a worker runs a task; long tasks are announced at once, others by
        heartbeat."""
        return workers.task_started(self.state, worker, task, fence, now_ns)

    def heartbeat_received(self, beat: WorkerHeartbeat, now_ns: int) -> tuple[bool, list[Action]]:
        """Record that a worker is alive; return False for an unknown worker."""
        return workers.heartbeat_received(self.state, beat, now_ns)

    def worker_unusable(self, name: str, reason: str, now_ns: int) -> list[Action]:
        """Kill a worker; its tasks are queued again and none of them is charged."""
        return workers.worker_unusable(self.state, name, reason, now_ns)

    def worker_lost(
        self, name: str, start: int, reason: str, now_ns: int, log: str = "", *, blame: bool = True
    ) -> list[Action]:
        """Handle the end of a worker's processes; `blame`: a task or the pool may be the cause."""
        return workers.worker_lost(self.state, name, start, reason, now_ns, log, blame=blame)

    def kernels_compiled(self, compiled: bool) -> list[Action]:
        """Record whether all kernels are compiled. If not, tasks that may compile some count as
        long, and leave one worker of their pool to others."""
        self.state.estimator.kernels_compiled = compiled
        return []

    def service_memory(self, used_bytes: int) -> list[Action]:
        """Record the resident memory of the service, above whose limit it accepts no tasks."""
        return memory.service_memory(self.state, used_bytes)

    # --- pools and nodes -----------------------------------------------------------------------

    def scale(
        self, pool: str, min_workers: int, max_workers: int, *, overcommit: bool = False
    ) -> list[Action]:
        """Set the bounds of a pool's size; `overcommit`: also beyond the capacity of its nodes.

        Raises OptionError, NotFoundError.
        """
        return nodes.scale(self.state, pool, min_workers, max_workers, overcommit=overcommit)

    def drain_node(self, name: str, reason: str, now_ns: int) -> list[Action]:
        """Start nothing more on a node; its workers end when idle and are replaced elsewhere.

        Raises NotFoundError.
        """
        return nodes.drain(self.state, name, reason, now_ns)

    def resume(self, name: str, is_probed: bool = False) -> list[Action]:
        """Use a drained or lost node, or a quarantined pool, again. Raises NotFoundError.

        `is_probed`: the launcher still looks for the node, so the node stays lost until it is
        reported back.
        """
        return nodes.resume(self.state, name, is_probed)

    def node_lost(self, name: str, reason: str, now_ns: int) -> list[Action]:
        """Declare a node and its workers lost; nothing is placed there until it is back."""
        return nodes.lost(self.state, name, reason, now_ns)

    def node_back(self, name: str) -> list[Action]:
        """Use a lost node again; one that was drained before stays drained."""
        return nodes.back(self.state, name)

    # --- devices -------------------------------------------------------------------------------

    def device_described(
        self, worker: str, epoch: int, start: int, info: DeviceInfo
    ) -> tuple[str, list[Action]]:
        """Record the hardware that a worker holds; return the name of its pool, "" if the report is
        ignored."""
        return devices.described(self.state, worker, epoch, start, info)

    def set_device_state(
        self, device: str, verb: str, reason: str, mode: str, timeout_s: float, wall_ns: int
    ) -> tuple[bool, list[Action]]:
        """Pause, drain or resume a device; return False if nothing changed. Raises NotFoundError,
        OptionError."""
        changed = devices.set_state(self.state, device, verb, reason, mode, timeout_s, wall_ns)
        return changed, []

    def set_max_inflight(self, device: str, max_inflight: int) -> tuple[bool, list[Action]]:
        """Limit the tasks that workers hold; return False if nothing changed. Raises NotFoundError,
        OptionError."""
        return devices.set_max_inflight(self.state, device, max_inflight), []

    def set_queue_policy(
        self, device: str, policy: str, options: tuple[tuple[str, str], ...]
    ) -> tuple[bool, list[Action]]:
        """Reorder a device's queues; return False if nothing changed. Raises NotFoundError,
        OptionError."""
        return devices.set_queue_policy(self.state, device, policy, options), []

    def set_profile(self, device: str, profile: DeviceProfile) -> tuple[bool, list[Action]]:
        """Set a device's profile; return False if nothing changed.

        Raises NotFoundError, OptionError, and InsufficientError if live reservations have more.
        """
        return devices.set_profile(self.state, device, profile), []

    def set_admission_policy(
        self, device: str, policy: AdmissionPolicy, expected_version: int
    ) -> tuple[bool, list[Action]]:
        """Set a device's admission policy; return False if nothing changed. `expected_version` -1:
        any.

        Raises the errors of `set_profile`.
        """
        return devices.set_admission_policy(self.state, device, policy, expected_version), []

    def begin_outage(self, device: str, begun_wall_ns: int | None) -> list[Action]:
        """Begin an outage: the device starts nothing more.

        Tasks that it runs at `begun_wall_ns` run again after the outage; None: they continue.
        """
        offset_ns = self.state.paced.offset_ns
        begun_ns = None if begun_wall_ns is None else begun_wall_ns - offset_ns
        return outages.begin(self.state, device, begun_ns)

    def end_outage(self, device: str) -> list[Action]:
        """End an outage: the device starts tasks again."""
        self.state.outages.discard(device)
        return []

    # --- reservations and owners ---------------------------------------------------------------

    def reserve(
        self, request: ReservationRequest, owner: str, wall_ns: int, *, dry: bool = False
    ) -> tuple[Decision, list[Action]]:
        """Decide on a request; an accepted request becomes a reservation at once, unless `dry`."""
        return reservations.reserve(self.state, request, owner, wall_ns, dry=dry)

    def renew_reservation(
        self, number: int, scope: str, owner: str, ttl_ns: int, wall_ns: int
    ) -> tuple[ReservationEntry, list[Action]]:
        """Extend a reservation to `ttl_ns` from now; 0: by its original duration.

        `owner`: the requester, whose limits apply. Raises NotReservedError, OptionError and
        LimitExceededError.
        """
        return reservations.renew(self.state, number, scope, owner, ttl_ns, wall_ns), []

    def close_reservation(
        self,
        reservation: ReservationEntry,
        end_state: ReservationState,
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
        self, table: Mapping[str, OwnerLimits], default: OwnerLimits
    ) -> list[Action]:
        """Replace the limits of owners; `default`: limits of owners that are not in the table."""
        self.state.quotas.set(table, default)
        return []

    # --- restart -------------------------------------------------------------------------------

    def restore_controls(
        self, stored: StoredReservations, controls: Mapping[str, DeviceControl]
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
        paced.set_clock(self.state, wall_ns, now_ns)
        return []

    def restore_paced(self, stored: Mapping[int, StoredRun]) -> list[Action]:
        """Restore the runs of paced devices, after tasks are restored."""
        paced.restore(self.state, stored)
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
        kept_states.expire(state, now_ns)
        if state.dependencies.failed:
            actions += dependencies.end_failed(state, now_ns)
        actions += nodes.detect_silent_nodes(state, now_ns)
        if not state.draining:
            actions += resizing.return_slots(state, now_ns)
            actions += kept_states.reclaim(state)
            actions += autoscaler.resize(state, now_ns)
        return actions

    def wall_clock_tick(self, wall_ns: int) -> list[Action]:
        """Handle the passage of wall-clock time: expire reservations, complete drains of
        devices."""
        return reservations.expire(self.state, wall_ns) + devices.tick(self.state, wall_ns)

    def begin_drain(self, environment: str) -> list[Action]:
        """Stop assigning and starting, because the service is shutting down."""
        if self.state.draining:
            return []
        self.state.draining = True
        running = f"{self.state.running} running"
        return [RecordEvent("service.draining", environment, running)]
