"""Checkpoints beside the loop: a thread with its own connection folds the WAL into the database.

Inline checkpoints cost the loop 17 to 47 ms; beside it, 8 ms at worst (CONTROL_PLANE.md sect. 1.5).
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from simenv.service import faults

EVERY_BYTES = 16 * 2**20
RESTART_BYTES = 2**30  # from here the WAL is reset even under load
LOOK_S = 0.5


class Checkpointer:
    """Start with `start`, end with `stop`; errors are kept in `error` for the loop to report."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._wal = journal.with_name(journal.name + "-wal")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.error = ""
        self.idle = True  # set by the loop: a reset of the WAL disturbs nobody now

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        db = sqlite3.connect(self._journal, isolation_level=None)
        db.execute("pragma busy_timeout=20")
        done = 0  # WAL bytes folded in so far
        while not self._stop.wait(LOOK_S):
            try:
                size = self._wal.stat().st_size
                done = min(done, size)
                if size - done < EVERY_BYTES and not (self.idle and size > EVERY_BYTES):
                    continue
                faults.hit("checkpoint.before")
                reset = self.idle or size > RESTART_BYTES
                db.execute(
                    f"pragma wal_checkpoint({'truncate' if reset else 'passive'})"
                ).fetchone()
                done = self._wal.stat().st_size
                faults.hit("checkpoint.after")
                self.error = ""
            except (sqlite3.Error, OSError) as error:
                self.error = f"checkpoint failed: {error}"
        db.close()
