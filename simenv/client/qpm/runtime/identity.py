"""Identity of a QPM: its names, device and service record, and translation of device names.

A QPM stands for one pool, or for the whole environment; the device of the environment is the one
that runs a circuit without a named pool. Engines do not change while a service lives, so they are
requested once an epoch; devices may be calibrated anew.

A host calls the environment by its name, and one of its pools `pool` or `environment/pool`. A
number is the `device_id` of a device's profile; another text is its `external_device_id`. The
service's name of the whole environment is "". A QPM of one pool has no other device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from simenv.client.connection.session import A, ServiceSession
from simenv.client.qpm.answers import devices, snapshots
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.calls import asked
from simenv.errors import NoServiceError
from simenv.model import (
    MAX_SHOTS,
    DeviceProfile,
    EngineInfo,
    PoolInfo,
    ServiceInfo,
    TargetInfo,
)
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.views import base_of
from simenv.qpm.errors import NotReadyError, UnknownObjectError
from simenv.qpm.service import (
    SERVICE_NAME,
    UNLIMITED,
    QPMCapability,
    QPMType,
    ServiceRecord,
    service_properties,
)
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Devices, Engines, GetDevices, GetEngines
from simenv.wire.messages.reservations import GetProfile, GetTarget, ProfileReply, TargetReply

ANY_ENGINE = "any"
READY_S = 1.0
WHOLE = ""  # the service's name of all pools together


class QPMIdentity:
    """Names, engines and devices of a QPM. Thread-safe. `device`: the pool it stands for, or
    WHOLE."""

    def __init__(self, session: ServiceSession, device: str = WHOLE) -> None:
        self._session = session
        self.device = device
        self._engines: tuple[int, tuple[EngineInfo, ...]] = (0, ())
        self._available_s = -READY_S

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self._session.channel.name

    @property
    def target_id(self) -> str:
        """Name of the QPM's target for hosts."""
        return self.device or self.environment

    def contract_name(self, device: str) -> str:
        """Convert the service's name of a device to the contract's."""
        if device == self.device:
            return self.target_id
        return f"{self.environment}/{device}" if device else self.environment

    # --- data of the service ------------------------------------------------------------------

    def status(self) -> ServiceInfo:
        """Present state of the service; `pools` are those of this QPM. Raises NotReadyError if the
        service does not answer."""
        info = self._ask(m.Status, m.GetStatus).info
        return msgspec.structs.replace(info, pools=pools_of(info, self.device))

    def is_available(self) -> bool:
        """Return whether a pool can run circuits; True is cached for READY_S. Raises NotReadyError
        if the service does not answer."""
        if monotonic() - self._available_s >= READY_S:
            if not snapshots.is_available(self.status().pools):
                return False
            self._available_s = monotonic()
        return True

    def target(self, device: str) -> TargetInfo:
        """Control state of a device's queue."""
        return asked(self._session, TargetReply, partial(GetTarget, device=device)).info

    def begins(self) -> bool:
        """Return whether the QPM's device is neither paused nor draining."""
        target = self.target(self.device)
        return snapshots.begins(target, target if self.device == WHOLE else self.target(WHOLE))

    def engines(self) -> tuple[EngineInfo, ...]:
        """Engines of the service, by preference."""
        epoch = self._session.channel.epoch
        if self._engines[0] != epoch or not epoch:
            result = self._ask(Engines, GetEngines).engines
            self._engines = (self._session.channel.epoch, tuple(result))
        return self._engines[1]

    def devices(self) -> dict[str, DeviceInfo]:
        """Devices of this QPM by the names of their pools."""
        result = self._ask(Devices, GetDevices).devices
        return {info.name: info for info in result if self.device in (WHOLE, info.name)}

    def _ask(self, kind: type[A], make: Callable[[int], m.FromClient]) -> A:
        try:
            return self._session.request(kind, make)
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    # --- derived records ----------------------------------------------------------------------

    def device_info(self, device: str) -> DeviceInfo:
        """Description of a pool as a device. For the environment: the widest simulator of the
        preferred engine, or a machine if there is no simulator. Raises NotReadyError if there is no
        pool."""
        result = self.devices()
        if device:
            return result[device]
        order = [engine.name for engine in self.engines() if not engine.clifford]
        ranked = sorted(result.values(), key=lambda info: _rank(info, order))
        if not ranked:
            raise NotReadyError(f"{self.target_id!r} has no pool", hint="simenv status says why")
        return ranked[0]

    def engines_of(self, device: DeviceInfo, pools: Sequence[PoolInfo]) -> list[EngineInfo]:
        """Installed engines that may run a circuit in these pools; the engine of `device` comes
        first. Empty for a machine."""
        if device.kind is DeviceKind.HARDWARE:
            return []
        named = {pool.engine for pool in pools}
        there = [e for e in self.engines() if not e.missing and named & {ANY_ENGINE, e.name}]
        return sorted(there, key=lambda engine: engine.name != device.model)

    def record(self, kind: type, *, with_properties: bool) -> ServiceRecord:
        """Service record, the answer of `query`."""
        info = self.status()
        main = self.device_info(self.device)
        types, capabilities = self._bits(main, info)
        if not with_properties:  # revision 1 does not define this bit
            capabilities &= ~QPMCapability.SUPERCONDUCTING
        summary = f"simenv environment {info.name} on {info.node}"
        if self.device:
            summary = f"pool {self.device} of {summary}"
        record = ServiceRecord(
            SERVICE_NAME, summary, kind.__name__, kind.__module__, int(types), int(capabilities),
            UNLIMITED,
        )  # fmt: skip
        if not with_properties:
            return record
        properties = {
            **service_properties(record, self.target_id, self.target_id, main.num_qubits),
            "max_shots": main.max_shots or MAX_SHOTS,
            "controller": {
                "version": info.version,
                "node": info.node,
                "pools": self._answering(main, info),
            },
            "circuit_formats": devices.formats(main),
        }
        return msgspec.structs.replace(record, properties=properties)

    def _bits(self, main: DeviceInfo, info: ServiceInfo) -> tuple[QPMType, QPMCapability]:
        if main.kind is not DeviceKind.IDEAL:  # no amplitudes: its state is mixed
            cold = main.technology == "superconducting"
            types = QPMType.HARDWARE if main.kind is DeviceKind.HARDWARE else QPMType.SIMULATOR
            return types, QPMCapability(QPMCapability.SUPERCONDUCTING if cold else 0)
        capabilities = QPMCapability(0)
        for engine in self.engines_of(main, info.pools):
            capabilities |= _capability(engine)
        return QPMType.SIMULATOR, capabilities

    def _answering(self, main: DeviceInfo, info: ServiceInfo) -> dict[str, list[str]]:
        """Pools that answer a request for a capability, by capability."""
        entries: dict[str, list[str]] = {}
        if main.kind is DeviceKind.EMULATED:
            return entries
        for pool in info.pools:
            for engine in self.engines_of(main, [pool]):
                for bit in _capability(engine):
                    names = entries.setdefault(str(bit.name).lower(), [])
                    if pool.name not in names:
                        names.append(pool.name)
        return entries


