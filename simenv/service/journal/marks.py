"""The mark of an environment: a file in its home with the numbers that were given, and a copy of it
beside the homes.

A journal may be lost, cut, or replaced by an older copy of it; whoever holds the id of a task, a
completion or a job that it knew would then be given another one's. Invariant: before an answer
names a number, the file has it, and on the disk there is a bound above it.

The copy belongs to a journal, by the number that it has from its beginning (`LINEAGE`): an archive
that is restored a second time finds there what was given since the first time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from simenv import files
from simenv.errors import ConfigError, JournalError

FORMAT = 1
# What is counted. `epoch`: starts of the service; the others: the next number that is free.
COUNTERS = ("epoch", "task", "completion", "event", "reservation", "job", "entry")
LINEAGE = "lineage"  # key of `meta`
GAP = 100_000  # numbers that may have been given where nothing tells how many
BLOCK = {"task": 1_000, "completion": 1_000, "event": 1_000}  # numbers reserved at once; else 64
_MAX_BLOCK = 64_000
_RATE_S = 1.0  # a block that lasts less long is followed by one of twice the size
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Format, two counts of each counter (given, reserved), boot, checksum.
_RECORD = struct.Struct(f"<8sq{2 * len(COUNTERS)}q36sI")
_MAGIC = b"simenvid"
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in its place would be waited for
log = logging.getLogger("simenv.service")


class IdMark:
    """The file, and its copy. `floors`: the first number of each counter that may be free, as it
    was found; `is_exact`: they are exact, not bounds, as nothing was lost from memory since;
    `margin`: numbers to leave out above those of the journal, since no file tells what was given.
    Used from the loop's thread."""

    later: Callable[[Callable[[], None]], None] | None = None  # runs a job in another thread

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or create it. A file that cannot be read counts as none, one that cannot be written
        stops nothing; `error` says why. Raises JournalError for one of another build."""
        self._files: dict[Path, int] = {}
        self._given = dict.fromkeys(COUNTERS, 0)
        self._reserved = dict.fromkeys(COUNTERS, 0)
        self._synced = dict.fromkeys(COUNTERS, 0)  # bounds that are on the disk
        self._is_syncing = False
        self._blocks = {name: BLOCK.get(name, 64) for name in COUNTERS}
        self._reserved_s = 0.0
        self._boot = _boot()
        self.is_exact, self.found, self.error = True, False, ""
        self._open(path, read_only=read_only)
        of = self._given if self.is_exact else self._reserved
        self.floors = dict(of)

    @property
    def margin(self) -> int:
        return GAP if self.error and not self.found else 0

    def add_copy(self, path: Path) -> None:
        """Keep the numbers in another file too. One that has higher numbers is of a service that
        continued another copy of the journal: what it has are bounds. Raises JournalError."""
        try:
            files.private_folder(path.parent)
        except ConfigError as error:
            self._report(error.message)
            return
        own = dict(self._given)
        self._open(path)
        if self._given != own:
            self.is_exact, self.floors = False, dict(self._reserved)

    def _open(self, path: Path, *, read_only: bool = False) -> None:
        """Open a file, and take the higher numbers of it."""
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        is_new = not path.exists()
        try:
            file = os.open(path, flags | _FLAGS, 0o600)
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.close(file)
                raise OSError(0, "it is no file")
            data = os.pread(file, _RECORD.size, 0)
        except FileNotFoundError:
            return
        except OSError as error:
            self._report(f"the mark {path} cannot be opened: {error.strerror or error}")
            return
        if read_only:
            os.close(file)
        else:
            self._files[path] = file
        if is_new:
            with suppress(OSError):
                files.sync_folder(path.parent)
        elif data:  # else its service has ended before it was written
            self._take(path, data)

    def _take(self, path: Path, data: bytes) -> None:
        try:
            magic, number, *counts, boot, crc = _RECORD.unpack(data)
        except struct.error:
            magic, number, counts, boot, crc = b"", 0, [], b"", -1
        if magic != _MAGIC or zlib.crc32(data[: _RECORD.size - 4]) != crc:
            self._report(f"the mark {path} is damaged: numbers go on from the journal")
            return
        if number != FORMAT:
            text = f"the mark {path} has format {number}, this build reads {FORMAT}"
            raise JournalError(text, hint="use the simenv version that wrote it")
        given = dict(zip(COUNTERS, counts[::2], strict=True))
        reserved = dict(zip(COUNTERS, counts[1::2], strict=True))
        if not self.found:
            self.is_exact = (boot == self._boot and bool(boot.strip())) or given == reserved
        if not self.found or any(given[name] > self._given[name] for name in COUNTERS):
            for name in COUNTERS:
                self._given[name] = max(self._given[name], given[name])
                self._reserved[name] = max(self._reserved[name], reserved[name])
        self.found = True

    def note(self, used: dict[str, int]) -> None:
        """Record numbers that were stored, before the answers that name them: for each counter the
        first one that is free. A mark that cannot be written stops nothing: `error` says why."""
        for name, following in used.items():
            self._given[name] = max(self._given[name], following)
        if any(self._given[name] > self._synced[name] for name in used):
            self._reserve()
            self._write()
            self._sync(dict(self._reserved))
        elif self.later is not None and not self._is_syncing and any(map(self._is_half, used)):
            self._reserve()
            self._write()
            self._is_syncing = True  # until then, the bounds before hold
            self.later(partial(self._sync, dict(self._reserved)))
        elif used:
            self._write()

    def _is_half(self, name: str) -> bool:
        return self._given[name] > self._synced[name] - self._blocks[name] // 2

    def _reserve(self) -> None:
        now_s = time.monotonic()
        is_fast, self._reserved_s = now_s - self._reserved_s < _RATE_S, now_s
        for name in COUNTERS:
            least = BLOCK.get(name, 64)
            size = min(_MAX_BLOCK, 2 * self._blocks[name]) if is_fast else least
            self._blocks[name] = size
            self._reserved[name] = self._given[name] + size

    def _write(self) -> None:
        counts = (each for name in COUNTERS for each in (self._given[name], self._reserved[name]))
        record = _RECORD.pack(_MAGIC, FORMAT, *counts, self._boot, 0)[:-4]
        for path, file in self._files.items():
            try:
                os.pwrite(file, record + zlib.crc32(record).to_bytes(4, "little"), 0)
            except OSError as error:
                self._failed(path, error)

    def _sync(self, bounds: dict[str, int]) -> None:
        """Force the files to the disk, which have these bounds; also from another thread."""
        for path in tuple(self._files):
            try:
                file = os.open(path, os.O_RDWR | _FLAGS)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
            except OSError as error:
                self._failed(path, error)
        self._synced, self._is_syncing = bounds, False

    def _failed(self, path: Path, error: OSError) -> None:
        self._report(f"the mark {path} cannot be written: {error.strerror or error}")

    def _report(self, text: str) -> None:
        if not self.error:
            log.warning("%s", text)
        self.error = text

    def close(self) -> None:
        """Store that exactly these numbers were given. Idempotent."""
        if self._files:
            self._reserved = dict(self._given)
            self._write()
            self._sync(dict(self._reserved))
            self.abandon()

    def abandon(self) -> None:
        """Close the files, as if this process had died. Idempotent."""
        while self._files:
            os.close(self._files.popitem()[1])


def leave_gap(path: Path, journal: Path) -> None:
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
    mark.note(dict.fromkeys(COUNTERS, GAP) | {name: GAP + each for name, each in found.items()})
    mark.abandon()


def _boot() -> bytes:
    with suppress(OSError):
        return _BOOT.read_bytes()[:36].ljust(36)
    return b" " * 36
