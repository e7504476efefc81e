"""Device descriptions from the service."""

from __future__ import annotations

from functools import partial

from simenv.client.connection.session import ServiceSession
from simenv.errors import OptionError
from simenv.model.devices import DeviceInfo
from simenv.wire.messages.queries import Devices, GetDevices, NoiseStored, StoreNoise


class ServiceDevices:
    """DeviceSource that asks the service."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def device(self, name: object) -> DeviceInfo:
        """Return an emulated device, or that of a pool. Raises NotFoundError, OptionError."""
        if not isinstance(name, str) or not name:
            raise OptionError(f"device={name!r:.80}", hint="a name of client.device_names()")
        request = partial(GetDevices, name=name)
        return self._session.request(Devices, request).devices[0]

    def devices(self) -> dict[str, DeviceInfo]:
        """Return the pools as devices, by name."""
        result = self._session.request(Devices, GetDevices).devices
        return {device.name: device for device in result}

    def store(self, document: bytes) -> str:
        """Store a noise document; return its digest in hexadecimal.

        Raises OptionError, LimitExceededError.
        """
        return self._session.request(NoiseStored, partial(StoreNoise, body=document)).digest
