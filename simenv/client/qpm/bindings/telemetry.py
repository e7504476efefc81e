"""Binding `telemetry` of revision 2: the service's data in the contract's terms.

`lib` names a pool; None is the QPM's own target: a pool or the environment. Access classes are
recorded, not enforced.
"""

from __future__ import annotations

from functools import partial
from time import time
from typing import Any

import msgspec

from simenv.client.qpm.answers import devices, snapshots
from simenv.client.qpm.answers.snapshots import DeviceSnapshot, lifecycle
from simenv.client.qpm.requests import arguments, policy_tables
from simenv.client.qpm.runtime.calls import asked
from simenv.client.qpm.runtime.context import QpmBinding
from simenv.client.qpm.runtime.identity import WHOLE, pools_of
from simenv.client.qpm.runtime.reservations import LIVE
from simenv.model import MAX_SHOTS, AdmissionPolicy, ReservationRequest
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.qpm.bindings import Device
from simenv.qpm.envelopes import plain
from simenv.qpm.errors import UnknownObjectError
from simenv.qpm.service import PROVIDER
from simenv.qpm.telemetry import LifecycleTelemetry, SchedulerAllocations, Visibility
from simenv.wire.messages import client as m
from simenv.wire.messages.reservations import (
    DecisionReply,
    GetPolicy,
    GetReservations,
    PolicyReply,
    Reservations,
    Reserve,
)

EVENTS_SHOWN = 1_000  # the newest
UNLIMITED_POLICY = "unlimited"
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


class QuerySubject(msgspec.Struct, frozen=True):
    """Subject of a query about a device. `device`: the service's name; `name`: the contract's
    name."""

    device: str
    name: str
    info: DeviceInfo


