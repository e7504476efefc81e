"""Checks of the binding `admission`: reservations, from the dry run to their end."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from simenv.qpm_check import check, fields
from simenv.qpm_check.check import CheckNotApplicable, row
from simenv.qpm_check.checks.records import EVENT
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import LENGTHENED, CheckSession
from simenv.qpm_check.target import REFUSED, expect, short_repr

# A request as openQSE's Slurm gateway sends it.
SLURM_REQUEST: dict[str, Any] = {
    "owner": {"user": "ada", "uid": 1000, "gid": 1000}, "scheduler": "slurm",
    "launcher": {"scheduler": "slurm", "cluster_name": "checked"}, "job_id": "4217",
    "allocation_id": "checked:4217", "account": "physics", "qos": "normal", "priority": 0,
    "workload_kind": "hybrid", "ttl_ns": 600 * 10**9,
    "task_class": {
        "class_id": "bell", "count": 2, "qubit_count": 2, "depth": 2, "one_q_gate_count": 1,
        "two_q_gate_count": 1, "shots": 10, "measurement_count": 2,
    },
}  # fmt: skip
DECISION: fields.Fields = {
    "status": str, "decision": int, "reason": str, "reason_code": int, "credits_required": int,
    "rate_required": int, "capacity_available": int, "estimated_total_ns": int, "message": str,
}  # fmt: skip
DECISION_NAMES = (
    "request_id", "device_id", "scope_id", "reservation_id", "estimated_start_ns",
    "estimated_finish_ns", "retry_after_ns",
)  # fmt: skip
RECORD: fields.Fields = {
    "reservation_id": int, "workload_kind": str, "state": str, "state_code": int,
    "credits_reserved": int, "credits_consumed": int, "rate_reserved": int, "rate_consumed": int,
    "quantum_budget_ns": int, "estimated_total_ns": int, "actual_total_ns": int,
    "created_at_ns": int, "expires_at_ns": int,
}  # fmt: skip
RECORD_NAMES = ("request_id", "device_id", "scope_id", "user_id", "job_id", "request_metadata")
CODES = {"pending": 1, "active": 2, "released": 3, "expired": 4, "cancelled": 5}
DECISIONS = {"accepted": 1, "delayed": 2, "rejected": 3}
MOST_ID = 2**64 - 1
NEVER_GIVEN = 2**63 + 12_345
SHORT_NS = 300_000_000


def decided(what: str, answer: Any, status: str | None = None) -> dict[str, Any]:
    """Test a decision: all fields, and the status if one is named."""
    result = fields.has(what, answer, DECISION)
    for name in DECISION_NAMES:
        expect(name in result, f"{what} has no {name!r}")
    expect(result["status"] in DECISIONS, f"{what}: status {result['status']!r}")
    expect_equal(f"decision of {what}", result["decision"], DECISIONS[result["status"]])
    if status is not None:
        message = (
            f"{what}: {result['status']}, {result['reason']}, {result['message']}; not {status}"
        )
        expect(result["status"] == status, message)
    return result


def stands(session: CheckSession, number: int, *states: str) -> dict[str, Any]:
    """Return a reservation's record; its state must be one of `states`."""
    result = fields.has("the reservation", session.q.get_reservation(reservation_id=number), RECORD)
    state = result["state"]
    expect(state in states, f"reservation {number} is {state!r}, not {' or '.join(states)}")
    expect_equal(f"state_code of {state}", result["state_code"], CODES[state])
    return result


def _listed(session: CheckSession, **filters: Any) -> list[int]:
    result = session.q.list_reservations(filters=filters or None)
    expect(isinstance(result, list), f"list_reservations answered {short_repr(result)}")
    return [record["reservation_id"] for record in result]


@row("admission.evaluate", "evaluate: a decision, and nothing is reserved")
def evaluate(session: CheckSession) -> None:
    before = sorted(_listed(session))
    result = decided("evaluate", session.q.evaluate(request={"num_shots": 100}), "accepted")
    expect_equal("reason of accepted", result["reason"], "accepted")
    expect(result["reason_code"] in (0, 1), f"reason_code is {result['reason_code']}")
    expect_equal("reservations after a dry run", sorted(_listed(session)), before)


