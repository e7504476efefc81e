"""Checks of the completion queues of revision 2: ready, pending and removed completions."""

from __future__ import annotations

from typing import Any

from simenv.qpm_check.contract.outcomes import expect
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import expect_equal, row
from simenv.qpm_check.harness.session import CheckSession

_MANY = 8


@row("polling.not-ready", "read_cq before the end: the task's envelope, completion-not-ready")
def not_ready(session: CheckSession) -> None:
    cid = session.submit(session.long, num_shots=session.long_shots)
    for operation in ("read_cq", "peek_cq"):
        answer = getattr(session.q, operation)(cid, **session.reservation_kwargs)
        result = shapes.stands(operation, answer, *shapes.ORDER[:-1])
        _polled(operation, result, ready=False)
        expect_equal("reason", result.get("reason"), "completion-not-ready")
        expect_equal("cid", result["cid"], cid)


@row("polling.unknown", "read_cq of an unknown cid: IN_PROGRESS")
def unknown(session: CheckSession) -> None:
    for operation in ("read_cq", "peek_cq"):
        answer = getattr(session.q, operation)("no-such-circuit", **session.reservation_kwargs)
        _polled(operation, shapes.outcome(operation, answer, "IN_PROGRESS"), ready=False)


@row("polling.read", "read_cq: the record, and off the queue")
def read(session: CheckSession) -> None:
    cid = session.submit()
    record = shapes.has("read_cq", session.completion(cid), shapes.COMPLETION)
    _polled("read_cq", record, ready=True)
    again = session.q.read_cq(cid, **session.reservation_kwargs)
    expect(again.get("completion_ready") is False, "read_cq gave the same completion twice")


@row("polling.peek", "peek_cq: the record, and it stays")
def peek(session: CheckSession) -> None:
    cid = session.submit()
    seen = session.until(lambda: _peeked(session, cid), "peek_cq")
    shapes.has("peek_cq", seen, shapes.COMPLETION)
    _polled("peek_cq", seen, ready=True)
    expect(_peeked(session, cid), "a second peek_cq has nothing")
    expect_equal("rc of what was peeked at before", session.completion(cid)["rc"], 0)


@row("polling.gone", "what was read: NO_LONGER_RETAINED, since when and why")
def gone(session: CheckSession) -> None:
    cid = session.submit()
    session.completion(cid)
    answer = session.q.read_cq(cid, **session.reservation_kwargs)
    reason = "completion-no-longer-retained"
    result = shapes.outcome("read_cq", answer, "NO_LONGER_RETAINED", reason)
    _polled("read_cq", result, ready=False)
    shapes.has("read_cq", result, {"evicted_at_ns": int, "retention_reason": str})


@row("polling.oldest", "read_cq without a cid: the oldest completion")
def oldest(session: CheckSession) -> None:
    _drain(session)
    cids = {session.submit() for _ in range(_MANY)}
    records = [session.completion() for _ in range(_MANY)]
    expect_equal("what was read", sorted(record["cid"] for record in records), sorted(cids))
    queued = [record["qpm_cq_enqueue_time_ns"] for record in records]
    expect(queued == sorted(queued), "completions were not read in the order they were queued in")


@row("polling.times", "times in ns agree with those in seconds")
def times(session: CheckSession) -> None:
    record = session.completion(session.submit())
    for name in ("enqueue", "dequeue"):
        seconds, ns = record[f"cq_{name}_time"], record[f"qpm_cq_{name}_time_ns"]
        expect(abs(seconds - ns / 1e9) < 1.0, f"cq_{name}_time {seconds}, in ns {ns}")
    peeked = session.submit(circuits.FIRST_BIT)
    seen = session.until(lambda: _peeked(session, peeked), "peek_cq")
    expect_equal("qpm_cq_dequeue_time_ns of peek_cq", seen["qpm_cq_dequeue_time_ns"], -1)


def _polled(operation: str, answer: dict[str, Any], *, ready: bool) -> None:
    result = answer.get("completion_ready")
    expect(result is ready, f"completion_ready of {operation} is {result!r}, not {ready}")
    expect_equal("poll_operation", answer.get("poll_operation"), operation)


def _peeked(session: CheckSession, cid: str) -> dict[str, Any] | None:
    answer: dict[str, Any] = session.q.peek_cq(cid, **session.reservation_kwargs)
    return answer if answer.get("completion_ready") else None


def _drain(session: CheckSession) -> None:
    while session.q.read_cq(**session.reservation_kwargs).get("completion_ready"):
        pass