_AMPLITUDE_QUBITS = 64  # an engine for more qubits does not hold all amplitudes


def _capability(engine: EngineInfo) -> QPMCapability:
    if "statevector" not in engine.outputs:
        return QPMCapability(0)
    if engine.max_qubits > _AMPLITUDE_QUBITS:
        return QPMCapability.TENSORNETWORK
    return QPMCapability.STATEVECTOR


def pools_of(info: ServiceInfo, device: str) -> tuple[PoolInfo, ...]:
    """A device's pool and the pools made on demand for it; all pools for WHOLE."""
    return tuple(pool for pool in info.pools if device in (WHOLE, pool.name, _base(pool)))


def _base(pool: PoolInfo) -> str:
    return base_of(pool.name) if pool.on_demand else pool.name


def _rank(device: DeviceInfo, order: Sequence[str]) -> tuple[bool, int, int]:
    place = order.index(device.model) if device.model in order else len(order)
    return device.kind is DeviceKind.HARDWARE, place, -device.num_qubits


MAX_NUMBER = 2**64 - 1


class Targets:
    """Translation of a host's device names. Thread-safe."""

    def __init__(self, session: ServiceSession, identity: QPMIdentity) -> None:
        self._session = session
        self._identity = identity

    def device(self, device_id: Any) -> str:
        """Convert a host's name of a device to the service's. Raises ExecutionError (not a name),
        UnknownObjectError."""
        if device_id is None:
            return self._identity.device
        if isinstance(device_id, int):
            return self._by_number(arguments.integer("device_id", device_id, 0, MAX_NUMBER))
        name = arguments.text("device_id", device_id)
        if name == self._identity.target_id:
            return self._identity.device
        pools = self._pools()
        result = name.removeprefix(f"{self._identity.environment}/")
        if result in pools:
            return result
        if name.isdecimal() and name.isascii() and len(name) <= 20:
            return self._by_number(int(name))
        for device in self._devices(pools):
            if self._profile(device).external_device_id == name:
                return device
        raise _unknown(repr(name[:80]), pools)

    def contract_name(self, device: str) -> str:
        """Convert the service's name of a device to the contract's."""
        return self._identity.contract_name(device)

    def _by_number(self, number: int) -> str:
        pools = self._pools()
        for device in self._devices(pools):
            if self._profile(device).device_id == number:
                return device
        raise _unknown(f"number {number}", pools)

    def _pools(self) -> list[str]:
        return [pool.name for pool in self._identity.status().pools if not pool.on_demand]

    def _devices(self, pools: list[str]) -> list[str]:
        return pools if self._identity.device else [WHOLE, *pools]

    def _profile(self, device: str) -> DeviceProfile:
        return asked(self._session, ProfileReply, partial(GetProfile, device=device)).profile


def _unknown(name: str, pools: list[str]) -> UnknownObjectError:
    return UnknownObjectError(f"no device {name} here", hint=f"there are: {', '.join(pools)}")
