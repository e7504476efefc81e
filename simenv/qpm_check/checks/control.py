"""Checks of the binding `control`: status, reconciliation, modes of shutdown."""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check import check, fields
from simenv.qpm_check.check import row
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import expect, short_repr

STATES = ("running", "draining", "quiescing", "stopping", "stopped")
STATUS: fields.Fields = {
    "state": str, "initialized": bool, "ready": bool, "accepting_requests": bool,
    "provider_ready": bool, "active_task_count": int, "active_reservation_count": int,
    "shutdown": (dict, fields.NOTHING),
}  # fmt: skip
SUMMARY: fields.Fields = {
    "schema": str, "state": str, "ready": bool, "target_id": str, "assigned_hosts": list,
    "active_reservation_count": int, "active_task_count": int,
}  # fmt: skip
LISTS = (
    "pending_removed", "stale_runtime_tasks", "capacity_hold_faults", "unfinished_scheduler_tasks",
    "provider_handle_faults", "directory_generation_faults",
)  # fmt: skip
ASKED: fields.Fields = {
    "status": str, "mode": str, "timeout_s": (float, fields.NOTHING),
    "reason": (str, fields.NOTHING), "state": str, "requested_at_ns": int,
}  # fmt: skip


@row("control.status", "is_ready and get_service_status: the status")
def status(session: CheckSession) -> None:
    for method in (session.q.is_ready, session.q.get_service_status):
        result = fields.has("the status", method(), STATUS)
        expect(result["state"] in STATES, f"state is {result['state']!r}")
        expect_equal("state", result["state"], "running")
        expect_equal("ready", result["ready"], True)
        expect_equal("accepting_requests", result["accepting_requests"], True)
        expect_equal("shutdown", result["shutdown"], None)


@row("control.summary", "get_service_summary: qfw-qpm-service-summary-v1, IDLE, BUSY or MAINT")
def summary(session: CheckSession) -> None:
    check.of_the_newest(session, "get_service_summary")
    if session.q.get_service_status()["active_reservation_count"] == 0:
        _summarized(session, "IDLE")
    number = session.reserve()
    _summarized(session, "BUSY")
    session.q.pause_execution_target(reason="checked")
    try:
        _summarized(session, "MAINT")
    finally:
        session.q.resume_execution_target()
    session.q.release(reservation_id=number)


def _summarized(session: CheckSession, state: str) -> None:
    result = fields.has("get_service_summary", session.q.get_service_summary(), SUMMARY)
    expect_equal("schema", result["schema"], "qfw-qpm-service-summary-v1")
    expect_equal("state", result["state"], state)
    texts = all(isinstance(host, str) for host in result["assigned_hosts"])
    expect(texts, f"assigned_hosts is {short_repr(result['assigned_hosts'])}")


@row("control.test", "test: ok, rpc_ready, the status; it submits nothing")
def test(session: CheckSession) -> None:
    before = session.q.get_service_status()["active_task_count"]
    expected: fields.Fields = {"status": str, "rpc_ready": bool, "service": dict}
    result = fields.has("test", session.q.test(), expected)
    expect_equal("status", result["status"], "ok")
    expect_equal("rpc_ready", result["rpc_ready"], True)
    fields.has("service", result["service"], STATUS)
    after = session.q.get_service_status()["active_task_count"]
    expect(after <= before, f"test made {after - before} tasks")


@row("control.counts", "active_task_count counts what is under way")
def counts(session: CheckSession) -> None:
    session.until(lambda: session.q.is_ready()["active_task_count"] == 0, "quiet")
    session.long.submit()
    expect_equal("active_task_count", session.q.is_ready()["active_task_count"], 1)
    before = session.q.is_ready()["active_reservation_count"]
    session.reserve()
    after = session.q.is_ready()["active_reservation_count"]
    expect_equal("active_reservation_count", after, before + 1)


@row("control.reconcile", "reconcile_runtime_state: lists of what was found")
def reconcile(session: CheckSession) -> None:
    session.submit()
    answer = session.q.reconcile_runtime_state(reason="checked")
    expected = {"target_id": str, "timestamp_ns": int, **dict.fromkeys(LISTS, list)}
    fields.has("reconcile_runtime_state", answer, expected)