@row("admission.scheduler", "evaluate and reserve take a batch scheduler's request")
def scheduler(session: CheckSession) -> None:
    before = sorted(_listed(session))
    decided("evaluate", session.q.evaluate(request=SLURM_REQUEST), "accepted")
    expect_equal("reservations after a dry run", sorted(_listed(session)), before)
    result = decided("reserve", session.q.reserve(request=SLURM_REQUEST), "accepted")
    record = stands(session, result["reservation_id"], "active")
    expect_equal("job_id", str(record["job_id"]), SLURM_REQUEST["job_id"])
    expect_equal("workload_kind", record["workload_kind"], "hybrid")
    session.q.release(reservation_id=result["reservation_id"], reason=0)


@row("admission.reserve", "reserve: a decision with an id, and an active reservation")
def reserve(session: CheckSession) -> None:
    result = decided("reserve", session.q.reserve(request={"request_id": "r-7"}), "accepted")
    number = result["reservation_id"]
    expect_equal("request_id", result["request_id"], "r-7")
    record = stands(session, number, "active")
    for name in RECORD_NAMES:
        expect(name in record, f"the reservation has no {name!r}")
    expect_equal("request_id of the record", record["request_id"], "r-7")
    expect(record["expires_at_ns"] > record["created_at_ns"], "it expires before it was made")
    session.q.release(reservation_id=number)


@row("admission.reason", "a rejection's reason is the text reason-N, N its reason_code")
def reason(session: CheckSession) -> None:
    rejected = 0
    for wrong in ({"device_id": "no-such-device"}, {"num_shots": -1}, {"walltime_ns": -1}):
        answer = session.answers("evaluate", lambda w=wrong: session.q.evaluate(request=w))  # type: ignore[misc]
        if not isinstance(answer, dict) or answer.get("status") != "rejected":
            continue
        result, rejected = decided("evaluate", answer), rejected + 1
        expect_equal(f"reason of {wrong}", result["reason"], f"reason-{result['reason_code']}")
    if not rejected:
        raise CheckNotApplicable("it rejects none of the requests that are wrong here")


@row("admission.ids", "reservation ids are whole numbers, 1 to 2**64-1, each given once")
def ids(session: CheckSession) -> None:
    seen = []
    for _ in range(4):
        answer = session.q.reserve(request={})
        number = answer.get("reservation_id")
        expect(type(number) is int, f"a reservation id is {short_repr(number)}, not a whole number")
        expect(1 <= number <= MOST_ID, f"a reservation id is {number}")
        session.q.release(reservation_id=number)
        seen.append(number)
    expect(len(set(seen)) == len(seen), f"ids were given twice: {seen}")


@row("admission.no-dict", "reserve of no dict is refused: revision 1 has that name too")
def no_dict(session: CheckSession) -> None:
    before = sorted(_listed(session))
    session.expect_refusal("reserve(request='svc')", lambda: session.q.reserve(request="svc"))
    expect_equal("reservations afterwards", sorted(_listed(session)), before)


@row("admission.unknown-keys", "unknown keys are ignored")
def unknown_keys(session: CheckSession) -> None:
    decided("evaluate", session.q.evaluate(request={"a_key_of_tomorrow": [1, {"x": None}]}))


@row("admission.owner", "owner, job and scope of the request stand in the record")
def owner(session: CheckSession) -> None:
    for values in ({"user_id": "ada"}, {"owner": {"username": "ada"}}):
        number = session.reserve(job_id="j-1", scope_id="s-1", **values)
        record = stands(session, number, "active")
        expect_equal(f"user_id of {values}", record["user_id"], "ada")
        expect_equal("job_id", str(record["job_id"]), "j-1")
        expect_equal("scope_id", str(record["scope_id"]), "s-1")


@row("admission.list", "list_reservations: all, or those that fit the filters")
def listing(session: CheckSession) -> None:
    mine = session.reserve(user_id="ada", job_id="j-17")
    other = session.reserve(user_id="grace", job_id="j-18")
    expect({mine, other} <= set(_listed(session)), "the list lacks what was just reserved")
    for filters in ({"user_id": "ada"}, {"job_id": "j-17"}):
        result = _listed(session, **filters)
        expect(mine in result and other not in result, f"{filters} lists {result}")
    expect_equal("of a job nobody has", _listed(session, job_id="no-such-job"), [])


@row("admission.renew", "renew: it lives longer")
def renew(session: CheckSession) -> None:
    number = session.reserve(ttl_ns=60 * 10**9)
    before = stands(session, number, "active")["expires_at_ns"]
    answer = session.q.renew(reservation_id=number, request={"ttl_ns": 7_200 * 10**9})
    fields.has("renew", answer, {"status": str, "reservation_id": int})
    expect_equal("status", answer["status"], "accepted")
    after = stands(session, number, "active")["expires_at_ns"]
    expect(after > before + 3_600 * 10**9, f"it expires {(after - before) / 1e9:.0f} s later")


