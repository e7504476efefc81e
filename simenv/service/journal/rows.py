"""Rows of the journal through one connection."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from simenv.errors import DECODE_ERRORS, JournalError
from simenv.service.journal.database import WAY_OUT, Database, PostgresPlace
from simenv.service.journal.schema import META, Columns

log = logging.getLogger("simenv.service")
PAGE_ROWS = 100
# Keys of `meta` for values that must survive the removal of the rows that they come from.
LAST_SEQ, NEXT_TASK, LAST_EVENT, GONE = "last_seq", "next_task", "last_event", "gone "

Value = TypeVar("Value")


class JournalRows:
    """Queries of the journal through the loop's own connection, which sees the last commit."""

    def __init__(self, database: Database, place: Path | PostgresPlace) -> None:
        self._db = database.db
        self._errors = database.errors
        self._place = place

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises JournalError if the journal cannot be read."""
        try:
            yield from self._db.execute(query, values)
        except self._errors as error:
            raise JournalError(
                f"the journal {self._place} cannot be read: {error}", hint=WAY_OUT
            ) from error

    def decoded(
        self, query: str, decoder: msgspec.msgpack.Decoder[Value], subject: str
    ) -> list[tuple[Any, Value]]:
        """Read rows of a key and a msgpack body. A body that cannot be decoded, which is about
        `subject`, is passed over: a start has looked at each row before."""
        found = []
        for key, body in self.rows(query):
            try:
                found.append((key, decoder.decode(body)))
            except DECODE_ERRORS as error:
                log.warning("%s in the journal cannot be read (%s): %s", subject, key, error)
        return found

    def row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """Return the first row of a query; None if there is none."""
        return next(self.rows(query, *values), None)

    def scalar(self, query: str, *values: object) -> int | None:
        """Return the first value of the first row; None if there is none."""
        row = self.row(query, *values)
        return None if row is None else row[0]

    def pages(self, query: str, after: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows behind a key, which is their first column, in its order. A server would
        send all rows of a query at once."""
        while page := list(self.rows(query, after, PAGE_ROWS)):
            yield from page
            after = page[-1][0]

    def damaged(self) -> JournalError:
        """Return the error of a row whose checksum does not fit."""
        text = f"a record in the journal {self._place} is damaged: its checksum does not fit"
        return JournalError(text, hint=WAY_OUT)

    def newest(self, table: Columns) -> tuple[Any, ...] | None:
        """Return the intact row of the highest number; None if there is none."""
        row = self.row(f"{table.checked} order by {table.names[0]} desc limit 1")
        query = f"{table.checked} where {table.names[0]} < ? order by {table.names[0]} desc limit 1"
        while row is not None and not table.is_intact(row[:-1], row[-1]):
            row = self.row(query, row[0])
        return row

    def meta(self, key: str) -> int:
        row = self.row(f"{META.checked} where key = ?", key)
        return row[1] if row is not None and META.is_intact(row[:2], row[2]) else 0
