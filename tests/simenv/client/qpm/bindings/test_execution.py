"""Revision 2: running, asking, cancelling; in every state a task can be in."""

import base64
import io

import numpy as np
import pytest
from circuits import bell, tangled
from failing import fails
from hosts import BAD, BELL, MIDDLE, PLAIN, TIMES, completion, info, running, until
from qiskit import qasm2, qpy

import simenv
from simenv.client.circuits import load
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import ExecutionError

CASES = {"num_qubits": 2, "num_shots": 200}


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
    counts = qpm.sync_run({**CASES, **circuit})["result"]["result"]["counts"]
    assert set(counts) == {"00", "11"}
    assert sum(counts.values()) == 200
    assert all(type(count) is int for count in counts.values())


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


@pytest.mark.parametrize(
    ("qasm", "reason", "outcome"),
    [(BELL, "already-completed", "COMPLETED"), (BAD, "already-failed", "FAILED")],
)
def test_cancel_of_ended_circuit_tells(qpm: QPM, qasm: str, reason: str, outcome: str) -> None:
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
    error = fails(ExecutionError, "nonsense", qpm.sync_run, info(BAD))
    assert error.defw_name == "DEFwExecutionError"


def test_circuit_infeasible_for_all_engines_raises_execution_error(qpm: QPM) -> None:
    fails(ExecutionError, "", qpm.sync_run, info(qasm2.dumps(tangled()), num_qubits=60))


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


@pytest.mark.parametrize(
    ("qasm", "counts"), [(BELL, {"00", "11"}), (PLAIN, {"00"})], ids=["measured", "not measured"]
)
def test_statevector_precedes_final_measurements(qpm: QPM, qasm: str, counts: set[str]) -> None:
    result = qpm.sync_run(info(qasm, return_statevector=True))["result"]["result"]
    assert set(result["counts"]) == counts
    assert sum(result["counts"].values()) == 200
    vector = result["statevector"]
    assert (vector["type"], vector["format"]) == ("statevector", "complex128")
    assert (vector["num_qubits"], vector["num_amplitudes"]) == (2, 4)
    assert np.allclose(vector["data"], [[0.5**0.5, 0], [0, 0], [0, 0], [0.5**0.5, 0]])


def test_statevector_of_measured_or_wide_circuits_is_refused(qpm: QPM) -> None:
    fails(ExecutionError, "used again", qpm.sync_run, info(MIDDLE, return_statevector=True))
    wide = BELL.replace("q[2]", "q[21]")
    with pytest.raises(ExecutionError, match="21 qubits"):
        qpm.sync_run(info(wide.replace("measure q -> c", "measure q[0] -> c[0]"),
                          return_statevector=True))  # fmt: skip


def test_deleted_circuit_is_cancelled_and_unknown(qpm: QPM, env: simenv.Client) -> None:
    accepted = running(qpm)
    assert qpm.delete_circuit(accepted["cid"]) is None
    assert qpm.task_status(accepted["cid"])["outcome"] == "UNKNOWN"
    assert env.task(accepted["scheduler_task_id"]).wait(timeout_s=60) == "CANCELLED"
    assert qpm.read_cq()["outcome"] == "IN_PROGRESS"


def test_statevector_from_result_file_is_complete(qpm: QPM) -> None:
    wide = PLAIN.replace("q[2]", "q[17]")
    result = qpm.sync_run(info(wide, return_statevector=True))["result"]["result"]
    pairs = result["statevector"]["data"]
    assert len(pairs) == 2**17
    assert [k for k, (re, im) in enumerate(pairs) if abs(complex(re, im)) > 1e-9] == [0, 3]