@row("control.reconcile-reason", "reconcile_runtime_state without a reason is refused")
def reconcile_reason(session: CheckSession) -> None:
    session.expect_refusal("reconcile_runtime_state()", lambda: session.q.reconcile_runtime_state())


@row("control.shutdown-mode", "shutdown: another mode or a negative time is refused", alone=True)
def shutdown_mode(session: CheckSession) -> None:
    session.expect_refusal("mode 'now'", lambda: session.q.shutdown(mode="now"))
    session.expect_refusal("timeout_s=-1", lambda: session.q.shutdown(timeout_s=-1))
    expect_equal("ready after both", session.q.is_ready()["ready"], True)


@check.alone("control.shutdown", "shutdown: answers before it ends; what was accepted is finished")
def graceful(session: CheckSession) -> None:
    cid = session.long.submit()
    begun = time.time_ns()
    result = fields.has("shutdown", session.q.shutdown(reason="checked"), ASKED)
    expect_equal("status", result["status"], "accepted")
    expect_equal("mode", result["mode"], "graceful")
    expect(result["state"] in STATES[1:], f"state is {result['state']!r}")
    expect(begun - 10**9 <= result["requested_at_ns"] <= time.time_ns() + 10**9,
           f"requested_at_ns is {result['requested_at_ns']}")  # fmt: skip
    expect_equal("rc of what was accepted", session.completion(cid)["rc"], 0)


@row("control.shutdown-repeated", "shutdown again: the first request, repeated", alone=True)
def repeated(session: CheckSession) -> None:
    session.long.submit()
    first = session.q.shutdown(reason="the first")
    again = fields.has("the second shutdown", session.q.shutdown(mode="cancel", reason="x"), ASKED)
    expect_equal("repeated", again.get("repeated"), True)
    for name in ("mode", "reason", "requested_at_ns"):
        expect_equal(f"{name} of the second answer", again[name], first[name])
    expect(not first.get("repeated"), "the first answer says that it is repeated")


@row("control.shutdown-closed", "after shutdown nothing new is taken", alone=True)
def closed(session: CheckSession) -> None:
    session.long.submit()
    under = session.under
    session.q.shutdown()
    session.expect_refusal("async_run", lambda: session.q.async_run(session.info(), **under),
                  "DEFwExecutionError", "DEFwNotReady", "DEFwOutOfResources")  # fmt: skip
    result = session.q.is_ready()
    expect_equal("accepting_requests", result["accepting_requests"], False)
    expect_equal("ready", result["ready"], False)
    expect(isinstance(result["shutdown"], dict), "the status does not show the request")


@check.alone("control.shutdown-reserve", "after shutdown reserve is rejected: service-quiescing")
def no_reservations(session: CheckSession) -> None:
    session.long.submit()
    session.q.shutdown()
    result = fields.has("reserve", session.q.reserve(request={}), {"status": str, "reason": str})
    expect_equal("status", result["status"], "rejected")
    expect_equal("reason", result["reason"], "service-quiescing")
    expect(result.get("state") in STATES[1:], f"state is {result.get('state')!r}")


@row("control.shutdown-cancel", "shutdown by cancel ends what is under way", alone=True)
def cancel(session: CheckSession) -> None:
    cids = [session.long.submit() for _ in range(4)]
    result = session.q.shutdown(mode="cancel")
    expect_equal("mode", result["mode"], "cancel")
    records = [_ended(session, cid) for cid in cids]
    expect(any(record["rc"] != 0 for record in records), "all of 4 long circuits ran to their ends")


@check.alone("control.shutdown-timeout", "a graceful shutdown turns into cancel after its timeout")
def timeout(session: CheckSession) -> None:
    cids = [session.long.submit() for _ in range(8)]
    session.q.shutdown(timeout_s=0.05)
    records = [_ended(session, cid) for cid in cids]
    expect(any(record["rc"] != 0 for record in records), "all of 8 long circuits ran to their ends")


def _ended(session: CheckSession, cid: str) -> dict[str, Any]:
    return session.until(lambda: session.poll(cid), f"the end of {cid}")
