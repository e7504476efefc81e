"""Checkpoints of the journal, and its replay."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest
from service import ServiceHarness, spec

from simenv.model import TaskState
from simenv.service.journal import checkpoints
from simenv.service.journal.checkpoints import EVERY_BYTES, WalCheckpointer
from simenv.service.journal.schema import ENDED, FINISHED, META
from simenv.service.journal.writer import Journal
from simenv.wire import codec


class Rig:
    """A journal that is written to, and its checkpointer, whose looks the test decides."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "j.db"
        self.wal = folder / "j.db-wal"
        self.journal = Journal(self.path, "process")
        self.checkpointer = WalCheckpointer(self.path)
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.words: list[str] = []
        self.db.set_trace_callback(self.words.append)
        self._seq = 1

    def write(self, size_bytes: int = EVERY_BYTES) -> None:
        for _ in range(8):
            self.journal.finish(self._seq, [TaskState.DONE], bytes(size_bytes // 8))
            self._seq += 1
            self.journal.commit()
        self.checkpointer.written_bytes = self.journal.written_bytes

    def checkpoint_if_due(self) -> None:
        self.checkpointer.checkpoint_if_due(self.db)
        assert self.checkpointer.error == ""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_wal_is_checkpointed_and_reused_and_no_write_lock_is_taken(rig: Rig) -> None:
    rig.write(EVERY_BYTES // 2)
    rig.checkpoint_if_due()
    assert rig.words == [], "it is small"
    rig.write()
    rig.checkpoint_if_due()
    assert rig.words == ["pragma wal_checkpoint(passive)"]
    assert rig.path.stat().st_size > EVERY_BYTES
    for _ in range(3):
        rig.write()
        rig.checkpoint_if_due()
    assert rig.wal.stat().st_size < 2 * EVERY_BYTES


def test_wal_beyond_its_limit_is_truncated(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "RESTART_BYTES", EVERY_BYTES // 2)
    rig.write()
    rig.checkpoint_if_due()
    assert rig.wal.stat().st_size == 0


def test_extended_wal_keeps_its_rows_and_its_size(rig: Rig) -> None:
    rig.write(2**20)
    rig.checkpointer.extend(rig.db)
    assert rig.wal.stat().st_size == EVERY_BYTES
    rig.write(2**20)
    assert rig.wal.stat().st_size == EVERY_BYTES
    copy = rig.path.with_name("copy.db")
    copy.write_bytes(rig.path.read_bytes())
    copy.with_name("copy.db-wal").write_bytes(rig.wal.read_bytes())  # as a crash leaves it
    with contextlib.closing(sqlite3.connect(copy)) as db:
        assert db.execute("select count(*) from finished").fetchone() == (16,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def test_wal_is_not_extended_on_full_disk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MIN_FREE_BYTES", 2**62)
    rig.write(2**20)
    size = rig.wal.stat().st_size
    rig.checkpointer.extend(rig.db)
    assert rig.wal.stat().st_size == size
    rig.write(2**20)  # the write lock is free


@pytest.mark.parametrize("task", [0, -1, 3, 2**40])
@pytest.mark.parametrize("place", ["ended", "finished"])
def test_end_of_a_task_that_nobody_knows_prevents_no_start(
    ready: ServiceHarness, place: str, task: int
) -> None:
    ready.submit(spec(), spec(2))
    ready.finish(ready.assigned())
    db = ready.journal._db
    if place == "ended":
        ready.step(5)  # with idle moments, in which the index is written
        db.execute(*ENDED.put(task, 1, 1))
    else:
        (row,) = db.execute(FINISHED.query).fetchall()
        values = dict(zip(FINISHED.names, row, strict=True))
        completed = codec.to_client(values["body"])
        odd = msgspec.structs.replace(completed.results[0], task=task)
        values["body"] = codec.encode(msgspec.structs.replace(completed, results=[odd]))
        db.execute(*FINISHED.put(*values.values()))
        db.execute("delete from ended")
        db.execute(*META.put("indexed", 0))
    ready.restart()
    assert ready.replayed.queued == (0 if place == "ended" else 2)


def test_restarted_service_knows_run_times_and_forecast_errors(ready: ServiceHarness) -> None:
    ready.submit(spec(), spec(2))
    route = next(iter(ready.loop.state.tasks.values())).route
    ready.finish(ready.assigned())
    # Nothing is learned from the first run of an engine in a process.
    ready.submit(spec(3), key="~third")
    ready.finish(ready.assigned())
    ready.step(5)
    learned = ready.loop.state.estimator.quality(route)
    assert learned.count > 0
    ready.restart()
    assert ready.loop.state.estimator.quality(route) == learned
    ready.journal._db.execute("update estimate set factor = 'much'")
    ready.restart()
    assert ready.scrubbed.rows == {"estimate": 1}
    assert ready.loop.state.estimator.quality(route).count == 0
