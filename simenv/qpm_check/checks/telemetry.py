"""Checks of the binding `telemetry`: device properties, state, visibility."""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm.methods import REVISION2
from simenv.qpm_check import check, fields
from simenv.qpm_check.check import row
from simenv.qpm_check.checks.admission import SLURM_REQUEST
from simenv.qpm_check.fields import ANY, expect_equal, has
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import expect, short_repr

HEAD: fields.Fields = {
    "schema": str, "provider": str, "device": dict, "metadata": dict, "extensions": dict,
    "raw": dict,
}  # fmt: skip
TECHNOLOGIES = ("superconducting", "trapped-ion", "neutral-atom", "simulator")
BLOCK: fields.Fields = dict.fromkeys(
    ("qtask_count", "estimated_ns", "baseline_units", "credits", "rate_units"), int
)
CLASSES = ("basic-discovery", "caller-owned", "manager-aggregate", "operator")
CAPACITY: fields.Fields = {
    "target_id": str, "device_id": ANY, "scope_id": ANY, "timestamp_ns": int, "access_class": str,
    "pending_qtask_count": int, "scheduler_queue_depth": int, "scheduler_task_count": int,
    "active_reservation_count": int, "held_capacity": dict, "in_flight_capacity": dict,
    "available_capacity": ANY, "estimated_queued_device_time": ANY, "scheduler_policy": ANY,
    "device_available": bool, "confidence": str, "telemetry": dict,
}  # fmt: skip
QUEUE: fields.Fields = {
    "target_id": str, "device_id": ANY, "timestamp_ns": int, "access_class": str,
    "pending_qtask_count": int, "scheduler_depth": int, "scheduler_task_count": int,
    "active_task_count": int, "selected_task_count": int, "provider_inflight_count": int,
    "dispatch_limits": dict, "held_capacity": dict, "in_flight_capacity": dict,
    "policy_state": dict, "wait_estimate": dict, "estimated_start": dict,
    "estimated_queued_device_time": dict, "telemetry": dict,
}  # fmt: skip
ALLOCATION: fields.Fields = {
    "scheduler": str, "cluster_name": str, "allocation_id": str, "job_id": str, "user": str,
    "state": str, "active_tasks": int, "active_task_count": int,
}  # fmt: skip
ALLOCATED = {
    "cluster_name": "checked", "allocation_id": "checked:4217", "job_id": "4217", "user": "ada",
    "active_tasks": 0, "active_task_count": 0,
}  # fmt: skip
LIFECYCLE: fields.Fields = {
    "target_id": str, "timestamp_ns": int, "access_class": str, "lifecycle_events": list,
    "audit_records": list, "reconciliation_faults": list, "telemetry": dict,
}  # fmt: skip
EVENTS = (
    "binding-attached", "scheduler-paused", "scheduler-resumed", "scheduler-draining",
    "scheduler-policy-change", "scheduler-dispatch-limits-change", "service-shutdown-requested",
    "service-state-change", "reconciliation", "service-registration", "service-restart",
    "generation-change", "service-deregistration", "peer-lost", "service-timeout",
    "service-recovered", "retention-purge", "reconciliation-fault",
)  # fmt: skip


@row("telemetry.backend", "get_backend_info: backend, target, whether there is more")
def backend(session: CheckSession) -> None:
    expected: fields.Fields = {"backend": str, "target_id": str, "metadata_supported": bool}
    fields.asked(session, "get_backend_info", expected)


@row("telemetry.device", "get_device_info: a qhw-device-v1 record, or the simple form")
def device(session: CheckSession) -> None:
    result = session.q.get_device_info()
    if "schema" not in result:
        has("get_device_info", result,
            {"backend": str, "target_id": str, "num_qubits": int, "max_shots": int})  # fmt: skip
        return
    _qhw(result, "qhw-device-v1", {"qubits": list})
    for qubit in result["qubits"]:
        has("a qubit", qubit, {"id": str})
    expect(bool(result["qubits"]), "a device without qubits")
    technology = result["device"].get("technology", "simulator")
    expect(technology in TECHNOLOGIES, f"technology is {technology!r}")


