"""Damaged rows of the journal, found by a start before anything else is read.

A damaged row costs what stands with its table, never the start. It is kept in the table
`quarantine` and removed from its own. A task whose submission is damaged, or lost with its page,
ends as FAILED, `damaged`, unless it had ended. Invariant: each task that was accepted has a
submission and, in the end, one end.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simenv._version import __version__
from simenv.model import Origin, TaskOptions, TaskSpec, TaskState, Timing, task_name
from simenv.scheduler.core import Route, pack_routes
from simenv.service.journal import quarantine, rows, salvage, tables, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.damage import Span, damaged_rows, named, spans_of
from simenv.service.journal.schema import ACCEPTED, ENDED, FINISHED
from simenv.service.recovery.repair import drop_damaged_records
from simenv.service.recovery.replay import final_tasks
from simenv.wire import codec
from simenv.wire.messages import client as m

MAX_LOST = 100_000  # tasks of which nothing is left but the number
_IN_MESSAGE = 500  # ends in one record
_LATE = frozenset({"finished", "job_blob", "quarantine"})  # looked at when they are read
DAMAGED = "damaged"  # the reason of an end
_HINT = "submit it again; `simenv admin check` names damage, the kernel's log a failing disk"
log = logging.getLogger("simenv.service")


class Scrubbed(msgspec.Struct, frozen=True):
    """What a start has found damaged."""

    rows: dict[str, int]  # damaged rows by table
    tasks: list[int]  # that ended as FAILED, `damaged`
    kept: list[int]  # ended tasks of damaged submissions, which keep their results
    mended: int = 0  # damaged rows that the copy had
    lost: tuple[int, int] = (1, 0)  # tasks, first and last, that the journal did not know

    def messages(self) -> list[tuple[str, str]]:
        """Return (kind, text) of events about it."""
        found = []
        if self.rows:
            listed = ", ".join(f"{count} of {name}" for name, count in sorted(self.rows.items()))
            text = f"{listed}: kept in the table quarantine"
            if self.mended:
                text += f"; {self.mended} of them are in the journal's copy, and taken from it"
            if self.kept:
                text += f"; ended tasks keep their results: {named(self.kept)}"
            found.append(("journal.damaged", text))
        first, last = self.lost
        if last >= first:
            text = f"the journal did not know {last - first + 1} tasks that were accepted: "
            found.append(("journal.dropped", text + named(range(first, last + 1))))
        if self.tasks:
            text = f"{len(self.tasks)} tasks ended as FAILED, damaged: {named(self.tasks)}"
            found.append(("task.damaged", text))
        return found


def scrub(journal: writer.Journal, copy: Path | None = None) -> Scrubbed:
    """Quarantine all damaged rows, and end the tasks of damaged submissions. Rows that never change
    are taken from `copy`, if it has them. Raises JournalError if that cannot be stored."""
    records = journal.records
    found = {
        table: damaged
        for table in tables.ALL
        if table.name not in _LATE and (damaged := damaged_rows(records, table))
    }
    # Of a record whose number is damaged the index knows the tasks, which run again.
    dangling = quarantine.ends_without_records(records)
    salvaged, missing = records.meta(salvage.SALVAGED), journal.missing
    if not (found or salvaged or missing or dangling):
        return Scrubbed({}, [], [])
    good = list(quarantine.rows_of_copy(copy, found)) if copy is not None and copy.exists() else []
    mended = {(table.name, table.key_of(values)) for table, values in good}
    broken = [
        row
        for row in found.get(ACCEPTED, [])
        if (ACCEPTED.name, ACCEPTED.key_of(row)) not in mended
    ]
    spans = spans_of(records, broken)
    reindexed = ENDED in found or bool(broken and not records.meta("indexed"))
    quarantine.move(journal, quarantine.Damage(found, dangling, good, reindexed))
    drop_damaged_records(journal)  # also those that the lost index would have had
    counts = {table.name: len(damaged) for table, damaged in found.items()}
    if dangling:
        counts[FINISHED.name] = len(dangling)
    lost = (missing.start, missing.stop - 1) if missing else (1, 0)
    is_unsure = any(not ACCEPTED.is_head_intact(row[:-1], row[-1]) for row in broken)
    spans += _holes(records, spans, missing, bool(salvaged) or is_unsure)
    ended, kept = _end(journal, spans)
    if salvaged:
        quarantine.forget_salvage(journal)
    for name, count in counts.items():
        log.warning("the journal %s: %d damaged rows of %s", journal.place, count, name)
    return Scrubbed(counts, ended, kept, len(good), lost)


def _holes(
    records: rows.JournalRows, spans: list[Span], missing: range, salvaged: bool
) -> list[Span]:
    """Return the tasks without a submission: `missing` ones, and if pages were lost those between
    other submissions, unless old ones were removed before, which look the same."""
    results = [Span(n.start, len(n), "") for r in _without(missing, spans) for n in _slices(r)]
    if not salvaged or quarantine.has_removed(records):
        return results
    end = quarantine.end_of_tasks(records)
    known = bytearray(max(1, min(missing.start if missing else 2**62, end)))
    submitted = [(span.first, span.count) for span in spans]
    for first, count in (*quarantine.submissions(records), *submitted):
        known[first : first + count] = b"\1" * len(known[first : first + count])
    known[0] = 1
    position = 0
    while (position := known.find(0, position)) >= 0:
        end = known.find(1, position)
        end = len(known) if end < 0 else end
        results += [Span(n.start, len(n), "") for n in _slices(range(position, end))]
        position = end
    return results


def _without(tasks: range, spans: list[Span]) -> Iterator[range]:
    """Yield the parts of `tasks` that are in no span."""
    position = tasks.start
    for span in sorted(spans, key=lambda each: each.first):
        if position < span.first:
            yield range(position, min(span.first, tasks.stop))
        position = max(position, span.first + span.count)
    yield range(position, tasks.stop)


def _slices(tasks: range) -> list[range]:
    return [tasks[k : k + _IN_MESSAGE] for k in range(0, min(len(tasks), MAX_LOST), _IN_MESSAGE)]


def _end(journal: writer.Journal, spans: list[Span]) -> tuple[list[int], list[int]]:
    """Store a submission in the place of each damaged or lost one, and the ends of its tasks that
    had not ended. Returns these, and the others."""
    if not spans:
        return [], []
    records = journal.records
    total = max(records.next_task(), *(span.first + span.count for span in spans))
    final = final_tasks(journal, total)
    owners = quarantine.owners_without_submissions(journal.records)
    seq, ended, kept = records.last_seq() + 1, list[int](), list[int]()
    origin = Origin("service", os.uname().nodename, os.getpid(), __version__)
    for span in spans:
        tasks = range(span.first, span.first + span.count)
        owner = span.owner or next((owners[n] for n in tasks if n in owners), "")
        row = span.row or _placeholder(span.first, span.count)
        journal.accept(msgspec.structs.replace(row, owner=owner))
        waiting = [number for number in tasks if not final[number]]
        kept += [number for number in tasks if final[number] and not span.is_lost]
        ended += waiting
        for begin in range(0, len(waiting), _IN_MESSAGE):
            some = waiting[begin : begin + _IN_MESSAGE]
            completed = m.Completed(origin, "", "", [_completion(n, span) for n in some], seq)
            states = [TaskState.FAILED] * len(some)
            journal.finish(seq, states, codec.encode(completed), owner)
            seq += len(some)
        journal.commit()
    return ended, kept


def _placeholder(first: int, count: int) -> AcceptedRow:
    terms, tasks = TaskOptions(), [TaskSpec(b"", 0, 0)] * count
    body = codec.encode(m.Submit(0, "~damaged", 0, terms, tasks))
    routes = pack_routes([Route("", "", "", 0, 0, 0.0, 0.0, 1)] * count)
    return AcceptedRow(first, count, time.time(), "~damaged", 0, b"", routes, body)


def _completion(number: int, span: Span) -> m.Completion:
    what = "is not in the journal any more" if span.is_lost else "is damaged in the journal"
    text = f"the submission of {task_name(number)} {what}: it cannot be run"
    payload = codec.encode(m.Failure(DAMAGED, text, _HINT, os.uname().nodename))
    state = m.STATES.index(TaskState.FAILED)
    return m.Completion(number, state, 0, 0, payload, zlib.crc32(payload), Timing(0, 0, 0))
