"""Restoration of the scheduler from the journal."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from simenv.model import TaskSpec
from simenv.scheduler.core import Route, SubmitBatch, unpack_routes
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.admission import submissions
from simenv.service.journal import accepted, tables, writer
from simenv.service.results.completions import Completions
from simenv.wire import codec

Units = Mapping[int, tuple[int, int]]  # reservation and units, by task
_FREE = (0, -1)


class ReplaySummary(msgspec.Struct, frozen=True):
    """Numbers of tasks that a replay restored, and its duration."""

    queued: int
    final: int
    seconds: float


def replay(
    journal: writer.Journal,
    scheduler: Scheduler,
    submit_queue: submissions.SubmitQueue,
    completions: Completions,
) -> ReplaySummary:
    """Restore the scheduler's state from the journal, whose damaged rows are removed. Raises
    JournalError, ConfigError if a task cannot run now."""
    begin = time.monotonic()
    stored, units = tables.read_reservations(journal.records)
    scheduler.restore_controls(stored, tables.CONTROL.read(journal.records))
    scheduler.state.estimator.restore(tables.read_estimates(journal.records))
    now_ns = time.monotonic_ns()
    stored_usage = tables.read_fair_usage(journal.records)
    scheduler.state.shares.fair_share.restore(stored_usage, time.time_ns() - now_ns, now_ns)
    total = journal.records.next_task()
    final = final_tasks(journal, total)
    attempts = _attempts(journal, final)
    queued = 0
    rows = journal.records.accepted.count()
    for number, row in enumerate(journal.records.accepted.all()):
        if rows - number <= submissions.RECENT_KEYS:
            entry = submissions.IdempotencyEntry(row.first, row.count, row.digest)
            submit_queue.remember(row.owner, row.key, row.offset, entry)
        span = final[row.first : row.first + row.count]
        if 0 not in span:
            continue
        age_ns = max(0, round((time.time() - row.at) * 1e9))
        task_attempts = attempts[row.first : row.first + row.count]
        accepted_ns, accounts = time.monotonic_ns() - age_ns, submit_queue.accounts
        state = scheduler.state
        waiting = parts(state, accounts, row, span, task_attempts, accepted_ns, units)
        queued += queue(scheduler, waiting, completions)
    scheduler.set_clock(time.time_ns(), time.monotonic_ns())
    scheduler.restore_paced(tables.read_paced(journal.records))
    scheduler.finish_restore(total)
    return ReplaySummary(queued, sum(final), time.monotonic() - begin)


class Part(msgspec.Struct, frozen=True):
    """Neighbouring tasks of one Submit that must be queued."""

    batch: SubmitBatch
    specs: list[TaskSpec]
    routes: list[Route]
    attempts: list[int]
    units: list[int] | None = None  # of its reservation, for each task


def parts(
    state: SchedulerState,
    accounts: AccountRegistry,
    row: accepted.AcceptedRow,
    span: bytearray,
    attempts: Sequence[int],
    accepted_ns: int,
    units: Units = MappingProxyType({}),
) -> list[Part]:
    """Return the tasks of a Submit whose byte in `span` is 0. `units`: by task; a task that runs
    again for a damaged result has no entry and takes none. Raises ConfigError if they cannot run
    now."""
    submit = codec.submit(row.body)
    terms = submit.terms
    routes = [state.cluster.reroute(route) for route in unpack_routes(row.routes)]
    share_bytes = submissions.bytes_per_task(row.body, row.count)
    account = accounts.of_stored(row.first, row.owner, routes, submit.tasks)
    fields = {} if account is None else msgspec.structs.asdict(account)
    results = []
    position = 0
    while (position := span.find(0, position)) >= 0:
        end = span.find(1, position)
        end = len(span) if end < 0 else end
        first = row.first + position
        values = b"", terms, row.key, row.offset, first, accepted_ns, share_bytes, row.owner
        batch = SubmitBatch(*values, **fields)
        counts = list(attempts[position:end])
        held_units = None
        if units and terms.reservation:
            held_units = [units.get(task, _FREE)[1] for task in range(first, row.first + end)]
        results.append(
            Part(batch, submit.tasks[position:end], routes[position:end], counts, held_units)
        )
        position = end
    return results


def queue(scheduler: Scheduler, waiting: list[Part], completions: Completions) -> int:
    """Restore tasks in the scheduler, which ends those with a failed parent. Returns their
    number."""
    for part in waiting:
        after = part.batch.terms.after
        parent = submissions.failed_parent(completions, after) if after else 0
        scheduler.submit(
            part.batch, part.specs, part.routes, part.units, part.attempts, failed_parent=parent
        )
    return sum(len(part.specs) for part in waiting)


def final_tasks(journal: writer.Journal, total: int) -> bytearray:
    """Return one byte for each task: 1 if it has ended."""
    final = bytearray(total)
    for first, count in journal.records.finished.indexed_runs():
        known = range(max(first, 0), min(first + count, total))
        final[known.start : known.stop] = b"\1" * len(known)
    replaced = set(journal.records.finished.replaced())
    for first_seq, body in journal.records.finished.all(journal.records.finished.indexed()):
        completed = codec.completed(body)
        for seq, completion in enumerate(completed.results, first_seq):
            if 0 < completion.task < total:
                final[completion.task] |= seq not in replaced
    return final


def _attempts(journal: writer.Journal, final: bytearray) -> array[int]:
    """Count the attempts of each unfinished task; the journal keeps the records of these only."""
    counts = array("H", bytes(2 * len(final)))
    sent = array("q")
    for task in journal.records.sent():
        if task < len(final) and not final[task]:
            counts[task] += 1
            sent.append(task)
    journal.replace_sent(sent)
    return counts


MIN_ATTEMPTS = 1  # attempts of a task whose record cannot be read
