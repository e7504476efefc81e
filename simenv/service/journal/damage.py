"""Damaged rows of the journal, and what they cost. Nothing is changed here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from simenv.errors import DECODE_ERRORS, SimenvError
from simenv.model import task_name
from simenv.scheduler.core import unpack_routes
from simenv.service.journal import finished, reader, rows, tables
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.schema import ACCEPTED, Columns
from simenv.wire import codec

Row = tuple[Any, ...]
MOST_TASKS = 2**20  # of one submission


def named(tasks: Sequence[int]) -> str:
    """Return the ids of tasks as text, neighbours as "t-1 to t-9"."""
    runs = finished.runs(tasks)
    shown = [
        task_name(first) if count == 1 else f"{task_name(first)} to {task_name(first + count - 1)}"
        for first, count in runs[:20]
    ]
    return ", ".join(shown) + (f", and {len(runs) - 20} more" if len(runs) > 20 else "")


def damaged_rows(records: rows.JournalRows, table: Columns) -> list[Row]:
    """Return the rows of a table whose checksum, or content, is not as it was stored."""
    found = []
    stream: Iterable[Row]
    if table is ACCEPTED:  # a server would send all of them at once
        query = f"{table.checked} where first > ? order by first limit ?"
        stream = records.pages(query, -(2**63))
    else:
        stream = records.rows(table.checked)
    for row in stream:
        *values, crc = row
        if not (table.is_intact(values, crc) and is_read(table, values)):
            found.append(tuple(row))
    return found


def described(records: reader.Records, table: Columns, damaged: list[Row]) -> str:
    """Return what damaged rows of a table cost, with the ids of the tasks, before it is lost."""
    text = f"{len(damaged)} damaged rows of {table.name}"
    if table is ACCEPTED:
        spans = spans_of(records, damaged)
        text += f" ({named([n for s in spans for n in range(s.first, s.first + s.count)])})"
    return f"{text}: simenv up continues without them; {table.cost}"


def is_read(table: Columns, values: list[Any]) -> bool:
    """Return whether the content of a row can be decoded."""
    if not isinstance(table, tables.JournalTable):
        return True
    try:
        table.decoder.decode(values[-1])
    except DECODE_ERRORS:
        return False
    return True


class Span(msgspec.Struct, frozen=True):
    """Tasks whose submission is damaged or lost. `row`: what is left of it."""

    first: int
    count: int
    owner: str
    row: AcceptedRow | None = None
    is_lost: bool = True  # nothing is left of the submission


def spans_of(records: reader.Records, broken: list[Row]) -> list[Span]:
    """Return the tasks of damaged submissions. What is doubtful of a row is judged by the rest of
    it, and by its neighbours."""
    results = []
    bad, end = {row[0] for row in broken}, records.next_task()
    for row in broken:
        *values, crc = row
        first, count = values[0], values[1]
        is_head = ACCEPTED.is_head_intact(values, crc)
        if not is_head and isinstance(first, int):  # of a flipped bit in the number
            flipped = (first ^ 1 << bit for bit in range(63))
            fits = (n for n in flipped if ACCEPTED.is_head_intact([n, *values[1:]], crc))
            values[0], is_head = next(((n, True) for n in fits), (first, False))
            first = values[0]
        # Of a task number that was damaged nothing is known: the numbers that miss are found then.
        if not isinstance(first, int) or not 1 <= first < end + MOST_TASKS:
            continue
        following = _next_first(records, first, bad)
        if not is_head:
            sizes = _sizes(values)
            most = following - first
            count = next((size for size in sizes if 0 < size <= most), 1)
        if not isinstance(count, int) or count < 1:
            continue
        owner = values[8] if is_head and isinstance(values[8], str) else ""
        shown = _readable(values, first, count, owner)
        results.append(Span(first, count, owner, shown, is_lost=False))
    return results


def _next_first(records: rows.JournalRows, first: int, bad: set[int]) -> int:
    query = "select first from accepted where first > ? order by first limit 1"
    row = records.row(query, first)
    while row is not None and row[0] in bad:
        row = records.row(query, row[0])
    return int(row[0]) if row is not None else first + MOST_TASKS


def _sizes(values: list[Any]) -> list[int]:
    """Return what a damaged row may say about the number of its tasks."""
    results = []
    with suppress(SimenvError, TypeError, *DECODE_ERRORS):
        results.append(len(codec.submit(bytes(values[7])).tasks))
    if isinstance(values[1], int):
        results.append(values[1])
    return results


def _readable(values: list[Any], first: int, count: int, owner: str) -> AcceptedRow | None:
    """Return a damaged row as far as it can be shown; None if it cannot."""
    at, routes, body, app = values[2], values[6], values[7], values[9]
    try:
        is_whole = len(codec.submit(body).tasks) == len(unpack_routes(routes)) == count
        at = at if isinstance(at, float) and 0.0 <= at < 2**33 else time.time()
        row = AcceptedRow(first, count, at, "~damaged", 0, b"", routes, body, owner, str(app))
    except (SimenvError, TypeError, IndexError, *DECODE_ERRORS):
        return None
    return row if is_whole else None
