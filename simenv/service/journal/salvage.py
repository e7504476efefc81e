"""Rows of a journal of SQLite whose structure is damaged, copied into a new file.

All pages of the file and of its log are looked through for cells of tables, as `.recover` of
SQLite's shell does (https://www.sqlite.org/fileformat2.html), but a row's own checksum, and no
schema, says which table a cell belongs to: neither a lost root page nor a lost schema costs more
rows than those on it. Rows that never change, and are on lost pages, come from the journal's copy.

Invariant: the damaged files are kept, and the new file takes their place only when it is on disk.
"""

from __future__ import annotations

import mmap
import os
import shutil
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from simenv.errors import JournalError
from simenv.service.journal import database, schema, tables

_MAX_HEADER_COLUMNS = 64
_LEAF, _INDEX_LEAF, _INDEX_INTERIOR = 13, 10, 2
_FREE = 2  # type of a free page in the map of pages
_WAL_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
# Of these the copy's rows are taken that are missing: they do not change, or an older one is better
# than none.
FILLED = frozenset(
    {
        *("accepted", "finished", "file", "replaced", "noise_document", "calibration", "standing"),
        *("usage_key", "account", "qos", "owner_limits", "reservation", "device", "calendar"),
        *("cursor", "fair_usage"),
    }
)
SALVAGED = "salvaged"  # key of `meta` in a journal whose rows were salvaged


class Salvage(NamedTuple):
    """What became of a damaged journal."""

    rows: int
    damaged: int  # rows that are not as they were stored; the start names them
    filled: int  # rows of the copy
    kept: Path  # the damaged file


def salvage(live: Path, copy: Path) -> Salvage:
    """Replace a damaged journal by a new one with its rows, and with rows of its copy that it
    lacks. Raises JournalError if the disk does not take it."""
    stamp = f"damaged-{time.time_ns() // 10**9}"
    kept = live.with_name(f"{live.name}.{stamp}")
    temporary = live.with_name(f".{live.name}.salvaging")
    try:
        for part in with_wal(live):
            shutil.copyfile(part, part.with_name(f"{part.name}.{stamp}"))
        temporary.unlink(missing_ok=True)
        found = _write(live, copy, temporary)
        _sync(temporary)
        temporary.replace(complete_name(live))
        finish(live)
    except (OSError, sqlite3.Error) as error:
        hint = database.hint_of(error) or database.FAILED_DISK
        raise JournalError(f"{live} cannot be salvaged: {error}", hint=hint) from error
    return Salvage(*found, kept)


def complete_name(live: Path) -> Path:
    return live.with_name(f"{live.name}.salvaged")


def finish(live: Path) -> None:
    """Let a salvaged file that is complete take the place of the journal; called also by the start
    after one that died before it had done so. Raises OSError."""
    complete = complete_name(live)
    if complete.exists():
        for end in ("-wal", "-shm"):
            live.with_name(live.name + end).unlink(missing_ok=True)
        complete.replace(live)
        _sync(live.parent)


