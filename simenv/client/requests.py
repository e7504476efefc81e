"""What was asked and what was answered, on its way through a link."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from simenv.client.entry import Entry, Submission
from simenv.wire import messages as m
from simenv.wire.devices import Devices
from simenv.wire.engines import Engines, Explained
from simenv.wire.history import App, History, Submitted
from simenv.wire.keeping import Collected, Rerunning, ResultChunk
from simenv.wire.people import Keys, OwnerReports
from simenv.wire.pools import Pools
from simenv.wire.reservations import (
    Decided,
    Policed,
    Profiled,
    Released,
    Reservations,
    Target,
)

ANSWERS = (
    m.Status, m.Queue, m.Workers, m.Events, m.Cancelled, m.CompletionPage, m.Acked, m.Stopping,
    History, Submitted, App, ResultChunk, Rerunning, Collected, Engines, Keys, Explained,
    Pools, Decided, Reservations, Released, Profiled, Policed, Target, Devices,
    OwnerReports,
)  # fmt: skip

Answer = (
    m.Accepted | m.Refused | m.Status | m.Queue | m.Workers | m.Events | m.Cancelled
    | m.CompletionPage | m.Acked | m.Stopping | History | Submitted | App
    | ResultChunk | Rerunning | Collected | Engines | Keys | Explained
    | Pools | Decided | Reservations | Released | Profiled | Policed | Target | Devices
    | OwnerReports
)  # fmt: skip


class Request(msgspec.Struct, eq=False):
    """Something asked and perhaps answered. Of a submit: what its tasks share, and how many."""

    number: int
    body: bytes = b""
    asked_s: float = 0.0
    answer: Answer | None = None
    submission: Submission | None = None
    count: int = 0
    entries: Sequence[Entry] = ()
    repeated: bool = False  # the service knew its key: nothing new came of it

    def is_answered(self) -> bool:
        return self.answer is not None


@dataclass(slots=True, eq=False)
class Gathering:
    """Of several tasks: those that have ended and nobody took yet; when they were asked for."""

    ended: deque[Entry]
    asked_s: float
