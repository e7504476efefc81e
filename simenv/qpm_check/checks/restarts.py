"""Checks of restarts: a backend is killed and restarted while clients poll."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from simenv.qpm_check import check
from simenv.qpm_check.check import BOTH, TargetProperty
from simenv.qpm_check.session import CheckedClient, CheckSession
from simenv.qpm_check.target import CheckFailed, expect, named

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
    cid = session.long.submit(under=under)
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
        cid = session.long.submit(by=client, under=under)
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
