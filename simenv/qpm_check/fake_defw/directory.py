"""Directory service of revision 2: registered services and their generations."""

from __future__ import annotations

import threading
from typing import Any

from simenv.qpm_check.contract.plain_data import impurities

KEYS = (
    "service_id", "service_name", "service_type", "api_bindings", "selector", "properties",
    "capability", "qpm_type", "qpm_capabilities",
)  # fmt: skip


class Directory:
    """Directory of services, `defw.dirsvc` of a plugin's process. Thread-safe."""

    def __init__(self, generations: dict[str, int] | None = None) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, Any]] = {}
        self.generations = {} if generations is None else generations
        self.impure: list[str] = []

    def register_service(self, endpoint: Any, context: Any = None, **more: Any) -> dict[str, Any]:
        """Register a service; a repeated registration starts its next generation."""
        settings = {**(context or {}), **more}
        with self._lock:
            self.impure += impurities({k: v for k, v in settings.items() if k != "capability"})
            name = str(settings.get("service_id"))
            self.generations[name] = self.generations.get(name, 0) + 1
            record = {
                **settings,
                "endpoint": getattr(endpoint, "name", None),
                "generation": self.generations[name],
                "state": "UP",
            }
            self._records[name] = record
            return {"status": "accepted", "generation": record["generation"]}

    def deregister_service(self, service_id: Any = None, **_: Any) -> dict[str, Any]:
        """Mark a service as deregistered."""
        with self._lock:
            if str(service_id) in self._records:
                self._records[str(service_id)]["state"] = "DEREGISTERED"
            return {"status": "accepted"}

    def records(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._records.values())

    def resolve_services(
        self,
        service_type: Any = None,
        service_name: Any = None,
        service_id: Any = None,
        binding_name: Any = None,
        qpm_type: int = -1,
        qpm_capabilities: int = -1,
        selector_resource: Any = None,
        selector_alias: Any = None,
        selector_name: Any = None,
        properties: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Entries of the matching records, one for each of their bindings."""
        results = []
        for record in self.records():
            selector = record.get("selector") or {}
            settings = record.get("properties") or {}
            fits = (
                record["state"] == "UP"
                and service_type in (None, record.get("service_type"))
                and service_name in (None, record.get("service_name"))
                and service_id in (None, record.get("service_id"))
                and is_subset(qpm_type, record.get("qpm_type", 0))
                and is_subset(qpm_capabilities, record.get("qpm_capabilities", 0))
                and selector_name in (None, selector.get("name"))
                and selector_resource in (None, *selector.get("resources", ()))
                and selector_alias in (None, *selector.get("aliases", ()))
                and all(settings.get(key) == value for key, value in (properties or {}).items())
            )
            if fits:
                results += [
                    {**record, "binding": binding}
                    for binding in record.get("api_bindings") or ()
                    if binding_name in (None, binding.get("binding_name"))
                ]
        return results


def is_subset(wanted: int, offered: int) -> bool:
    """Return whether `offered` has every bit of `wanted`; -1 matches everything."""
    return wanted == -1 or wanted & int(offered) == wanted
