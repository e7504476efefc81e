"""Revision 2: running, asking, cancelling; in every state a task can be in."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from circuits import tangled
from hosts import (
    BAD,
    BELL,
    MIDDLE,
    PLAIN,
    TIMES,
    completion,
    info,
    running,
    until,
)
from qiskit import QuantumCircuit, qasm2, qpy

import simenv
from simenv.client.circuits import load
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import ExecutionError

CASES = {"num_qubits": 2, "num_shots": 200}


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def as_qpy() -> str:
    file = io.BytesIO()
    qpy.dump(bell(), file)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "circuit",
    [
        {"qasm": BELL},
        {"circuit": {"format": "openqasm2", "data": BELL}, "qasm": BAD},
        {"circuit": {"format": "qpy", "data": as_qpy()}},
        {"circuit": bell()},
        {"circuit": load(bell()).program},
    ],
    ids=["text", "format wins over qasm", "qpy", "object", "program"],
)
def test_each_circuit_form_is_run(qpm: QPM, circuit: dict[str, object]) -> None:
    answer = qpm.sync_run({**CASES, **circuit})
    counts = answer["result"]["result"]["counts"]
    assert set(counts) == {"00", "11"}
    assert sum(counts.values()) == 200
    assert all(type(count) is int for count in counts.values())


def test_envelope_and_record_have_all_fields_and_are_json(qpm: QPM) -> None:
    answer = qpm.sync_run(info(), token="any")
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["outcome"], answer["lifecycle_state"]) == ("COMPLETED", "completed")
    assert answer["state"] == answer["lifecycle_state"]
    assert answer["qtask_id"] >= 1
    assert answer["telemetry"] == {
        "access_class": "caller-owned", "object": "managed-qtask", "field_visibility": {},
    }  # fmt: skip
    record = answer["result"]
    assert (record["rc"], record["cid"]) == (0, answer["cid"])
    assert not {"outcome", "scheduler_task_id"} & record.keys()  # the envelope has them
    assert record["completion_ready"] is True
    assert record["qpm_cq_dequeue_time_ns"] == -1
    assert record["cq_dequeue_time"] == -1.0
    assert "reservation_id" in record
    times = [record[name] for name in TIMES[:-1]]
    assert all(type(time) is float for time in times)
    assert times == sorted(times)


def test_async_run_returns_at_once_while_circuit_is_queued(qpm: QPM, busy: None) -> None:
    accepted = qpm.async_run(info())
    assert (accepted["outcome"], accepted["lifecycle_state"]) == ("ACCEPTED", "queued")
    assert "result" not in accepted
    early = qpm.read_cq(accepted["cid"])
    assert (early["outcome"], early["reason"]) == ("ACCEPTED", "completion-not-ready")
    assert (early["completion_ready"], early["poll_operation"]) == (False, "read_cq")
    status = qpm.task_status(accepted["cid"])
    assert (status["lifecycle_state"], status["scheduler_state"]) == ("queued", "QUEUED")
    assert accepted["wait_estimate"] == {"available": False, "reason": "telemetry-unavailable"}
    wait = status["wait_estimate"]
    assert (wait["available"], wait["kind"], wait["confidence"]) == (True, "wait", "estimated")
    assert qpm.task_status(qtask_id=accepted["qtask_id"])["cid"] == accepted["cid"]


def test_unknown_circuits_are_answered_without_error(qpm: QPM) -> None:
    assert qpm.read_cq("nobody")["outcome"] == "IN_PROGRESS"
    assert qpm.read_cq("nobody")["lifecycle_state"] == "no-ready-completion"
    for answer in (qpm.task_status("nobody"), qpm.cancel_task("nobody")):
        assert (answer["outcome"], answer["reason"]) == ("UNKNOWN", "not-found")
    timing = qpm.get_task_timing(task_id=10**6)
    assert (timing["lifecycle_state"], timing["timing"]) == ("unknown", {})
    unknown = qpm.get_task_metadata(task_id=10**6)["provider_metadata"]
    assert unknown == {"available": False, "reason": "not-found"}
    assert qpm.delete_circuit("nobody") is None


def test_sync_run_with_cancel_on_timeout_cancels_queued_circuit(qpm: QPM, busy: None) -> None:
    late = qpm.sync_run(info(), timeout=0.05, cancel_on_timeout=True)
    assert (late["outcome"], late["reason"]) == ("CANCELLED", "sync-timeout")
    record = completion(qpm, late["cid"])
    assert (record["rc"], record["outcome"], record["reason"]) == (2, "CANCELLED", "cancelled")
    assert record["result"] == {"counts": {}}


def test_cancel_of_running_circuit_is_pending_then_done(qpm: QPM) -> None:
    accepted = running(qpm)
    status = qpm.task_status(accepted["cid"])
    assert (status["outcome"], status["scheduler_state"]) == ("ACCEPTED", "RUNNING")
    assert status["provider_handle"] == "main-0"
    answer = qpm.cancel_task(qtask_id=accepted["qtask_id"])
    assert (answer["outcome"], answer["provider_cancel_status"]) == ("CANCEL_PENDING", "cancelling")
    assert completion(qpm, accepted["cid"])["outcome"] == "CANCELLED"


@pytest.mark.parametrize(
    ("qasm", "reason", "outcome"),
    [(BELL, "already-completed", "COMPLETED"), (BAD, "already-failed", "FAILED")],
)
def test_cancel_of_ended_circuit_returns_its_outcome(
    qpm: QPM, qasm: str, reason: str, outcome: str
) -> None:
    accepted = qpm.async_run(info(qasm))
    until(lambda: qpm.peek_cq(accepted["cid"])["completion_ready"])
    for _ in range(2):  # before its completion is read, and after
        answer = qpm.cancel_task(accepted["cid"])
        assert (answer["outcome"], answer["reason"]) == (outcome, reason)
        qpm.read_cq(accepted["cid"])


def test_refused_circuit_is_a_failed_completion_or_sync_run_error(qpm: QPM) -> None:
    answer = qpm.async_run(info(BAD))
    assert (answer["outcome"], answer["reason"]) == ("FAILED", "provider-submission-failed")
    assert "nonsense" in answer["error"]
    record = completion(qpm, answer["cid"])
    assert record["rc"] != 0
    assert (record["outcome"], record["result"]) == ("FAILED", {"counts": {}})
    assert record["reason"] == "provider-submission-failed"
    assert "nonsense" in record["message"]
    with pytest.raises(ExecutionError, match="nonsense") as raised:
        qpm.sync_run(info(BAD))
    assert raised.value.defw_name == "DEFwExecutionError"


def test_circuit_infeasible_for_all_engines_raises_execution_error(qpm: QPM) -> None:
    wide = qasm2.dumps(tangled())
    with pytest.raises(ExecutionError):
        qpm.sync_run(info(wide, num_qubits=60))


def test_counts_are_reproducible_from_task_metadata(qpm: QPM, env: simenv.Client) -> None:
    answer = qpm.sync_run(info())
    metadata = qpm.get_task_metadata(task_id=answer["qtask_id"])
    assert metadata["task_id"] == answer["qtask_id"]
    facts = metadata["provider_metadata"]
    assert facts["available"] is True
    again = env.run(BELL, shots=200, seed=facts["seed"], engine=facts["engine"])
    assert again.counts == answer["result"]["result"]["counts"]
    timing = qpm.get_task_timing(task_id=answer["qtask_id"])
    assert list(timing["timing"]) == list(TIMES)
    assert qpm.task_status(answer["cid"])["retention_reason"] == "returned-to-caller"
    assert timing["timing"]["completion_time"] == answer["result"]["completion_time"]


def test_same_seed_gives_same_counts(qpm: QPM) -> None:
    first, second = (qpm.sync_run(info(seed=5))["result"]["result"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("qasm", "counts"), [(BELL, {"00", "11"}), (PLAIN, {"00"})], ids=["measured", "not measured"]
)
def test_statevector_is_of_state_before_final_measurements(
    qpm: QPM, qasm: str, counts: set[str]
) -> None:
    result = qpm.sync_run(info(qasm, return_statevector=True))["result"]["result"]
    assert set(result["counts"]) == counts
    assert sum(result["counts"].values()) == 200
    vector = result["statevector"]
    assert (vector["type"], vector["format"]) == ("statevector", "complex128")
    assert (vector["num_qubits"], vector["num_amplitudes"]) == (2, 4)
    assert np.allclose(vector["data"], [[0.5**0.5, 0], [0, 0], [0, 0], [0.5**0.5, 0]])


def test_statevector_with_mid_circuit_measurement_is_refused(qpm: QPM) -> None:
    with pytest.raises(ExecutionError, match="used again"):
        qpm.sync_run(info(MIDDLE, return_statevector=True))


def test_statevector_of_too_many_qubits_is_refused(qpm: QPM) -> None:
    wide = BELL.replace("q[2]", "q[21]")
    with pytest.raises(ExecutionError, match="21 qubits"):
        qpm.sync_run(info(wide.replace("measure q -> c", "measure q[0] -> c[0]"),
                          return_statevector=True))  # fmt: skip


def test_deleted_circuit_is_cancelled_and_unknown(qpm: QPM, env: simenv.Client) -> None:
    accepted = running(qpm)
    assert qpm.delete_circuit(accepted["cid"]) is None
    assert qpm.task_status(accepted["cid"])["outcome"] == "UNKNOWN"
    task = env.task(accepted["scheduler_task_id"])
    assert task.wait(timeout_s=60) == "CANCELLED"
    assert qpm.read_cq()["outcome"] == "IN_PROGRESS"


def test_unknown_reservation_is_refused(qpm: QPM) -> None:
    accepted = qpm.async_run(info())
    cid, number = accepted["cid"], accepted["qtask_id"]
    for call in (
        lambda: qpm.sync_run(info(), reservation_id=7),
        lambda: qpm.async_run(info(), reservation_id=7),
        lambda: qpm.cancel_task(cid, reservation_id=7),
        lambda: qpm.delete_circuit(cid, reservation_id=7),
    ):
        with pytest.raises(ExecutionError, match="no reservation 7"):
            call()
    for answer in (
        qpm.read_cq(cid, reservation_id=7),
        qpm.peek_cq(cid, reservation_id=7),
        qpm.task_status(cid, reservation_id=7),
        qpm.get_task_timing(reservation_id=7, task_id=number),
        qpm.get_task_metadata(reservation_id=7, task_id=number),
    ):
        assert (answer["outcome"], answer["reason"]) == (
            "INVALID_RESERVATION", "reservation-not-found",
        )  # fmt: skip
    assert completion(qpm, cid)["reservation_id"] is None


def test_statevector_from_result_file_is_complete(qpm: QPM) -> None:
    wide = PLAIN.replace("q[2]", "q[17]")
    result = qpm.sync_run(info(wide, return_statevector=True))["result"]["result"]
    pairs = result["statevector"]["data"]
    assert len(pairs) == 2**17
    assert [k for k, (re, im) in enumerate(pairs) if abs(complex(re, im)) > 1e-9] == [0, 3]
