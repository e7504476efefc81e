"""Exceptions that no rule of the service foresees: faults of the service itself.

Invariant: none of them leaves the event loop. Whoever waits for an answer gets an InternalError
with a reference; the log has one traceback for each place and line at which such errors arise, and
the metrics have their number. A change that fails in the middle stays as far as it went, and its
sender learns that; a submission is taken back as a whole. Tasks whose results were lost with a
message run again when their worker is found idle, and what was due is tried again at the next tick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from simenv.errors import InternalError, SimenvError
from simenv.service.journal.database import LeadershipLost

MOST_PLACES = 256  # whose traceback is logged; later ones are only counted

log = logging.getLogger("simenv.service")


class InternalErrors:
    """Record of unforeseen exceptions. Used from the loop's thread."""

    def __init__(self) -> None:
        self.count = 0
        self._places: set[tuple[str, type, str, int]] = set()

    def record(self, error: Exception, what: str) -> InternalError:
        """Count and log an exception; return the error for whoever waits. `what`: what failed."""
        self.count += 1
        file, line = _place(error)
        reference = f"E{self.count}"
        place = what, type(error), file, line
        if place not in self._places and len(self._places) < MOST_PLACES:
            self._places.add(place)
            log.error("internal_error %s: %s failed", reference, what, exc_info=error)
        text = f"{what} failed by a fault of the service ({type(error).__name__}: {error!s:.200})"
        hint = f"service.log of the environment has the traceback ({reference}); please report it"
        error.__traceback__ = None  # its frames hold the message
        return InternalError(text, hint=hint)

    @contextmanager
    def guarded(
        self, what: str, refuse: Callable[[SimenvError], object] | None = None
    ) -> Iterator[None]:
        """Let no exception of the body out, but LeadershipLost, which ends the service on purpose.
        `refuse`: called with the error, a SimenvError of the body or the InternalError of another
        exception; None: nobody waits."""
        try:
            yield
        except LeadershipLost:
            raise
        except SimenvError as error:
            if refuse is None:
                self.record(error, what)
            else:
                refuse(error)
        except Exception as error:  # noqa: BLE001  # the one place that stands for all others
            internal = self.record(error, what)
            if refuse is not None:
                refuse(internal)


def _place(error: Exception) -> tuple[str, int]:
    """Return the file and line that raised an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
