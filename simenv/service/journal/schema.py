"""Tables of the journal, and the checksum of each of their rows.

Invariant: each row ends with a checksum of its content that is seeded with the name of its table:
a row whose bits have changed is recognized, and so is a row in a file whose structure is lost.
What the loss of a row costs stands with its table (`cost`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

Statement = tuple[str, tuple[Any, ...]]
_HALF = 2**32


class Columns:
    """A table with a column for each value, and a checksum."""

    def __init__(
        self,
        name: str,
        columns: str,
        options: str = "",
        indexes: Sequence[str] = (),
        *,
        extra: str = "",
        numbered: bool = False,
        cost: str = "",
    ) -> None:
        """
        - `columns`: those of `create table`, the key first
        - `indexes`: columns of each, or the words of `create index` behind its name
        - `extra`: a column behind the checksum, which does not cover it: it changes by itself
        - `numbered`: the database numbers the rows; the checksum does not cover the number
        - `cost`: what a damaged row costs
        """
        own, mark, key = columns.partition(", primary key(")
        behind = f", {extra}" if extra else ""
        self.name, self.cost, self.numbered = name, cost, numbered
        self.schema = f"create table if not exists {name}({own}, crc int{behind}{mark}{key})"
        self.schema += f"{options};"
        for number, each in enumerate(indexes, 1):
            index, on, columns_of = each.partition(" on ")
            if not on:
                index, columns_of = f"{name}_{number}", f"{name}({each})"
            self.schema += f"create index if not exists {index} on {columns_of};"
        definitions = [column.split() for column in own.split(", ")]
        self.names = [words[0] for words in definitions]
        self.kinds = [words[1] for words in definitions]
        self.extra = bool(extra)
        # The column that is the row's number in SQLite; None: there is none.
        is_key = ["integer primary key" in " ".join(words) for words in definitions]
        self.row_number = is_key.index(True) if True in is_key else None
        is_key = ["primary" in words for words in definitions]
        keys = [n for n, own_key in zip(self.names, is_key, strict=True) if own_key]
        self.key = [self.names.index(n) for n in keys or key.rstrip(")").split(", ")]
        self.query = f"select {', '.join(self.names)} from {name}"
        self.checked = f"select {', '.join(self.names)}, crc from {name}"
        marks = ",".join("?" * (len(self.names) + 1 + self.extra))
        self.insert = f"insert into {name} values({marks})"
        self._put = f"insert or replace into {name} values({marks})"
        self._delete = f"delete from {name} where "
        self._seed = zlib.crc32(name.encode())
        self._reals = [index for index, kind in enumerate(self.kinds) if kind == "real"]

    def put(self, *values: Any) -> Statement:
        """Return the statement that stores a row, `extra` at its end if there is one."""
        return self._put, self.row(*values)

    def append(self, *values: Any) -> Statement:
        """Return the statement that adds a row, which the database numbers."""
        names = ", ".join((*self.names[1:], "crc"))
        marks = ",".join("?" * len(self.names))
        query = f"insert into {self.name}({names}) values({marks})"
        return query, self.row(0, *values)[1:]

    def row(self, *values: Any) -> tuple[Any, ...]:
        """Return all columns of a row: these values, and the checksum."""
        count = len(self.names)
        own = self.canonical(values[:count])
        return *own, self.checksum(own), *values[count:]

    def canonical(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return values of the types in which the database returns them."""
        if not self._reals:
            return tuple(values)
        own = list(values)
        for index in self._reals:
            if type(own[index]) is int:
                own[index] = float(own[index])
        return tuple(own)

    def checksum(self, values: Sequence[Any]) -> int:
        """Return the checksum of a row: of its blobs in the lower 32 bits, of all else above."""
        head: list[object] = []
        blobs = 0
        for value in values:
            kind = type(value)
            if kind is bytes or kind is memoryview or kind is bytearray:
                blobs = zlib.crc32(value, blobs)
                head.append(len(value))
            elif kind is str or kind is int or kind is float or value is None:
                head.append(value)
            elif isinstance(value, str):
                head.append(str.__str__(value))
            else:
                head.append(int(value))
        if self.numbered:
            head[0] = 0
        text = repr(head).replace("\\x00", "\ufffd")  # PostgreSQL cannot store this character
        return (zlib.crc32(text.encode(), self._seed) >> 1) * _HALF + blobs

    def is_intact(self, values: Sequence[Any], crc: Any) -> bool:
        """Return whether a row is as it was stored."""
        try:
            return bool(self.checksum(values) == crc)
        except (TypeError, ValueError, OverflowError):
            return False

    def is_head_intact(self, values: Sequence[Any], crc: Any) -> bool:
        """Return whether all columns of a row that are no blobs are as they were stored."""
        try:
            return isinstance(crc, int) and self.checksum(values) // _HALF == crc // _HALF
        except (TypeError, ValueError, OverflowError):
            return False

    def remove(self, *key: Any) -> Statement:
        """Return the statement that removes the rows whose first columns are these."""
        columns = (f"{name} = ?" for name in self.names[: len(key)])
        return self._delete + " and ".join(columns), key

    def key_of(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return the key of a row."""
        return tuple(values[index] for index in self.key)

    def where_key(self) -> str:
        """Return the condition that selects a row by its key."""
        return " and ".join(f"{self.names[index]} = ?" for index in self.key)

    def seal(self, db: Any, *key: Any) -> None:
        """Store the checksum of a row that a statement of this transaction has changed."""
        row = db.execute(f"{self.query} where {self.where_key()}", key).fetchone()
        if row is not None:
            change = f"update {self.name} set crc = ? where {self.where_key()}"
            db.execute(change, (self.checksum(tuple(row)), *key))


def crc_of(blobs: bytes) -> int:
    """Return the lower 32 bits of the checksum of a row with these blobs."""
    return zlib.crc32(blobs)


META = Columns(
    "meta",
    "key text primary key, value int",
    " without rowid",
    cost="it is counted anew from the other rows; numbers go on beyond those given",
)
ACCEPTED = Columns(
    "accepted",
    'first integer primary key, count int, at real, key text, "offset" int, digest blob,'
    " routes blob, body blob, owner text, app text",
    indexes=(
        "accepted_app on accepted(app, first) where app <> ''",
        "accepted_key on accepted(owner, key, \"offset\") where key not like '~%'",
    ),
    extra="sent int",
    cost="its tasks that had not ended end as FAILED, `damaged`; ended ones keep their results",
)
FINISHED = Columns(
    "finished",
    "seq integer primary key, count int, failed int, cancelled int, expired int, at real,"
    " body blob, owner text",
    indexes=("finished_owner on finished(owner, seq, count) where owner <> ''",),
    cost="its tasks run again",
)
SENT = Columns(
    "sent",
    "row integer primary key, tasks blob",
    numbered=True,
    cost="some attempts of waiting tasks are not counted",
)
ENDED = Columns(
    "ended",
    "first integer primary key, count int, seq int",
    cost="nothing: the index of ended tasks is made anew",
)
CURSOR = Columns(
    "cursor",
    "owner text, name text, seq int, primary key(owner, name)",
    " without rowid",
    cost="its reader begins at the first completion that is kept",
)
EVENT = Columns(
    "event",
    "seq integer primary key, body blob, owner text",
    indexes=("event_owner on event(owner, seq)",),
    cost="the event",
)
FILE = Columns(
    "file",
    "name text primary key, task int, seq int, bytes int",
    " without rowid",
    indexes=("file_seq on file(seq)",),
    cost="its task runs again when its result is asked for",
)
REPLACED = Columns(
    "replaced",
    "seq integer primary key, task int, state text",
    cost="a result that was withdrawn as damaged is found damaged once more",
)
POOL = Columns(
    "pool",
    "name text primary key, least int, most int, told_least int, told_most int",
    " without rowid",
    cost="the pool has the size of the configuration",
)
DRAINED = Columns(
    "drained", "node text primary key, reason text", " without rowid", cost="the node is used again"
)
POLICY_TOLD = Columns(
    "policy_told",
    "pool text primary key, body blob",
    " without rowid",
    cost="the policy of the configuration is applied once more",
)
# Damaged rows, as they were read, packed; `name`: of the table.
QUARANTINE = Columns(
    "quarantine",
    "row integer primary key, at real, name text, body blob",
    numbered=True,
    cost="nothing: it has damaged rows, kept for the support",
)
CORE = (
    *(META, ACCEPTED, FINISHED, SENT, ENDED, CURSOR, EVENT, FILE, REPLACED, POOL, DRAINED),
    *(POLICY_TOLD, QUARANTINE),
)


def quarantined(table: Columns, row: Sequence[Any], at_s: float) -> Statement:
    """Return the statement that keeps a damaged row, checksum included."""
    values = [value if isinstance(value, _PACKED) else repr(value) for value in row]
    return QUARANTINE.append(float(at_s), table.name, msgspec.msgpack.encode(values))


_PACKED = (str, bytes, int, float, type(None))
