"""Names of devices: a host's, in text or by number, and the service's.

A host calls the environment by its name, one of its pools `pool` or `environment/pool`; a number is
the `device_id` of a device's profile, as is another text its `external_device_id`. The service's
name of the whole environment is "". A QPM of one pool has that device and no other.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from simenv.client.link import Link
from simenv.client.qpm import fields
from simenv.client.qpm.asking import asked
from simenv.client.qpm.presence import WHOLE, Presence
from simenv.model import DeviceProfile
from simenv.qpm.errors import UnknownObject
from simenv.wire.reservations import GetProfile, Profiled

MAX_NUMBER = 2**64 - 1


class Targets:
    """Thread-safe."""

    def __init__(self, link: Link, presence: Presence) -> None:
        self._link = link
        self._presence = presence

    def device(self, device_id: Any) -> str:
        """The service's name of it. ExecutionError where it is no name, UnknownObject."""
        if device_id is None:
            return self._presence.device
        if isinstance(device_id, int):
            return self._by_number(fields.whole("device_id", device_id, 0, MAX_NUMBER))
        name = fields.text("device_id", device_id)
        if name == self._presence.target_id:
            return self._presence.device
        pools = self._pools()
        found = name.removeprefix(f"{self._presence.environment}/")
        if found in pools:
            return found
        if name.isdecimal() and name.isascii() and len(name) <= 20:
            return self._by_number(int(name))
        for device in self._devices(pools):
            if self._profile(device).external_device_id == name:
                return device
        raise _unknown(repr(name[:80]), pools)

    def shown(self, device: str) -> str:
        """The contract's name of one of the service's."""
        return self._presence.shown(device)

    def _by_number(self, number: int) -> str:
        pools = self._pools()
        for device in self._devices(pools):
            if self._profile(device).device_id == number:
                return device
        raise _unknown(f"number {number}", pools)

    def _pools(self) -> list[str]:
        return [pool.name for pool in self._presence.status().pools if not pool.on_demand]

    def _devices(self, pools: list[str]) -> list[str]:
        return pools if self._presence.device else [WHOLE, *pools]

    def _profile(self, device: str) -> DeviceProfile:
        return asked(self._link, Profiled, partial(GetProfile, device=device)).profile


def _unknown(name: str, pools: list[str]) -> UnknownObject:
    return UnknownObject(f"no device {name} here", hint=f"there are: {', '.join(pools)}")
