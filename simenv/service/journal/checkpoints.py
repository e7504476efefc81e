"""The thread that writes the WAL into the database, on a connection of its own.

An inline checkpoint would stall the event loop for 17 to 47 ms. Invariant: the loop waits for the
thread only when the service stops.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from pathlib import Path

from simenv.service import fault_injection

EVERY_BYTES = 16 * 2**20  # written since the last one
MIN_FREE_BYTES = 64 * EVERY_BYTES  # on the disk, for a WAL that is extended before it is written
RESTART_BYTES = 2**30  # a larger WAL is truncated, though that delays the loop
POLL_S = 0.5


class WalCheckpointer:
    """Thread that checkpoints the WAL, from `start` to `stop`. `error`: the last error, or "",
    which the loop reports. `extends`: extend a new WAL to the size that it has at a checkpoint. A
    commit that overwrites blocks needs half the time of one that appends them, because its fsync
    changes no metadata."""

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
