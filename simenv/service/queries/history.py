"""Rows of `simenv history`: all tasks in the journal, in the order of submission.

Invariant: a page takes no longer than its deadline and advances by at least one row; the state
between pages is bounded, however long the history is.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import msgspec

from simenv.model import (
    TaskSpec,
    TaskState,
    Timing,
    decode_program,
    digest,
    task_name,
)
from simenv.model.calls import is_call
from simenv.scheduler.core.types import UNSENT, Route, TaskRecord
from simenv.scheduler.state.state import SchedulerState
from simenv.service.journal.reader import AcceptedRow, unpack_routes
from simenv.service.journal.writer import Journal
from simenv.service.queries.task_views import task_view
from simenv.service.results.completions import Completions
from simenv.wire import codec
from simenv.wire.messages.client import STATES, Completed, Submit
from simenv.wire.messages.queries import GetHistory, GetSpec, History, LogRow, Spent, Submitted

PAGE_ROWS = 1_000
MAX_CACHED_RECORDS = 64  # cached records of ended tasks; neighbouring tasks share them
MAX_STRUCTURES = 10_000
_NOTHING = Spent()


class End(msgspec.Struct, frozen=True, gc=False):
    """End of a task, or the present state of an unfinished one."""

    state: TaskState
    attempts: int
    slots: int
    timing: Timing
    worker: str
    node: str
    reason: str
    ranks: int = 1


class StoredSubmit(msgspec.Struct, frozen=True):
    """One stored Submit, decoded."""

    name: str  # the id of its first task
    row: AcceptedRow
    submit: Submit
    routes: list[Route]


class Log:
    """Reader of history rows. Used from the loop's thread."""

    def __init__(self, journal: Journal, completions: Completions, state: SchedulerState) -> None:
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
                if row is not None and (not message.states or row.state in message.states):
                    rows.append(row)
            if time.monotonic_ns() >= deadline_ns:
                break
        self._walked = last
        return History(message.request, rows, last, complete, back)

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
        row = self._journal.records.accepted_after(task, app)
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
        row = self._journal.records.accepted_before(task, message.app)
        return None if row is None or row.at < message.since_s else self._opened(row)

    def _opened(self, row: AcceptedRow) -> StoredSubmit:
        submit = codec.from_client(row.body)
        assert isinstance(submit, Submit)
        self._source = StoredSubmit(task_name(row.first), row, submit, unpack_routes(row.routes))
        return self._source

    def _before(self, since_s: float) -> int:
        """Return the last task accepted before a time of day, by bisection over Submits, which are
        in the order of time."""
        records = self._journal.records
        after = records.next_task()
        low, high = 0, after  # the first Submit after that time begins in (low, high]
        while high - low > 1:
            middle = (low + high) // 2
            result = records.accepted_at(middle)
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
        timing = end.timing
        gone_us = timing.queued_us + timing.sent_us + timing.run_us + timing.returned_us
        final = end.state not in (TaskState.QUEUED, TaskState.RUNNING)
        return LogRow(
            id=task_name(task),
            name=terms.name,
            app=terms.app,
            state=end.state,
            submitted_s=source.row.at,
            ended_s=source.row.at + 1e-6 * gone_us if final else 0.0,
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
        """Return the state of an unfinished task as an End."""
        now_ns = time.monotonic_ns()
        info = task_view(self._state, record, now_ns)
        until_ns = now_ns if record.phase in UNSENT else record.sent_ns
        timing = Timing((until_ns - record.batch.accepted_ns) // 1000, 0, 0)
        return End(info.state, info.attempt, 0, timing, info.worker, "", info.reason)

    def _open(self, first_seq: int) -> dict[int, End]:
        """Return the ends in one stored record, by task."""
        stored = self._journal.records.finished_at(first_seq)
        if stored is None:
            return {}
        completed = codec.to_client(stored[0])
        assert isinstance(completed, Completed)
        origin, result = completed.origin, {}
        for completion in completed.results:
            state = STATES[completion.state]
            reason = ""
            if state is not TaskState.DONE:
                failure = codec.failure(completion.payload)
                reason = f"{failure.reason}: {failure.message}"
            result[completion.task] = End(
                state,
                completion.attempts,
                completion.slots,
                completion.timing,
                origin.worker,
                origin.node,
                reason,
                origin.ranks,
            )
        return result

    def _structure(self, spec: TaskSpec) -> str:
        key = digest(spec.program)
        result = self._structures.get(key)
        if result is None:
            if len(self._structures) >= MAX_STRUCTURES:
                self._structures.clear()
            result = self._structures[key] = decode_program(spec.program).structure.hex()
        return result
