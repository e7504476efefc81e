"""Removal of damaged rows from their tables, and statements about what was lost with them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from simenv.service.journal import rows, salvage, writer
from simenv.service.journal.damage import Row, is_read
from simenv.service.journal.database import Connection
from simenv.service.journal.schema import ENDED, META, Columns, quarantined

_DANGLING = (
    "select first from ended where not exists"
    " (select 1 from finished where finished.seq = ended.seq)"
)


class Damage(msgspec.Struct, frozen=True):
    """What leaves its table, and what comes in its place."""

    found: dict[Columns, list[Row]]  # damaged rows by table
    dangling: list[tuple[int]]  # first tasks of entries of the index whose record is gone
    good: list[tuple[Columns, list[Any]]]  # intact rows of a copy
    reindexed: bool  # whether the index of ends is made anew


def move(journal: writer.Journal, damage: Damage) -> None:
    """Move damaged rows to the table `quarantine`, and store the intact ones, in one transaction.
    Raises JournalError."""
    now_s = time.time()
    with journal.transaction("FULL") as db:
        for table, damaged in damage.found.items():
            for row in damaged:
                db.execute(*quarantined(table, row, now_s))
                _delete(db, table, row)
        for (first,) in damage.dangling:
            db.execute(*ENDED.remove(first))
        for table, values in damage.good:
            db.execute(*table.put(*values, *([0] if table.extra else [])))
        if damage.reindexed:
            db.execute("delete from ended")
            db.execute(*META.put("indexed", 0))


def ends_without_records(records: rows.JournalRows) -> list[tuple[int]]:
    """Return the first tasks of entries of the index of ends whose record is gone."""
    return list(records.rows(_DANGLING))


def forget_salvage(journal: writer.Journal) -> None:
    """Note that what a salvage has lost is dealt with. Raises JournalError."""
    with journal.transaction("FULL") as db:
        db.execute(*META.remove(salvage.SALVAGED))


def has_removed(records: rows.JournalRows) -> bool:
    """Return whether submissions of ended tasks were removed before."""
    query = f"select count(*) from meta where key >= '{rows.GONE}' and key < '{rows.GONE}~'"
    return bool(records.scalar(query))


def submissions(records: rows.JournalRows) -> Iterator[tuple[int, int]]:
    """Yield first task and number of tasks of each submission."""
    yield from records.rows("select first, count from accepted")


def end_of_tasks(records: rows.JournalRows) -> int:
    """Return the first task number that no stored submission or `meta` is above."""
    row = records.row("select first, count from accepted order by first desc limit 1")
    return max(records.meta(rows.NEXT_TASK), 1 if row is None else row[0] + row[1])


def owners_without_submissions(records: rows.JournalRows) -> dict[int, str]:
    """Return the owners of ended tasks without a submission, as their ends have them."""
    results: dict[int, str] = {}
    query = (
        "select ended.first, ended.count, finished.owner from ended join finished"
        " on finished.seq = ended.seq where not exists (select 1 from accepted where"
        " accepted.first <= ended.first and accepted.first + accepted.count > ended.first)"
    )
    for first, count, owner in records.rows(query):
        if owner:
            results |= dict.fromkeys(range(first, first + count), owner)
    return results


def rows_of_copy(
    copy: Path, found: dict[Columns, list[Row]]
) -> Iterator[tuple[Columns, list[Any]]]:
    """Yield the intact rows that a copy has of these damaged ones, of tables whose rows stay as
    they are."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(copy, isolation_level=None)) as db:
        for table, damaged in found.items():
            for row in damaged if table.name in salvage.FILLED else ():
                query = f"{table.checked} where {table.where_key()}"
                for *values, crc in db.execute(query, table.key_of(row)).fetchall():
                    if table.is_intact(values, crc) and is_read(table, values):
                        yield table, values


def _delete(db: Connection, table: Columns, row: Row) -> None:
    key = table.key_of(row)
    if db.execute(f"delete from {table.name} where {table.where_key()}", key).rowcount:
        return
    # Its key is not where the order of the keys has it: it is found by all that it has.
    names = [*table.names, "crc"]
    condition = " and ".join(f"{name} is not distinct from ?" for name in names)
    db.execute(f"delete from {table.name} where {condition}", row)
