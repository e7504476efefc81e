"""What the honest plugin tells of itself: its service record, binding telemetry."""

from __future__ import annotations

import time

from .simulate import MOST_QUBITS

CLASSES = {
    "get_backend_info": "basic-discovery", "get_device_info": "basic-discovery",
    "get_dynamic_backend_info": "basic-discovery", "get_calibration_snapshot": "basic-discovery",
    "get_coupling_graph": "basic-discovery", "get_telemetry_access_model": "basic-discovery",
    "task_status": "caller-owned", "get_capacity_snapshot": "manager-aggregate",
    "get_queue_metrics": "manager-aggregate", "get_service_lifecycle_telemetry": "operator",
}  # fmt: skip
BINDINGS = (
    ("execution", "api_qpm_execution", "QPMExecution"),
    ("admission", "api_qpm_admission_control", "QPMAdmissionControl"),
    ("admission-policy", "api_qpm_admission_policy_config", "QPMAdmissionPolicyConfig"),
    ("scheduler", "api_qpm_scheduler_control", "QPMSchedulerControl"),
    ("telemetry", "api_qpm_telemetry", "QPMTelemetry"),
    ("control", "api_qpm_control", "QPMControl"),
)
SIMPLE = {"backend": "honest", "target_id": "honest", "metadata_supported": True}
SIMULATOR, NWQSIM = 2, 16
STATEVECTOR = 2


