"""Threads that maintain the journal: checkpoints of the WAL, and a backup for another node.

`WalCheckpointer` writes the WAL into the database on a connection of its own; an inline checkpoint
would stall the event loop for 17 to 47 ms. `JournalBackup` copies a snapshot into the
environment's home while the loop continues to write, and renames the copy when it is complete.
Invariant: the loop waits for these threads only when the service stops.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

from simenv.service.support import fault_injection

EVERY_S = 60.0
# Shortest pause before the next copy, in times of the duration of the last one.
MIN_PAUSE_RATIO = 20
STEP_PAGES = 256  # read in one step: 1 MiB
PAUSE_S = 0.005  # after each step: 200 MB/s at most, so that the disk can serve others too


class JournalBackup:
    """Thread that copies the journal, from `start` to `stop`. `error`: the last error, or ""."""

    def __init__(self, journal: Path, copy: Path, every_s: float = EVERY_S) -> None:
        self._journal = journal
        self._copy = copy
        self._every_s = every_s
        self._wake = threading.Event()
        self._last = False  # the next copy is the last one, and is made without pauses
        self._thread = threading.Thread(target=self._run, name="copy", daemon=True)
        self.error = ""
        self.copies = 0

    def start(self) -> None:
        self._thread.start()

    def request_copy(self) -> None:
        """Make a copy now; called when the service may end soon."""
        self._wake.set()

    def stop(self) -> None:
        """Make a last copy of all commits, and end the thread."""
        self._last = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        db = sqlite3.connect(self._journal, isolation_level=None)
        db.execute("pragma busy_timeout=1000")
        copied_version, wait_s, last = -1, self._every_s, False
        while not last:
            self._wake.wait(wait_s)
            self._wake.clear()
            last = self._last
            begun = time.monotonic()
            try:
                version = db.execute("pragma data_version").fetchone()[0]
                if version != copied_version:
                    self.copy(db)
                    copied_version = version
                self.error = ""
            except (sqlite3.Error, OSError) as error:
                self.error = f"the journal could not be copied to {self._copy}: {error}"
            wait_s = max(self._every_s, MIN_PAUSE_RATIO * (time.monotonic() - begun))
        db.close()

    def copy(self, db: sqlite3.Connection) -> None:
        """Copy the present state of `db`, a connection of this thread's own."""
        fault_injection.hit("copy.before")
        temporary = self._copy.with_name(f".{self._copy.name}.new")
        temporary.unlink(missing_ok=True)
        try:
            copy_into(db, temporary, self._pause)
            temporary.replace(self._copy)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.copies += 1
        fault_injection.hit("copy.after")

    def _pause(self, _status: int, _remaining: int, _total: int) -> None:
        if not self._last:
            time.sleep(PAUSE_S)


def copy_into(db: sqlite3.Connection, path: Path, pause: object = None) -> None:
    """Write one snapshot of `db` to a file that needs no WAL; it is on disk when this returns."""
    target = sqlite3.connect(path, isolation_level=None)
    try:
        path.chmod(0o600)
        target.execute("pragma synchronous=off")
        # A read transaction keeps the source unchanged; without it, every commit of the loop would
        # restart the copy.
        db.execute("begin")
        try:
            db.execute("select count(*) from sqlite_master").fetchone()
            db.backup(target, pages=STEP_PAGES, progress=pause)  # type: ignore[arg-type]
        finally:
            db.execute("commit")
        target.execute("pragma journal_mode=delete")
    finally:
        target.close()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


EVERY_BYTES = 16 * 2**20  # written since the last one
MIN_FREE_BYTES = 64 * EVERY_BYTES  # on the disk, for a WAL that is extended before it is written
RESTART_BYTES = 2**30  # a larger WAL is truncated, though that delays the loop
POLL_S = 0.5


class WalCheckpointer:
    """Thread that checkpoints the WAL, from `start` to `stop`. `error`: the last error, or "",
    which the loop reports.

    `extends`: extend a new WAL to the size that it has at a checkpoint. A commit that overwrites
    blocks needs half the time of one that appends them, because its fsync changes no metadata.
    """

    def __init__(self, journal: Path, *, extends: bool = False) -> None:
        self._extends = extends
        self._journal = journal
        self._wal = journal.with_name(journal.name + "-wal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.error = ""
        self.written_bytes = 0  # written to the WAL, approximately; counted by the loop
        self._folded = 0  # bytes of these that are in the database

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        db = sqlite3.connect(self._journal, isolation_level=None)
        db.execute("pragma busy_timeout=20")
        if self._extends:
            self.extend(db)
        while not self._stop.wait(POLL_S):
            self.checkpoint_if_due(db)
        db.close()

    def checkpoint_if_due(self, db: sqlite3.Connection) -> None:
        """Make a checkpoint if one is due. `db`: a connection of this thread's own."""
        written = self.written_bytes
        if written - self._folded < EVERY_BYTES:
            return
        try:
            fault_injection.hit("checkpoint.before")
            # Only a passive checkpoint does not take the loop's write lock; the next commit after
            # it writes from the beginning of the WAL.
            mode = "truncate" if self._wal.stat().st_size > RESTART_BYTES else "passive"
            db.execute(f"pragma wal_checkpoint({mode})").fetchone()
            self._folded = written
            fault_injection.hit("checkpoint.after")
            self.error = ""
        except (sqlite3.Error, OSError) as error:
            self.error = f"checkpoint failed: {error}"

    def extend(self, db: sqlite3.Connection) -> None:
        """Extend the WAL with zeros to EVERY_BYTES, unless the disk is nearly full. SQLite takes
        them for unused frames. `db`: a connection of this thread's own, whose write lock keeps the
        loop from appending meanwhile."""
        with contextlib.suppress(sqlite3.Error, OSError):
            db.execute("begin immediate")
            try:
                size = self._wal.stat().st_size
                free = shutil.disk_usage(self._wal.parent).free
                if size < EVERY_BYTES and free > MIN_FREE_BYTES:
                    with self._wal.open("r+b", buffering=0) as wal:
                        wal.seek(size)
                        wal.write(bytes(EVERY_BYTES - size))
            finally:
                db.execute("rollback")
            with self._wal.open("rb") as wal:
                os.fsync(wal.fileno())
