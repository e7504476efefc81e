"""The thread that copies the journal into the environment's home, for a start on another node.

`JournalBackup` copies a snapshot while the loop continues to write, and renames the copy when it is
complete. Invariant: the loop waits for the thread only when the service stops.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from simenv.service import fault_injection
from simenv.service.journal.schema import META

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
        """Make a last copy of all commits, mark it complete, and end the thread."""
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
                if last:
                    mark_complete(self._copy, complete=True)
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


def mark_complete(copy: Path, *, complete: bool) -> None:
    """State in a copy whether it has all commits of the start of the service that wrote it, which
    has ended. The mark is the start's number: it says nothing of later ones. Raises
    sqlite3.Error."""
    uri = f"{copy.absolute().as_uri()}?mode=rw"  # never creates one
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        row = db.execute("select value from meta where key = 'epoch'").fetchone()
        if not complete:
            db.execute(*META.remove("complete"))
        elif row is not None:
            db.execute(*META.put("complete", row[0]))


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
