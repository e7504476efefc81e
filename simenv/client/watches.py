"""Asking for results that may have come and gone: at most one Watch on its way.

The service drops what a slow reader does not read, so a long list is asked for in parts, the next
when the answer to the last (Unknown, which follows the results) is there. Where one result was
lost others will be: then all that is outstanding is asked for. No lock here: the link has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from simenv.client.ledger import Ledger

WATCH_TASKS = 1_000  # their results must fit into the service's send queue
REPEAT_S = 5.0  # what is not answered for so long is asked for again


class Watches:
    """The ids still to be asked for."""

    def __init__(self, ledger: Ledger, send: Callable[[list[int]], None]) -> None:
        self._ledger = ledger
        self._send = send
        self._open: dict[int, None] = {}
        self._on_its_way: list[int] = []
        self._missed: set[int] = set()  # waited for long: if they come now, they were lost before
        self._sent_s = -REPEAT_S

    def add(self, numbers: Iterable[int], *, missed: bool = False) -> None:
        """Ask for these, at once or when the answer on its way has come."""
        asked = dict.fromkeys(numbers)
        self._open.update(asked)
        if missed:
            self._missed.update(asked)
        if monotonic() - self._sent_s >= REPEAT_S:
            self._next()

    def answered(self) -> None:
        """The last part was answered, after the results it brought."""
        known = self._ledger.tasks
        lost = any(n in self._missed and n not in known for n in self._on_its_way)
        self._missed.difference_update(self._on_its_way)
        self._sent_s = -REPEAT_S
        if lost:
            self._open.update(dict.fromkeys(known))
        self._next()

    def restart(self) -> None:
        """Ask for everything outstanding: another service answers now."""
        self._missed.clear()
        self._open = dict.fromkeys(self._ledger.tasks)
        self._next()

    def _next(self) -> None:
        part: list[int] = []
        while self._open and len(part) < WATCH_TASKS:
            number, _ = self._open.popitem()
            if number in self._ledger.tasks:
                part.append(number)
        self._on_its_way = part
        if part:
            self._sent_s = monotonic()
            self._send(part)
