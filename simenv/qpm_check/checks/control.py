"""Checks of the binding `control`, of restarts, and of tokens.

The binding: status, reconciliation, modes of shutdown. Restarts: a backend is killed and restarted
while clients poll. Tokens: a wrong token is refused, and no answer contains a token; only the
plugin's author can state whether the plugin requires a token.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from simenv.qpm_check import check
from simenv.qpm_check.check import BOTH, CheckNotApplicable, TargetProperty, expect_equal, row
from simenv.qpm_check.session import CheckedClient, CheckSession
from simenv.qpm_check.target import CheckFailed, expect, named, short_repr

STATES = ("running", "draining", "quiescing", "stopping", "stopped")
STATUS: check.Fields = {
    "state": str, "initialized": bool, "ready": bool, "accepting_requests": bool,
    "provider_ready": bool, "active_task_count": int, "active_reservation_count": int,
    "shutdown": (dict, check.NOTHING),
}  # fmt: skip
SUMMARY: check.Fields = {
    "schema": str, "state": str, "ready": bool, "target_id": str, "assigned_hosts": list,
    "active_reservation_count": int, "active_task_count": int,
}  # fmt: skip
LISTS = (
    "pending_removed", "stale_runtime_tasks", "capacity_hold_faults", "unfinished_scheduler_tasks",
    "provider_handle_faults", "directory_generation_faults",
)  # fmt: skip
ASKED: check.Fields = {
    "status": str, "mode": str, "timeout_s": (float, check.NOTHING),
    "reason": (str, check.NOTHING), "state": str, "requested_at_ns": int,
}  # fmt: skip


@row("control.status", "is_ready and get_service_status: the status")
def status(session: CheckSession) -> None:
    for method in (session.q.is_ready, session.q.get_service_status):
        result = check.has("the status", method(), STATUS)
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
    result = check.has("get_service_summary", session.q.get_service_summary(), SUMMARY)
    expect_equal("schema", result["schema"], "qfw-qpm-service-summary-v1")
    expect_equal("state", result["state"], state)
    texts = all(isinstance(host, str) for host in result["assigned_hosts"])
    expect(texts, f"assigned_hosts is {short_repr(result['assigned_hosts'])}")


@row("control.test", "test: ok, rpc_ready, the status; it submits nothing")
def test(session: CheckSession) -> None:
    before = session.q.get_service_status()["active_task_count"]
    expected: check.Fields = {"status": str, "rpc_ready": bool, "service": dict}
    result = check.has("test", session.q.test(), expected)
    expect_equal("status", result["status"], "ok")
    expect_equal("rpc_ready", result["rpc_ready"], True)
    check.has("service", result["service"], STATUS)
    after = session.q.get_service_status()["active_task_count"]
    expect(after <= before, f"test made {after - before} tasks")


@row("control.counts", "active_task_count counts what is under way")
def counts(session: CheckSession) -> None:
    session.until(lambda: session.q.is_ready()["active_task_count"] == 0, "quiet")
    session.submit_long()
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
    check.has("reconcile_runtime_state", answer, expected)


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
    cid = session.submit_long()
    begun = time.time_ns()
    result = check.has("shutdown", session.q.shutdown(reason="checked"), ASKED)
    expect_equal("status", result["status"], "accepted")
    expect_equal("mode", result["mode"], "graceful")
    expect(result["state"] in STATES[1:], f"state is {result['state']!r}")
    expect(begun - 10**9 <= result["requested_at_ns"] <= time.time_ns() + 10**9,
           f"requested_at_ns is {result['requested_at_ns']}")  # fmt: skip
    expect_equal("rc of what was accepted", session.completion(cid)["rc"], 0)


@row("control.shutdown-repeated", "shutdown again: the first request, repeated", alone=True)
def repeated(session: CheckSession) -> None:
    session.submit_long()
    first = session.q.shutdown(reason="the first")
    again = check.has("the second shutdown", session.q.shutdown(mode="cancel", reason="x"), ASKED)
    expect_equal("repeated", again.get("repeated"), True)
    for name in ("mode", "reason", "requested_at_ns"):
        expect_equal(f"{name} of the second answer", again[name], first[name])
    expect(not first.get("repeated"), "the first answer says that it is repeated")


@row("control.shutdown-closed", "after shutdown nothing new is taken", alone=True)
def closed(session: CheckSession) -> None:
    session.submit_long()
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
    session.submit_long()
    session.q.shutdown()
    result = check.has("reserve", session.q.reserve(request={}), {"status": str, "reason": str})
    expect_equal("status", result["status"], "rejected")
    expect_equal("reason", result["reason"], "service-quiescing")
    expect(result.get("state") in STATES[1:], f"state is {result.get('state')!r}")


@row("control.shutdown-cancel", "shutdown by cancel ends what is under way", alone=True)
def cancel(session: CheckSession) -> None:
    cids = [session.submit_long() for _ in range(4)]
    result = session.q.shutdown(mode="cancel")
    expect_equal("mode", result["mode"], "cancel")
    records = [_ended(session, cid) for cid in cids]
    expect(any(record["rc"] != 0 for record in records), "all of 4 long circuits ran to their ends")


@check.alone("control.shutdown-timeout", "a graceful shutdown turns into cancel after its timeout")
def timeout(session: CheckSession) -> None:
    cids = [session.submit_long() for _ in range(8)]
    session.q.shutdown(timeout_s=0.05)
    records = [_ended(session, cid) for cid in cids]
    expect(any(record["rc"] != 0 for record in records), "all of 8 long circuits ran to their ends")


def _ended(session: CheckSession, cid: str) -> dict[str, Any]:
    return session.until(lambda: session.poll(cid), f"the end of {cid}")


POLL_S = 0.02
AWAY_S = 0.5
ENDS_S = 4.0  # a circuit of about a second has ended by then
NOTICED_S = 20.0
CLIENTS = 3
_NEEDS = (TargetProperty.TRANSPORT, TargetProperty.OUTAGE)
_restart = partial(check.alone, needs=_NEEDS)


@_restart(
    "restart.pollers",
    "killed under pollers: NotReadyError while it is away; all records come by polling alone",
    revisions=BOTH,
)
def pollers(session: CheckSession) -> None:
    running: list[Poller] = []
    for client, cid, under in _submitted(session):
        # In revision 2 all clients ask for the oldest: a poll that names a cid would find the
        # completions of other clients, too.
        asked = cid if session.revision == 1 and len(running) != 1 else None
        running.append(Poller(session.revision, client, asked, under))
    try:
        with _away(session):  # the pollers call during the outage
            if session.revision == 1:
                _all_not_ready(session, running)
        _all_over(session, running)
    finally:
        for poller in running:
            poller.close()


@_restart(
    "restart.first-poll",
    "killed and restarted: the first read_cq of a cid does not say completed and not ready",
)
def first_poll(session: CheckSession) -> None:
    under = {"reservation_id": session.reserve()}
    cid = session.submit_long(under=under)
    with _away(session):
        pass
    time.sleep(ENDS_S)  # no calls meanwhile: the first call finds that the circuit has ended
    poller = Poller(2, session.q, cid, under)
    try:
        _all_over(session, [poller])
    finally:
        poller.close()


@contextmanager
def _away(session: CheckSession) -> Iterator[None]:
    """Stop the service or machine behind the plugin for AWAY_S and the time of the block."""
    outage = session.target.outage
    assert outage is not None
    outage.begin()
    try:
        time.sleep(AWAY_S)
        yield
    finally:
        outage.end()


def _submitted(session: CheckSession) -> list[tuple[CheckedClient, str, dict[str, Any]]]:
    """Submit long circuits: their clients, cids and reservations."""
    results = []
    for _ in range(CLIENTS):
        client = session.connect()
        under = {"reservation_id": session.reserve()} if session.revision == 2 else {}
        cid = session.submit_long(by=client, under=under)
        results.append((client, cid, under))
    return results


def _all_over(session: CheckSession, running: list[Poller]) -> None:
    """Expect that each poller gets its record and met no contradictory answer."""
    session.until(lambda: all(poller.over for poller in running), "all records after its return")
    for poller in running:
        if (error := poller.error) is not None:
            raise CheckFailed(f"read_cq raised {named(error)}: {error}") from error
        expect(not poller.odd, poller.odd)
        assert poller.record is not None
        expect(poller.record["rc"] == 0, f"rc of a circuit that ran again is {poller.record['rc']}")


def _all_not_ready(session: CheckSession, running: list[Poller]) -> None:
    deadline = time.monotonic() + min(NOTICED_S, session.wait_s)
    while not all("DEFwNotReady" in poller.met for poller in running):
        met = sorted(set().union(*(poller.met for poller in running)))
        message = f"while the backend is away read_cq never raised DEFwNotReady, but {met}"
        expect(time.monotonic() < deadline, message)
        time.sleep(POLL_S)


class Poller:
    """Client that calls only `read_cq` until it has its record. `cid`: None asks for the oldest.
    `met`: answers until then. `odd`: an answer that contradicts itself."""

    def __init__(
        self, revision: int, client: CheckedClient, cid: str | None, under: dict[str, Any]
    ) -> None:
        self.met: set[str] = set()
        self.record: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.odd = ""
        self._single = revision == 1
        self._client, self._cid, self._under = client, cid, under
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="check poller", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return self.record is not None or self.error is not None

    def close(self) -> None:
        self._ended.set()

    def _poll(self) -> None:
        while not self.over and not self._ended.wait(POLL_S):
            try:
                answer = self._client.read_cq(self._cid, **self._under)
            except Exception as error:  # noqa: BLE001 - the check reports it
                self._failed(error)
                continue
            if self._single or answer.get("completion_ready"):
                self.record = answer
                return
            state = answer.get("lifecycle_state")
            self.met.add(str(state))
            if state == "completed":
                self.odd = "read_cq answered that a task is completed, and that it is not ready"

    def _failed(self, error: Exception) -> None:
        name = named(error)
        self.met.add(name)
        if name != "DEFwNotReady" and not (self._single and name == "DEFwInProgress"):
            self.error = error


EVENT = "completion"
# One call of each binding without side effects, and a further one of `execution` that has one.
_CALLS: dict[str, dict[str, Any]] = {
    "task_status": {"cid": "a-cid"}, "evaluate": {"request": {}}, "get_admission_policy": {},
    "get_scheduler_status": {}, "get_device_info": {}, "is_ready": {},
}  # fmt: skip


@row("token.refused", "where a token is asked for, a wrong one and none are refused")
def refused(session: CheckSession) -> None:
    right = _own_token(session)
    if not right:
        message = "no token was told: this QPM asks for none, or --token-file names it"
        raise CheckNotApplicable(message)
    calls = {**_CALLS, "async_run": {"info": session.info(), **session.under}}
    for wrong in (f"{right}x", right[:-1], secrets.token_hex(8), None):
        for name, values in calls.items():
            call = partial(getattr(session.q, name), token=wrong, **values)
            session.expect_refusal(f"{name} with {'another' if wrong else 'no'} token", call)


@row("token.hidden", "a token that was sent is in no answer, no error and no event")
def hidden(session: CheckSession) -> None:
    right = _own_token(session)
    for sent in filter(None, (right, f"kit-{secrets.token_hex(12)}")):
        places = [place for place, text in _all_answers(session, sent).items() if sent in text]
        expect(not places, f"the token is shown by {', '.join(places[:5])}")


def _all_answers(session: CheckSession, sent: str) -> dict[str, str]:
    """Texts of all answers and errors to a client that sends this token with each call."""
    reported: dict[str, str] = {}

    def ask(name: str, **kwargs: Any) -> Any:
        answer = session.answers(name, partial(getattr(session.q, name), token=sent, **kwargs))
        reported[name] = f"{answer!r} {answer}"
        return answer if isinstance(answer, dict) else {}

    for name, kwargs in _CALLS.items():
        ask(name, **kwargs)
    number = ask("reserve", request={"num_shots": 100}).get("reservation_id")
    if type(number) is not int:
        return reported
    under = {"reservation_id": number}
    listener = session.listener()
    listening = session.answers("register", lambda: listener.register(EVENT, token=sent, **under))
    reported["register_event_notification"] = repr(listening)
    accepted = ask("async_run", info={**session.info(), "token": sent}, **under)
    if isinstance(accepted.get("cid"), str):
        cid, task = accepted["cid"], accepted["qtask_id"]
        reported["an event"] = repr(listener.taken())
        ask("get_task_metadata", task_id=task, **under)
        ask("get_scheduler_queue_state", include_restricted=True)
        ask("read_cq", cid=cid, **under)
    ask("get_reservation", **under)
    ask("list_reservations")
    ask("release", **under)
    ask("get_service_lifecycle_telemetry")
    return reported


def _own_token(session: CheckSession) -> str:
    """Token of the kit's own calls; "": none."""
    return str(getattr(session.target, "token", ""))
