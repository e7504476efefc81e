"""Events of devices: controls, outages, and the runs of paced devices.

A device is a pool with the pools made on demand for it. The device "" is all devices together:
its controls hold in addition to those of each device, but a device's own queue policy takes
precedence. A paused device starts nothing. A draining one accepts nothing and completes the
accepted tasks; after the drain's timeout it starts nothing more.

During an outage a device starts nothing. A task that a worker simulates at its begin keeps its
worker, but its result is discarded: its next attempt begins after the outage, with the calibration
of that time. On a paced device, the tasks whose time on the device was not over are interrupted.

Times of controls are wall-clock nanoseconds, those of outages and runs monotonic ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv import model
from simenv.errors import NotAllowedError, OptionError
from simenv.model import TaskState, Timing, reservations, task_name
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.queueing.lanes import parse_queue_policy
from simenv.scheduler.state import device_controls, paced_devices, pools, scheduler_state
from simenv.scheduler.views.pending_reasons import outage_reason

MAX_DRAIN_S = 10**7


# --- controls -----------------------------------------------------------------------------------


def set_device_state(
    state: scheduler_state.SchedulerState,
    device: str,
    verb: str,
    reason: str,
    mode: str,
    timeout_s: float,
    wall_ns: int,
) -> bool:
    """Pause, drain or resume a device; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    state.cluster.check_device(device)
    old = state.devices.controls.of(device)
    active = device_controls.DeviceControl(
        version=old.version, policy=old.policy, options=old.options, max_inflight=old.max_inflight
    )
    if verb == "pause":
        new = msgspec.structs.replace(active, state=device_controls.PAUSED, reason=reason)
    elif verb == "drain":
        _check_drain(mode, timeout_s)
        new = msgspec.structs.replace(
            active,
            state=device_controls.DRAINING,
            reason=reason,
            mode=mode or "graceful",
            timeout_s=timeout_s,
            started_ns=old.started_ns if old.state == device_controls.DRAINING else wall_ns,
            drained=old.drained,
        )
    elif verb == "resume":
        new = active
    else:
        hint = "one of: pause, resume, drain"
        raise OptionError(f"unknown command {verb[:64]!r} for a device", hint=hint)
    return _change(state, device, old, new)


def _check_drain(mode: str, timeout_s: float) -> None:
    if mode not in ("", "graceful"):
        raise OptionError(f"mode {mode[:64]!r} of a drain", hint="graceful: what was accepted ends")
    if not 0 <= timeout_s <= MAX_DRAIN_S:  # False for a NaN too
        raise OptionError(f"timeout_s = {timeout_s}", hint=f"0 to {MAX_DRAIN_S} s; 0: none")


def set_max_inflight(state: scheduler_state.SchedulerState, device: str, max_inflight: int) -> bool:
    """Limit the tasks that a device's workers hold; return False if nothing changed. Raises
    NotFoundError, OptionError."""
    state.cluster.check_device(device)
    if not 0 <= max_inflight <= reservations.MAX_INFLIGHT:
        raise OptionError(f"max_inflight = {max_inflight}", hint="0 or more; 0: no limit")
    old = state.devices.controls.of(device)
    return _change(state, device, old, msgspec.structs.replace(old, max_inflight=max_inflight))


