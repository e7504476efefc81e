"""Is it well, and how it is taken out of service: the pool behind it stays."""

import pytest
from failing import fails
from hosts import completion, info
from live import Live

import simenv
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import NotReadyError, QPMError

STATUS = {
    "state", "initialized", "ready", "accepting_requests", "provider_ready", "active_task_count",
    "active_reservation_count", "shutdown",
}  # fmt: skip


def test_service_summary_is_of_the_service_and_shows_a_drain(qpm: QPM, env: simenv.Client) -> None:
    summary = qpm.get_service_summary()
    assert set(summary) > STATUS
    assert (summary["service_state"], summary["assigned_hosts"]) == ("running", list(env.nodes()))
    qpm.drain_execution_target()
    assert qpm.get_service_summary()["state"] == "MAINT"
    qpm.resume_execution_target()
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


def test_unreachable_service_is_not_ready_and_calls_raise_not_ready_error(live: Live) -> None:
    from simenv.client.connection import channel

    with live.client() as client, pytest.MonkeyPatch.context() as patience:
        patience.setattr(channel, "LOST_S", 0.1)
        qpm = client.qpm
        live.down()
        status = qpm.is_ready()
        assert (status["ready"], status["initialized"]) == (False, False)
        assert qpm.test()["status"] == "not-ready"
        fails(NotReadyError, "", qpm.revision1.is_ready)
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
            assert fails(QPMError, "", call).defw_name == "DEFwNotReady"
