"""Damage of SQLite's write-ahead log, which SQLite itself takes for the log's end.

SQLite reads the frames of a log up to the first one whose checksum is wrong, and ignores the rest
without a word, because the end of a log looks like that after a crash: frames of a transaction that
was not committed, and behind them frames of an earlier use of the file. Frames that belong to this
use of the file have the salts of its header, and the last frame of each transaction states the size
of the database (https://www.sqlite.org/fileformat2.html#walformat). So a frame behind the end that
has the salts and ends a transaction was committed: frames before it are damaged. After a start of
the machine that is no proof, since a power failure may keep a later page and lose an earlier one of
what was not forced to disk. Nor is the first damaged frame itself: a service that was killed while
it wrote a frame leaves one.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoint, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page, database size after a commit, two salts, two checksums
_LENGTH = struct.Struct("=I")
_LENGTH_AT = 16  # of the number of valid frames, in the index of the log (`-shm`)
_MAGIC = 0x377F0682  # its last bit: checksums are of big-endian numbers


def damage(journal: Path) -> str:
    """Return what is damaged of a live journal's log that SQLite would take for its end; "":
    nothing, or a power failure may have left it so."""
    try:
        lost = lost_commits(journal)
        if not lost or not was_used_since_boot(journal):
            return ""
    except (sqlite3.Error, OSError):
        return ""  # whoever opens it says why
    what = "its header is" if lost < 0 else f"pages before {lost} of its commits are"
    return f"the log {journal}-wal is damaged: {what} not as they were written"


def lost_commits(journal: Path) -> int:
    """Return the number of commits behind the first damaged frame of a journal's log, which SQLite
    would drop; -1: the header is damaged, and with it all of the log. Nothing is changed. Raises
    OSError, sqlite3.Error."""
    log = journal.with_name(f"{journal.name}-wal")
    if not log.exists() or log.stat().st_size <= _HEADER.size + _FRAME.size:
        return 0
    with log.open("rb", buffering=0) as file:
        header = file.read(_HEADER.size)
        if not any(header):  # extended ahead of its first use
            return -1 if any(file.read(_FRAME.size)) else 0
        if not _is_intact(header):
            return -1
        return sum(_commits(file.fileno(), header, _valid_frames(journal)))


def was_used_since_boot(journal: Path) -> bool:
    """Return whether the journal's log was last written after the machine was started."""
    log = journal.with_name(f"{journal.name}-wal")
    lines = Path("/proc/stat").read_text().splitlines()
    boot_s = next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)
    return log.stat().st_mtime >= boot_s


def _is_intact(header: bytes) -> bool:
    """Return whether a header has its own checksum."""
    magic, *_, first, second = _HEADER.unpack(header)
    return magic & ~1 == _MAGIC and _checksum(magic, header[:24]) == (first, second)


def _checksum(magic: int, data: bytes, before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return the checksum of data that follow those with the checksum `before`."""
    one, two = before
    numbers = struct.unpack(f"{'>' if magic & 1 else '<'}{len(data) // 4}I", data)
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        one = (one + a + two) & 0xFFFFFFFF
        two = (two + b + one) & 0xFFFFFFFF
    return one, two


def _valid_frames(journal: Path) -> int:
    """Return the number of frames that SQLite reads."""
    uri = f"{journal.absolute().as_uri()}?mode=ro"  # such a connection makes no checkpoint
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.execute("select count(*) from sqlite_master").fetchone()
        index = journal.with_name(f"{journal.name}-shm").read_bytes()
    return int(_LENGTH.unpack_from(index, _LENGTH_AT)[0])


def _commits(log: int, header: bytes, valid: int) -> Iterator[bool]:
    """Yield for each frame behind the first damaged one whether it ends a transaction of this use
    of the file. `valid`: number of frames of transactions that were committed."""
    magic, _, page_bytes, _, *salts = _HEADER.unpack(header)[:6]
    step, is_sound, before = _FRAME.size + page_bytes, True, _HEADER.unpack(header)[6:]
    if valid:
        last = os.pread(log, _FRAME.size, _HEADER.size + (valid - 1) * step)
        before = _FRAME.unpack(last)[4:]
    at = _HEADER.size + valid * step
    while len(frame := os.pread(log, step, at)) == step:
        at += step
        _, size, *own, first, second = _FRAME.unpack(frame[: _FRAME.size])
        if is_sound:
            before = _checksum(magic, frame[_FRAME.size :], _checksum(magic, frame[:8], before))
            is_sound = before == (first, second) and own == salts
        else:
            yield bool(size) and own == salts
