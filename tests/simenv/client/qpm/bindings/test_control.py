"""Bindings of revision 1, and the control binding."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace

import pytest
from hosts import BAD, BELL, TIMES, Endpoint, completion, info, running
from live import Live
from waiting import until

import simenv
from simenv.client.qpm.bindings.revision1 import SingleQPM
from simenv.client.qpm.provider import QPM
from simenv.client.qpm.runtime import identity
from simenv.client.qpm.runtime.completion_queues import CompletionRetention, RetiredCircuit
from simenv.frontends.qfw import sessions
from simenv.model import ServiceInfo
from simenv.qpm.errors import ExecutionError, InProgressError, NotReadyError, QPMError
from simenv.qpm.service import QPMCapability, QPMType

STATUS = {
    "state", "initialized", "ready", "accepting_requests", "provider_ready", "active_task_count",
    "active_reservation_count", "shutdown",
}  # fmt: skip


def test_service_status_has_all_fields(qpm: QPM) -> None:
    status = qpm.is_ready()
    assert set(status) == STATUS
    assert status == qpm.get_service_status()
    assert status["state"] == "running"
    assert status["ready"] is status["initialized"] is status["provider_ready"] is True
    assert status["active_reservation_count"] == 0
    assert qpm.test() == {"status": "ok", "rpc_ready": True, "service": status}


def test_service_summary_has_state_in_terms_of_batch_scheduler(
    qpm: QPM, env: simenv.Client
) -> None:
    summary = qpm.get_service_summary()
    assert set(summary) > STATUS
    assert (summary["schema"], summary["state"]) == ("qfw-qpm-service-summary-v1", "IDLE")
    assert (summary["ready"], summary["service_state"]) == (True, "running")
    assert summary["assigned_hosts"] == list(env.nodes())
    number = qpm.reserve(request={})["reservation_id"]
    assert qpm.get_service_summary()["state"] == "BUSY"
    qpm.release(reservation_id=number, reason=1)
    for pause, resume in (
        (qpm.pause_execution_target, qpm.resume_execution_target),
        (qpm.drain_execution_target, qpm.resume_execution_target),
    ):
        pause()
        assert qpm.get_service_summary()["state"] == "MAINT"
        resume()
    assert qpm.get_service_summary()["state"] == "IDLE"


def test_open_circuit_is_counted_as_active_and_reconciled(qpm: QPM, busy: None) -> None:
    accepted = qpm.async_run(info())
    assert qpm.get_service_status()["active_task_count"] == 1
    result = qpm.reconcile_runtime_state(reason="look")
    assert result["unfinished_scheduler_tasks"] == [accepted["qtask_id"]]
    assert result["stale_runtime_tasks"] == result["provider_handle_faults"] == []
    qpm.cancel_task(accepted["cid"])
    completion(qpm, accepted["cid"])
    assert qpm.get_service_status()["active_task_count"] == 0


def stopped(qpm: QPM) -> dict[str, object]:
    def ended() -> dict[str, object] | None:
        status = qpm.get_service_status()
        return status if status["state"] == "stopped" else None

    table: dict[str, object] = until(ended)
    return table


def test_graceful_shutdown_keeps_accepted_circuits_and_refuses_new_ones(
    qpm: QPM, env: simenv.Client, busy: None
) -> None:
    accepted = qpm.async_run(info())
    answer = qpm.shutdown(reason="maintenance")
    assert (answer["status"], answer["mode"], answer["state"]) == (
        "accepted",
        "graceful",
        "draining",
    )
    assert answer["reason"] == "maintenance"
    assert answer["requested_at_ns"] > 0
    again = qpm.shutdown(mode="cancel")
    assert again["repeated"] is True
    assert (again["mode"], again["requested_at_ns"]) == ("graceful", answer["requested_at_ns"])
    status = qpm.get_service_status()
    assert (status["state"], status["accepting_requests"], status["ready"]) == (
        "draining", False, False,
    )  # fmt: skip
    assert status["shutdown"]["mode"] == "graceful"
    for run in (qpm.sync_run, qpm.async_run):
        with pytest.raises(ExecutionError, match="shut down"):
            run(info())
    assert qpm.task_status(accepted["cid"])["lifecycle_state"] == "queued"
    qpm.cancel_task(accepted["cid"])
    stopped(qpm)
    assert env.submit(info()["qasm"]).state in ("QUEUED", "RUNNING", "DONE")  # the pool stays


def test_graceful_shutdown_cancels_circuits_after_timeout(qpm: QPM) -> None:
    accepted = running(qpm)
    qpm.shutdown(timeout_s=0.05)
    stopped(qpm)
    assert completion(qpm, accepted["cid"])["outcome"] == "CANCELLED"


def test_cancel_shutdown_cancels_queued_circuits(qpm: QPM, busy: None) -> None:
    accepted = qpm.async_run(info())
    assert qpm.shutdown(mode="cancel")["state"] == "stopping"
    stopped(qpm)
    assert completion(qpm, accepted["cid"])["outcome"] == "CANCELLED"


def test_unreachable_service_is_not_ready_and_calls_raise_not_ready_error(live: Live) -> None:
    from simenv.client.connection import liveness

    with live.client() as client, pytest.MonkeyPatch.context() as patience:
        patience.setattr(liveness, "LOST_S", 0.3)
        qpm = client.qpm
        live.down()
        status = qpm.is_ready()
        assert (status["ready"], status["initialized"]) == (False, False)
        assert qpm.test()["status"] == "not-ready"
        with pytest.raises(NotReadyError):
            qpm.revision1.is_ready()
        for call in (
            lambda: qpm.sync_run(info()),
            lambda: qpm.async_run(info()),
            qpm.get_device_info,
            qpm.get_service_lifecycle_telemetry,
            lambda: qpm.reserve(request={}),
            lambda: qpm.renew(reservation_id=1),
            lambda: qpm.release(reservation_id=1),
            lambda: qpm.get_reservation(reservation_id=1),
            qpm.list_reservations,
            lambda: qpm.async_run(info(), reservation_id=1),
            lambda: qpm.read_cq("x", reservation_id=1),
            qpm.get_admission_policy,
            qpm.get_scheduler_queue_state,
        ):
            with pytest.raises(QPMError) as raised:
                call()
            assert raised.value.defw_name == "DEFwNotReady"


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


def test_service_record_describes_simulator_qpm(single: SingleQPM) -> None:
    record = single.query()
    assert (record.service_name, record.max_capacity, record.properties) == ("QPM", -1, None)
    assert record.qpm_type == QPMType.SIMULATOR
    assert record.qpm_capabilities & QPMCapability.STATEVECTOR
    assert (record.class_name, record.module_name) == ("SingleQPM", SingleQPM.__module__)


def test_reserve_release_test_and_shutdown_have_no_effect(single: SingleQPM) -> None:
    assert single.reserve({"name": "QPM"}, Endpoint(), 1, extra=2) is None
    assert single.release() is None
    assert single.release(["x"]) is None
    assert isinstance(single.test(), str)
    assert single.is_ready() is True
    assert single.shutdown() is None
    assert single.sync_run(info())["rc"] == 0  # another client's shutdown stops nothing


def test_record_has_all_fields_and_is_json(single: SingleQPM) -> None:
    record = single.sync_run(info())
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"cid", "result", "rc", *TIMES}
    assert record["rc"] == 0
    assert set(record["result"]) == {"00", "11"}
    assert sum(record["result"].values()) == 200
    times = [record[name] for name in TIMES[:-1]]
    assert times == sorted(times)
    assert record["cq_dequeue_time"] == -1.0


def test_circuit_returned_by_sync_run_is_retired(single: SingleQPM) -> None:
    for _ in range(2):
        cid = single.sync_run(info())["cid"]
        result = single._registry.find(cid)
        assert isinstance(result, RetiredCircuit)
        assert result.reason == "returned-to-caller"


def test_counts_keys_separate_registers_by_spaces(single: SingleQPM) -> None:
    two = BELL.replace("creg c[2];", "creg a[1];\ncreg b[1];").replace(
        "measure q -> c;", "measure q[0] -> a[0];\nmeasure q[1] -> b[0];"
    )
    assert set(single.sync_run(info(two))["result"]) == {"0 0", "1 1"}


def test_statevector_is_returned_beside_counts(single: SingleQPM) -> None:
    result = single.sync_run(info(return_statevector=True))["result"]
    assert set(result) == {"counts", "statevector"}
    assert result["statevector"]["num_amplitudes"] == 4


def test_async_run_returns_cid_and_reading_early_raises_in_progress_error(
    single: SingleQPM, busy: None
) -> None:
    cid = single.async_run(info())
    assert str(uuid.UUID(cid)) == cid
    for question in (single.read_cq, single.peek_cq):
        for name in (cid, None, "nobody"):
            with pytest.raises(InProgressError) as raised:
                question(name)
            assert raised.value.defw_name == "DEFwInProgress"
    assert single.delete_circuit(cid) is None
    assert single.delete_circuit("nobody") is None


def test_peek_keeps_completion_and_read_removes_it(single: SingleQPM) -> None:
    cids = [single.async_run(info()) for _ in range(3)]

    def peeked() -> dict[str, object] | None:
        try:
            return single.peek_cq(cids[2])
        except InProgressError:
            return None

    record = until(peeked)
    assert (record["cid"], record["cq_dequeue_time"]) == (cids[2], -1.0)
    assert single.peek_cq()["cid"] == cids[0]
    assert single.read_cq()["cid"] == cids[0]
    result = read(single, cids[2])
    assert result["cq_dequeue_time"] >= result["cq_enqueue_time"]
    assert single.read_cq()["cid"] == cids[1]
    with pytest.raises(InProgressError):
        single.read_cq()


def test_reading_evicted_completion_raises_execution_error(qpm: QPM) -> None:
    single = qpm.connection()
    single._registry.retention = CompletionRetention(count=2)
    cids = [single.async_run(info(BAD)) for _ in range(3)]
    for ask in (single.read_cq, single.peek_cq):
        with pytest.raises(ExecutionError, match=r"no longer kept: max-records-exceeded"):
            ask(cids[0])
    assert single.read_cq(cids[1])["cid"] == cids[1]
    with pytest.raises(InProgressError):  # it was read
        single.read_cq(cids[1])


def test_bad_circuit_raises_in_sync_run_and_fails_in_async_run(single: SingleQPM) -> None:
    with pytest.raises(ExecutionError, match="nonsense"):
        single.sync_run(info(BAD))
    record = read(single, single.async_run(info(BAD)))
    assert record["rc"] != 0
    assert "nonsense" in str(record["result"])


def test_revisions_do_not_share_completions(qpm: QPM, single: SingleQPM) -> None:
    cid = single.async_run(info())
    assert read(single, cid)["rc"] == 0
    assert qpm.read_cq()["outcome"] == "IN_PROGRESS"
    assert qpm.task_status(cid)["outcome"] == "UNKNOWN"


def test_ready_check_queries_service_at_most_once_per_interval(
    single: SingleQPM, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[int] = []
    status = single._identity.status

    def counted() -> ServiceInfo:
        entries.append(1)
        return status()

    monkeypatch.setattr(single._identity, "status", counted)
    monkeypatch.setattr(identity, "READY_S", 60.0)
    assert all(single.is_ready() for _ in range(100))
    assert len(entries) == 1


def test_idle_session_ends_when_all_completions_were_read(
    qpm: QPM, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = sessions.Sessions(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
    session = outcome.open()
    first = session.qpm()
    cid = first.async_run(info())
    until(lambda: first._registry.is_idle or first._registry.look())
    monkeypatch.setattr(sessions, "IDLE_S", 0.0)
    monkeypatch.setattr(sessions, "SWEEP_S", 0.0)
    outcome.sweep()
    assert session.qpm() is first, "a record waits to be read"
    assert first.read_cq(cid)["cid"] == cid
    outcome.open()  # another client comes
    assert session.qpm() is not first


def test_idle_session_is_kept_for_open_and_evicted_circuits(
    qpm: QPM, busy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "IDLE_S", 0.0)
    session = sessions.QfwSession(SimpleNamespace(wait=lambda _: qpm))  # type: ignore[arg-type]
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
    with pytest.raises(ExecutionError, match="no longer kept"):
        first.read_cq(cid)
