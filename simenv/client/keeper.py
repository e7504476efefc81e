"""The one thread of a client that renews its reservations while they are in use.

Invariant: each is renewed when a third of its time has gone, so two failures in a row cost nothing.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING

from simenv.errors import NotReserved, SimenvError

if TYPE_CHECKING:
    from simenv.client.reservations import Reservation

PART = 3  # of its time, after which it is renewed
AGAIN_S = 1.0  # after a failure, at most


class Keeper:
    """Thread-safe; begins anew in a forked child."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._due: dict[Reservation, float] = {}  # monotonic
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, reservation: Reservation) -> None:
        """Renew this one from now on."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._due[reservation] = monotonic() + reservation.for_s / PART
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simenv-renew", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, reservation: Reservation) -> None:
        """Renew it no longer; idempotent."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._due.pop(reservation, None)

    def stop(self) -> None:
        """No more; what is reserved expires by itself."""
        if os.getpid() == self._pid:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def join(self) -> None:
        """After it was stopped, and the connection closed that it may be waiting at."""
        thread = self._thread if os.getpid() == self._pid else None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped:
                    first_s = min(self._due.values(), default=None)
                    wait_s = None if first_s is None else first_s - monotonic()
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._stopped:
                    return
                now_s = monotonic()
                ready = [one for one, due_s in self._due.items() if due_s <= now_s]
            for one in ready:
                self._renew(one)

    def _renew(self, one: Reservation) -> None:
        next_s = one.for_s / PART
        try:
            one.renew()
        except NotReserved:
            self.drop(one)  # it is over: whoever submits under it is told
            return
        except SimenvError:
            next_s = min(AGAIN_S, next_s)
        with self._changed:
            if one in self._due:
                self._due[one] = monotonic() + next_s
