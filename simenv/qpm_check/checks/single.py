"""Checks of revision 1: records, InProgressError, events instead of the completion queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from simenv.qpm_check.contract.outcomes import expect, short_repr
from simenv.qpm_check.harness import circuits
from simenv.qpm_check.harness.check import TargetProperty, expect_equal, row
from simenv.qpm_check.harness.clients import counts_of
from simenv.qpm_check.harness.session import CheckSession

R1 = (1,)
EVENT = 1  # EVENT_TYPE_CIRC_RESULT
QUIET_S = 0.3
ASKED, READY_S = 100, 0.0005  # hosts poll in a loop: calls, and limit of the fastest of them


@row("single.ready", "is_ready: True", revisions=R1)
def ready(session: CheckSession) -> None:
    answer = session.q.is_ready()
    expect(answer is True, f"is_ready answered {short_repr(answer)}")


@row("single.ready-cost", "is_ready costs hardly more than test", revisions=R1)
def ready_cost(session: CheckSession) -> None:
    def best_s(call: Callable[[], Any]) -> float:
        best = float("inf")
        for _ in range(ASKED):
            begun = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - begun)
        return best

    session.q.is_ready()
    more_s = best_s(session.q.is_ready) - best_s(session.q.test)
    expect(more_s < READY_S, f"is_ready takes {1e3 * more_s:.2f} ms longer than test")


@row("single.test", "test: a text", revisions=R1)
def test(session: CheckSession) -> None:
    answer = session.q.test()
    expect(isinstance(answer, str), f"test answered {short_repr(answer)}")


@row("single.release", "release: None, as often as it is called; circuits go on", revisions=R1)
def release(session: CheckSession) -> None:
    ways: tuple[tuple[Any, ...], ...] = ((), (None,), ([],))
    for values in ways:
        answer = session.q.release(*values)
        expect(answer is None, f"release{values} answered {short_repr(answer)}")
    expect_equal("rc after release", session.run()["rc"], 0)


@row("single.async", "async_run: a cid, a text, at once", revisions=R1)
def cid(session: CheckSession) -> None:
    answer = session.q.async_run(session.info())
    expect(type(answer) is str and answer, f"async_run answered {short_repr(answer)}, not a cid")
    other = session.submit()
    expect(answer != other, "two circuits have one cid")
    expect_equal("cid of the record", session.completion(answer)["cid"], answer)


@row("single.at-once", "async_run answers before a long circuit is done", revisions=R1)
def at_once(session: CheckSession) -> None:
    number = session.submit(session.long, num_shots=session.long_shots)
    expect(session.poll(number) is None, "async_run waited until the circuit was done")


@row("single.in-progress", "what is not finished raises DEFwInProgress", revisions=R1)
def in_progress(session: CheckSession) -> None:
    number = session.submit(session.long, num_shots=session.long_shots)
    session.expect_refusal("read_cq", lambda: session.q.read_cq(number), "DEFwInProgress")
    session.expect_refusal("peek_cq", lambda: session.q.peek_cq(number), "DEFwInProgress")


@row("single.empty", "an empty queue raises DEFwInProgress", revisions=R1)
def empty(session: CheckSession) -> None:
    while session.poll() is not None:
        pass
    session.expect_refusal("read_cq()", lambda: session.q.read_cq(), "DEFwInProgress")


@row("single.read", "read_cq takes the record off the queue", revisions=R1)
def read(session: CheckSession) -> None:
    number = session.submit()
    session.completion(number)
    session.expect_refusal("a second read_cq", lambda: session.q.read_cq(number), "DEFwInProgress")


@row("single.peek", "peek_cq leaves it", revisions=R1)
def peek(session: CheckSession) -> None:
    number = session.submit()
    session.until(lambda: _peek(session, number), "peek_cq")
    expect(_peek(session, number) is not None, "a second peek_cq has nothing")
    session.completion(number)


@row("single.by-cid", "read_cq gives the circuit asked for, else the oldest", revisions=R1)
def by_cid(session: CheckSession) -> None:
    while session.poll() is not None:
        pass
    first, second, third = (session.submit() for _ in range(3))
    expect_equal("cid of the one asked for", session.completion(third)["cid"], third)
    both = [session.completion(), session.completion()]
    expect_equal("the others", sorted(record["cid"] for record in both), sorted((first, second)))
    expect(both[0]["cq_enqueue_time"] <= both[1]["cq_enqueue_time"], "not the oldest first")


@row("single.delete", "delete_circuit: None, also of an unknown one", revisions=R1)
def delete(session: CheckSession) -> None:
    number = session.submit(session.long, num_shots=session.long_shots)
    for what in (number, "no-such-circuit"):
        answer = session.q.delete_circuit(what)
        expect(answer is None, f"delete_circuit answered {short_repr(answer)}, not None")
    expect(session.poll(number) is None, "a deleted circuit has a record")


@row("single.bad-sync", "an unreadable circuit: sync_run raises DEFwExecutionError", revisions=R1)
def bad_sync(session: CheckSession) -> None:
    session.expect_refusal(
        "sync_run", lambda: session.q.sync_run(session.info(circuits.UNREADABLE))
    )


@row("single.bad-async", "an unreadable circuit: a record with rc not 0", revisions=R1)
def bad_async(session: CheckSession) -> None:
    for text in (circuits.UNREADABLE, circuits.NO_QASM):
        record = session.completion(session.submit(text))
        expect(type(record["rc"]) is int and record["rc"] != 0, f"rc is {short_repr(record['rc'])}")
        expect(
            isinstance(record["result"], str), f"result is {short_repr(record['result'])}: no text"
        )


@row(
    "single.pushed",
    "after a registration: pushed instead of queued, once",
    revisions=R1,
    alone=True,
)
def pushed(session: CheckSession) -> None:
    listener = session.listener()
    answer = listener.register(EVENT)
    expect(answer is None, f"register_event_notification answered {short_repr(answer)}")
    cids = {session.submit(by=listener.q) for _ in range(8)}
    seen = [listener.taken() for _ in cids]
    expect_equal("event types", {event.evtype for event in seen}, {EVENT})
    records = [event.payload for event in seen]
    expect_equal("cids that were pushed", sorted(r["cid"] for r in records), sorted(cids))
    for record in records:
        counts_of(record)
    time.sleep(QUIET_S)
    expect_equal("events in all", listener.seen, len(cids))
    expect(session.poll(by=listener.q) is None, "a record was pushed and queued")


@row(
    "single.push-fails",
    "a put that raises: the record is kept, others go on",
    revisions=R1,
    alone=True,
)
def push_fails(session: CheckSession) -> None:
    listener = session.listener()
    listener.register(EVENT)
    listener.sink.fail()
    number = session.submit(by=listener.q)
    session.until(lambda: listener.seen, "a put")
    expect_equal("cid of the record kept", session.completion(number, by=listener.q)["cid"], number)
    expect_equal("rc of what came after", session.run()["rc"], 0)


@row("single.push-last", "a client's last registration is its only one", revisions=R1, alone=True)
def push_last(session: CheckSession) -> None:
    first = session.listener()
    last = session.listener(first.q)
    for listener in (first, last):
        listener.register(EVENT)
    session.submit(by=last.q)
    last.taken()
    time.sleep(QUIET_S)
    expect_equal("events of the first", first.seen, 0)


@row(
    "single.shutdown",
    "shutdown by one client does not stop the pool for others",
    revisions=R1,
    alone=True,
)
def shutdown(session: CheckSession) -> None:
    other = session.connect()
    number = session.submit(session.long, num_shots=session.long_shots)
    answer = other.shutdown()
    expect(answer is None, f"shutdown answered {short_repr(answer)}")
    expect_equal("rc of what was under way", session.completion(number)["rc"], 0)
    expect_equal("rc of what came after", session.run()["rc"], 0)


@row("single.reserve", "reserve takes whatever a host gives, and answers None", revisions=R1,
     needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def reserve(session: CheckSession) -> None:
    for values in (("svc", "ep"), ("svc", "ep", "more")):
        answer = session.q.reserve(*values)
        expect(answer is None, f"reserve answered {short_repr(answer)}")


def _peek(session: CheckSession, number: str) -> Any:
    answer = session.answers("peek_cq", lambda: session.q.peek_cq(number))
    return None if isinstance(answer, Exception) else answer
