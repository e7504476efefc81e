"""Binding `telemetry` of revision 2: what the service knows, in the contract's words.

`lib` names a pool; without it the environment as a whole is meant. Access is recorded, not
enforced: `token` and `access_class` are taken and told again.
"""

from __future__ import annotations

from functools import partial
from time import time
from typing import Any

import msgspec

from simenv.client.link import Link
from simenv.client.qpm import devices, fields, figures
from simenv.client.qpm.audit import Audit
from simenv.client.qpm.presence import Presence
from simenv.errors import NoService
from simenv.model import MAX_SHOTS, EngineInfo, PoolInfo, ServiceInfo
from simenv.qpm.envelopes import plain
from simenv.qpm.errors import NotReady, UnknownObject
from simenv.qpm.service import PROVIDER
from simenv.qpm.views import LifecycleTelemetry, Seen
from simenv.wire import messages as m

EVENTS_SHOWN = 1_000  # the newest
ACCESS = {
    "basic-discovery": "what the device is: anybody who may look for one",
    "caller-owned": "a caller's own circuits",
    "manager-aggregate": "sums over all callers",
    "operator": "the service's own life",
}
_CALLS = {
    "get_backend_info": "basic-discovery",
    "get_device_info": "basic-discovery",
    "get_dynamic_backend_info": "basic-discovery",
    "get_calibration_snapshot": "basic-discovery",
    "get_coupling_graph": "basic-discovery",
    "capability_map": "basic-discovery",
    "get_telemetry_access_model": "basic-discovery",
    "task_status": "caller-owned",
    "get_task_timing": "caller-owned",
    "get_task_metadata": "caller-owned",
    "list_scheduler_allocations": "manager-aggregate",
    "get_capacity_snapshot": "manager-aggregate",
    "get_queue_metrics": "manager-aggregate",
    "get_service_lifecycle_telemetry": "operator",
}
_BY_LIBRARY = (
    "get_backend_info", "get_device_info", "get_dynamic_backend_info", "get_calibration_snapshot",
    "get_coupling_graph",
)  # fmt: skip

Plain = dict[str, Any]
Here = tuple[ServiceInfo, PoolInfo | None, list[EngineInfo]]


