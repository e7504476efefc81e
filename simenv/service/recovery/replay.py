"""Rebuild the scheduler's queue from the journal: accepted tasks that have not ended return to it,
in order."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from simenv.errors import JournalError
from simenv.model import TaskOptions, TaskSpec
from simenv.model.task_rules import MAX_SECONDS
from simenv.scheduler.core.types import Route, SubmitBatch
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.state import SchedulerState
from simenv.service.admission.dependencies import failed_parent
from simenv.service.admission.submissions import (
    RECENT_KEYS,
    IdempotencyEntry,
    SubmitQueue,
    bytes_per_task,
)
from simenv.service.journal.reader import (
    WAY_OUT,
    AcceptedRow,
    unpack_routes,
)
from simenv.service.journal.tables import (
    CONTROL,
    read_estimates,
    read_paced,
    read_reservations,
)
from simenv.service.journal.writer import Journal
from simenv.service.results.completions import Completions
from simenv.wire import codec
from simenv.wire.messages.client import Completed, Submit

Units = Mapping[int, tuple[int, int]]  # reservation and units, by task
_FREE = (0, -1)


class ReplaySummary(msgspec.Struct, frozen=True):
    """Numbers of tasks that a replay restored, and its duration."""

    queued: int
    final: int
    seconds: float


def replay(
    journal: Journal, scheduler: Scheduler, submit_queue: SubmitQueue, completions: Completions
) -> ReplaySummary:
    """Restore the scheduler's state from the journal. Raises JournalError or ProtocolError if a row
    is damaged, ConfigError if a task cannot run now."""
    begin = time.monotonic()
    stored, units = read_reservations(journal.records)
    scheduler.restore_controls(stored, CONTROL.read(journal.records))
    scheduler.state.estimator.restore(read_estimates(journal.records))
    total = journal.records.next_task()
    final = final_tasks(journal, total)
    attempts = _attempts(journal, final)
    queued = 0
    rows = journal.records.count_accepted()
    for number, row in enumerate(journal.records.accepted()):
        if rows - number <= RECENT_KEYS:
            entry = IdempotencyEntry(row.first, row.count, row.digest)
            submit_queue.remember(row.owner, row.key, row.offset, entry)
        span = final[row.first : row.first + row.count]
        if 0 not in span:
            continue
        age_ns = max(0, round((time.time() - row.at) * 1e9))
        task_attempts = attempts[row.first : row.first + row.count]
        waiting = parts(
            scheduler.state, row, span, task_attempts, time.monotonic_ns() - age_ns, units
        )
        queued += queue(scheduler, waiting, completions)
    scheduler.set_clock(time.time_ns(), time.monotonic_ns())
    scheduler.restore_paced(read_paced(journal.records))
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
    row: AcceptedRow,
    span: bytearray,
    attempts: Sequence[int],
    accepted_ns: int,
    units: Units = MappingProxyType({}),
) -> list[Part]:
    """Return the tasks of a Submit whose byte in `span` is 0. `units`: by task; a task that runs
    again for a damaged result has no entry and takes none. Raises ConfigError if they cannot run
    now."""
    submit = codec.from_client(row.body)
    assert isinstance(submit, Submit)
    terms = _limit_timeouts(submit.terms)
    routes = [state.reroute(route) for route in unpack_routes(row.routes)]
    share_bytes = bytes_per_task(row.body, row.count)
    results = []
    position = 0
    while (position := span.find(0, position)) >= 0:
        end = span.find(1, position)
        end = len(span) if end < 0 else end
        first = row.first + position
        batch = SubmitBatch(
            b"", terms, row.key, row.offset, first, accepted_ns, share_bytes, row.owner
        )
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
        parent = failed_parent(completions, after) if after else 0
        settings = (part.batch, part.specs, part.routes, part.attempts, part.units)
        scheduler.restore_tasks(*settings, parent)
    return sum(len(part.specs) for part in waiting)


def _limit_timeouts(terms: TaskOptions) -> TaskOptions:
    """Reduce timeouts to the present limit, which earlier versions did not check."""
    queue_s, run_s = (min(t, MAX_SECONDS) for t in (terms.queue_timeout_s, terms.run_timeout_s))
    return msgspec.structs.replace(terms, queue_timeout_s=queue_s, run_timeout_s=run_s)


def final_tasks(journal: Journal, total: int) -> bytearray:
    """Return one byte for each task: 1 if it has ended."""
    final = bytearray(total)
    for task in journal.records.indexed_tasks():
        final[_check_task_number(task, total)] = 1
    replaced = set(journal.records.replaced())
    for first_seq, body in journal.records.finished(journal.records.indexed()):
        completed = codec.to_client(body)
        assert isinstance(completed, Completed)
        for seq, completion in enumerate(completed.results, first_seq):
            final[_check_task_number(completion.task, total)] |= seq not in replaced
    return final


def _check_task_number(task: int, total: int) -> int:
    """Return the number of a task. Raises JournalError if no such task was ever accepted."""
    if not 0 < task < total:
        message = f"the journal holds the end of task {task}, and was given tasks up to {total - 1}"
        raise JournalError(message, hint=WAY_OUT)
    return task


def _attempts(journal: Journal, final: bytearray) -> array[int]:
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
