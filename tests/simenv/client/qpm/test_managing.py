"""Who manages a QPM: profiles and policies, credits that run out, the queue steered."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from hosts import LONG, info
from waiting import until

import simenv
from simenv.client.administration.keys import issue_key
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


@contextmanager
def rationed(qpm: QPM, gate_ns: int = 10**9) -> Iterator[None]:
    """10 of them, of `gate_ns` each: nothing that a test runs takes as long as its estimate."""
    before = qpm.get_device_profile()["device_profile"]
    qpm.configure_device_profile(profile={**FREE, "one_q_gate_ns": gate_ns, "baseline": ONE_GATE})
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
    new = {"compile_ns": 4_321, "external_device_id": "x-1"}
    changed = {**before["device_profile"], **new}
    assert qpm.configure_device_profile(profile=new)["device_profile"] == changed
    for name in ("x-1", before["device_profile"]["device_id"], "1", None):
        assert qpm.get_device_profile(device_id=name)["device_profile"] == changed
    assert qpm.get_device_profile(device_id="main")["device_profile"] == before["device_profile"]
    qpm.configure_device_profile(profile=before["device_profile"])
    with rationed(qpm):
        admission_policy = qpm.get_admission_policy()
        assert admission_policy["configuration"] == {
            **CREDITS, "device_id": qpm.get_backend_info()["target_id"],
        }  # fmt: skip


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
def test_invalid_admission_policy_has_no_effect(qpm: QPM, wrong: dict[str, Any]) -> None:
    before = qpm.get_admission_policy(), qpm.get_device_profile()
    fails(QPMError, "", qpm.set_admission_policy, configuration={**CREDITS, **wrong})
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
    fails(QPMError, "", qpm.configure_device_profile, profile=wrong)
    assert qpm.get_device_profile() == before


def test_queued_circuits_have_increasing_wait_estimates(qpm: QPM, busy: None) -> None:
    cids = [qpm.async_run(info(LONG))["cid"] for _ in range(2)]
    waits = [qpm.task_status(cid)["wait_estimate"] for cid in cids]
    assert ([wait["available"] for wait in waits], waits[0]["kind"]) == ([True, True], "wait")
    assert 0 < waits[0]["estimated_ns"] < waits[1]["estimated_ns"]
    metrics = qpm.get_queue_metrics()
    assert metrics["wait_estimate"]["estimated_ns"] > waits[0]["estimated_ns"]
    assert metrics["scheduler_depth"] == 2
    for cid in cids:
        qpm.delete_circuit(cid)


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
            fails(QPMError, "", call, wrong)
    for wrong in JUNK[1:]:
        for steer in (qpm.pause_execution_target, qpm.get_scheduler_queue_state):
            fails(QPMError, "", steer, device_id=wrong)
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