class TelemetryBinding(QpmBinding):
    """Methods of the binding. Thread-safe. Each answer has the present state."""

    # --- what it is ---------------------------------------------------------------------------

    def get_backend_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """Simple form of the device, with its `qhw-device-v1` record in `qhw_device`."""
        subject = self._subject(lib)
        answer: Plain = {**_simple(subject), "qhw_device": self._device_record(subject)}
        if subject.info.kind is not DeviceKind.IDEAL:
            answer["active_qubits"] = devices.qubits(subject.info)
            answer["calibration_set_id"] = subject.info.calibration_id or None
        return answer

    def get_device_info(self, lib: str | None = None, token: str | None = None) -> Plain:
        """`qhw-device-v1` record, with the simple form for older hosts. `max_shots`: limit of one
        request; the record has the machine's own limit."""
        subject = self._subject(lib)
        return {
            **_simple(subject),
            **self._device_record(subject),
            "num_qubits": subject.info.num_qubits,
            "max_shots": MAX_SHOTS,
        }

    def get_dynamic_backend_info(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """Current state: availability, queue, wait estimate and free slots."""
        subject = self._subject(lib, calibration_set_id)
        seen = self._moment(subject.device, "basic-discovery")
        info, target = seen.service, seen.target
        return {
            **_simple(subject),
            "calibration_set_id": subject.info.calibration_id or None,
            "device_available": seen.is_available,
            "timestamp_ns": seen.now_ns,
            "state": target.state,
            "pause_reason": target.pause_reason or None,
            "pools": [snapshots.pool(pool) for pool in seen.pools],
            "pending_qtask_count": target.parked,
            "scheduler_queue_depth": target.queued,
            "active_task_count": target.running,
            "wait_estimate": plain(snapshots.wait(seen)),
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
        """`qhw-calibration-v1` record; of an ideal device: no observations."""
        subject = self._subject(lib, calibration_set_id)
        return {**_simple(subject), **plain(devices.calibration(subject.name, subject.info))}

    def get_coupling_graph(
        self,
        calibration_set_id: str | None = None,
        lib: str | None = None,
        token: str | None = None,
    ) -> Plain:
        """`qhw-coupling-v1` record, with `couplings` [[a, b], ...] for older hosts."""
        subject = self._subject(lib, calibration_set_id)
        couplings = [list(pair) for pair in devices.edges(subject.info)]
        record = plain(devices.coupling(subject.name, subject.info))
        return {**_simple(subject), **record, "couplings": couplings}

    def capability_map(self, token: str | None = None) -> dict[str, list[str]]:
        """Map from each call to the libraries (pools) that it accepts."""
        pools = list(self._context.identity.devices())
        return {call: list(pools) if call in _BY_LIBRARY else [] for call in _CALLS}

    def list_scheduler_allocations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> Plain:
        """Allocations of batch schedulers with live reservations that the caller may see, one entry
        each. A QPM of a pool lists reservations of that pool.

        `filters`: values of entry fields.
        """
        wanted = arguments.optional_table("filters", filters)
        infos = asked(self._context.session, Reservations, GetReservations).reservations
        entries = snapshots.allocations(
            info
            for info in infos
            if info.state in LIVE and self._context.identity.device in (WHOLE, info.device)
        )
        return plain(
            SchedulerAllocations(
                [
                    entry
                    for entry in entries
                    if all(getattr(entry, name, None) == value for name, value in wanted.items())
                ]
            )
        )

    def get_telemetry_access_model(self, token: str | None = None) -> Plain:
        """Access class of each call, with the intended readers of each class."""
        return {
            "target_id": self._context.identity.target_id,
            "enforcement": "record-only",
            "access_classes": [
                {"name": name, "description": description} for name, description in ACCESS.items()
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
        device_id: Device | None = None,
        scope_id: str | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """Waiting tasks, running tasks and free capacity. `device_id`: the target or one of its
        pools."""
        device = self._context.targets.device(device_id)
        arguments.optional_text("scope_id", scope_id)
        access = _access(access_class, "manager-aggregate")
        return plain(snapshots.capacity(self._moment(device, access), scope_id))

    def get_queue_metrics(
        self,
        token: str | None = None,
        device_id: Device | None = None,
        access_class: str | None = None,
    ) -> Plain:
        """Queue metrics of a device; `device_id` as in `get_capacity_snapshot`."""
        device = self._context.targets.device(device_id)
        access = _access(access_class, "manager-aggregate")
        return plain(snapshots.queue(self._moment(device, access)))

    def get_service_lifecycle_telemetry(
        self, token: str | None = None, access_class: str | None = None
    ) -> Plain:
        """Newest events of the service and its workers, with the audit entries of `control`."""
        access = _access(access_class, "operator")
        target = self._context.identity.target_id
        newest = asked(self._context.session, m.Events, partial(m.GetEvents, limit=0)).newest
        since = max(0, newest - EVENTS_SHOWN)
        ask = partial(m.GetEvents, since=since, limit=EVENTS_SHOWN)
        events = asked(self._context.session, m.Events, ask).events
        return plain(
            LifecycleTelemetry(
                target, _now_ns(), access,
                [lifecycle(target, event) for event in events],
                [msgspec.to_builtins(entry) for entry in self._context.audit.entries()],
                [msgspec.to_builtins(fault) for fault in self._context.audit.faults()],
                Visibility("service-lifecycle", access),
            )
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------

    def _subject(self, lib: Any, calibration_set_id: Any = None) -> QuerySubject:
        wanted = arguments.optional_text("calibration_set_id", calibration_set_id)
        device = self._context.targets.device(arguments.optional_text("lib", lib))
        info = self._context.identity.device_info(device)
        if wanted not in (None, info.calibration_id):
            there = f"there is {info.calibration_id!r}" if info.calibration_id else "it has none"
            raise UnknownObjectError(
                f"no calibration set {wanted!r:.80} here",
                hint=f"{there}; without calibration_set_id the present one is meant",
            )
        return QuerySubject(device, self._context.targets.contract_name(device), info)

    def _device_record(self, subject: QuerySubject) -> Plain:
        pools = pools_of(self._context.identity.status(), subject.device)
        engines = self._context.identity.engines_of(subject.info, pools)
        return plain(devices.device(subject.name, subject.info, engines))

    def _moment(self, device: str, access: str) -> DeviceSnapshot:
        info, target = self._context.identity.status(), self._context.identity.target(device)
        full = target if device == WHOLE else self._context.identity.target(WHOLE)
        rules = asked(self._context.session, PolicyReply, partial(GetPolicy, device=device)).policy
        return DeviceSnapshot(
            target_id=self._context.identity.target_id,
            device_id=self._context.targets.contract_name(device),
            access_class=access,
            now_ns=_now_ns(),
            service=info,
            pools=pools_of(info, device),
            target=target,
            admission={
                "name": rules.name,
                "options": {},
                "capacity": policy_tables.capacity_table(rules),
                "baseline": policy_tables.baseline_table(rules.baseline),
            },
            room=self._available_units(device, rules),
            begins=snapshots.begins(target, full),
        )

    def _available_units(self, device: str, rules: AdmissionPolicy) -> int | None:
        """Units of the next reservation that the service would grant to this caller; None if
        unlimited."""
        if rules.name == UNLIMITED_POLICY:
            return None
        ask = partial(Reserve, ask=ReservationRequest(device=device), dry=True)
        return asked(self._context.session, DecisionReply, ask).decision.capacity_available


def _simple(subject: QuerySubject) -> Plain:
    return {"backend": PROVIDER, "target_id": subject.name, "metadata_supported": True}


def _access(value: Any, default: str) -> str:
    return default if value is None else arguments.text("access_class", value)


def _now_ns() -> int:
    return round(time() * 1e9)