@row("admission.release", "release: released, as often as it is asked")
def release(session: CheckSession) -> None:
    number = session.reserve()
    for _ in range(2):
        answer = session.q.release(reservation_id=number, reason="checked")
        fields.has("release", answer, {"status": str, "reservation_id": int})
        expect_equal("status", answer["status"], "accepted")
    stands(session, number, "released")


@row("admission.release-id", "release and cancel without an id are refused")
def release_id(session: CheckSession) -> None:
    session.expect_refusal("release()", lambda: session.q.release())
    session.expect_refusal("cancel()", lambda: session.q.cancel())


@row("admission.release-code", "release and cancel take a scheduler's reason code")
def release_code(session: CheckSession) -> None:
    for name, state in (("release", "released"), ("cancel", "cancelled")):
        number = session.reserve(**SLURM_REQUEST)
        answer = getattr(session.q, name)(reservation_id=number, reason=1)
        fields.has(f"{name}(reason=1)", answer, {"status": str, "reservation_id": int})
        expect_equal(f"status of {name}(reason=1)", answer["status"], "accepted")
        stands(session, number, state)


@row("admission.unknown", "an unknown reservation: refused by its class")
def unknown(session: CheckSession) -> None:
    for name in ("get_reservation", "renew", "release", "cancel"):
        call = getattr(session.q, name)
        session.expect_refusal(name, partial(call, reservation_id=NEVER_GIVEN), *REFUSED)


@row("admission.release-running", "release while a task runs: pending with its id, or it stops")
def release_running(session: CheckSession) -> None:
    for _ in range(LENGTHENED):
        number = session.reserve()
        under = {"reservation_id": number}
        info = session.long.info()
        qtask = session.q.async_run(info, **under)["qtask_id"]
        ask = partial(session.q.task_status, qtask_id=qtask, **under)
        if session.long.wait_until_running(ask) or not session.long.lengthen():
            break
    answer = session.q.release(reservation_id=number)
    expect(answer["status"] in ("accepted", "pending"), f"release answered {short_repr(answer)}")
    if answer["status"] == "pending":
        expect_equal("reason", answer.get("reason"), "provider-cancel-pending")
        expect_equal("pending_qtask_ids", answer.get("pending_qtask_ids"), [qtask])
    record = partial(session.q.get_reservation, reservation_id=number)
    session.until(lambda: record()["state"] == "released", "its release")


@row("admission.release-job", "a scheduler's release while a task runs: accepted when repeated")
def release_job(session: CheckSession) -> None:
    """QFw's gateway for Slurm keeps a job as unreleased until the answer is accepted."""
    number = session.reserve(**SLURM_REQUEST)
    session.long.submit(under={"reservation_id": number})
    release = partial(session.q.release, reservation_id=number, reason=1)
    session.until(lambda: release()["status"] == "accepted", "release(reason=1) is accepted")
    stands(session, number, "released")


@row("admission.cancel", "cancel: its tasks are stopped")
def cancel(session: CheckSession) -> None:
    number = session.reserve()
    cids = [session.long.submit(under={"reservation_id": number}) for _ in range(4)]
    answer = session.q.cancel(reservation_id=number, reason="checked")
    expect(answer["status"] in ("accepted", "pending"), f"cancel answered {short_repr(answer)}")
    session.until(lambda: session.q.is_ready()["active_task_count"] == 0, "the end of its tasks")
    stands(session, number, "cancelled")
    expect(bool(cids), "nothing was submitted")


@row("admission.expires", "a reservation whose time is over is expired, and refused")
def expires(session: CheckSession) -> None:
    number = session.reserve(ttl_ns=SHORT_NS)
    deadline = time.monotonic() + session.wait_s
    while session.q.get_reservation(reservation_id=number)["state"] == "active":
        is_early = time.monotonic() < deadline
        expect(is_early, f"still active {session.wait_s:g} s after 0.3 s were over")
        time.sleep(0.05)
    stands(session, number, "expired")
    _refused(session, number, "that is over")


