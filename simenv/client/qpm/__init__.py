"""A Client as a QPM (quantum platform manager): `Client.qpm`, the contract and nothing else.

The object has the methods of the bindings `execution`, `telemetry` and `control` of revision 2;
`revision1` is the same pool as the single class of revision 1, with completions of its own. A host
gets the one or the other. Everything goes through the Client: no other way into the service exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simenv.client.qpm import records
from simenv.client.qpm.audit import Audit
from simenv.client.qpm.book import Book, Retention
from simenv.client.qpm.control import ControlBinding
from simenv.client.qpm.execution import ExecutionBinding
from simenv.client.qpm.notices import Notices
from simenv.client.qpm.presence import Presence
from simenv.client.qpm.runner import Runner
from simenv.client.qpm.single import SingleQPM
from simenv.client.qpm.telemetry import TelemetryBinding
from simenv.qpm.service import ServiceRecord

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.link import Link

SINGLE_RETENTION = Retention(count=65_536)  # revision 1 has no word for what is no longer kept


class QPM(ExecutionBinding, TelemetryBinding, ControlBinding):
    """One object, all bindings of revision 2. Thread-safe."""

    def __init__(self, client: Client, link: Link) -> None:
        presence, audit = Presence(link), Audit()
        book = Book(link, Retention())
        runner = Runner(client, book)
        ExecutionBinding.__init__(
            self, link, runner, Notices(link, book, records.revision2, alone=False)
        )
        TelemetryBinding.__init__(self, link, presence, audit)
        ControlBinding.__init__(self, link, runner, presence, audit)
        self.revision1 = _single(client, link, presence)

    def query(self) -> ServiceRecord:
        """What this is, for whoever looks for a QPM."""
        return self._presence.record(type(self), with_properties=True)

    def __repr__(self) -> str:
        return f"<QPM {self._presence.target_id} | {self._state}>"


def _single(client: Client, link: Link, presence: Presence) -> SingleQPM:
    book = Book(link, SINGLE_RETENTION)
    runner = Runner(client, book)
    control = ControlBinding(link, runner, presence, Audit())
    return SingleQPM(runner, Notices(link, book, records.revision1, alone=True), control, presence)
