"""Checks with several clients of a QPM: one disconnects, one is stopped, two receive events.

A host waits up to 300 s for an answer of a client that has died: the plugin must serve the other
clients meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check.check import BOTH, TargetProperty, row
from simenv.qpm_check.checks.records import EVENT, QUIET_S as SINGLE_QUIET_S, listening
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import CheckedClient, CheckSession, EventListener
from simenv.qpm_check.target import expect

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