class TelemetryBinding:
    """Thread-safe; every answer is of now."""

    def __init__(self, link: Link, presence: Presence, audit: Audit) -> None:
        self._link = link
        self._presence = presence
        self._audit = audit

    # --- what it is ---------------------------------------------------------------------------

    def get_backend_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """The simple form and, as `qhw_device`, the device."""
        here = self._here(lib, token)
        return {**self._simple(here), "qhw_device": plain(devices.device(*here))}

    def get_device_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """A `qhw-device-v1` record, and the simple form beside it for older hosts."""
        here = self._here(lib, token)
        return {
            **self._simple(here),
            **plain(devices.device(*here)),
            "num_qubits": here[2][0].max_qubits,
            "max_shots": MAX_SHOTS,
        }

    def get_dynamic_backend_info(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """What changes from one moment to the next."""
        here = self._here(lib, token, calibration_set_id)
        info, pool, _ = here
        shown = info.pools if pool is None else (pool,)
        return {
            **self._simple(here),
            "calibration_set_id": None,
            "device_available": figures.is_available(shown),
            "timestamp_ns": _now_ns(),
            "pools": [figures.pool(one) for one in shown],
            "slots": info.slots,
            "slots_granted": info.slots_granted,
            "memory_bytes": info.memory_bytes,
        }

    def get_calibration_snapshot(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """A `qhw-calibration-v1` record of an ideal device: nothing observed."""
        here = self._here(lib, token, calibration_set_id)
        return {**self._simple(here), **plain(devices.calibration(*here))}

    def get_coupling_graph(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """A `qhw-coupling-v1` record, and `couplings` [[a, b]] for older hosts."""
        here = self._here(lib, token, calibration_set_id)
        graph = devices.coupling(*here)
        couplings = [[int(a), int(b)] for a, b in graph.coupling["edges"]]
        return {**self._simple(here), **plain(graph), "couplings": couplings}

    def capability_map(self, token: str | None = None) -> dict[str, list[str]]:
        """Call to the libraries it knows."""
        fields.optional_text("token", token)
        pools = [pool.name for pool in self._presence.status().pools]
        return {call: list(pools) if call in _BY_LIBRARY else [] for call in _CALLS}

    def list_scheduler_allocations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> list[Plain]:
        """The slots the service has to give away, where they are; one entry a node.

        `filters`: fields of an entry and their value.
        """
        fields.optional_text("token", token)
        wanted = fields.optional_table("filters", filters)
        info = self._presence.status()
        entry: Plain = {
            "allocation_id": info.name,
            "target_id": info.name,
            "node": info.node,
            "slots": info.slots,
            "slots_granted": info.slots_granted,
            "memory_bytes": info.memory_bytes,
        }
        return [entry] if all(entry.get(name) == value for name, value in wanted.items()) else []

    def get_telemetry_access_model(self, token: str | None = None) -> Plain:
        """Who is meant to see what."""
        fields.optional_text("token", token)
        return {
            "target_id": self._presence.target_id,
            "enforcement": "record-only",
            "access_classes": [
                {"name": name, "description": words} for name, words in ACCESS.items()
            ],
            "methods": {
                call: {
                    "access_class": access,
                    "enforced": False,
                    "object_visibility": "own" if access == "caller-owned" else "all",
                    "field_visibility": {},
                }
                for call, access in _CALLS.items()
            },
        }

    # --- how it goes --------------------------------------------------------------------------

    def get_capacity_snapshot(
        self,
        token: str | None = None,
        device_id: str | None = None,
        scope_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """What waits, what runs and what is free; `device_id`: the target, or one of its pools."""
        info, pools, device = self._device(device_id, token)
        fields.optional_text("scope_id", scope_id)
        access = _access(access_class, "manager-aggregate")
        return plain(figures.capacity(info, pools, device, scope_id, access, _now_ns()))

    def get_queue_metrics(
        self,
        token: str | None = None,
        device_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """The queue in numbers; device as in `get_capacity_snapshot`."""
        info, pools, device = self._device(device_id, token)
        access = _access(access_class, "manager-aggregate")
        return plain(figures.queue(info, pools, device, access, _now_ns()))

    def get_service_lifecycle_telemetry(
        self, token: str | None = None, access_class: str | None = None
    ) -> Plain:
        """The newest events of the service and its workers, and what was asked of `control`."""
        fields.optional_text("token", token)
        access = _access(access_class, "operator")
        target = self._presence.target_id
        try:
            newest = self._link.ask(m.Events, partial(m.GetEvents, limit=0)).newest
            since = max(0, newest - EVENTS_SHOWN)
            ask = partial(m.GetEvents, since=since, limit=EVENTS_SHOWN)
            events = self._link.ask(m.Events, ask).events
        except NoService as error:
            raise NotReady(error.message, hint=error.hint) from error
        return plain(
            LifecycleTelemetry(
                target, _now_ns(), access,
                [figures.lifecycle(target, event) for event in events],
                [msgspec.to_builtins(entry) for entry in self._audit.entries()],
                [msgspec.to_builtins(fault) for fault in self._audit.faults()],
                Seen("service-lifecycle", access),
            )
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------

    def _here(self, lib: Any, token: Any, calibration_set_id: Any = None) -> Here:
        fields.optional_text("token", token)
        fields.optional_text("calibration_set_id", calibration_set_id)
        info = self._presence.status()
        pool = self._presence.pool(info, lib)
        if calibration_set_id is not None:
            raise UnknownObject(
                f"no calibration set {calibration_set_id!r} here",
                hint="an ideal pool has none: leave calibration_set_id out",
            )
        main = self._presence.main_engine(pool)
        others = [e for e in self._presence.engines_of(pool) if e is not main]
        return info, pool, [main, *others]

    def _device(self, device_id: Any, token: Any) -> tuple[ServiceInfo, tuple[PoolInfo, ...], str]:
        fields.optional_text("token", token)
        info = self._presence.status()
        if fields.optional_text("device_id", device_id) in (None, info.name):
            return info, info.pools, info.name
        name = device_id.removeprefix(f"{info.name}/")
        pool = self._presence.pool(info, name)
        assert pool is not None
        return info, (pool,), f"{info.name}/{pool.name}"

    def _simple(self, here: Here) -> Plain:
        info, pool, _ = here
        return {
            "backend": PROVIDER,
            "target_id": info.name if pool is None else f"{info.name}/{pool.name}",
            "metadata_supported": True,
        }


def _access(given: Any, default: str) -> str:
    return default if given is None else fields.text("access_class", given)


def _now_ns() -> int:
    return round(time() * 1e9)
