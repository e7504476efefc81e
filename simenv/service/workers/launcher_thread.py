"""The thread of a launcher: its children end with the thread that has started them."""

from __future__ import annotations

import logging
from functools import partial

from launcher import base
from simenv.service.job_thread import JobThread

log = logging.getLogger("simenv.service")


class LauncherThread:
    """A launcher, whose methods are called in one thread. Used from the loop's thread."""

    def __init__(self, launcher: base.Launcher, jobs: JobThread) -> None:
        self.launcher = launcher
        self.jobs = jobs
        self._ends: list[base.Exit] = []
        self._events: list[base.LauncherEvent] = []
        self._is_polling = False

    @property
    def has_news(self) -> bool:
        """True if ends or events are known that were not taken."""
        return bool(self._ends or self._events)

    def kill(self, name: str) -> None:
        self.jobs.run(partial(self.launcher.kill, name), None)

    def terminate(self, name: str) -> None:
        self.jobs.run(partial(self.launcher.terminate, name), None)

    def poll(self) -> None:
        """Ask for ends and events, which are known in a later pass."""
        if self._is_polling:
            return

        def ask() -> tuple[list[base.Exit], list[base.LauncherEvent]]:
            return self.launcher.poll_exits(), self.launcher.poll_events()

        def answered(answer: tuple[list[base.Exit], list[base.LauncherEvent]] | Exception) -> None:
            self._is_polling = False
            if isinstance(answer, Exception):
                log.error("the launcher cannot be asked", exc_info=answer)
            else:
                self._ends += answer[0]
                self._events += answer[1]

        self._is_polling = True
        self.jobs.run(ask, answered)

    def take_ends(self) -> list[base.Exit]:
        """Return the ends of workers that are known since the last call."""
        ends, self._ends = self._ends, []
        return ends

    def take_events(self) -> list[base.LauncherEvent]:
        """Return the events that are known since the last call."""
        events, self._events = self._events, []
        return events
