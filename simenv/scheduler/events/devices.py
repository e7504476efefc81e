"""Events of devices: pause, drain, resume, limits of tasks in flight, queue policies.

A device is a pool with the pools made on demand for it. The device "" is all devices together: its
controls hold in addition to those of each device, but a device's own queue policy takes precedence.
A paused device starts nothing. A draining one accepts nothing and completes the accepted tasks;
after the drain's timeout it starts nothing more. Times are wall-clock nanoseconds.
"""

from __future__ import annotations

import msgspec

from simenv.errors import OptionError
from simenv.model import AdmissionPolicy, DeviceProfile
from simenv.model.devices import DeviceInfo
from simenv.model.reservations import MAX_INFLIGHT
from simenv.scheduler.core.actions import Action, RecordEvent
from simenv.scheduler.queueing.policies import parse_queue_policy
from simenv.scheduler.state.device_controls import ACTIVE, DRAINING, PAUSED, DeviceControl
from simenv.scheduler.state.devices import (
    check_device,
    inflight,
    inflight_limit,
    parked,
    pools_of,
)
from simenv.scheduler.state.state import SchedulerState

MAX_DRAIN_S = 10**7


def refresh_restrictions(state: SchedulerState) -> None:
    """Recompute whether any control restricts assignments; called after each change of a
    control."""
    controls = state.controls
    devices = {*controls.all, *state.reservations.devices}
    controls.is_restricting = any(
        controls.of(d).state != ACTIVE or inflight_limit(state, d) for d in devices
    )


# --- controls -----------------------------------------------------------------------------------


def set_state(
    state: SchedulerState,
    device: str,
    verb: str,
    reason: str,
    mode: str,
    timeout_s: float,
    wall_ns: int,
) -> bool:
    """Pause, drain or resume a device; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    check_device(state, device)
    old = state.controls.of(device)
    active = msgspec.structs.replace(
        old, state=ACTIVE, reason="", mode="", timeout_s=0.0, started_ns=0, drained=False
    )
    if verb == "pause":
        new = msgspec.structs.replace(active, state=PAUSED, reason=reason)
    elif verb == "drain":
        _check_drain(mode, timeout_s)
        new = msgspec.structs.replace(
            active,
            state=DRAINING,
            reason=reason,
            mode=mode or "graceful",
            timeout_s=timeout_s,
            started_ns=old.started_ns if old.state == DRAINING else wall_ns,
            drained=old.drained,
        )
    elif verb == "resume":
        new = active
    else:
        raise OptionError(
            f"unknown command {verb[:64]!r} for a device", hint="one of: pause, resume, drain"
        )
    return _change(state, device, old, new)


def set_max_inflight(state: SchedulerState, device: str, max_inflight: int) -> bool:
    """Limit the tasks that a device's workers hold; return False if nothing changed. Raises
    NotFoundError, OptionError."""
    check_device(state, device)
    if not 0 <= max_inflight <= MAX_INFLIGHT:
        raise OptionError(f"max_inflight = {max_inflight}", hint="0 or more; 0: no limit")
    old = state.controls.of(device)
    return _change(state, device, old, msgspec.structs.replace(old, max_inflight=max_inflight))


def set_queue_policy(
    state: SchedulerState, device: str, policy: str, options: tuple[tuple[str, str], ...]
) -> bool:
    """Reorder a device's queues; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    check_device(state, device)
    old = state.controls.of(device)
    if parse_queue_policy(policy, options) == state.controls.queue_policy(device):
        return False
    return _change(state, device, old, msgspec.structs.replace(old, policy=policy, options=options))


def set_profile(state: SchedulerState, device: str, profile: DeviceProfile) -> bool:
    """Set a device's profile; return False if nothing changed.

    Raises NotFoundError, OptionError, and InsufficientError if live reservations have more.
    """
    check_device(state, device)
    changed = state.reservations.set_profile(device, profile)
    refresh_restrictions(state)
    return changed


def set_admission_policy(
    state: SchedulerState, device: str, policy: AdmissionPolicy, expected_version: int
) -> bool:
    """Set a device's admission policy; return False if nothing changed. `expected_version` -1:
    any.

    Raises the errors of `set_profile`.
    """
    check_device(state, device)
    changed = state.reservations.set_policy(device, policy, expected_version)
    refresh_restrictions(state)
    return changed


def restore_control(state: SchedulerState, device: str, control: DeviceControl) -> None:
    """Restore stored controls of a device; controls of an unknown pool have no effect."""
    state.controls.all[device] = control
    _apply(state)


def _check_drain(mode: str, timeout_s: float) -> None:
    if mode not in ("", "graceful"):
        raise OptionError(f"mode {mode[:64]!r} of a drain", hint="graceful: what was accepted ends")
    if not 0 <= timeout_s <= MAX_DRAIN_S:  # False for a NaN too
        raise OptionError(f"timeout_s = {timeout_s}", hint=f"0 to {MAX_DRAIN_S} s; 0: none")


def _change(state: SchedulerState, device: str, old: DeviceControl, new: DeviceControl) -> bool:
    if new == old:
        return False
    state.controls.put(device, msgspec.structs.replace(new, version=old.version + 1))
    _apply(state)
    return True


def _apply(state: SchedulerState) -> None:
    for pool in state.pools.values():
        pool.queue.arrange(state.controls.queue_policy(pool.device))
    refresh_restrictions(state)


# --- progress -----------------------------------------------------------------------------------


def described(
    state: SchedulerState, name: str, epoch: int, start: int, info: DeviceInfo
) -> tuple[str, list[Action]]:
    """Record the hardware that a worker holds; return the name of its pool, and the event to
    record.

    The name is "" if this start of the worker is over or its pool holds no hardware.
    """
    worker = state.workers.get(name)
    if worker is None or (epoch, start) != (state.epoch, worker.start):
        return "", []
    pool = state.pools[worker.pool]
    if not pool.is_exclusive:
        return "", []
    pool.hardware_qubits = info.num_qubits
    message = f"{info.model}, {info.num_qubits} qubits, of {info.provider}"
    return pool.spec.name, [RecordEvent("device.described", pool.spec.name, message)]


def tick(state: SchedulerState, wall_ns: int) -> list[Action]:
    """Record an event for each draining device whose last task has ended."""
    state.controls.wall_ns = wall_ns
    actions: list[Action] = []
    for device, control in list(state.controls.all.items()):
        if control.state == DRAINING and not control.drained and not _unfinished(state, device):
            state.controls.put(device, msgspec.structs.replace(control, drained=True))
            actions.append(
                RecordEvent("device.drained", device or "all", "its last task has ended")
            )
    return actions


def _unfinished(state: SchedulerState, device: str) -> int:
    waiting = sum(len(pool.queue) for pool in pools_of(state, device))
    waiting += state.dependencies.count(device)
    return waiting + sum(inflight(state, device)) + parked(state, device)
