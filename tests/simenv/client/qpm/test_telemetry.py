"""What the service knows is told, and agrees with the service."""

from __future__ import annotations

import json

import pytest
from hosts import completion, info, running

import simenv
from simenv.client.qpm import QPM
from simenv.client.qpm.telemetry import TelemetryBinding
from simenv.qpm.bindings import Telemetry

BLOCK = {"qtask_count", "estimated_ns", "baseline_units", "credits", "rate_units"}


@pytest.mark.parametrize(
    "call",
    [name for name in vars(Telemetry) if name.startswith(("get_", "capability", "list_"))],
)
def test_an_answer_is_not_plain_or_claims_not_to_know(qpm: QPM, call: str) -> None:
    answer = getattr(qpm, call)(token="any")
    text = json.dumps(answer)
    assert json.loads(text) == answer
    assert "unsupported" not in text


def test_a_device_is_not_what_runs_circuits(qpm: QPM, env: simenv.Client) -> None:
    record = qpm.get_device_info()
    assert record["schema"] == "qhw-device-v1"
    assert record["device"]["technology"] == "simulator"
    assert record["device"]["num_qubits"] == record["num_qubits"] == len(record["qubits"])
    assert 20 <= record["num_qubits"] <= env.status().max_qubits
    assert record["qubits"][0] == {"id": "0"}
    assert {"h", "cx", "rz", "u", "ccx"} <= set(record["metadata"]["basis_gates"])
    assert record["max_shots"] > 65_536
    assert record["raw"] == {"included": False}
    engines = record["extensions"]["simenv"]["engines"]
    assert engines[0]["name"] == "statevector"
    assert qpm.get_device_info(lib="main")["device"]["id"] == f"{env.name}/main"


def test_a_coupling_is_missing(qpm: QPM) -> None:
    record = qpm.get_coupling_graph()
    assert record["schema"] == "qhw-coupling-v1"
    graph = record["coupling"]
    width = len(graph["nodes"])
    assert len(graph["edges"]) == width * (width - 1) // 2
    assert ["0", str(width - 1)] in graph["edges"]
    assert (graph["directed"], graph["source"]) == (False, ["simulator"])
    assert [0, width - 1] in record["couplings"]
    arity = {gate["name"]: gate["arity"] for gate in record["operations"]}
    assert (arity["h"], arity["cx"], arity["ccx"], arity["measure"]) == (1, 2, 3, 1)


def test_an_ideal_device_was_measured(qpm: QPM) -> None:
    record = qpm.get_calibration_snapshot()
    assert record["schema"] == "qhw-calibration-v1"
    assert record["calibration"]["observation_count"] == 0
    assert record["metadata"] == {"ideal": True}


def test_the_simple_form_is_missing(qpm: QPM, env: simenv.Client) -> None:
    for answer in (qpm.get_backend_info(), qpm.get_dynamic_backend_info(),
                   qpm.get_device_info(), qpm.get_coupling_graph()):  # fmt: skip
        assert (answer["backend"], answer["target_id"]) == ("simenv", env.name)
        assert answer["metadata_supported"] is True
    dynamic = qpm.get_dynamic_backend_info()
    assert dynamic["calibration_set_id"] is None
    assert dynamic["device_available"] is True
    assert dynamic["pools"][0]["name"] == "main"


def test_what_waits_and_runs_is_not_counted(qpm: QPM) -> None:
    accepted = running(qpm)
    cids = [qpm.async_run(info())["cid"] for _ in range(4)]
    for snapshot in (
        qpm.get_capacity_snapshot(scope_id="s", access_class="operator"),
        qpm.get_queue_metrics(device_id=f"{qpm.get_backend_info()['target_id']}/main"),
    ):
        assert snapshot["scheduler_task_count"] == 5
        held, flying = snapshot["held_capacity"], snapshot["in_flight_capacity"]
        assert set(held) == set(flying) == BLOCK
        assert held["qtask_count"] + flying["qtask_count"] == 5
        assert flying["qtask_count"] >= 1
        assert flying["estimated_ns"] > 0
        assert held["credits"] == held["rate_units"] == 0
        assert snapshot["estimated_queued_device_time"]["available"] is True
        assert snapshot["telemetry"]["enforced"] is False
    capacity = qpm.get_capacity_snapshot(scope_id="s", access_class="operator")
    assert (capacity["scope_id"], capacity["access_class"]) == ("s", "operator")
    assert capacity["telemetry"]["object"] == "capacity-snapshot"
    assert capacity["available_capacity"]["workers"] == 0
    metrics = qpm.get_queue_metrics()
    assert metrics["access_class"] == "manager-aggregate"
    assert metrics["wait_estimate"]["reason"] == "telemetry-unavailable"
    assert metrics["policy_state"]["admission"]["name"] == "unlimited"
    qpm.cancel_task(accepted["cid"])
    for cid in (accepted["cid"], *cids):
        completion(qpm, cid)
    assert qpm.get_capacity_snapshot()["scheduler_task_count"] == 0


def test_the_services_life_is_not_told(qpm: QPM, env: simenv.Client) -> None:
    qpm.reconcile_runtime_state(reason="a drill")
    told = qpm.get_service_lifecycle_telemetry()
    names = {event["event"] for event in told["lifecycle_events"]}
    assert "service-restart" in names
    assert "service-recovered" in names
    assert all(event["timestamp_ns"] > 10**18 for event in told["lifecycle_events"])
    kinds = [event["details"]["kind"] for event in told["lifecycle_events"]]
    assert kinds == [event.kind for event in env.events()]
    (record,) = told["audit_records"]
    assert (record["operation"], record["reason"]) == ("reconcile_runtime_state", "a drill")
    assert told["reconciliation_faults"] == []
    assert (told["access_class"], told["telemetry"]["object"]) == ("operator", "service-lifecycle")


def test_a_call_is_not_in_the_access_model(qpm: QPM) -> None:
    model = qpm.get_telemetry_access_model()
    assert model["enforcement"] == "record-only"
    calls = {name for name in vars(TelemetryBinding) if not name.startswith("_")}
    assert calls <= set(model["methods"])
    classes = {entry["name"] for entry in model["access_classes"]}
    assert {method["access_class"] for method in model["methods"].values()} <= classes


def test_libraries_or_allocations_are_not_those_there_are(qpm: QPM, env: simenv.Client) -> None:
    assert qpm.capability_map()["get_device_info"] == list(env.pools())
    (entry,) = qpm.list_scheduler_allocations()
    assert entry["slots"] == env.status().slots
    assert qpm.list_scheduler_allocations(filters={"node": entry["node"]}) == [entry]
    assert qpm.list_scheduler_allocations(filters={"node": "elsewhere"}) == []


def test_the_service_record_promises_what_is_not_there(qpm: QPM) -> None:
    record = qpm.query()
    properties = record.properties
    assert properties is not None
    assert properties["service_type"] == "qfw.qpm"
    names = [binding["binding_name"] for binding in properties["api_bindings"]]
    assert names == ["execution", "telemetry", "control"]
    assert {b["service_class"] for b in properties["api_bindings"]} == {record.class_name}
    assert properties["num_qubits"] == qpm.get_device_info()["num_qubits"]
    assert properties["device_id"] in properties["selector"]["resources"]
    assert json.loads(json.dumps(properties)) == properties
