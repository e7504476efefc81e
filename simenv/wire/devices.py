"""Messages about devices: a part of `messages`."""

from __future__ import annotations

import msgspec

from simenv.model.devices import DeviceInfo
from simenv.wire.numbers import Number


class GetDevices(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Answered by Devices."""

    request: Number


class Devices(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Every pool as a device; one whose machine has not told yet what it is has 0 qubits."""

    request: int
    devices: list[DeviceInfo]


class Described(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A worker that holds a machine says what it is; sent before Join, and when it has changed."""

    name: str
    epoch: Number
    start: Number
    device: DeviceInfo