def with_wal(path: Path) -> list[Path]:
    """Return the file of a journal and that of its log, those that exist."""
    return [p for p in (path, path.with_name(path.name + "-wal")) if p.exists()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(live: Path, copy: Path, target: Path) -> tuple[int, int, int]:
    rows = damaged = 0
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        target.chmod(0o600)
        db.execute("pragma auto_vacuum=incremental")
        db.execute("pragma synchronous=off")
        for table in tables.ALL:
            for statement in filter(None, table.schema.split(";")):
                db.execute(statement)
        db.execute(f"pragma user_version={database.FORMAT}")
        db.execute(f"pragma application_id={database.fingerprint(tables.SCHEMA)}")
        db.execute("begin")
        doubtful: list[tuple[schema.Columns, list[Any]]] = []
        for table, row, is_intact in found_rows(live):
            if is_intact:
                _insert(db, "replace", table, row)
            else:
                doubtful.append((table, row))
        for table, row in doubtful:  # an intact row of this key is the better one
            damaged += _insert(db, "ignore", table, row)
        counts = {
            table.name: db.execute(f"select count(*) from {table.name}").fetchone()[0]
            for table in tables.ALL
        }
        filled = _fill(db, copy, counts) if copy.exists() else 0
        # The index of ended tasks may lack rows, which the start takes for tasks that wait.
        db.execute("delete from ended")
        db.execute(*schema.META.put("indexed", 0))
        db.execute(*schema.META.put(SALVAGED, 1))
        db.execute("commit")
        rows = sum(counts.values())
    return rows - damaged, damaged, filled


def _insert(db: sqlite3.Connection, conflict: str, table: schema.Columns, row: list[Any]) -> int:
    values = [*row, 0] if table.extra else row
    marks = ",".join("?" * len(values))
    with suppress(sqlite3.IntegrityError, OverflowError):
        query = f"insert or {conflict} into {table.name} values({marks})"
        return db.execute(query, values).rowcount
    return 0


def _fill(db: sqlite3.Connection, copy: Path, counts: dict[str, int]) -> int:
    """Insert rows of the copy that are missing. A copy that is damaged gives what it has."""
    filled = 0
    with suppress(OSError):
        for table, row, is_intact in found_rows(copy):
            if is_intact and (table.name in FILLED or not counts[table.name]):
                key = table.key_of(row)
                query = f"select crc from {table.name} where {table.where_key()}"
                present = db.execute(query, key).fetchone()
                if present is None:
                    filled += _insert(db, "ignore", table, row)
                elif present[0] != row[-1] and not _is_intact_at(db, table, key):
                    filled += _insert(db, "replace", table, row)
    return filled


def _is_intact_at(db: sqlite3.Connection, table: schema.Columns, key: tuple[Any, ...]) -> bool:
    *row, crc = db.execute(f"{table.checked} where {table.where_key()}", key).fetchone()
    return table.is_intact(row, crc)


def found_rows(path: Path) -> Iterator[tuple[schema.Columns, list[Any], bool]]:
    """Yield the rows of a journal's file and its log that can be read in their pages: the table,
    the columns up to the checksum, and whether it fits. Raises OSError."""
    by_columns: dict[int, list[schema.Columns]] = {}
    for table in tables.ALL:
        by_columns.setdefault(len(table.names) + 1 + table.extra, []).append(table)
    pages = _Pages(path)
    for cell in chain.from_iterable(map(pages.cells, pages.numbers())):
        for table in by_columns.get(len(cell.values), ()):
            if (table.row_number is not None) > (cell.number is not None):
                continue
            row = _typed(table, cell)
            if table.is_intact(row[:-1], row[-1]):
                yield table, row, True
                break
        else:
            for table in by_columns.get(len(cell.values), ()):
                row = _typed(table, cell)
                if _may_belong(table, cell, row):
                    yield table, row, False
                    break


def rows_by_page(path: Path) -> Iterator[tuple[int, schema.Columns, list[Any]]]:
    """Yield the intact rows of a journal's file, with the numbers of their pages, from 1."""
    pages = _Pages(path)
    for number in pages.numbers():
        for cell in pages.cells(number):
            for table in tables.ALL:
                if len(table.names) + 1 + table.extra == len(cell.values):
                    row = _typed(table, cell)
                    if table.is_intact(row[:-1], row[-1]):
                        yield number, table, row


def _typed(table: schema.Columns, cell: _Cell) -> list[Any]:
    row = cell.values[: len(table.names) + 1]
    if table.row_number is not None:
        row[table.row_number] = cell.number
    return [*table.canonical(row[:-1]), row[-1]]


def _may_belong(table: schema.Columns, cell: _Cell, row: list[Any]) -> bool:
    """Return whether a row whose checksum does not fit is one of a table: half of it fits, or the
    rest has the types of its columns."""
    if table.row_number is not None and cell.number is None:
        return False
    if table.is_head_intact(row[:-1], row[-1]):
        return True
    blobs = b"".join(each for each in row[:-1] if isinstance(each, bytes))
    return bool(blobs) and isinstance(row[-1], int) and row[-1] % 2**32 == schema.crc_of(blobs)


class _Cell(NamedTuple):
    number: int | None  # of the row; None: of a tree of keys
    values: list[Any]


class _Pages:
    """Pages of a journal's file, as of the last commit of its log."""

    def __init__(self, path: Path) -> None:
        self._data = _mapped(path)
        head = bytes(self._data[:100])
        size = int.from_bytes(head[16:18], "big")
        size = 65_536 if size == 1 else size
        is_header = head[:16] == b"SQLite format 3\0" and size >= 512 and not size & (size - 1)
        reserved = head[20] if is_header and len(head) > 20 else 0
        frames = _mapped(path.with_name(f"{path.name}-wal"))
        if not is_header and len(frames) > _WAL_HEADER.size:
            size = _WAL_HEADER.unpack_from(frames)[2]
        if not 512 <= size <= 65_536 or size & (size - 1):
            size = 4_096
        self._size, self._usable = size, size - reserved
        self._last = -(-len(self._data) // size)  # page of the file, which may be cut within it
        self._newer: dict[int, bytes] = {}  # pages of the log
        self._overlay(frames)
        self._free = self._free_pages()

    def _image(self, number: int) -> bytes | None:
        """Return the content of a page; None if there is none."""
        newer = self._newer.get(number)
        if newer is not None:
            return newer
        if not 0 < number <= self._last:
            return None
        content = bytes(self._data[(number - 1) * self._size : number * self._size])
        return content.ljust(self._size, b"\0")

    def _overlay(self, frames: bytes | mmap.mmap) -> None:
        """Put the pages of committed frames in their places, those behind damaged frames, too."""
        if len(frames) < _WAL_HEADER.size + _FRAME.size:
            return
        step = _FRAME.size + self._size
        starts = range(_WAL_HEADER.size, len(frames) - step + 1, step)
        heads = [_FRAME.unpack_from(frames, at) for at in starts]
        salts = list(_WAL_HEADER.unpack_from(frames)[4:6])
        if not any(list(head[2:4]) == salts for head in heads):  # the header is damaged
            common = Counter(head[2:4] for head in heads if any(head[2:4])).most_common(1)
            salts = list(common[0][0]) if common else salts
        pending: list[tuple[int, bytes]] = []
        for at, (number, size, *own, _, _) in zip(starts, heads, strict=True):
            image = bytes(frames[at + _FRAME.size : at + step])
            if own != salts:
                continue
            pending.append((number, image))
            if size:
                self._newer.update(pending)
                pending.clear()

    def _free_pages(self) -> set[int]:
        """Return the free pages, whose rows were removed."""
        free: set[int] = set()
        first = self._image(1) or b""
        step = self._usable // 5 + 1
        if int.from_bytes(first[52:56], "big"):  # it has maps of pages
            for number in range(2, self._numbers().stop, step):
                content = self._image(number) or b""
                for index in range(min(step - 1, len(content) // 5)):
                    if content[5 * index] == _FREE and not any(
                        content[5 * index + 1 : 5 * index + 5]
                    ):
                        free.add(number + 1 + index)
        trunk, seen = int.from_bytes(first[32:36], "big"), set[int]()
        while trunk not in seen and (page := self._image(trunk)) is not None:
            seen.add(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self._size // 4 - 2)
            for index in range(count):
                free.add(int.from_bytes(page[8 + 4 * index : 12 + 4 * index], "big"))
            trunk = int.from_bytes(page[:4], "big")
        return free | seen

    def numbers(self) -> list[int]:
        """Return the numbers of pages that are not free."""
        return [number for number in self._numbers() if number not in self._free]

    def _numbers(self) -> range:
        return range(1, 1 + max(self._last, *self._newer, 0))

    def cells(self, number: int) -> Iterator[_Cell]:
        """Yield what can be read as a cell on a page."""
        content = self._image(number)
        return self._cells_of(content, 100 if number == 1 else 0) if content else iter(())

    def _cells_of(self, page: bytes, start: int) -> Iterator[_Cell]:
        kind = page[start] if len(page) > start + 12 else 0
        kinds = (kind,) if kind in (_LEAF, _INDEX_LEAF, _INDEX_INTERIOR) else (_LEAF, _INDEX_LEAF)
        if kind == 5:  # an inner page of a table has no rows
            return
        for each in kinds:
            begin = start + (12 if each == _INDEX_INTERIOR else 8)
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            for index in range(min(count, (len(page) - begin) // 2)):
                at = int.from_bytes(page[begin + 2 * index : begin + 2 * index + 2], "big")
                with suppress(IndexError, ValueError, struct.error):
                    if at >= begin:
                        yield self._cell(page, at, each)

    def _cell(self, page: bytes, at: int, kind: int) -> _Cell:
        """Read a cell. Raises IndexError or ValueError if it is none."""
        if kind == _INDEX_INTERIOR:
            at += 4
        size, at = _varint(page, at)
        number: int | None = None
        if kind == _LEAF:
            number, at = _varint(page, at)
            number -= 2**64 if number >= 2**63 else 0
        return _Cell(number, _values(self._payload(page, at, size, kind)))

    def _payload(self, page: bytes, at: int, size: int, kind: int) -> bytes:
        usable = self._usable
        if size > self._numbers().stop * self._size:  # it is no cell
            raise ValueError
        most = usable - 35 if kind == _LEAF else (usable - 12) * 64 // 255 - 23
        if size <= most:
            if at + size > len(page):
                raise ValueError
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while left > 0:
            content = self._image(following)
            if content is None or len(parts) > self._numbers().stop:
                # A page of a long value is lost: what is left of the row says whose it was.
                parts.append(bytes(left))
                break
            parts.append(content[4 : min(usable, 4 + left)])
            left -= len(parts[-1])
            following = int.from_bytes(content[:4], "big")
        return b"".join(parts)


def _mapped(path: Path) -> bytes | mmap.mmap:
    """Return the content of a file, which need not fit into memory; b"" if there is none."""
    if not path.exists() or not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _values(record: bytes) -> list[Any]:
    """Read a record. Raises IndexError or ValueError if it is none."""
    end, at = _varint(record, 0)
    kinds = []
    while at < end:
        kind, at = _varint(record, at)
        kinds.append(kind)
        if len(kinds) > _MAX_HEADER_COLUMNS:
            raise ValueError
    if at != end:
        raise ValueError
    values: list[Any] = []
    for kind in kinds:
        size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, -1, -1)[kind] if kind < 12 else (kind - 12) // 2
        content = record[at : at + size]
        if size < 0 or len(content) < size:
            raise ValueError
        at += size
        if kind == 0:
            values.append(None)
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind == 7:
            values.append(struct.unpack(">d", content)[0])
        elif kind < 7:
            values.append(int.from_bytes(content, "big", signed=True))
        elif kind % 2:
            values.append(content.decode("utf-8", "replace"))
        else:
            values.append(content)
    return values
