"""Identity of a QPM, and the access check of its calls.

A QPM with a token refuses calls without it (`TokenGuard`). A QPM without a token ignores the
argument: it has the rights of its client, and no more. Requests raise the contract's errors
(`asked`, `changed`), and `Audit` records those of `control`.

`QPMIdentity` has the names, the device and the service record of a QPM. A QPM stands for one pool,
or for the whole environment; the device of the environment is the one that runs a circuit without a
named pool. Engines do not change while a service lives, so they are requested once an epoch;
devices may be calibrated anew.

`Targets` translates names of devices. A host calls the environment by its name, and one of its
pools `pool` or `environment/pool`. A number is the `device_id` of a device's profile; another text
is its `external_device_id`. The service's name of the whole environment is "". A QPM of one pool
has no other device.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any

import msgspec

from simenv import errors
from simenv.client.connection.session import ServiceSession
from simenv.client.qpm import devices, requests
from simenv.model import MAX_SHOTS, DeviceProfile, EngineInfo, PoolInfo, ServiceInfo, TargetInfo
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.model.views import base_of
from simenv.qpm import contract, envelopes
from simenv.wire.messages import admin, client as m, queries
from simenv.wire.messages.base import A, ClientRequest


class TokenGuard:
    """Check of the token of calls. Thread-safe."""

    def __init__(self, token: str | None = None) -> None:
        self._token = None if token is None else token.encode("utf-8", "surrogatepass")

    def check(self, token: Any) -> None:
        """Raises ExecutionError if the token is missing, wrong or no text."""
        values = requests.optional_text("token", token)
        if self._token is None:
            return
        shown = b"" if values is None else values.encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(shown, self._token):
            raise contract.ExecutionError(
                "this call carries no token" if values is None else "this call's token is wrong",
                hint="token=: what the QPM's token file holds",
                reason=envelopes.Reason.CREDENTIAL,
            )


def read_token(path: Path) -> str:
    """Read the first line of a file that no other user may read. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            result = os.fstat(file.fileno())
            text = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"token file {path}: {error}"
        raise errors.ConfigError(message, hint="a file with a token") from error
    if result.st_uid != os.geteuid() or stat.S_IMODE(result.st_mode) & 0o077:
        hint = f"chmod 600 {path}, and it must be yours"
        raise errors.ConfigError(f"token file {path} can be read by others", hint=hint)
    if not 0 < len(text) <= requests.MAX_TEXT_CHARS:
        hint = f"1 to {requests.MAX_TEXT_CHARS} characters in its first line"
        raise errors.ConfigError(f"token file {path} holds no token", hint=hint)
    return text


def asked(session: ServiceSession, message: ClientRequest[A]) -> A:
    """Send a message as `ServiceSession.request`. Raises only QPMError."""
    try:
        return session.request(message)
    except errors.SimenvError as error:
        raise as_qpm_error(error) from error


def changed(session: ServiceSession, method: str, message: ClientRequest[A]) -> A:
    """Send a change that needs the role admin. The error of another role names the contract's
    `method`."""
    try:
        return session.request(message)
    except errors.NotAllowedError as error:
        text = f"{method} needs the role admin; this QPM has the role client"
        raise contract.ExecutionError(text, hint=error.hint, reason=error.code) from error
    except errors.SimenvError as error:
        raise as_qpm_error(error) from error


def as_qpm_error(error: errors.SimenvError) -> contract.QPMError:
    """Convert an error of the service into an error of the contract."""
    if isinstance(error, contract.QPMError):
        return error
    result = _qpm_error(error)
    result.maybe_accepted, result.tasks = error.maybe_accepted, error.tasks
    return result


def _qpm_error(error: errors.SimenvError) -> contract.QPMError:
    match error:
        case errors.NoServiceError():
            return contract.NotReadyError(error.message, hint=error.hint)
        case errors.InsufficientError():
            return contract.OutOfResourcesError(error.message, hint=error.hint)
        case errors.NotFoundError():
            return contract.UnknownObjectError(error.message, hint=error.hint)
        case errors.NotReservedError():
            reason: str = envelopes.Reason.RESERVATION_NOT_FOUND
        case _:
            reason = error.code
    return contract.ExecutionError(error.message, hint=error.hint, reason=reason)


KEPT = 256


class AuditEntry(msgspec.Struct, frozen=True):
    """One request to `control`."""

    operation: str
    reason: str | None
    timestamp_ns: int


class Fault(msgspec.Struct, frozen=True):
    """One fault that a reconciliation found."""

    kind: str
    qtask_id: int
    timestamp_ns: int


