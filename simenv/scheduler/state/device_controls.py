"""Controls of devices that users set: pauses, drains, queue policies, limits of tasks in flight."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv.scheduler.core import UNLIMITED
from simenv.scheduler.queueing.lanes import (
    FAIR_SHARE,
    PRIORITY,
    QueuePolicy,
    parse_queue_policy,
)
from simenv.scheduler.state.pools import Pool

ACTIVE, PAUSED, DRAINING = "active", "paused", "draining"
# Events of the commands that change the state of a device.
STEERED = {"pause": "device.paused", "resume": "device.resumed", "drain": "device.draining"}


class DeviceControl(msgspec.Struct, frozen=True):
    """Controls set for one device, as the journal stores them. `policy` "": none was set."""

    state: str = ACTIVE
    version: int = 1
    policy: str = ""
    options: tuple[tuple[str, str], ...] = ()
    max_inflight: int = 0
    reason: str = ""
    mode: str = ""
    timeout_s: float = 0.0
    started_ns: int = 0
    drained: bool = False  # its last task has ended


_DEFAULT = DeviceControl()


class DeviceControls:
    """Controls of all devices; "" stands for all devices together. `is_restricting` is False while
    no control can keep a task from being assigned."""

    def __init__(self) -> None:
        self.all: dict[str, DeviceControl] = {}
        self.changes: dict[str, None] = {}  # devices whose controls are not stored yet
        self.is_restricting = False
        self.has_accounts = False  # then `fair_share` is the default policy
        self.wall_ns = 0  # of the last tick
        self._assignable_tasks: dict[str, int] = {}  # tasks that may still be assigned, by device

    def copy(self) -> DeviceControls:
        result = DeviceControls()
        vars(result).update(vars(self))
        result.all, result.changes = self.all.copy(), {}
        result._assignable_tasks = self._assignable_tasks.copy()
        return result

    def of(self, device: str) -> DeviceControl:
        return self.all.get(device, _DEFAULT)

    def put(self, device: str, control: DeviceControl) -> None:
        """Set the controls of a device, and note that they are to be stored."""
        self.all[device] = control
        self.changes[device] = None

    def take_changes(self) -> dict[str, DeviceControl]:
        """Return the controls that are not stored yet; they count as stored from now on."""
        changes, self.changes = self.changes, {}
        return {device: self.of(device) for device in changes}

    def closed_state(self, device: str, *, starts: bool = True) -> str:
        """Return the state that keeps a device from accepting tasks, or (`starts`) from starting
        them; "" if none."""
        for name in (device, ""):
            state = self.of(name).state
            if state == DRAINING or (starts and state == PAUSED):
                return state
        return ""

    def reason_of(self, closed_state: str, device: str) -> str:
        """Return the reason of the state that keeps a device from starting tasks."""
        found = [self.of(name) for name in (device, "")]
        return next((each.reason for each in found if each.state == closed_state), "")

    def queue_policy(self, device: str) -> QueuePolicy:
        """Return the queue policy of a device: its own, else that of all devices."""
        control = self.of(device) if self.of(device).policy else self.of("")
        if not control.policy:
            return FAIR_SHARE if self.has_accounts else PRIORITY
        return parse_queue_policy(control.policy, control.options)

    def starts_nothing(self, device: str) -> bool:
        """Return whether the device starts no task, however few its workers hold."""
        return any(self._starts_nothing(name) for name in (device, ""))

    def _starts_nothing(self, device: str) -> bool:
        control = self.of(device)
        end_ns = control.started_ns + control.timeout_s * 1e9
        late = control.timeout_s and self.wall_ns > end_ns
        return control.state == PAUSED or (control.state == DRAINING and bool(late))

    def set_assignable_tasks(self, assignable_tasks: Mapping[str, int]) -> None:
        """Set how many tasks may be assigned now, by device; 0 for a device that is shut."""
        self._assignable_tasks = {
            name: 0 if self._starts_nothing(name) else n for name, n in assignable_tasks.items()
        }

    def assignable_tasks(self, pool: Pool) -> int:
        """Return how many tasks of this pool may be assigned now."""
        if not self.is_restricting:
            return UNLIMITED
        assignable_tasks = self._assignable_tasks
        return max(
            0,
            min(assignable_tasks.get(pool.device, UNLIMITED), assignable_tasks.get("", UNLIMITED)),
        )

    def count_assigned(self, pool: Pool, count: int) -> None:
        """Count tasks of this pool that were assigned."""
        for device in (pool.device, ""):
            if device in self._assignable_tasks:
                self._assignable_tasks[device] -= count
