"""What the service knows is told, and agrees with the service."""

import json

import pytest
from failing import fails
from hosts import completion, info, running
from waiting import until

import simenv
from simenv.client.qpm.provider import QPM
from simenv.model.devices import DeviceKind
from simenv.qpm.contract import ExecutionError, UnknownObjectError
from simenv.qpm.methods import EXTENSIONS, REVISION2

BLOCK = {"qtask_count", "estimated_ns", "baseline_units", "credits", "rate_units"}


@pytest.mark.parametrize("call", [*REVISION2["telemetry"], *EXTENSIONS["telemetry"]])
def test_telemetry_answers_are_json_and_supported(qpm: QPM, call: str) -> None:
    answer = getattr(qpm, call)(token="any")
    text = json.dumps(answer)
    assert json.loads(text) == answer
    assert "unsupported" not in text


def test_device_record_agrees_with_environment(qpm: QPM, env: simenv.Client) -> None:
    record = qpm.get_device_info()
    assert (record["schema"], record["device"]["technology"]) == ("qhw-device-v1", "simulator")
    assert record["device"]["num_qubits"] == record["num_qubits"] == len(record["qubits"])
    assert 20 <= record["num_qubits"] <= env.status().max_qubits
    assert record["qubits"][0] == {"id": "0"}
    assert {"h", "cx", "rz", "u", "ccx"} <= set(record["metadata"]["basis_gates"])
    assert record["max_shots"] > 65_536
    assert record["raw"] == {"included": False}
    outcome = record["extensions"]["simenv"]
    device = env.devices()["main"]
    assert (device.kind, outcome["kind"]) == (DeviceKind.IDEAL, "ideal")
    assert (outcome["engines"][0]["name"], device.model) == ("statevector", "statevector")
    assert outcome["gates"] == [
        {"name": gate.name, "arity": gate.qubits, "params": gate.params} for gate in device.gates
    ]
    assert record["device"]["num_qubits"] == device.num_qubits
    assert record["provider"] == device.provider == "simenv"
    assert qpm.get_device_info(lib="main")["device"]["id"] == f"{env.name}/main"


def test_coupling_graph_of_simulator_is_complete(qpm: QPM) -> None:
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


def test_ideal_device_has_no_calibration(qpm: QPM) -> None:
    record = qpm.get_calibration_snapshot()
    assert record["schema"] == "qhw-calibration-v1"
    assert record["calibration"] == {
        "observation_count": 0,
        "quality_metric_count": 0,
        "summaries": {},
    }
    assert (record["metadata"], record["extensions"]) == ({"ideal": True}, {})
    fails(UnknownObjectError, "no calibration set 'c1' here", qpm.get_calibration_snapshot, "c1")


def test_backend_records_have_target_state_and_pause_reason(qpm: QPM, env: simenv.Client) -> None:
    for answer in (qpm.get_backend_info(), qpm.get_dynamic_backend_info(),
                   qpm.get_device_info(), qpm.get_coupling_graph()):  # fmt: skip
        assert (answer["backend"], answer["target_id"]) == ("simenv", env.name)
        assert answer["metadata_supported"] is True
    dynamic = qpm.get_dynamic_backend_info()
    assert dynamic["calibration_set_id"] is None
    assert dynamic["device_available"] is True
    assert dynamic["pools"][0]["name"] == "main"
    assert (dynamic["state"], dynamic["pause_reason"]) == ("active", None)
    qpm.pause_execution_target(device_id="main", reason="a drill")
    paused = qpm.get_dynamic_backend_info(lib="main")
    qpm.resume_execution_target(device_id="main")
    assert (paused["device_available"], paused["state"]) == (False, "paused")
    assert (paused["pause_reason"], paused["target_id"]) == ("a drill", f"{env.name}/main")


