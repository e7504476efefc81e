"""Checkpoints beside the loop: a thread with its own connection folds the WAL into the database.

Inline checkpoints cost the loop 17 to 47 ms; beside it, 8 ms at worst (CONTROL_PLANE.md sect. 1.5).
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from simenv.service import faults

EVERY_BYTES = 16 * 2**20  # written since the last one
RESTART_BYTES = 2**30  # from here the WAL is cut, though that holds up the loop
LOOK_S = 0.5


class Checkpointer:
    """Start with `start`, end with `stop`; errors are kept in `error` for the loop to report."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._wal = journal.with_name(journal.name + "-wal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.error = ""
        self.written_bytes = 0  # into the WAL, about; counted by the loop
        self._folded = 0  # of them

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        db = sqlite3.connect(self._journal, isolation_level=None)
        db.execute("pragma busy_timeout=20")
        while not self._stop.wait(LOOK_S):
            self.look(db)
        db.close()

    def look(self, db: sqlite3.Connection) -> None:
        """One checkpoint over `db`, a connection of this thread's own, if one is due."""
        written = self.written_bytes
        if written - self._folded < EVERY_BYTES:
            return
        try:
            faults.hit("checkpoint.before")
            # Only a passive one leaves the loop's write lock alone; the next commit after it
            # starts the WAL anew from its beginning.
            how = "truncate" if self._wal.stat().st_size > RESTART_BYTES else "passive"
            db.execute(f"pragma wal_checkpoint({how})").fetchone()
            self._folded = written
            faults.hit("checkpoint.after")
            self.error = ""
        except (sqlite3.Error, OSError) as error:
            self.error = f"checkpoint failed: {error}"
