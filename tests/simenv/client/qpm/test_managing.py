"""Who manages a QPM: profiles and policies, credits that run out, the queue steered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts import LONG, completion, info, running
from waiting import until

import simenv
from simenv.client.administration import issue_key
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import ExecutionError, QPMError

ONE_GATE = {
    "qubit_count": 1, "depth": 1, "one_q_gate_count": 1, "two_q_gate_count": 0,
    "measurement_count": 0, "shots": 1,
}  # fmt: skip
CREDITS = {
    "policy": {"name": "credit", "options": {}},
    "estimator": {"name": "baseline", "options": {}},
    "baseline": ONE_GATE,
    "capacity": {"total_credits": 10},
}
FREE = dict.fromkeys(("two_q_gate_ns", "measurement_ns", "compile_ns"), 0)
UNLIMITED = {**CREDITS, "policy": {"name": "unlimited"}, "capacity": {}}
GATES = "OPENQASM 2.0;\nqreg q[1];\ncreg c[1];\n{}measure q -> c;\n"


def of(gates: int) -> dict[str, Any]:
    """A request of so many one-qubit gates, a credit each."""
    return {"task_class": {"one_q_gate_count": gates, "shots": 1}}


@contextmanager
def rationed(qpm: QPM, gate_ns: int = 10**9) -> Iterator[None]:
    """10 of them, of `gate_ns` each: nothing that a test runs takes as long as its estimate."""
    before = qpm.get_device_profile()["device_profile"]
    profile = {**FREE, "one_q_gate_ns": gate_ns, "baseline": ONE_GATE}
    qpm.configure_device_profile(profile=profile)
    qpm.set_admission_policy(configuration=CREDITS)
    try:
        yield
    finally:
        for each in qpm.list_reservations(filters={"state": "active"}):
            qpm.cancel(reservation_id=each["reservation_id"])
        qpm.set_admission_policy(configuration=UNLIMITED)
        qpm.configure_device_profile(profile=before)


def gates(count: int) -> dict[str, Any]:
    return info(GATES.format("U(0,0,0) q[0];\n" * count), num_shots=1)


def test_device_profile_and_admission_policy_are_as_set(qpm: QPM) -> None:
    before = qpm.get_device_profile()
    first = qpm.configure_device_profile(profile={"compile_ns": 4_321, "external_device_id": "x-1"})
    assert (first["status"], first["version"]) == ("accepted", before["version"] + 1)
    changed = {**before["device_profile"], "compile_ns": 4_321, "external_device_id": "x-1"}
    assert first["device_profile"] == changed
    assert qpm.configure_device_profile(profile=changed)["status"] == "unchanged"
    for name in ("x-1", before["device_profile"]["device_id"], "1", None):
        assert qpm.get_device_profile(device_id=name)["device_profile"] == changed
    assert qpm.get_device_profile(device_id="main")["device_profile"] == before["device_profile"]
    qpm.configure_device_profile(profile=before["device_profile"])
    with rationed(qpm):
        admission_policy = qpm.get_admission_policy()
        assert admission_policy["configuration"] == {
            **CREDITS, "device_id": qpm.get_backend_info()["target_id"],
        }  # fmt: skip
        again = qpm.set_admission_policy(configuration=admission_policy["configuration"])
        assert (again["status"], again["version"]) == ("unchanged", admission_policy["version"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": {"name": "auction"}}, {"policy": {"name": "credit", "options": {"a": 1}}},
        {"policy": "credit"}, {"estimator": {"name": "oracle"}}, {"baseline": {"shots": 1}},
        {"baseline": None}, {"capacity": {}}, {"capacity": {"total_credits": 0}},
        {"capacity": {"total_credits": 5, "device_rate": 1}}, {"capacity": {"total_credits": "5"}},
        {"expected_version": 99}, {"expected_version": -1}, {"unheard": 1}, {"device_id": "x"},
        {"baseline": {**ONE_GATE, "shots": -1}}, {"baseline": {**ONE_GATE, "one_q_gate_count": 0}},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_admission_policy_is_refused_without_effect(
    qpm: QPM, wrong: dict[str, Any]
) -> None:
    before = qpm.get_admission_policy(), qpm.get_device_profile()
    with pytest.raises(QPMError):
        qpm.set_admission_policy(configuration={**CREDITS, **wrong})
    assert (qpm.get_admission_policy(), qpm.get_device_profile()) == before


@pytest.mark.parametrize(
    "wrong",
    [{"compile_ns": -1}, {"compile_ns": 1.5}, {"max_qubits": True}, {"max_shots": 2**70},
     {"baseline": {}}, {"baseline": [1]}, {"unheard": 1}, {"external_device_id": "\ud800"},
     {"external_device_id": "x" * 300}, {"default_ttl_ns": 0}, None, []],
    ids=str,
)  # fmt: skip
def test_invalid_device_profile_is_refused_without_effect(qpm: QPM, wrong: Any) -> None:
    before = qpm.get_device_profile()
    with pytest.raises(QPMError):
        qpm.configure_device_profile(profile=wrong)
    assert qpm.get_device_profile() == before


def test_tasks_beyond_reserved_credits_wait_or_are_refused(qpm: QPM) -> None:
    with rationed(qpm):
        decision = qpm.reserve(request=of(6))
        number = decision["reservation_id"]
        assert (decision["credits_required"], decision["capacity_available"]) == (6, 10)
        short = qpm.reserve(request=of(6))
        assert (short["status"], short["reason"], short["reason_code"]) == (
            "delayed", "reason-7", 7,
        )  # fmt: skip
        assert short["retry_after_ns"] > 0
        assert qpm.evaluate(request=of(60))["status"] == "rejected"
        for call in (qpm.async_run, qpm.sync_run):
            with pytest.raises(ExecutionError, match="reason 9") as raised:
                call(gates(7), reservation_id=number)
            assert raised.value.reason == "reservation-exceeded"
        qpm.pause_execution_target(reason="to see it wait")
        first = qpm.async_run(gates(4), reservation_id=number)
        assert (first["outcome"], first["lifecycle_state"]) == ("ACCEPTED", "capacity-held")
        parked = [qpm.async_run(gates(4), reservation_id=number) for _ in range(2)]
        for place, answer in enumerate(parked, 1):
            assert (answer["outcome"], answer["lifecycle_state"]) == (
                "DELAYED", "pending-capacity",
            )  # fmt: skip
            assert answer["pending_queue_position"] == place
        state = qpm.get_scheduler_queue_state()
        assert [each["cid"] for each in state["pending_capacity"]] == [p["cid"] for p in parked]
        assert [each["cid"] for each in state["runtime_tasks"]] == [first["cid"]]
        assert qpm.get_queue_metrics()["pending_qtask_count"] == 2
        assert qpm.get_reservation(reservation_id=number)["credits_consumed"] == 4
        late = qpm.sync_run(gates(1), reservation_id=number, timeout=0.05, cancel_on_timeout=True)
        assert (late["outcome"], late["reason"]) == ("CANCELLED", "sync-timeout")
        qpm.resume_execution_target()
        for answer in (first, *parked):
            cid = answer["cid"]
            record = until(lambda cid=cid: _ready(qpm, cid, number))
            assert record["rc"] == 0
        record = qpm.get_reservation(reservation_id=number)
        assert 0 < record["credits_consumed"] <= 3, "a task takes a credit: a part of a second"


def _ready(qpm: QPM, cid: str, number: int) -> dict[str, Any] | None:
    answer = qpm.read_cq(cid, reservation_id=number)
    return answer if answer["completion_ready"] else None


def test_queued_circuits_have_increasing_wait_estimates(qpm: QPM, busy: None) -> None:
    cids = [qpm.async_run(info(LONG))["cid"] for _ in range(2)]
    waits = [qpm.task_status(cid)["wait_estimate"] for cid in cids]
    assert [wait["available"] for wait in waits] == [True, True]
    assert waits[0]["kind"] == "wait"
    assert 0 < waits[0]["estimated_ns"] < waits[1]["estimated_ns"]
    metrics = qpm.get_queue_metrics()
    assert metrics["wait_estimate"]["estimated_ns"] > waits[0]["estimated_ns"]
    assert metrics["scheduler_depth"] == 2
    for cid in cids:
        qpm.delete_circuit(cid)


def test_draining_target_completes_accepted_tasks_and_refuses_new_ones(qpm: QPM) -> None:
    cid = running(qpm)["cid"]
    waiting = qpm.async_run(info())["cid"]
    result = qpm.drain_execution_target(timeout_s=600)
    try:
        assert (result["status"], result["control"]["drain_mode"]) == ("draining", "graceful")
        assert result["control"]["drain_started_at_ns"] > 0
        with pytest.raises(QPMError):
            qpm.async_run(info())
        assert qpm.cancel_task(cid)["outcome"] in ("CANCELLED", "CANCEL_PENDING")
        assert completion(qpm, waiting)["rc"] == 0
        with pytest.raises(QPMError):
            qpm.drain_execution_target(mode="abrupt")
    finally:
        qpm.resume_execution_target()
    assert qpm.sync_run(info())["outcome"] == "COMPLETED"


def test_dispatch_limits_and_scheduler_policy_are_as_set(qpm: QPM) -> None:
    status = qpm.get_scheduler_status()
    assert status["dispatch_limits"] == {"max_inflight": 0}
    try:
        first, again = (qpm.configure_dispatch_limits(limits={"max_inflight": 1}) for _ in "12")
        assert (first["status"], again["status"]) == ("dispatch-limits-updated", "unchanged")
        assert again["dispatch_limits"] == {"max_inflight": 1}
        cid = running(qpm)["cid"]
        other = qpm.async_run(info())["cid"]
        assert qpm.get_scheduler_status()["provider_inflight_count"] == 1
        assert qpm.task_status(other)["lifecycle_state"] == "queued"
        qpm.delete_circuit(cid)
        assert completion(qpm, other)["rc"] == 0
    finally:
        qpm.configure_dispatch_limits(limits={"max_inflight": 0})
    try:
        for name, options in (("fifo", {}), ("ordered", {"keys": ["shortest", "fifo"]})):
            table = {"policy_name": name, "options": options}
            assert qpm.configure_scheduler_policy(configuration=table)["status"] == "accepted"
            assert qpm.configure_scheduler_policy(configuration=table)["status"] == "unchanged"
            scheduler_policy = qpm.get_scheduler_policy()["scheduler_policy"]
            assert scheduler_policy["policy_name"] == name
        assert scheduler_policy["options"] == {"keys": "shortest,fifo"}
        policies = qpm.get_queue_metrics()["policy_state"]
        assert policies["scheduler"] == scheduler_policy
    finally:
        qpm.configure_scheduler_policy(configuration=status["policy"])


JUNK: list[Any] = [None, True, 1.5, "x", b"", [], {1: 2}, {"a": 1}, -1, "\ud800"]


def test_invalid_scheduler_settings_are_refused_without_effect(qpm: QPM) -> None:
    before = qpm.get_scheduler_status()
    calls = {
        "limits": lambda v: qpm.configure_dispatch_limits(limits=v),
        "inflight": lambda v: qpm.configure_dispatch_limits(limits={"max_inflight": v}),
        "order": lambda v: qpm.configure_scheduler_policy(configuration=v),
        "name": lambda v: qpm.configure_scheduler_policy(configuration={"policy_name": v}),
        "options": lambda v: qpm.configure_scheduler_policy(
            configuration={"policy_name": "ordered", "options": {"keys": v}}
        ),
        "mode": lambda v: qpm.drain_execution_target(mode=v),
    }
    for call in calls.values():
        for wrong in JUNK:
            with pytest.raises(QPMError):
                call(wrong)
    for wrong in JUNK[1:]:
        for steer in (qpm.pause_execution_target, qpm.get_scheduler_queue_state):
            with pytest.raises(QPMError):
                steer(device_id=wrong)
    assert qpm.get_scheduler_status() == before


def test_client_role_may_not_control_scheduler_or_policies(tmp_path: Path) -> None:
    file = tmp_path / "ana"
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as env:
        issue_key(env.keys, "ana", "client", file)
        with simenv.connect(service=file) as client:
            ana = client.qpm
            before = ana.get_scheduler_status(), ana.get_admission_policy()
            for method, arguments in (
                ("set_admission_policy", {"configuration": CREDITS}),
                ("configure_device_profile", {"profile": {"compile_ns": 1}}),
                ("pause_execution_target", {}),
                ("resume_execution_target", {}),
                ("drain_execution_target", {}),
                ("calibrate_execution_target", {}),
                ("configure_dispatch_limits", {"limits": {"max_inflight": 1}}),
                ("configure_scheduler_policy", {"configuration": {"policy_name": "fifo"}}),
            ):
                with pytest.raises(ExecutionError, match=f"^{method} needs the role") as raised:
                    getattr(ana, method)(**arguments)
                assert raised.value.reason == "not_allowed"
            assert (ana.get_scheduler_status(), ana.get_admission_policy()) == before
        task = env.submit(LONG)
        until(lambda: task.state == "RUNNING")
        state = env.qpm.get_scheduler_queue_state(include_restricted=True)
        assert [each["scheduler_task_id"] for each in state["runtime_tasks"]] == [task.id]
        assert env.qpm.get_scheduler_queue_state()["runtime_tasks"] == []
        task.cancel()


def test_wide_circuits_have_higher_estimates_until_profile_is_set() -> None:
    with simenv.local(workers=1) as env:
        qpm = env.qpm
        device_profile = qpm.get_device_profile()["device_profile"]
        sizes = {"one_q_gate_count": 20, "two_q_gate_count": 10, "shots": 100}
        entries = [{"task_class": {"qubit_count": width, **sizes}} for width in (2, 26)]
        narrow, wide = (qpm.evaluate(request=each)["estimated_total_ns"] for each in entries)
        assert wide > 1_000 * narrow
        assert qpm.get_device_profile()["device_profile"] == device_profile
        qpm.configure_device_profile(profile=device_profile)
        narrow, wide = (qpm.evaluate(request=each)["estimated_total_ns"] for each in entries)
        assert narrow == wide == 100 * (20 * 30 + 10 * 300)