def test_queued_and_running_circuits_are_counted_with_estimates(qpm: QPM) -> None:
    accepted = running(qpm)
    cids = [qpm.async_run(info())["cid"] for _ in range(4)]
    for snapshot in (
        qpm.get_capacity_snapshot(scope_id="s", access_class="operator"),
        qpm.get_queue_metrics(device_id=f"{qpm.get_backend_info()['target_id']}/main"),
    ):
        assert snapshot["scheduler_task_count"] == 5
        held_capacity, flying = snapshot["held_capacity"], snapshot["in_flight_capacity"]
        assert set(held_capacity) == set(flying) == BLOCK
        assert held_capacity["qtask_count"] + flying["qtask_count"] == 5
        assert flying["qtask_count"] >= 1
        assert flying["estimated_ns"] > 0
        assert held_capacity["credits"] == held_capacity["rate_units"] == 0
        assert snapshot["estimated_queued_device_time"]["available"] is True
        assert snapshot["telemetry"]["enforced"] is False
    capacity = qpm.get_capacity_snapshot(scope_id="s", access_class="operator")
    assert (capacity["scope_id"], capacity["access_class"]) == ("s", "operator")
    assert capacity["telemetry"]["object"] == "capacity-snapshot"
    assert capacity["available_capacity"]["workers"] == 0
    metrics = qpm.get_queue_metrics()
    assert metrics["access_class"] == "manager-aggregate"
    wait, start = metrics["wait_estimate"], metrics["estimated_start"]
    assert (wait["kind"], start["kind"]) == ("wait", "start")
    assert wait["available"] is start["available"] is True
    assert wait["estimated_ns"] > 0, "something runs"
    assert start["estimated_ns"] == metrics["timestamp_ns"] + wait["estimated_ns"]
    assert metrics["dispatch_limits"] == {"max_inflight": 0}
    assert metrics["policy_state"]["scheduler"]["policy_name"] == "priority"
    assert metrics["policy_state"]["admission"]["name"] == "unlimited"
    qpm.cancel_task(accepted["cid"])
    for cid in (accepted["cid"], *cids):
        completion(qpm, cid)
    assert qpm.get_capacity_snapshot()["scheduler_task_count"] == 0


def test_telemetry_history_has_the_stored_series(qpm: QPM, env: simenv.Client) -> None:
    until(lambda: "queue" in qpm.get_telemetry_history()["names"], look_s=0.5)
    history = qpm.get_telemetry_history(series="queue", since_s=0, step_s=60)
    assert (history["series"], history["unit"]) == ("queue", "tasks")
    assert history["telemetry"]["object"] == "telemetry-history"
    stored = env.history.series("queue", 0, history["points"][-1][0] + 60, 60)
    assert [point[0] for point in history["points"]] == stored.at_s
    fails(UnknownObjectError, "no series 'nothing'", qpm.get_telemetry_history, series="nothing")
    fails(ExecutionError, "since_s", qpm.get_telemetry_history, series="queue", since_s=-1)


def test_service_lifecycle_lists_all_events_and_audit_records(qpm: QPM, env: simenv.Client) -> None:
    qpm.reconcile_runtime_state(reason="a drill")
    telemetry = qpm.get_service_lifecycle_telemetry()
    names = {event["event"] for event in telemetry["lifecycle_events"]}
    assert "service-restart" in names
    assert "service-recovered" in names
    assert all(event["timestamp_ns"] > 10**18 for event in telemetry["lifecycle_events"])
    kinds = [event["details"]["kind"] for event in telemetry["lifecycle_events"]]
    assert kinds == [event.kind for event in env.events()]
    (record,) = telemetry["audit_records"]
    assert (record["operation"], record["reason"]) == ("reconcile_runtime_state", "a drill")
    assert telemetry["reconciliation_faults"] == []
    assert (telemetry["access_class"], telemetry["telemetry"]["object"]) == (
        "operator",
        "service-lifecycle",
    )


def test_libraries_are_pools_of_environment(qpm: QPM, env: simenv.Client) -> None:
    assert qpm.capability_map()["get_device_info"] == list(env.pools())


def test_reservations_of_one_job_are_one_scheduler_allocation(qpm: QPM) -> None:
    kind = "hybrid"
    request = {
        "owner": {"user": "ada"},
        "scheduler": "slurm",
        "job_id": "42",
        "workload_kind": kind,
    }
    numbers = [qpm.reserve(request=request)["reservation_id"] for _ in range(2)]
    qpm.reserve(request={"user_id": "ada"})  # names neither an allocation nor a job
    for number in numbers:
        (entry,) = qpm.list_scheduler_allocations()["allocations"]
        assert (entry["job_id"], entry["state"], entry["workload_kind"]) == ("42", "ACTIVE", kind)
        assert entry["created_at_ns"] > 0
        for filters, count in (({"user": "ada"}, 1), ({"user": "eve"}, 0), ({"unknown": 1}, 0)):
            rows = qpm.list_scheduler_allocations(filters=filters)["allocations"]
            assert len(rows) == count, filters
        qpm.release(reservation_id=number, reason=1)
    assert qpm.list_scheduler_allocations()["allocations"] == []


