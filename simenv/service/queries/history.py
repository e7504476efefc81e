"""Rows of `simenv history`, and answers from the journal of a service that is down.

Invariant: a page takes no longer than its deadline and advances by at least one row; the state
between pages is bounded, however long the history is.

Nothing is changed, queued or run. Invariant: the journal is opened to be read only, so a service
that starts meanwhile is not disturbed; SQLite may leave an empty `-wal` and a `-shm` file.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simenv import model
from simenv._version import __version__
from simenv.config import Config, EnvironmentPaths
from simenv.errors import NotFoundError
from simenv.model.accounts import Used
from simenv.model.calls import is_call
from simenv.scheduler.core import UNSENT, ClusterLimits, Route, TaskRecord, unpack_routes
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.accounting.usage import device_of, usage_report
from simenv.service.journal import tables, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.database import PostgresPlace, place_of
from simenv.service.journal.reader import Records
from simenv.service.journal.telemetry_store import TelemetryStore
from simenv.service.queries import task_views
from simenv.service.recovery.replay import final_tasks
from simenv.service.results.completions import Completions, end_reason
from simenv.service.results.receipts import ReceiptReader, used_by
from simenv.service.telemetry.recorder import read as read_series
from simenv.wire import codec
from simenv.wire.messages import accounting, client as m, metrics
from simenv.wire.messages.history import (
    App,
    GetApp,
    GetHistory,
    GetSpec,
    History,
    LogRow,
    Spent,
    Submitted,
)

PAGE_ROWS = 1_000
MAX_CACHED_RECORDS = 64  # cached records of ended tasks; neighbouring tasks share them
MAX_STRUCTURES = 10_000
_NOTHING = Spent()


class End(msgspec.Struct, frozen=True, gc=False):
    """End of a task, or the present state of an unfinished one."""

    state: model.TaskState
    attempts: int
    slots: int
    timing: model.Timing
    worker: str
    node: str
    reason: str
    ranks: int = 1
    used: Used = Used()
    units: float = 0.0


class StoredSubmit(msgspec.Struct, frozen=True):
    """One stored Submit, decoded."""

    name: str  # the id of its first task
    row: AcceptedRow
    submit: m.Submit
    routes: list[Route]
    standing: tables.Standing


class Log:
    """Reader of history rows. Used from the loop's thread."""

    def __init__(
        self, journal: writer.Journal, completions: Completions, state: SchedulerState
    ) -> None:
        self._journal = journal
        self._completions = completions
        self._state = state
        self._source: StoredSubmit | None = None
        self._ends: dict[int, End] = {}  # of the tasks in cached records
        self._cached_ends: OrderedDict[int, list[int]] = OrderedDict()  # cached record -> its tasks
        self._walked = 0  # last task of the last page
        self._structures: dict[bytes, str] = {}

    def page(self, message: GetHistory, scope: str, deadline_ns: int) -> History:
        """Return rows after `message.after`, or before `message.before` with the newest first.
        `scope`: the only owner whose tasks may be seen; "": all owners."""
        back = message.before > 0
        last = (
            message.before
            if back
            else max(message.after, self._before(message.since_s) if message.since_s else 0)
        )
        if last != self._walked:  # not the next page: cached ends may have been withdrawn since
            self._ends.clear()
            self._cached_ends.clear()
        limit = min(max(1, message.limit), PAGE_ROWS)
        rows: list[LogRow] = []
        complete = False
        while len(rows) < limit:
            source = self._below(last, message) if back else self._after(last, message.app)
            if source is None:
                complete = True
                break
            first, end = source.row.first, source.row.first + source.row.count
            if scope not in ("", source.row.owner):
                last = first if back else end - 1
            else:
                last = min(end, last) - 1 if back else max(first, last + 1)
                row = self._row(source, last, message.structure)
                if (
                    row is not None
                    and (not message.states or row.state in message.states)
                    and row.ended_s >= message.ended_since_s
                ):
                    rows.append(row)
            if time.monotonic_ns() >= deadline_ns:
                break
        self._walked = last
        return History(message.request, rows, last, complete)

    def submitted(self, message: GetSpec, scope: str) -> Submitted | None:
        """Return the submitted options and program of one task; None if there is no such task in
        `scope`."""
        source = self._after(message.task - 1, "") if message.task else None
        if source is None or message.task < source.row.first:
            return None
        if scope not in ("", source.row.owner):
            return None
        index = message.task - source.row.first
        route = source.routes[index]
        terms = msgspec.structs.replace(source.submit.terms, engine=route.engine)
        return Submitted(
            message.request, terms, source.submit.tasks[index], route.reason, source.row.at
        )

    def _after(self, task: int, app: str) -> StoredSubmit | None:
        """Return the decoded Submit with the first task above `task`; the last one is cached."""
        cached = self._source
        if (
            cached is not None
            and cached.row.first <= task + 1 < cached.row.first + cached.row.count
            and app in ("", cached.row.app)
        ):
            return cached
        row = self._journal.records.accepted.after(task, app)
        return None if row is None else self._opened(row)

    def _below(self, task: int, message: GetHistory) -> StoredSubmit | None:
        """Return the decoded Submit with the last task below `task`, of the requested run and time;
        the last one is cached."""
        cached = self._source
        if (
            cached is not None
            and cached.row.first < task <= cached.row.first + cached.row.count
            and message.app in ("", cached.row.app)
        ):
            return cached if cached.row.at >= message.since_s else None
        row = self._journal.records.accepted.before(task, message.app)
        return None if row is None or row.at < message.since_s else self._opened(row)

    def _opened(self, row: AcceptedRow) -> StoredSubmit:
        submit = codec.submit(row.body)
        self._source = StoredSubmit(
            model.task_name(row.first),
            row,
            submit,
            unpack_routes(row.routes),
            tables.read_standing(self._journal.records, row.first),
        )
        return self._source

    def _before(self, since_s: float) -> int:
        """Return the last task accepted before a time of day, by bisection over Submits, which are
        in the order of time."""
        records = self._journal.records
        after = records.next_task()
        low, high = 0, after  # the first Submit after that time begins in (low, high]
        while high - low > 1:
            middle = (low + high) // 2
            result = records.accepted.at(middle)
            if result is None or result[1] >= since_s:
                high, after = middle, after if result is None else result[0]
            else:
                low = result[0]
        return after - 1

    def _row(self, source: StoredSubmit, task: int, structure: bool) -> LogRow | None:
        """Return the row of a task; None if the journal no longer keeps its end."""
        index = task - source.row.first
        spec, terms, route = source.submit.tasks[index], source.submit.terms, source.routes[index]
        end = self._end(task)
        if end is None:
            return None
        timing, standing = end.timing, source.standing
        final = end.state not in (model.TaskState.QUEUED, model.TaskState.RUNNING)
        return LogRow(
            id=model.task_name(task),
            name=terms.name,
            app=terms.app,
            state=end.state,
            submitted_s=source.row.at,
            ended_s=source.row.at + 1e-6 * timing.total_us if final else 0.0,
            timing=timing,
            engine=route.engine,
            pool=route.pool,
            worker=end.worker,
            node=end.node,
            shots=spec.shots,
            num_qubits=route.num_qubits,
            bindings=spec.count,
            seed=spec.seed,
            binding=spec.binding,
            attempts=end.attempts,
            slots=end.slots,
            message=source.name,
            structure=self._structure(spec)
            if structure and not is_call(source.submit.terms)
            else "",
            reason=end.reason,
            ranks=end.ranks,
            owner=source.row.owner,
            spent=_NOTHING if index else source.submit.spent,
            account=standing.account,
            qos=standing.qos,
            used=end.used,
            units=end.units,
            device=device_of(terms, route),
        )

    def _end(self, task: int) -> End | None:
        record = self._state.tasks.get(task)
        if record is not None:
            return self._unfinished_end(record)
        end = self._ends.get(task)
        if end is None:
            first_seq = self._completions.first_seq_of(task)
            if first_seq is not None:
                self._cache_ends(first_seq)
                end = self._ends.get(task)
        return end

    def _cache_ends(self, first_seq: int) -> None:
        """Cache the ends of one record; the oldest cached record is dropped."""
        ends = self._open(first_seq)
        self._ends.update(ends)
        self._cached_ends[first_seq] = list(ends)
        if len(self._cached_ends) > MAX_CACHED_RECORDS:
            for task in self._cached_ends.popitem(last=False)[1]:
                self._ends.pop(task, None)

    def _unfinished_end(self, record: TaskRecord) -> End:
        now_ns = time.monotonic_ns()
        info = task_views.task_view(self._state, record, now_ns)
        until_ns = now_ns if record.phase in UNSENT else record.sent_ns
        timing = model.Timing((until_ns - record.batch.accepted_ns) // 1000, 0, 0)
        return End(info.state, info.attempt, 0, timing, info.worker, "", info.reason)

    def _open(self, first_seq: int) -> dict[int, End]:
        """Return the ends in one stored record, by task."""
        stored = self._journal.records.finished.at(first_seq)
        if stored is None:
            return {}
        completed = codec.completed(stored[0])
        origin, result = completed.origin, {}
        current = self._completions.without_withdrawn(completed)
        for completion in (each for group in current for each in group.results):
            result[completion.task] = End(
                m.STATES[completion.state],
                completion.attempts,
                completion.slots,
                completion.timing,
                origin.worker,
                origin.node,
                end_reason(completion),
                origin.ranks,
                used_by(completed, completion),
                completion.units,
            )
        return result

    def _structure(self, spec: model.TaskSpec) -> str:
        key = model.digest(spec.program)
        result = self._structures.get(key)
        if result is None:
            if len(self._structures) >= MAX_STRUCTURES:
                self._structures.clear()
            result = self._structures[key] = model.decode_program(spec.program).structure.hex()
        return result


DOWN = "the service is down"
HISTORY_NS = 50_000_000  # for a page of history: this process has no other work


class StoredJournal(writer.Journal):
    """Journal for reading: its methods that write must not be called."""

    def __init__(self, place: Path | PostgresPlace) -> None:
        """Open the journal. Raises JournalError if it cannot be read, or has another format."""
        self.place = place
        self.database = writer.open_database(place, read_only=True)
        self.records = Records(self.database, place)

    def close(self) -> None:
        """Close the database. Idempotent."""
        self.database.close()


class StoredLog(Log):
    """Reader of history rows without a scheduler: a task without a stored end counts as queued."""

    def _end(self, task: int) -> End | None:
        return super()._end(task) or End(
            model.TaskState.QUEUED, 0, 0, model.Timing(0, 0, 0), "", "", f"({DOWN})"
        )


class Archive:
    """Answers about an environment from its journal alone."""

    def __init__(self, config: Config, paths: EnvironmentPaths) -> None:
        """Open the live journal or, if it is not on this machine, its copy. Raises NotFoundError if
        there is neither, JournalError."""
        name, self.place = config.name, place_of(config, paths.journal)
        if self.place == paths.journal:
            existing = [path for path in (paths.journal, paths.copy) if path.exists()]
            if not existing:
                text = f"no journal of {name!r}: neither {paths.journal} nor {paths.copy}"
                raise NotFoundError(text)
            self.place = existing[0]
        self._name, self._results = name, paths.results
        self._telemetry = (
            TelemetryStore(paths.telemetry, read_only=True) if paths.telemetry.exists() else None
        )
        self._node = os.uname().nodename
        self._journal = StoredJournal(self.place)
        records = self._journal.records
        self._epoch = max(1, records.meta("epoch"))
        origin = model.Origin("", self._node, os.getpid(), __version__)
        self._completions = Completions(self._journal, origin)
        self._final_tasks = task_views.FinalTasks(self._journal, self._completions)
        empty = SchedulerState((), ClusterLimits(1, 0, 1, 1, 1, 1), self._epoch)
        self._log = StoredLog(self._journal, self._completions, empty)

    def close(self) -> None:
        """Close the journal. Idempotent."""
        self._journal.close()
        if self._telemetry is not None:
            self._telemetry.close()

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
                text = f"no task {model.task_name(message.task)} here"
                missing = m.Refused(message.request, [m.Refusal("not_found", text)])
                yield self._log.submitted(message, "") or missing
            case GetApp():
                yield App(message.request, records.accepted.last_app())
            case accounting.GetUsage():
                names = {n: key for key, n in tables.read_usage_keys(records).items()}
                steps = usage_report(self._journal, names, message, lambda *_: True)
                yield from (answer for answer in steps if answer is not None)
            case metrics.GetSeries():
                yield read_series(self._telemetry, message)
            case accounting.GetReceipts():
                stored = ReceiptReader(records, self._completions)
                receipts = [each for n in message.tasks if (each := stored.receipt(n)) is not None]
                yield accounting.Receipts(message.request, receipts)
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
            if self._journal.records.accepted.of(number) is not None:
                yield _refused(0, f"task {model.task_name(number)} has not ended, and {DOWN}")
                return
            unknown.append(number)
        pruned = [number for number in unknown if 0 < number < self._journal.records.next_task()]
        yield m.UnknownTasks(message.request, unknown, pruned)

    def _task(self, number: int) -> model.TaskInfo | None:
        return self._final_tasks.task(number, "") or self._final_tasks.waiting(number, DOWN)

    def _queue(self, message: m.GetQueue) -> m.Queue:
        limit = min(message.limit, task_views.MAX_LISTED)
        if message.done:
            infos = [info for info in self._final_tasks.newest(limit, "") if info is not None]
            return m.Queue(message.request, self._completions.newest, infos)
        final = final_tasks(self._journal, self._journal.records.next_task())
        total = 0
        waiting: list[int] = []
        for row in self._journal.records.accepted.all():
            span = range(row.first, row.first + row.count)
            open_tasks = [number for number in span if not final[number]]
            total += len(open_tasks)
            waiting += open_tasks[: limit - len(waiting)]
        entries = [
            info for n in waiting if (info := self._final_tasks.waiting(n, DOWN)) is not None
        ]
        return m.Queue(message.request, total, entries)


def _refused(request: int, message: str) -> m.Refused:
    return m.Refused(request, [m.Refusal("no_service", message, "start it: simenv up")])
