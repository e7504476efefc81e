"""Checks with many circuits and several clients: dying clients, retention, and plain data in
answers.

One of several clients of a QPM disconnects, one is stopped, two receive events. A host waits up to
300 s for an answer of a client that has died: the plugin must serve the other clients meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simenv.qpm_check import circuits
from simenv.qpm_check.check import BOTH, TargetProperty, both, expect_equal, row
from simenv.qpm_check.checks.records import EVENT, QUIET_S as SINGLE_QUIET_S, listening
from simenv.qpm_check.session import SHOTS, CheckedClient, CheckSession, EventListener, counts_of
from simenv.qpm_check.target import CheckSkipped, expect

FIFTY = 50
CALLERS = 32
BITS = 6  # width of numbered circuits, where circuits may be so wide
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
        info = session.long_info()
        thread = threading.Thread(
            target=_ignoring, args=(lambda ask=other, i=info: ask.sync_run(i, **more),), daemon=True
        )
        thread.start()
        time.sleep(QUIET_S)
        other.link.die()
        thread.join(COMES_S)
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
    bits = min(BITS, session.max_qubits)
    return circuits.number(value % 2**bits, bits)


def _key(session: CheckSession, value: int) -> str:
    bits = min(BITS, session.max_qubits)
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


PROMPT_S = 2.0  # limit of an event or answer that depends on no other client
CLIENTS = 10
EACH = 20
_TRANSPORT = (TargetProperty.TRANSPORT,)


@row("clients.leave-with-event", "a client that leaves when its event comes holds up no other",
     revisions=BOTH, needs=_TRANSPORT)  # fmt: skip
def leave_with_event(session: CheckSession) -> None:
    session.run()  # a plugin may load modules with its first circuit
    for number in range(CLIENTS):
        listener = listening(session)
        sink: Any = listener.sink
        sink.mute = True  # its process ends before the host's call is answered
        what = f"client {number + 1}, after {number} that left with their events"
        _hears(session, listener, what)
        listener.q.link.die()


@row("clients.stopped", "a client that is stopped (SIGSTOP) holds up no other, and loses nothing",
     revisions=BOTH, needs=_TRANSPORT)  # fmt: skip
def stopped(session: CheckSession) -> None:
    session.run()
    other, alive = listening(session), listening(session)
    link: Any = other.q.link
    link.connection.hold_events()  # none of its events is answered before it is stopped
    cids = [session.submit(by=other.q) for _ in range(3)]
    link.connection.stop()
    try:
        for number in range(EACH):
            _hears(session, alive, f"circuit {number + 1} beside a stopped client")
        begun = time.monotonic()
        session.run()
        elapsed_s = time.monotonic() - begun
        expect(elapsed_s < PROMPT_S, f"sync_run took {elapsed_s:.1f} s beside a stopped client")
    finally:
        link.connection.resume()
    missing = set(cids)

    def complete() -> bool:
        """Return whether each record came as an event or can be read."""
        while (event := other.sink.take(0.0)) is not None:
            missing.discard(event.payload["cid"])
        missing.difference_update([cid for cid in missing if session.poll(cid, by=other.q)])
        return not missing

    session.until(complete, "what the client that was stopped had missed")


@row("clients.own-events", "each client's events are of its own circuits, each once",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def own_events(session: CheckSession) -> None:
    first, second = listening(session), listening(session)
    # Two backends in one application.
    third = session.listener(session.connect_same_process(first.q))
    third.register(EVENT)
    listeners = {"the first": first, "the second": second, "the first's other backend": third}
    cids: dict[str, list[str]] = {name: [] for name in listeners}
    for _ in range(EACH):
        for name, listener in listeners.items():
            cids[name].append(session.submit(by=listener.q))
    for name, listener in listeners.items():
        seen = sorted(listener.taken().payload["cid"] for _ in range(EACH))
        expect_equal(f"cids that were pushed to {name}", seen, sorted(cids[name]))
    time.sleep(SINGLE_QUIET_S)
    for name, listener in listeners.items():
        expect_equal(f"events in all of {name}", listener.seen, EACH)


@row("clients.own-queue", "read_cq gives no client the records of another",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def own_queue(session: CheckSession) -> None:
    first = session.connect()
    others = (session.connect(), session.connect_same_process(first))
    cids = [session.submit(by=first) for _ in range(3)]
    session.until(lambda: all(_has_ended(session, first, cid) for cid in cids), "records")
    for other in others:
        session.expect_refusal("read_cq() of another client", other.read_cq, "DEFwInProgress")
    seen = sorted(session.completion(by=first)["cid"] for _ in cids)
    expect_equal("cids that the client read", seen, sorted(cids))


def _has_ended(session: CheckSession, client: CheckedClient, cid: str) -> bool:
    return isinstance(session.answers("peek_cq", lambda: client.peek_cq(cid)), dict)


def _hears(session: CheckSession, listener: EventListener, what: str) -> None:
    """Expect the event of the listener's circuit within PROMPT_S; in revision 2 among those of
    other clients."""
    cid = session.submit(by=listener.q)
    deadline = time.monotonic() + PROMPT_S
    while True:
        event = listener.sink.take(max(0.0, deadline - time.monotonic()))
        expect(event is not None, f"{what}: no event within {PROMPT_S:g} s")
        assert event is not None
        if event.payload["cid"] == cid:
            return
