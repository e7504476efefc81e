"""Checks with many circuits and callers at once, with clients that die among them.

Also of what a crowd leaves behind: completions beyond those that are kept, and plain data alone in
all answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simenv.qpm_check import circuits
from simenv.qpm_check.check import BOTH, TargetProperty, both, row
from simenv.qpm_check.checks.records import listening
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import SHOTS, CheckedClient, CheckSession, counts_of
from simenv.qpm_check.target import CheckSkipped, expect

FIFTY = 50
CALLERS = 32
BITS = 6  # width of numbered circuits, where circuits may be so wide
ENDS_S = 60.0  # limit of a call of a client that has died
KEPT = 1_024  # records that a reservation keeps by default
COMES_S = 60.0
UNHURRIED = 0.6  # of the time of a row: what is left is for what follows
QUIET_S = 0.3


@both("crowd.fifty", "50 circuits at once arrive exactly once each, each with its own counts")
def fifty(session: CheckSession) -> None:
    expected = {}
    with ThreadPoolExecutor(8) as pool:
        for value, cid in pool.map(lambda v: (v, _number(session, v)), range(FIFTY)):
            expected[cid] = _key(session, value)
    expect_equal("cids of 50 circuits", len(expected), FIFTY)
    for cid, key in expected.items():
        _gave(session.completion(cid), key)
    for cid in expected:
        expect(_again(session, cid) is None, f"{cid} was handed out twice")


@both("crowd.callers", "32 callers at once: each gets the answer to its own question")
def callers(session: CheckSession) -> None:
    def ask(value: int) -> None:
        for turn in range(3):
            number = value * 3 + turn
            _gave(session.run(_circuit(session, number)), _key(session, number))

    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in pool.map(ask, range(CALLERS)):
            pass


@row("crowd.clients", "several clients share one queue of work and one count of tasks")
def clients(session: CheckSession) -> None:
    other = session.connect()
    cid = session.submit(circuits.FIRST_BIT)

    def ready() -> Any:
        answer = other.peek_cq(cid, **session.under)
        return answer if answer.get("completion_ready", True) else None

    record = session.until(ready, "what one client submitted, asked for by another")
    _gave(record, "001")


@both("crowd.order", "circuits of one caller are read in the order they were done in")
def in_order(session: CheckSession) -> None:
    while session.poll() is not None:
        pass
    for value in range(12):
        _number(session, value)
    records = [session.completion() for _ in range(12)]
    moments = [record["cq_enqueue_time"] for record in records]
    expect(moments == sorted(moments), "completions came out of the order they were queued in")


@row("crowd.dead-waiting", "a client that dies while it waits does not hold up the pool",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def dead_waiting(session: CheckSession) -> None:
    more = session.under
    for _ in range(3):
        other = session.connect()
        info = session.long.info()
        thread = threading.Thread(
            target=_ignoring, args=(lambda ask=other, i=info: ask.sync_run(i, **more),), daemon=True
        )
        thread.start()
        time.sleep(QUIET_S)
        other.link.die()
        thread.join(ENDS_S)
        expect(not thread.is_alive(), "the dead client's call still waits")
    expect_equal("rc of what came after", session.run()["rc"], 0)


@row("crowd.dead-listening", "a client that dies with a registration does not block others",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,), alone=True)  # fmt: skip
def dead_listening(session: CheckSession) -> None:
    alive, dead = listening(session), listening(session)
    cids = [_number(session, value, alive.q) for value in range(8)]
    for value in range(8):
        _number(session, value, dead.q)
    dead.q.link.die()
    cids += [_number(session, value, alive.q) for value in range(8)]
    seen: set[str] = set()
    while not seen >= set(cids):  # in revision 2 it hears of the other's circuits too
        seen.add(alive.taken().payload["cid"])
    expect_equal("rc of what came after", session.run()["rc"], 0)


@row("transport.send-lock", "no two threads send at once: the plugin's lock holds",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,), alone=True)  # fmt: skip
def send_lock(session: CheckSession) -> None:
    subject: Any = session.subject
    more = session.under
    listener = listening(session)
    subject.control.host("pause", 0.002)
    info = session.info()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: listener.q.async_run(info, **more), range(40)):
            pass
    for _ in range(40):
        listener.taken()
    met = subject.control.host("collisions")
    expect(met == 0, f"{met} times two threads wrote to one client at once: install a send lock")


@row("transport.errors", "errors arrive by their own class, not as a traceback",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def errors(session: CheckSession) -> None:
    more, info = session.under, session.info(circuits.UNREADABLE)
    session.expect_refusal("sync_run", lambda: session.q.sync_run(info, **more))


@row("transport.error-stack", "an error does not carry the stack of what caused it",
     revisions=BOTH, needs=(TargetProperty.TRANSPORT,))  # fmt: skip
def error_stack(session: CheckSession) -> None:
    more = session.under
    many: Any = "many"
    strange = session.info(circuit={"format": "quil-9", "data": "X 0"})
    for info in (session.info(circuits.UNREADABLE), session.info(num_shots=many), strange):
        error: Any = session.answers("sync_run", lambda i=info: session.q.sync_run(i, **more))  # type: ignore[misc]
        stack = str(getattr(error, "stacktrace", ""))
        message = "it was constructed while another exception was handled, and sends its stack: "
        expect(not stack, message + stack[-200:])


@row("retention.count", "more unread completions than are kept: the oldest are let go, and said so")
def count(session: CheckSession) -> None:
    number = session.reserve()
    under = {"reservation_id": number}
    text, over = circuits.number(1, 1), 20
    cids: list[str] = []

    def submit(more: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            texts = [text] * more
            cids.extend(
                pool.map(lambda each: session.submit(each, num_shots=1, under=under), texts)
            )
        session.until(done, "the last of them", COMES_S)

    def done() -> bool:
        return all(
            session.q.task_status(cid, **under)["lifecycle_state"]
            in ("completed", "no-longer-retained")
            for cid in cids[-over:]
        )

    begun_s = time.monotonic()
    submit(over)
    whole_s = (time.monotonic() - begun_s) * KEPT / over
    if whole_s > COMES_S * UNHURRIED:
        raise CheckSkipped(f"{KEPT:,} circuits take {whole_s:.0f} s here: no limit was met")
    submit(KEPT)
    session.until(lambda: session.q.is_ready()["active_task_count"] == 0, "all of them", COMES_S)
    gone = kept = 0
    for cid in cids:
        answer = session.q.peek_cq(cid, **under)
        kept += answer["completion_ready"] is True
        gone += answer["outcome"] == "NO_LONGER_RETAINED"
        if answer["outcome"] == "NO_LONGER_RETAINED":
            expect_equal("retention_reason", answer.get("retention_reason"), "max-records-exceeded")
    if kept == len(cids):
        raise CheckSkipped(f"all of {kept} completions are kept: no limit was met")
    expect_equal("kept and let go", kept + gone, len(cids))


@both("values.plain", "nothing but plain data in any answer or event of all checks")
def plain(session: CheckSession) -> None:
    session.completion(session.submit())
    result = session.impure
    reported = "; ".join(f"{method}: {place}" for method, place in sorted(result.items()))
    expect(not result, reported)


def _circuit(session: CheckSession, value: int) -> str:
    bits = min(BITS, session.long.max_qubits)
    return circuits.number(value % 2**bits, bits)


def _key(session: CheckSession, value: int) -> str:
    bits = min(BITS, session.long.max_qubits)
    return circuits.key(value % 2**bits, bits)


def _number(session: CheckSession, value: int, by: CheckedClient | None = None) -> str:
    return session.submit(_circuit(session, value), by=by)


def _gave(record: dict[str, Any], key: str) -> None:
    counts = counts_of(record)
    expect(counts.get(key, 0) >= SHOTS // 2, f"the circuit for {key} gave {counts}")


def _again(session: CheckSession, cid: str) -> Any:
    answer = session.answers("read_cq", lambda: session.q.read_cq(cid, **session.under))
    return answer if isinstance(answer, dict) and answer.get("completion_ready", True) else None


def _ignoring(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - its client has gone: there is nobody to tell
        return
