"""Revision 2: running, asking, cancelling; in every state a task can be in."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from circuits import bell, tangled
from failing import fails
from hosts import BAD, BELL, MIDDLE, PLAIN, TIMES, completion, info, running, until
from qiskit import qasm2, qpy

import simenv
from simenv.client.circuits import load
from simenv.client.qpm import identity
from simenv.client.qpm.completion_queues import CompletionRetention, RetiredCircuit
from simenv.client.qpm.provider import QPM, SingleQPM
from simenv.frontends.qfw import service
from simenv.model import ServiceInfo
from simenv.qpm.contract import ExecutionError, InProgressError

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
    assert (set(counts), sum(counts.values())) == ({"00", "11"}, 200)
    assert all(type(count) is int for count in counts.values())


def test_unknown_circuits_are_answered_without_error(qpm: QPM) -> None:
    assert qpm.read_cq("nobody")["lifecycle_state"] == "no-ready-completion"
    assert qpm.task_status("nobody")["reason"] == "not-found"
    timing = qpm.get_task_timing(task_id=10**6)
    assert (timing["lifecycle_state"], timing["timing"]) == ("unknown", {})
    unknown = qpm.get_task_metadata(task_id=10**6)["provider_metadata"]
    assert unknown == {"available": False, "reason": "not-found"}


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
    assert (set(result["counts"]), sum(result["counts"].values())) == (counts, 200)
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


@pytest.fixture
def single(qpm: QPM) -> SingleQPM:
    return qpm.revision1


def read(single: SingleQPM, cid: str) -> dict[str, object]:
    def ready() -> dict[str, object] | None:
        try:
            return single.read_cq(cid)
        except InProgressError:
            return None

    table: dict[str, object] = until(ready)
    return table


def test_circuit_returned_by_sync_run_is_retired(single: SingleQPM) -> None:
    for _ in range(2):
        result = single._registry.find(single.sync_run(info())["cid"])
        assert isinstance(result, RetiredCircuit)
        assert result.reason == "returned-to-caller"


def test_reading_evicted_completion_raises_execution_error(qpm: QPM) -> None:
    single = qpm.connection()
    single._registry.retention = CompletionRetention(count=2)
    cids = [single.async_run(info(BAD)) for _ in range(3)]
    for ask in (single.read_cq, single.peek_cq):
        fails(ExecutionError, r"no longer kept: max-records-exceeded", ask, cids[0])
    assert single.read_cq(cids[1])["cid"] == cids[1]
    with pytest.raises(InProgressError):  # it was read
        single.read_cq(cids[1])


def test_revisions_do_not_share_completions(qpm: QPM, single: SingleQPM) -> None:
    cid = single.async_run(info())
    assert read(single, cid)["rc"] == 0
    assert (qpm.read_cq()["outcome"], qpm.task_status(cid)["outcome"]) == ("IN_PROGRESS", "UNKNOWN")


def test_ready_asks_once_an_interval(single: SingleQPM, monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[int] = []
    status = single._identity.status

    def counted() -> ServiceInfo:
        entries.append(1)
        return status()

    monkeypatch.setattr(single._identity, "status", counted)
    monkeypatch.setattr(identity, "READY_S", 60.0)
    assert all(single.is_ready() for _ in range(100))
    assert len(entries) == 1


def test_idle_session_ends_when_all_was_read(qpm: QPM, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = service.Sessions(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
    session = outcome.open()
    first = session.qpm()
    cid = first.async_run(info())
    until(lambda: first._registry.is_idle or first._registry.look())
    monkeypatch.setattr(service, "IDLE_S", 0.0)
    monkeypatch.setattr(service, "SWEEP_S", 0.0)
    outcome.sweep()
    assert session.qpm() is first, "a record waits to be read"
    assert first.read_cq(cid)["cid"] == cid
    outcome.open()  # another client comes
    assert session.qpm() is not first


def test_idle_session_keeps_open(qpm: QPM, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "IDLE_S", 0.0)
    session = service.QfwSession(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
    first = session.qpm()
    cid = first.async_run(info())
    session.expire()
    assert session.qpm() is first, "a circuit is queued"
    first._registry.retention = CompletionRetention(age_s=0.0)
    (run,) = first._registry.unfinished()
    first._submitter.cancel(run)
    until(lambda: first._registry.is_idle or first._registry.look())
    session.expire()
    assert session.qpm() is first
    fails(ExecutionError, "no longer kept", first.read_cq, cid)