class Audit:
    """Newest audit entries and faults. Appending to a bounded deque is atomic, so there is no
    lock."""

    def __init__(self) -> None:
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT)
        self._faults: deque[Fault] = deque(maxlen=KEPT)

    def note(self, operation: str, reason: str | None) -> None:
        """Record a request of `operation`."""
        self._entries.append(AuditEntry(operation, reason, round(time() * 1e9)))

    def fault(self, kind: str, qtask_id: int) -> None:
        """Record a fault of a reconciliation."""
        self._faults.append(Fault(kind, qtask_id, round(time() * 1e9)))

    def entries(self) -> list[AuditEntry]:
        return list(self._entries)

    def faults(self) -> list[Fault]:
        return list(self._faults)


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
        return self._session.channel.service.name

    @property
    def target_id(self) -> str:
        """Name of the QPM's target for hosts."""
        return self.device or self.environment

    def contract_name(self, device: str) -> str:
        """Convert the service's name of a device to the contract's."""
        if device == self.device:
            return self.target_id
        return f"{self.environment}/{device}" if device else self.environment

    def status(self) -> ServiceInfo:
        """Present state of the service; `pools` are those of this QPM. Raises NotReadyError if the
        service does not answer."""
        info = asked(self._session, m.GetStatus(0)).info
        return msgspec.structs.replace(info, pools=pools_of(info, self.device))

    def is_available(self) -> bool:
        """Return whether a pool can run circuits; True is cached for READY_S. Raises NotReadyError
        if the service does not answer."""
        if monotonic() - self._available_s >= READY_S:
            if not devices.is_available(self.status().pools):
                return False
            self._available_s = monotonic()
        return True

    def target(self, device: str) -> TargetInfo:
        """Control state of a device's queue."""
        return asked(self._session, admin.GetTarget(0, device=device)).info

    def begins(self) -> bool:
        """Return whether the QPM's device is neither paused nor draining."""
        target = self.target(self.device)
        return devices.begins(target, target if self.device == WHOLE else self.target(WHOLE))

    def engines(self) -> tuple[EngineInfo, ...]:
        """Engines of the service, by preference."""
        epoch = self._session.channel.service.epoch
        if self._engines[0] != epoch or not epoch:
            result = asked(self._session, queries.GetEngines(0)).engines
            self._engines = (self._session.channel.service.epoch, tuple(result))
        return self._engines[1]

    def devices(self) -> dict[str, DeviceInfo]:
        """Devices of this QPM by the names of their pools."""
        result = asked(self._session, queries.GetDevices(0)).devices
        return {info.name: info for info in result if self.device in (WHOLE, info.name)}

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
            message = f"{self.target_id!r} has no pool"
            raise contract.NotReadyError(message, hint="simenv status says why")
        return ranked[0]

    def engines_of(self, device: DeviceInfo, pools: Sequence[PoolInfo]) -> list[EngineInfo]:
        """Installed engines that may run a circuit in these pools; the engine of `device` comes
        first. Empty for a machine."""
        if device.kind is DeviceKind.HARDWARE:
            return []
        named = {pool.engine for pool in pools}
        there = [e for e in self.engines() if not e.missing and named & {ANY_ENGINE, e.name}]
        return sorted(there, key=lambda engine: engine.name != device.model)

    def record(self, kind: type, *, with_properties: bool) -> contract.ServiceRecord:
        """Service record, the answer of `query`."""
        info = self.status()
        main = self.device_info(self.device)
        types, capabilities = self._bits(main, info)
        if not with_properties:  # revision 1 does not define this bit
            capabilities &= ~contract.QPMCapability.SUPERCONDUCTING
        summary = f"simenv environment {info.name} on {info.node}"
        if self.device:
            summary = f"pool {self.device} of {summary}"
        record = contract.ServiceRecord(
            contract.SERVICE_NAME, summary, kind.__name__, kind.__module__,
            int(types), int(capabilities), contract.UNLIMITED,
        )  # fmt: skip
        if not with_properties:
            return record
        pools = self._answering(main, info)
        properties = {
            **contract.service_properties(record, self.target_id, self.target_id, main.num_qubits),
            "max_shots": main.max_shots or MAX_SHOTS,
            "controller": {"version": info.version, "node": info.node, "pools": pools},
            "circuit_formats": devices.formats(main),
        }
        return msgspec.structs.replace(record, properties=properties)

    def _bits(
        self, main: DeviceInfo, info: ServiceInfo
    ) -> tuple[contract.QPMType, contract.QPMCapability]:
        hardware, simulator = contract.QPMType.HARDWARE, contract.QPMType.SIMULATOR
        capabilities = contract.QPMCapability(0)
        if main.kind is DeviceKind.IDEAL:
            for engine in self.engines_of(main, info.pools):
                capabilities |= _capability(engine)
        elif main.technology == "superconducting":  # no amplitudes: its state is mixed
            capabilities = contract.QPMCapability.SUPERCONDUCTING
        return hardware if main.kind is DeviceKind.HARDWARE else simulator, capabilities

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


def _capability(engine: EngineInfo) -> contract.QPMCapability:
    if "statevector" not in engine.outputs:
        return contract.QPMCapability(0)
    if engine.max_qubits > _AMPLITUDE_QUBITS:
        return contract.QPMCapability.TENSORNETWORK
    return contract.QPMCapability.STATEVECTOR


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
            return self._by_number(requests.integer("device_id", device_id, 0, MAX_NUMBER))
        name = requests.text("device_id", device_id)
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
        answer = asked(self._session, admin.GetProfile(0, device=device))
        return answer.profile


def _unknown(name: str, pools: list[str]) -> contract.UnknownObjectError:
    message = f"no device {name} here"
    return contract.UnknownObjectError(message, hint=f"there are: {', '.join(pools)}")
