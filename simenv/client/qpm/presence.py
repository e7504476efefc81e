"""Who this QPM is: its names, its widths, its service record; what the service told, kept a while.

Engines and gates do not change while a service lives, so they are asked for once an epoch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.client.link import Link
from simenv.client.qpm import fields
from simenv.errors import NoService
from simenv.model import MAX_SHOTS, EngineInfo, GateInfo, PoolInfo, ServiceInfo
from simenv.qpm.errors import NotReady, UnknownObject
from simenv.qpm.service import (
    BINDINGS,
    PROVIDER,
    SERVICE_NAME,
    SERVICE_TYPE,
    UNLIMITED,
    QPMCapability,
    QPMType,
    ServiceRecord,
)
from simenv.wire import messages as m
from simenv.wire.engines import Engines, GetEngines

ANY_ENGINE = "any"


class Presence:
    """Thread-safe."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._engines: tuple[int, tuple[EngineInfo, ...]] = (0, ())

    @property
    def target_id(self) -> str:
        """The environment's name."""
        return self._link.channel.name

    # --- what the service says ----------------------------------------------------------------

    def status(self) -> ServiceInfo:
        """Figures of now; NotReady when nobody answers."""
        try:
            return self._link.ask(m.Status, m.GetStatus).info
        except NoService as error:
            raise NotReady(error.message, hint=error.hint) from error

    def engines(self) -> tuple[EngineInfo, ...]:
        """All that could be used here."""
        epoch = self._link.channel.epoch
        if self._engines[0] != epoch or not epoch:
            try:
                found = self._link.ask(Engines, GetEngines).engines
            except NoService as error:
                raise NotReady(error.message, hint=error.hint) from error
            self._engines = (self._link.channel.epoch, tuple(found))
        return self._engines[1]

    # --- what follows from it -----------------------------------------------------------------

    def pool(self, info: ServiceInfo, lib: Any) -> PoolInfo | None:
        """The pool named; None for the environment as a whole; UnknownObject."""
        if lib is None:
            return None
        fields.text("lib", lib)
        found = next((pool for pool in info.pools if pool.name == lib), None)
        if found is None:
            there = ", ".join(pool.name for pool in info.pools)
            raise UnknownObject(f"no library {lib!r} here", hint=f"there are: {there}")
        return found

    def engines_of(self, pool: PoolInfo | None) -> list[EngineInfo]:
        """The engines a circuit may meet there, installed ones only."""
        one = ANY_ENGINE if pool is None else pool.engine
        return [e for e in self.engines() if not e.missing and one in (ANY_ENGINE, e.name)]

    def main_engine(self, pool: PoolInfo | None) -> EngineInfo:
        """The preferred one of those that run every gate: what a device is described by."""
        found = self.engines_of(pool)
        if not found:
            raise NotReady("no engine is installed here", hint="simenv doctor says what is missing")
        return next((engine for engine in found if not engine.clifford), found[0])

    def record(self, kind: type, *, with_properties: bool) -> ServiceRecord:
        """The answer of `query`."""
        info = self.status()
        bits = QPMType.SIMULATOR
        capabilities = QPMCapability.STATEVECTOR
        if any(engine.name == "mps" for engine in self.engines_of(None)):
            capabilities |= QPMCapability.TENSORNETWORK
        properties = self._properties(info, bits, capabilities, kind) if with_properties else None
        return ServiceRecord(
            SERVICE_NAME, f"simenv environment {info.name} on {info.node}", kind.__name__,
            kind.__module__, int(bits), int(capabilities), UNLIMITED, properties,
        )  # fmt: skip

    def _properties(
        self, info: ServiceInfo, bits: QPMType, capabilities: QPMCapability, kind: type
    ) -> dict[str, Any]:
        width = self.main_engine(None).max_qubits
        home = {"service_module": kind.__module__, "service_class": kind.__name__}
        bindings = [{**msgspec.to_builtins(binding), **home} for binding in BINDINGS]
        default = {key: value for key, value in bindings[0].items() if key != "version"}
        return {
            "service_type": SERVICE_TYPE,
            "service_id": f"qpm:{PROVIDER}:{info.name}",
            "provider": PROVIDER,
            "device_id": info.name,
            "target_id": info.name,
            "num_qubits": width,
            "max_shots": MAX_SHOTS,
            "qpm_type": int(bits),
            "qpm_capabilities": int(capabilities),
            "simulator": True,
            "hardware": False,
            "selector": {
                "name": info.name,
                "resources": [info.name, f"{PROVIDER.upper()}-{width}q"],
                "aliases": [PROVIDER, SERVICE_NAME],
            },
            "api_bindings": bindings,
            **default,
            "controller": {"version": info.version, "node": info.node},
            "circuit_formats": ["openqasm2", "qpy"],
        }


def basis(engine: EngineInfo) -> list[GateInfo]:
    """Its gates of a fixed number of qubits."""
    return [gate for gate in engine.gates if gate.qubits > 0]