@row("reservation.required", "without a reservation what costs is refused")
def required(session: CheckSession) -> None:
    try:
        session.q.delete_circuit(session.q.async_run(session.info())["cid"])
    except Exception:  # noqa: BLE001 - the class of the error is tested below
        pass
    else:
        raise CheckNotApplicable("this QPM waives reservations")
    session.expect_refusal("async_run", lambda: session.q.async_run(session.info()))
    session.expect_refusal("sync_run", lambda: session.q.sync_run(session.info()))
    for operation in ("read_cq", "peek_cq"):
        answer = getattr(session.q, operation)("a-circuit")
        result = fields.outcome(operation, answer, "INVALID_RESERVATION", "reservation-required")
        expect_equal("completion_ready", result.get("completion_ready"), False)
        expect_equal("poll_operation", result.get("poll_operation"), operation)


@row("reservation.unknown", "an unknown id: calls refused, queries answered")
def of_nobody(session: CheckSession) -> None:
    session.reserve()  # there are some
    _refused(session, NEVER_GIVEN, "nobody has")
    listener = session.listener()
    session.expect_refusal("register", lambda: listener.register(EVENT, reservation_id=NEVER_GIVEN))
    for name in ("cancel_task", "delete_circuit"):
        call = getattr(session.q, name)
        session.expect_refusal(name, partial(call, "a-cid", reservation_id=NEVER_GIVEN))
    for name in ("read_cq", "peek_cq", "task_status"):
        answer = getattr(session.q, name)("a-cid", reservation_id=NEVER_GIVEN)
        fields.outcome(name, answer, "INVALID_RESERVATION")


@row("reservation.released", "a released reservation runs nothing any more")
def released(session: CheckSession) -> None:
    number = session.reserve()
    session.q.release(reservation_id=number)
    _refused(session, number, "that was released")


@row("reservation.cancelled", "a cancelled reservation runs nothing any more")
def cancelled(session: CheckSession) -> None:
    number = session.reserve()
    session.q.cancel(reservation_id=number)
    _refused(session, number, "that was cancelled")


@row("reservation.mismatch", "another reservation's task: INVALID_RESERVATION, mismatch")
def mismatch(session: CheckSession) -> None:
    mine, other = session.reserve(), session.reserve()
    cid = session.submit(under={"reservation_id": mine})
    session.completion(session.submit(under={"reservation_id": other}), reservation_id=other)
    for name in ("read_cq", "peek_cq"):
        answer = getattr(session.q, name)(cid, reservation_id=other)
        fields.outcome(name, answer, "INVALID_RESERVATION", "reservation-mismatch")
    record = session.completion(cid, reservation_id=mine)
    expect_equal("reservation_id of the record", record["reservation_id"], mine)


@row("reservation.queues", "read_cq without a cid reads its own reservation's queue")
def queues(session: CheckSession) -> None:
    mine, other = session.reserve(), session.reserve()
    cids = {number: session.submit(under={"reservation_id": number}) for number in (mine, other)}
    for number in (other, mine):
        record = session.completion(None, reservation_id=number)
        expect_equal(f"what was read under {number}", record["cid"], cids[number])


@row("reservation.text", "a reservation's number as decimal text, as QFW_RESERVATIONS has it")
def as_text(session: CheckSession) -> None:
    check.of_the_newest(session, "get_service_summary")
    number = session.reserve()
    record = session.completion(
        session.submit(under={"reservation_id": str(number)}), reservation_id=number
    )
    expect_equal("reservation_id of the record", record["reservation_id"], number)


@row("reservation.info", "reservation_id in info: the circuit runs under it")
def in_info(session: CheckSession) -> None:
    check.of_the_newest(session, "get_service_summary")
    number = session.reserve()
    cid = session.q.async_run({**session.info(), "reservation_id": number})["cid"]
    record = session.completion(cid, reservation_id=number)
    expect_equal("reservation_id of the record", record["reservation_id"], number)


@row("reservation.stranger", "another owner's reservation is as if there were none")
def other_owner(session: CheckSession) -> None:
    number = session.reserve()
    other = session.other_owner()
    for name in ("get_reservation", "release", "cancel", "renew"):
        call = getattr(other, name)
        session.expect_refusal(name, partial(call, reservation_id=number), *REFUSED)
    call = partial(other.async_run, session.info(), reservation_id=number)
    session.expect_refusal("async_run", call)
    stands(session, number, "active")


def _refused(session: CheckSession, number: int, what: str) -> None:
    under = {"reservation_id": number}
    for name in ("async_run", "sync_run"):
        call = getattr(session.q, name)
        message = f"{name} under a reservation {what}"
        session.expect_refusal(message, partial(call, session.info(), **under))