def set_queue_policy(
    state: scheduler_state.SchedulerState,
    device: str,
    policy: str,
    options: tuple[tuple[str, str], ...],
) -> bool:
    """Reorder a device's queues; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    state.cluster.check_device(device)
    old = state.devices.controls.of(device)
    if parse_queue_policy(policy, options) == state.devices.controls.queue_policy(device):
        return False
    return _change(state, device, old, msgspec.structs.replace(old, policy=policy, options=options))


def set_profile(
    state: scheduler_state.SchedulerState, device: str, profile: model.DeviceProfile
) -> bool:
    """Set a device's profile; return False if nothing changed. Raises NotFoundError, OptionError,
    and InsufficientError if live reservations have more."""
    state.cluster.check_device(device)
    changed = state.reservations.set_profile(device, profile)
    refresh_restrictions(state)
    return changed


def set_admission_policy(
    state: scheduler_state.SchedulerState,
    device: str,
    policy: model.AdmissionPolicy,
    expected_version: int,
) -> bool:
    """Set a device's admission policy; return False if nothing changed. `expected_version` -1: any.
    Raises the errors of `set_profile`."""
    state.cluster.check_device(device)
    changed = state.reservations.set_policy(device, policy, expected_version)
    refresh_restrictions(state)
    return changed


def _change(
    state: scheduler_state.SchedulerState,
    device: str,
    old: device_controls.DeviceControl,
    new: device_controls.DeviceControl,
) -> bool:
    if new == old:
        return False
    state.devices.controls.put(device, msgspec.structs.replace(new, version=old.version + 1))
    _apply(state)
    return True


def _apply(state: scheduler_state.SchedulerState) -> None:
    for pool in state.cluster.pools.values():
        pool.queue.arrange(state.devices.controls.queue_policy(pool.device))
    refresh_restrictions(state)


def refresh_restrictions(state: scheduler_state.SchedulerState) -> None:
    """Recompute whether any control restricts assignments; called after each change of a
    control."""
    controls = state.devices.controls
    devices = {*controls.all, *state.reservations.devices}
    controls.is_restricting = any(
        controls.of(d).state != device_controls.ACTIVE or state.inflight_limit(d) for d in devices
    )


def restore_control(
    state: scheduler_state.SchedulerState, device: str, control: device_controls.DeviceControl
) -> None:
    """Restore stored controls of a device; controls of an unknown pool have no effect."""
    state.devices.controls.all[device] = control
    _apply(state)


# --- descriptions, and ends of drains ----------------------------------------------------------


def device_described(
    state: scheduler_state.SchedulerState, name: str, epoch: int, start: int, info: model.DeviceInfo
) -> tuple[str, list[core.Action]]:
    """Record the hardware that a worker holds; return the name of its pool, and the event to
    record. The name is "" if this start of the worker is over. Raises NotAllowedError if its pool
    holds no hardware."""
    worker = state.cluster.workers.get(name)
    if worker is None or (epoch, start) != (state.epoch, worker.start):
        return "", []
    pool = state.cluster.pools[worker.pool]
    if not pool.is_exclusive:
        text = f"worker {name} described a machine, and pool {worker.pool} holds none"
        raise NotAllowedError(text, hint="a machine is described by the worker of its pool")
    pool.hardware_qubits = info.num_qubits
    message = f"{info.model}, {info.num_qubits} qubits, of {info.provider}"
    return pool.spec.name, [core.RecordEvent("device.described", pool.spec.name, message)]


def complete_drains(state: scheduler_state.SchedulerState, wall_ns: int) -> list[core.Action]:
    """Record an event for each draining device whose last task has ended."""
    state.devices.controls.wall_ns = wall_ns
    actions: list[core.Action] = []
    for device, control in list(state.devices.controls.all.items()):
        if (
            control.state == device_controls.DRAINING
            and not control.drained
            and not _unfinished(state, device)
        ):
            state.devices.controls.put(device, msgspec.structs.replace(control, drained=True))
            actions.append(
                core.RecordEvent("device.drained", device or "all", "its last task has ended")
            )
    return actions


def _unfinished(state: scheduler_state.SchedulerState, device: str) -> int:
    waiting = sum(len(pool.queue) for pool in state.cluster.pools_of(device))
    waiting += state.tasks.dependencies.count(device)
    sent = sum(state.cluster.inflight(device))
    return waiting + sent + state.reservations.parked(device)


# --- outages ------------------------------------------------------------------------------------


def begin_outage(
    state: scheduler_state.SchedulerState, device: str, begun_ns: int | None
) -> list[core.Action]:
    """Begin an outage: the device starts nothing more. `begun_ns`: time of the failure; tasks that
    the device ran then are interrupted. None: the device did not fail, and its running tasks
    continue."""
    state.devices.outages.add(device)
    if begun_ns is None:
        return []
    actions: list[core.Action] = []
    for record in _interrupted(state, device, begun_ns):
        if record.stop.reason:
            continue
        if record.phase == core.HELD:
            del state.devices.paced.held[record.number]
            actions.append(core.DropHeldResult(record.number))
            requeue_interrupted(state, [record])
        elif record.phase != core.WAITING:
            record.interrupted = True
        note = f"attempt {record.attempts + 1} ({outage_reason(state.cluster.pools[device])})"
        actions.append(core.RecordEvent("task.requeued", task_name(record.number), note))
    return actions


def _interrupted(
    state: scheduler_state.SchedulerState, device: str, begun_ns: int
) -> list[core.TaskRecord]:
    timeline = state.devices.paced.all.get(device)
    if timeline is not None:
        results = [run.record for run in timeline.interrupt(begun_ns)]
        for record in results:
            state.devices.paced.forget(record.number)
        return results
    return [
        record
        for pool in state.cluster.pools.values()
        if pool.device == device
        for worker in pool.workers.values()
        for record in worker.held.values()
        if record.sent_ns <= begun_ns
    ]


def requeue_interrupted(
    state: scheduler_state.SchedulerState, records: list[core.TaskRecord]
) -> None:
    """Put interrupted tasks of one pool, which no worker holds, at the front of its queue."""
    for record in records:
        state.tasks.running -= record.phase in (core.RUNNING, core.HELD)
        record.phase = core.WAITING
        record.worker = ""
        record.interrupted = record.preempted = False
        record.prepaid = None
    if records:
        state.cluster.pools[records[0].route.pool].queue.requeue_front(records)


# --- runs of paced devices ----------------------------------------------------------------------


def hold_result(
    state: scheduler_state.SchedulerState,
    record: core.TaskRecord,
    timing: Timing,
    ran_us: int,
    slots: float,
) -> bool:
    """Hold the result of a task until its time on the device is over; return False if its pool is
    not paced. `ran_us`: time of its simulation to charge, on `slots`."""
    device = state.devices.paced.all.get(state.cluster.pools[record.route.pool].device)
    run = None if device is None else device.runs.get(record.number)
    if device is None or run is None or record.stop.reason:
        return False
    run.timing, run.ran_us, run.slots = timing, ran_us, slots
    if run.length_ns != timing.device_ns:
        run.length_ns = timing.device_ns
        device.arrange()
    state.tasks.running += record.phase != core.RUNNING
    record.phase = core.HELD
    state.devices.paced.held[record.number] = device
    return True


def end_due_runs(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.TaskEnded]:
    """End the tasks whose time on their device is over."""
    timelines = state.devices.paced
    endings: list[core.TaskEnded] = []
    for device in timelines.all.values():
        for run in device.pop_over(now_ns):
            endings.append(_end_run(state, run, now_ns))
    timelines.note_current(now_ns)
    return endings


def _end_run(
    state: scheduler_state.SchedulerState, run: paced_devices.DeviceRun, now_ns: int
) -> core.TaskEnded:
    record, timing, slots = run.record, run.timing, run.slots
    assert timing is not None
    number = record.number
    begun_ns = run.begin_ns + state.devices.paced.offset_ns
    timing = msgspec.structs.replace(timing, begun_ns=begun_ns)
    del state.devices.paced.held[number]
    state.devices.paced.forget(number)
    del state.tasks[number]
    if state.reservations.by_task:
        state.reservations.settle(number, timing.device_ns, done=True)
    state.finalize(record, TaskState.DONE)
    if record.batch.terms.reservation:
        dedicated_workers.take_device_time(state, record, timing.device_ns, now_ns)
    used, units = dedicated_workers.use_of(
        state, record, slots, run.ran_us, timing.device_ns, record.prepaid or (0, 0)
    )
    state.shares.fair_share.charge(record.batch.association, units)
    if record.earlier is not None:
        used, units = used + record.earlier.used, units + record.earlier.units
    return core.TaskEnded(
        *(record, TaskState.DONE, round(slots), timing, core.HELD_RESULT), used=used, units=units
    )


def withdraw_run(
    state: scheduler_state.SchedulerState, record: core.TaskRecord, now_ns: int
) -> None:
    """Remove the run of a task that ended without its time on the device; later runs move up."""
    if state.devices.paced:
        state.devices.paced.held.pop(record.number, None)
        for device in state.devices.paced.all.values():
            device.withdraw(record.number, now_ns)
        state.devices.paced.forget(record.number)


def resend_runs(
    state: scheduler_state.SchedulerState, pool: pools.Pool, records: list[core.TaskRecord]
) -> None:
    """Mark tasks of a lost worker to be sent again; their runs on the device keep their places."""
    device = state.devices.paced.all.get(pool.device)
    if device is not None:
        device.waiting.update(device.runs.keys() & {record.number for record in records})


def set_clock(state: scheduler_state.SchedulerState, wall_ns: int, now_ns: int) -> None:
    """Relate the wall clock to the monotonic clock; called once at each start of the service."""
    state.devices.paced.offset_ns = wall_ns - now_ns


def restore_runs(
    state: scheduler_state.SchedulerState, stored: Mapping[int, paced_devices.StoredRun]
) -> None:
    """Restore the places of runs that devices had before a restart; their tasks run again.
    `stored`: by task number."""
    for number, run in sorted(stored.items(), key=lambda pair: pair[1].place):
        record = state.tasks.get(number)
        if (
            record is None
            or run.device not in state.devices.paced.all
            or state.pool_of(record.route).device != run.device
        ):
            state.devices.paced.changes[number] = None
            continue
        state.devices.paced.restore(
            number, run, record, core.expected_ns(record.route, record.spec)
        )