class Telling:
    def query(self):
        from defw_agent_info import Capability, DEFwServiceInfo

        kind = type(self)
        types = SIMULATOR if self.revision2() else SIMULATOR | NWQSIM
        capability = Capability(types, STATEVECTOR, "a simulator with state vectors")
        entries = ("QPM", "a small honest QPM", kind.__name__, kind.__module__, capability, -1)
        if self.revision2():
            return DEFwServiceInfo(*entries, properties=self.properties())
        return DEFwServiceInfo(*entries)

    def properties(self):
        from .base import service_id

        home = {"service_module": type(self).__module__, "service_class": type(self).__name__}
        bindings = [
            {"binding_name": name, "client_module": module, "client_class": client, **home,
             "version": 1}
            for name, module, client in BINDINGS
        ]  # fmt: skip
        first = {name: value for name, value in bindings[0].items() if name != "version"}
        return {
            "service_type": "qfw.qpm", "service_id": service_id(), "provider": "honest",
            "device_id": "honest", "target_id": "honest", "num_qubits": MOST_QUBITS,
            "max_shots": 65_536, "qpm_type": SIMULATOR, "qpm_capabilities": STATEVECTOR,
            "simulator": True, "hardware": False, "controller": {},
            "selector": {"name": "honest", "resources": ["honest", f"HONEST-{MOST_QUBITS}q"],
                         "aliases": ["honest", "QPM"]},
            "api_bindings": bindings, **first, "circuit_formats": ["openqasm2"],
        }  # fmt: skip

    def event(self, name, reason=None):
        table = {"event": name, "target_id": "honest", "timestamp_ns": time.time_ns()}
        return {**table, "reason": reason} if reason else table

    # --- the device ---------------------------------------------------------------------------

    def get_backend_info(self, lib=None, token=None):
        return dict(SIMPLE)

    def get_device_info(self, lib=None, token=None):
        return {
            **SIMPLE,
            **self._head("qhw-device-v1"),
            "num_qubits": MOST_QUBITS,
            "max_shots": 65_536,
            "qubits": [{"id": str(n)} for n in range(MOST_QUBITS)],
        }

    def get_dynamic_backend_info(self, calibration_set_id=None, lib=None, token=None):
        return {**SIMPLE, "calibration_set_id": None}

    def get_calibration_snapshot(self, calibration_set_id=None, lib=None, token=None):
        nothing = {"observation_count": 0, "quality_metric_count": 0, "summaries": {}}
        return {**SIMPLE, **self._head("qhw-calibration-v1"), "calibration": nothing}

    def get_coupling_graph(self, calibration_set_id=None, lib=None, token=None):
        nodes = [str(n) for n in range(MOST_QUBITS)]
        edges = [[a, b] for a in nodes for b in nodes if int(a) < int(b)]
        graph = {"nodes": nodes, "edges": edges, "directed": False, "source": ["simulator"]}
        return {**SIMPLE, **self._head("qhw-coupling-v1"), "coupling": graph,
                "operations": [{"name": "cx", "arity": 2}]}  # fmt: skip

    @staticmethod
    def _head(schema):
        device = {"id": "honest", "num_qubits": MOST_QUBITS, "technology": "simulator"}
        return {"schema": schema, "provider": "honest", "device": device, "metadata": {},
                "extensions": {}, "raw": {"included": False}}  # fmt: skip

    def capability_map(self, token=None):
        return {name: [] for name in CLASSES}

    def list_scheduler_allocations(self, token=None, filters=None):
        entries = [
            {**each["request_metadata"], "job_id": str(each["job_id"]), "user": each["user_id"],
             "state": "ACTIVE", "active_tasks": 0, "active_task_count": 0}
            for each in self.list_reservations() if each["state"] == "active" and each["job_id"]
        ]  # fmt: skip
        wanted = (filters or {}).items()
        return {
            "schema": "qfw-scheduler-allocation-list-v1",
            "allocations": [e for e in entries if all(e.get(k) == v for k, v in wanted)],
        }

    # --- how it goes --------------------------------------------------------------------------

    def get_telemetry_access_model(self, token=None):
        names = ("basic-discovery", "caller-owned", "manager-aggregate", "operator")
        return {
            "target_id": "honest", "enforcement": "record-only",
            "access_classes": [{"name": name, "description": name} for name in names],
            "methods": {name: {"access_class": access, "enforced": False,
                               "object_visibility": "all", "field_visibility": {}}
                        for name, access in CLASSES.items()},
        }  # fmt: skip

    def get_capacity_snapshot(self, token=None, device_id=None, scope_id=None, access_class=None):
        result = self._seen("capacity-snapshot", access_class)
        with self.desk.lock:
            waiting, running = len(self.desk.waiting), int(self.desk.running is not None)
        return {
            **result, "device_id": "honest", "scope_id": scope_id,
            "pending_qtask_count": len(self.desk.parked), "scheduler_queue_depth": waiting,
            "scheduler_task_count": waiting + running,
            "active_reservation_count": self.get_service_status()["active_reservation_count"],
            "held_capacity": _block(waiting), "in_flight_capacity": _block(running),
            "available_capacity": {"slots": 1 - running},
            "estimated_queued_device_time": _unknown("queued-device-time"),
            "scheduler_policy": dict(self.desk.policy), "device_available": True,
            "confidence": "observed-controller-state",
        }  # fmt: skip

    def get_queue_metrics(self, token=None, device_id=None, access_class=None):
        self._text("device_id", device_id)
        result = self._seen("queue-metrics", access_class)
        with self.desk.lock:
            waiting, running = len(self.desk.waiting), int(self.desk.running is not None)
        return {
            **result, "device_id": "honest", "pending_qtask_count": len(self.desk.parked),
            "scheduler_depth": waiting, "scheduler_task_count": waiting + running,
            "active_task_count": running, "selected_task_count": 0,
            "provider_inflight_count": running,
            "dispatch_limits": {"max_inflight": self.desk.most},
            "held_capacity": _block(waiting), "in_flight_capacity": _block(running),
            "policy_state": {"scheduler": dict(self.desk.policy), "admission": "unlimited"},
            "wait_estimate": _unknown("wait"), "estimated_start": _unknown("start"),
            "estimated_queued_device_time": _unknown("queued-device-time"),
        }  # fmt: skip

    def get_service_lifecycle_telemetry(self, token=None, access_class=None):
        result = self._seen("service-lifecycle", access_class or "operator")
        return {**result, "lifecycle_events": list(self.events), "audit_records": [],
                "reconciliation_faults": []}  # fmt: skip

    def _seen(self, kind, access_class):
        access = self._text("access_class", access_class) or "manager-aggregate"
        return {
            "target_id": "honest",
            "timestamp_ns": time.time_ns(),
            "access_class": access,
            "telemetry": {"object": kind, "access_class": access, "enforced": False},
        }


def _block(count):
    return {"qtask_count": count, "estimated_ns": 0, "baseline_units": 0, "credits": 0,
            "rate_units": 0}  # fmt: skip


def _unknown(kind):
    return {
        "available": False,
        "kind": kind,
        "reason": "telemetry-unavailable",
        "timestamp_ns": time.time_ns(),
        "confidence": "unavailable",
        "policy_context": {},
    }
