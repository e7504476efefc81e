"""The mark of an environment: a file in its home with the numbers that were given.

A journal may be lost, cut, or replaced by an older copy of it; whoever holds the id of a task, a
completion or a job that it knew would then be given another one's. Invariant: before an answer
names a number, the file has it, and on the disk there is a bound above it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path

from simenv.errors import JournalError

FORMAT = 1
# What is counted. `epoch`: starts of the service; the others: the next number that is free.
COUNTERS = ("epoch", "task", "completion", "event", "reservation", "job", "entry")
BLOCK = {"task": 1_000, "completion": 1_000, "event": 1_000}  # numbers reserved at once; else 64
_MAX_BLOCK = 64_000
_RATE_S = 1.0  # a block that lasts less long is followed by one of twice the size
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Format, two counts of each counter (given, reserved), boot, checksum.
_RECORD = struct.Struct(f"<8sq{2 * len(COUNTERS)}q36sI")
_MAGIC = b"simenvid"
log = logging.getLogger("simenv.service")


class IdMark:
    """The file. `floors`: the first number of each counter that may be free, as it was found;
    `is_exact`: they are exact, not bounds, as nothing was lost from memory since. Used from the
    loop's thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or create it. A file that cannot be read counts as none. Raises JournalError if it
        cannot be written."""
        self._path = path
        self._given = dict.fromkeys(COUNTERS, 0)
        self._reserved = dict.fromkeys(COUNTERS, 0)
        self._blocks = {name: BLOCK.get(name, 64) for name in COUNTERS}
        self._reserved_s = 0.0
        self._boot = _boot()
        self.is_exact, self.found, self.error = True, False, ""
        self._file = -1
        self._read()
        if self.error:
            log.warning("%s", self.error)
        of = self._given if self.is_exact else self._reserved
        self.floors = dict(of)
        if not read_only:
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._failed(error) from error

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self.error = f"the mark {self._path} cannot be read: {error.strerror}"
            return
        try:
            magic, number, *counts, boot, crc = _RECORD.unpack(data[: _RECORD.size])
        except struct.error:
            magic, number, counts, boot, crc = b"", 0, [], b"", -1
        if magic != _MAGIC or zlib.crc32(data[: _RECORD.size - 4]) != crc:
            self.error = f"the mark {self._path} is damaged: numbers go on from the journal alone"
            return
        if number != FORMAT:
            text = f"the mark {self._path} has format {number}, this build reads {FORMAT}"
            raise JournalError(text, hint="use the simenv version that wrote it")
        self._given = dict(zip(COUNTERS, counts[::2], strict=True))
        self._reserved = dict(zip(COUNTERS, counts[1::2], strict=True))
        self.is_exact = (boot == self._boot and bool(boot.strip())) or self._given == self._reserved
        self.found = True

    def note(self, used: dict[str, int]) -> None:
        """Record numbers that were stored, before the answers that name them: for each counter the
        first one that is free. A mark that cannot be written stops nothing: `error` says why."""
        passed = False
        for name, following in used.items():
            if following > self._given[name]:
                self._given[name] = following
                passed = passed or following > self._reserved[name]
        if passed:
            self._reserve()
        if used:
            self._write(sync=passed)

    def _reserve(self) -> None:
        now_s = time.monotonic()
        is_fast, self._reserved_s = now_s - self._reserved_s < _RATE_S, now_s
        for name in COUNTERS:
            least = BLOCK.get(name, 64)
            size = min(_MAX_BLOCK, 2 * self._blocks[name]) if is_fast else least
            self._blocks[name] = size
            self._reserved[name] = self._given[name] + size

    def _write(self, *, sync: bool) -> None:
        counts = (each for name in COUNTERS for each in (self._given[name], self._reserved[name]))
        record = _RECORD.pack(_MAGIC, FORMAT, *counts, self._boot, 0)[:-4]
        try:
            os.pwrite(self._file, record + zlib.crc32(record).to_bytes(4, "little"), 0)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            if not self.error:
                log.warning("%s", self._failed(error))
            self.error = self._failed(error).message

    def _failed(self, error: OSError) -> JournalError:
        text = f"the mark {self._path} cannot be written: {error.strerror or error}"
        return JournalError(text, hint="free space on the disk of the environment's home")

    def close(self) -> None:
        """Store that exactly these numbers were given. Idempotent."""
        if self._file >= 0:
            self._reserved = dict(self._given)
            self._write(sync=True)
            self.abandon()

    def abandon(self) -> None:
        """Close the file, as if this process had died. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def leave_gap(path: Path, journal: Path, gap: int) -> None:
    """Make the mark of a journal that is older than the environment that it was taken from: how
    many numbers that one has given since is not known. Raises JournalError, sqlite3.Error."""
    queries = {
        "task": "select coalesce(max(first + count), 1) from accepted",
        "completion": "select coalesce(max(seq + count), 1) from finished",
        "event": "select coalesce(max(seq), 0) + 1 from event",
        "epoch": "select coalesce(max(value), 1) from meta where key = 'epoch'",
    }
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        found = {name: db.execute(query).fetchone()[0] for name, query in queries.items()}
    mark = IdMark(path)
    mark._boot = b" " * 36  # of no start of a machine: what it has are bounds
    mark.note(dict.fromkeys(COUNTERS, gap) | {name: gap + each for name, each in found.items()})
    mark.abandon()


def _boot() -> bytes:
    with suppress(OSError):
        return _BOOT.read_bytes()[:36].ljust(36)
    return b" " * 36
