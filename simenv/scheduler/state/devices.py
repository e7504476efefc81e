"""State of all devices."""

from __future__ import annotations

from simenv.scheduler.state.device_controls import DeviceControls
from simenv.scheduler.state.paced_devices import PacedDevices


class DeviceStates:
    """Controls and timelines of all devices. The journal stores both, see `take_changes`."""

    def __init__(self) -> None:
        self.controls = DeviceControls()
        self.paced = PacedDevices()
        self.outages: set[str] = set()  # devices that start nothing

    def copy(self) -> DeviceStates:
        result = DeviceStates()
        result.controls, result.paced = self.controls.copy(), self.paced.copy()
        result.outages = {*self.outages}
        return result