@row("telemetry.capability-map", "capability_map: calls and the libraries each of them knows")
def capability_map(session: CheckSession) -> None:
    check.of_the_newest(session, "capability_map")
    result = session.q.capability_map()
    expect(isinstance(result, dict) and result, f"capability_map answered {short_repr(result)}")
    for call, libraries in result.items():
        if call == "paradigms":  # a table: see `analog.paradigms`
            continue
        names = isinstance(libraries, list) and all(isinstance(each, str) for each in libraries)
        is_right = isinstance(call, str) and names
        expect(is_right, f"capability_map[{call!r}] is {short_repr(libraries)}")


@row("telemetry.allocations", "list_scheduler_allocations: live reservations by scheduler and job")
def allocations(session: CheckSession) -> None:
    check.of_the_newest(session, "list_scheduler_allocations")
    number = session.reserve(**SLURM_REQUEST)
    session.reserve()  # of no scheduler
    job = SLURM_REQUEST["job_id"]
    for filters in (None, {"scheduler": "slurm"}, {"job_id": job}, {"job_id": int(job)}):
        entries = [e for e in _allocations(session, filters) if e["scheduler"] == "slurm"]
        expect_equal(f"number of allocations for filters={filters}", len(entries), 1)
        for name, value in ALLOCATED.items():
            expect_equal(f"{name} of the allocation", entries[0][name], value)
        expect_equal("state of the allocation", entries[0]["state"].upper(), "ACTIVE")
    for filters in ({"scheduler": "no-such"}, {"allocation_id": "no-such"}):
        expect_equal(f"allocations for filters={filters}", _allocations(session, filters), [])
    session.q.release(reservation_id=number, reason=1)
    states = [entry["state"].upper() for entry in _allocations(session, {"scheduler": "slurm"})]
    expect("ACTIVE" not in states, "an allocation is active after its release")


def _allocations(session: CheckSession, filters: dict[str, Any] | None) -> list[dict[str, Any]]:
    result = session.q.list_scheduler_allocations(filters=filters)
    has("list_scheduler_allocations", result, {"schema": str, "allocations": list})
    expect_equal("schema", result["schema"], "qfw-scheduler-allocation-list-v1")
    return [has("an allocation", entry, ALLOCATION) for entry in result["allocations"]]


@row("telemetry.coupling", "get_coupling_graph: qhw-coupling-v1, or couplings [[a, b]]")
def coupling(session: CheckSession) -> None:
    result = session.q.get_coupling_graph()
    if "schema" not in result:
        has("get_coupling_graph", result, {"backend": str, "target_id": str, "couplings": list})
        return
    _qhw(result, "qhw-coupling-v1", {"coupling": dict, "operations": list})
    graph = has("coupling", result["coupling"],
                {"nodes": list, "edges": list, "directed": bool, "source": list})  # fmt: skip
    nodes = set(graph["nodes"])
    expect(all(isinstance(node, str) for node in nodes), "a node is no text")
    for edge in graph["edges"]:
        expect(len(edge) == 2 and set(edge) <= nodes, f"edge {edge} joins what are no nodes")
    for operation in result["operations"]:
        has("an operation", operation, {"name": str, "arity": int})


@row("telemetry.calibration", "get_calibration_snapshot: qhw-calibration-v1, or the simple form")
def calibration(session: CheckSession) -> None:
    result = session.q.get_calibration_snapshot()
    if "schema" not in result:
        has("get_calibration_snapshot", result, {"backend": str, "target_id": str})
        return
    _qhw(result, "qhw-calibration-v1", {"calibration": dict})
    has("calibration", result["calibration"],
        {"observation_count": int, "quality_metric_count": int, "summaries": dict})  # fmt: skip


@row("telemetry.dynamic", "get_dynamic_backend_info: the simple form, and its calibration set")
def dynamic(session: CheckSession) -> None:
    expected: fields.Fields = {"backend": str, "target_id": str}
    result = fields.asked(session, "get_dynamic_backend_info", expected)
    expect("calibration_set_id" in result, "there is no 'calibration_set_id'")