def test_circuit_under_reservation_is_active_task_of_its_allocation(qpm: QPM, busy: None) -> None:
    number = qpm.reserve(request={"job_id": "7", "scheduler": "slurm"})["reservation_id"]
    qpm.async_run(info(), reservation_id=number)
    (entry,) = qpm.list_scheduler_allocations()["allocations"]
    assert (entry["active_tasks"], entry["active_task_count"]) == (1, 1)
    qpm.cancel(reservation_id=number, reason=2)


def test_control_and_reservation_events_are_listed(qpm: QPM, env: simenv.Client) -> None:
    qpm.pause_execution_target(device_id="main", reason="a drill")
    qpm.drain_execution_target(device_id="main")
    qpm.resume_execution_target(device_id="main")
    qpm.configure_dispatch_limits(device_id="main", limits={"max_inflight": 3})
    qpm.configure_dispatch_limits(device_id="main", limits={"max_inflight": 0})
    qpm.configure_scheduler_policy(device_id="main", configuration={"policy_name": "fifo"})
    qpm.configure_scheduler_policy(device_id="main", configuration={"policy_name": "priority"})
    with env.reserve("main"):
        pass
    events = qpm.get_service_lifecycle_telemetry()["lifecycle_events"]
    named = {event["details"]["kind"]: event["event"] for event in events}
    assert named["device.paused"] == "scheduler-paused"
    assert named["device.draining"] == "scheduler-draining"
    assert named["device.resumed"] == "scheduler-resumed"
    assert named["device.bounded"] == "scheduler-dispatch-limits-change"
    assert named["device.ordered"] == "scheduler-policy-change"
    assert named["reservation.made"] == "service-state-change"
    (reason,) = {event["reason"] for event in events if event["event"] == "scheduler-paused"}
    assert reason == "a drill"


def test_available_reserved_and_held_credits_are_counted(qpm: QPM, env: simenv.Client) -> None:
    rules = qpm.get_admission_policy(device_id="main")["configuration"]
    credit = {
        "policy": {"name": "credit"}, "baseline": rules["baseline"],
        "capacity": {"total_credits": 100},
    }  # fmt: skip
    qpm.set_admission_policy(device_id="main", configuration=credit)
    try:
        before = qpm.get_capacity_snapshot(device_id="main")
        assert before["available_capacity"]["credits"] == 100
        assert (before["active_reservation_count"], before["held_capacity"]["credits"]) == (0, 0)
        with env.reserve("main", count=30, gates_2q=10, shots=1_000) as result:
            credits_reserved = result.info().credits_reserved
            accepted = running(qpm)
            waits = qpm.async_run(info(), result.id)
            snapshot = qpm.get_capacity_snapshot(device_id="main")
            assert snapshot["available_capacity"]["credits"] == 100 - credits_reserved
            assert snapshot["active_reservation_count"] == 1
            credits_held = result.info().credits_held
            blocks = snapshot["held_capacity"], snapshot["in_flight_capacity"]
            assert sum(block["credits"] for block in blocks) == credits_held > 0
            admission = qpm.get_queue_metrics(device_id="main")["policy_state"]["admission"]
            assert (admission["name"], admission["capacity"]) == ("credit", {"total_credits": 100})
            for cid in (accepted["cid"], waits["cid"]):
                qpm.cancel_task(cid, waits["reservation_id"] if cid == waits["cid"] else None)
            completion(qpm, accepted["cid"])
    finally:
        free = {"policy": {"name": "unlimited"}, "baseline": rules["baseline"]}
        qpm.set_admission_policy(device_id="main", configuration=free)


def test_service_record_agrees_with_device(qpm: QPM) -> None:
    properties = qpm.query().properties
    assert (properties["simulator"], properties["hardware"]) == (True, False)
    assert properties["num_qubits"] == qpm.get_device_info()["num_qubits"]
