"""Answer listings and results from the journal of a service that is down.

Nothing is changed, queued or run. Invariant: the journal is opened with SQLite's `mode=ro`, so a
service that starts meanwhile is not disturbed; SQLite may leave an empty `-wal` and a `-shm` file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from simenv._version import __version__
from simenv.config import EnvironmentPaths
from simenv.errors import JournalError, NotFoundError
from simenv.model import Origin, TaskInfo, TaskState, Timing, task_name
from simenv.scheduler.core.types import ClusterLimits
from simenv.scheduler.state.state import SchedulerState
from simenv.service.journal.reader import WAY_OUT, Records
from simenv.service.journal.writer import JOURNAL_FORMAT, Journal
from simenv.service.queries import task_views
from simenv.service.queries.history import End, Log
from simenv.service.recovery.replay import final_tasks
from simenv.service.results.completions import Completions
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import App, GetApp, GetHistory, GetSpec

DOWN = "the service is down"
HISTORY_NS = 50_000_000  # for a page of history: this process has no other work


class StoredJournal(Journal):
    """Journal for reading: its methods that write must not be called."""

    def __init__(self, path: Path) -> None:
        """Open the journal. Raises JournalError if it cannot be read, or has another format."""
        self.path = path
        try:
            self._db = sqlite3.connect(
                f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            result = self._db.execute("pragma user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {path} cannot be opened: {error}", hint=f"is it damaged? {WAY_OUT}"
            ) from error
        if result != JOURNAL_FORMAT:
            raise JournalError(
                f"{path} has format {result}, this build reads {JOURNAL_FORMAT}",
                hint="use the simenv version that wrote it",
            )
        self.records = Records(self._db, path)

    def close(self) -> None:
        """Close the database. Idempotent."""
        self._db.close()


class StoredLog(Log):
    """Reader of history rows without a scheduler: a task without a stored end counts as queued."""

    def _end(self, task: int) -> End | None:
        return super()._end(task) or End(
            TaskState.QUEUED, 0, 0, Timing(0, 0, 0), "", "", f"({DOWN})"
        )


class Archive:
    """Answers about an environment from its journal alone."""

    def __init__(self, name: str, paths: EnvironmentPaths) -> None:
        """Open the live journal or, if it is not on this machine, its copy.

        Raises NotFoundError if there is neither, JournalError.
        """
        existing = [path for path in (paths.journal, paths.copy) if path.exists()]
        if not existing:
            raise NotFoundError(f"no journal of {name!r}: neither {paths.journal} nor {paths.copy}")
        self.path = existing[0]
        self._name, self._results = name, paths.results
        self._node = os.uname().nodename
        self._journal = StoredJournal(self.path)
        records = self._journal.records
        self._epoch = max(1, records.meta("epoch"))
        origin = Origin("", self._node, os.getpid(), __version__)
        self._completions = Completions(self._journal, origin)
        self._final_tasks = task_views.FinalTasks(self._journal, self._completions)
        empty = SchedulerState((), ClusterLimits(1, 0, 1, 1, 1, 1), self._epoch)
        self._log = StoredLog(self._journal, self._completions, empty)

    def close(self) -> None:
        """Close the journal. Idempotent."""
        self._journal.close()

    def answer(self, message: m.FromClient) -> Iterator[bytes]:
        """Yield the packed answers to one message; Refused for requests that need a service."""
        for answer in self._answers(message):
            yield codec.encode(answer)

    def _answers(self, message: m.FromClient) -> Iterator[m.ToClient]:
        records = self._journal.records
        match message:
            case m.Hello():
                newest = self._completions.newest
                results = str(self._results)
                yield m.Welcome(self._epoch, __version__, self._name, self._node, results, newest)
            case m.Ping():
                yield m.Pong(message.request, self._epoch)
            case m.WatchResults():
                yield from self._watch(message)
            case m.GetTasks():
                infos = [
                    info for number in message.tasks if (info := self._task(number)) is not None
                ]
                yield m.Queue(message.request, len(infos), infos)
            case m.GetQueue():
                yield self._queue(message)
            case m.GetEvents():
                result = records.events(message.since, message.limit)
                yield m.Events(message.request, result, records.last_event())
            case GetHistory():
                yield self._log.page(message, "", time.monotonic_ns() + HISTORY_NS)
            case GetSpec():
                text = f"no task {task_name(message.task)} here"
                missing = m.Refused(message.request, [m.Refusal("not_found", text)])
                yield self._log.submitted(message, "") or missing
            case GetApp():
                yield App(message.request, records.last_app())
            case _:
                yield _refused(getattr(message, "request", 0), f"{DOWN}; only its journal was read")

    def _watch(self, message: m.WatchResults) -> Iterator[m.ToClient]:
        unknown = []
        for number in message.tasks:
            first_seq = self._completions.first_seq_of(number)
            result = [] if first_seq is None else self._completions.ends(first_seq, {number})
            yield from result
            if result:
                continue
            if self._journal.records.accepted_of(number) is not None:
                yield _refused(0, f"task {task_name(number)} has not ended, and {DOWN}")
                return
            unknown.append(number)
        pruned = [number for number in unknown if 0 < number < self._journal.records.next_task()]
        yield m.UnknownTasks(message.request, unknown, pruned)

    def _task(self, number: int) -> TaskInfo | None:
        return self._final_tasks.task(number, "") or self._final_tasks.waiting(number, DOWN)

    def _queue(self, message: m.GetQueue) -> m.Queue:
        limit = min(message.limit, task_views.MAX_LISTED)
        if message.done:
            infos = [info for info in self._final_tasks.newest(limit, "") if info is not None]
            return m.Queue(message.request, self._completions.newest, infos)
        final = final_tasks(self._journal, self._journal.records.next_task())
        total = 0
        waiting: list[int] = []
        for row in self._journal.records.accepted():
            span = range(row.first, row.first + row.count)
            open_tasks = [number for number in span if not final[number]]
            total += len(open_tasks)
            waiting += open_tasks[: limit - len(waiting)]
        entries = [
            info for n in waiting if (info := self._final_tasks.waiting(n, DOWN)) is not None
        ]
        return m.Queue(message.request, total, entries)


def _refused(request: int, message: str) -> m.Refused:
    return m.Refused(request, [m.Refusal("no_service", message, "start it: simenv up --restore")])