@row("telemetry.access", "get_telemetry_access_model: classes and methods, recorded only")
def access(session: CheckSession) -> None:
    expected: fields.Fields = {"target_id": str, "enforcement": str, "access_classes": list}
    result = fields.asked(session, "get_telemetry_access_model", {**expected, "methods": dict})
    expect_equal("enforcement", result["enforcement"], "record-only")
    there = {
        has("an access class", entry, {"name": str, "description": str})["name"]
        for entry in result["access_classes"]
    }
    expect(set(CLASSES) <= there, f"access classes are {sorted(there)}")
    for name in REVISION2["telemetry"]:
        expect(name in result["methods"], f"methods has no {name!r}")
    for name, entry in result["methods"].items():
        has(f"methods[{name!r}]", entry, {"access_class": str, "enforced": bool,
            "object_visibility": ANY, "field_visibility": ANY})  # fmt: skip
        expect(entry["access_class"] in CLASSES, f"{name}: access class {entry['access_class']!r}")
        expect_equal(f"enforced of {name}", entry["enforced"], False)


@row("telemetry.capacity", "get_capacity_snapshot: its fields, and what is under way")
def capacity(session: CheckSession) -> None:
    session.until(lambda: session.q.is_ready()["active_task_count"] == 0, "quiet")
    session.long.submit()
    result = has("get_capacity_snapshot", session.q.get_capacity_snapshot(), CAPACITY)
    _check_access(result, "capacity-snapshot", "manager-aggregate")
    blocks = [has(name, result[name], BLOCK) for name in ("held_capacity", "in_flight_capacity")]
    under_way = sum(block["qtask_count"] for block in blocks)
    expect(under_way >= 1, "one circuit is under way; held and in flight are none")
    expect_equal("device_available", result["device_available"], True)
    reported = session.q.get_capacity_snapshot(access_class="operator")
    expect_equal("the access class asked for", reported["access_class"], "operator")


@row("telemetry.queue", "get_queue_metrics: its fields, estimates known or said not to be")
def queue(session: CheckSession) -> None:
    session.long.submit()
    result = has("get_queue_metrics", session.q.get_queue_metrics(), QUEUE)
    _check_access(result, "queue-metrics", "manager-aggregate")
    for name in ("held_capacity", "in_flight_capacity"):
        has(name, result[name], BLOCK)
    has("policy_state", result["policy_state"], {"scheduler": ANY, "admission": ANY})
    for name in ("wait_estimate", "estimated_start", "estimated_queued_device_time"):
        estimate = has(name, result[name], {"available": bool})
        if estimate["available"]:
            has(name, estimate, {"estimated_ns": int})
        else:
            has(name, estimate, {"kind": str, "reason": str, "timestamp_ns": int, "confidence": str,
                            "policy_context": ANY})  # fmt: skip
            expect_equal(f"reason of {name}", estimate["reason"], "telemetry-unavailable")
            expect_equal(f"confidence of {name}", estimate["confidence"], "unavailable")


@row("telemetry.lifecycle", "get_service_lifecycle_telemetry: events by the contract's names")
def lifecycle(session: CheckSession) -> None:
    session.q.reconcile_runtime_state(reason="checked")
    result = fields.asked(session, "get_service_lifecycle_telemetry", LIFECYCLE)
    _check_access(result, "service-lifecycle", "operator")
    expect(bool(result["lifecycle_events"]), "a service that is up has no lifecycle event")
    for event in result["lifecycle_events"]:
        entry = has("an event", event, {"event": str, "target_id": str, "timestamp_ns": int})
        expect(entry["event"] in EVENTS, f"an event is called {entry['event']!r}")


@row("telemetry.now", "snapshots are of now")
def now(session: CheckSession) -> None:
    for method in (session.q.get_capacity_snapshot, session.q.get_queue_metrics):
        before = time.time_ns()
        moment = method()["timestamp_ns"]
        is_now = before - 10**9 <= moment <= time.time_ns() + 10**9
        expect(is_now, f"timestamp_ns {moment} is not of now, {before}")


def _qhw(document: Any, schema: str, more: fields.Fields) -> None:
    reported = has(schema, document, {**HEAD, **more})
    expect_equal("schema", reported["schema"], schema)
    has("device", reported["device"], {"id": str})
    has("raw", reported["raw"], {"included": bool})


def _check_access(answer: dict[str, Any], kind: str, access_class: str) -> None:
    expected: fields.Fields = {"object": str, "access_class": str, "enforced": bool}
    reported = has("telemetry", answer["telemetry"], expected)
    expect_equal("object", reported["object"], kind)
    expect_equal("enforced", reported["enforced"], False)
    expect_equal("access_class", answer["access_class"], access_class)
