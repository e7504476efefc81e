"""Several clients of one QPM: one that leaves, one that is stopped, two that each listen.

A host waits long for an answer of a client that is not there any more (300 s): what a plugin does
for the others must not wait with it.
"""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check.checks.single import EVENT, QUIET_S
from simenv.qpm_check.contract.outcomes import expect
from simenv.qpm_check.harness.check import BOTH, Need, expect_equal, row
from simenv.qpm_check.harness.clients import CheckedClient, EventListener
from simenv.qpm_check.harness.session import CheckSession

PROMPT_S = 2.0  # an event or an answer that waits for nobody else
CLIENTS = 10
EACH = 20
_TRANSPORT = (Need.TRANSPORT,)


@row("clients.leave-with-event", "a client that leaves when its event comes holds up no other",
     revisions=BOTH, needs=_TRANSPORT)  # fmt: skip
def leave_with_event(bench: CheckSession) -> None:
    bench.run()  # what a plugin loads with its first circuit is loaded
    for number in range(CLIENTS):
        ear = _listening(bench)
        sink: Any = ear.sink
        sink.mute = True  # its process ends before the host's call is answered
        _hears(bench, ear, f"client {number + 1}, after {number} that left with their events")
        ear.q.link.die()


@row("clients.stopped", "a client that is stopped (SIGSTOP) holds up no other, and loses nothing",
     revisions=BOTH, needs=_TRANSPORT)  # fmt: skip
def stopped(bench: CheckSession) -> None:
    bench.run()
    other, alive = _listening(bench), _listening(bench)
    link: Any = other.q.link
    link.connection.hold_events()  # none of its events is answered before it is stopped
    cids = [bench.submit(by=other.q) for _ in range(3)]
    link.connection.stop()
    try:
        for number in range(EACH):
            _hears(bench, alive, f"circuit {number + 1} beside a stopped client")
        begun = time.monotonic()
        bench.run()
        took_s = time.monotonic() - begun
        expect(took_s < PROMPT_S, f"sync_run took {took_s:.1f} s beside a stopped client")
    finally:
        link.connection.resume()
    missing = set(cids)

    def complete() -> bool:
        """Each record of it came as an event, or can be read."""
        while (event := other.sink.take(0.0)) is not None:
            missing.discard(event.payload["cid"])
        missing.difference_update([cid for cid in missing if bench.poll(cid, by=other.q)])
        return not missing

    bench.until(complete, "what the client that was stopped had missed")


@row("clients.own-events", "each client's events are of its own circuits, each once",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def own_events(bench: CheckSession) -> None:
    first, second = _listening(bench), _listening(bench)
    third = bench.ear(bench.connect_beside(first.q))  # two backends in one application
    third.register(EVENT)
    ears = {"the first": first, "the second": second, "the first's other backend": third}
    cids: dict[str, list[str]] = {name: [] for name in ears}
    for _ in range(EACH):
        for name, ear in ears.items():
            cids[name].append(bench.submit(by=ear.q))
    for name, ear in ears.items():
        seen = sorted(ear.taken().payload["cid"] for _ in range(EACH))
        expect_equal(f"cids that were pushed to {name}", seen, sorted(cids[name]))
    time.sleep(QUIET_S)
    for name, ear in ears.items():
        expect_equal(f"events in all of {name}", ear.seen, EACH)


@row("clients.own-queue", "read_cq gives no client the records of another",
     revisions=(1,), needs=_TRANSPORT)  # fmt: skip
def own_queue(bench: CheckSession) -> None:
    first = bench.connect()
    others = (bench.connect(), bench.connect_beside(first))
    cids = [bench.submit(by=first) for _ in range(3)]
    bench.until(lambda: _has_ended(bench, first, cids[-1]), "a record")
    for other in others:
        bench.refuses("read_cq() of another client", other.read_cq, "DEFwInProgress")
    seen = sorted(bench.completion(by=first)["cid"] for _ in cids)
    expect_equal("cids that the client read", seen, sorted(cids))


def _has_ended(bench: CheckSession, client: CheckedClient, cid: str) -> bool:
    return isinstance(bench.answers("peek_cq", lambda: client.peek_cq(cid)), dict)


def _listening(bench: CheckSession) -> EventListener:
    ear = bench.ear()
    ear.register(EVENT, **(bench.under if bench.revision == 2 else {}))
    return ear


def _hears(bench: CheckSession, ear: EventListener, what: str) -> None:
    """Its circuit's event comes promptly; in revision 2 among those of others' circuits."""
    cid = bench.submit(by=ear.q)
    deadline = time.monotonic() + PROMPT_S
    while True:
        event = ear.sink.take(max(0.0, deadline - time.monotonic()))
        expect(event is not None, f"{what}: no event within {PROMPT_S:g} s")
        assert event is not None
        if event.payload["cid"] == cid:
            return
