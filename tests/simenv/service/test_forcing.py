"""Which commits are fsynced, and what follows when that fails."""

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from service import ServiceHarness, spec

from simenv.errors import JournalError
from simenv.model import Event, TaskState
from simenv.service.journal import database
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.writer import Journal
from simenv.wire import codec
from simenv.wire.messages import client as m

FULL = 2


class Watched:
    """The journal's connection, asked for its level of synchronization at every commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.levels: list[int] = []

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        if query == "commit":
            self.levels.append(self._db.execute("pragma synchronous").fetchone()[0])
        return self._db.execute(query, values)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were forced to disk."""
    files: list[str] = []
    fdatasync = os.fdatasync

    def noted(descriptor: int) -> None:
        files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fdatasync(descriptor)

    monkeypatch.setattr(database.os, "fdatasync", noted)
    return files


def accept(journal: Journal) -> None:
    journal.accept(AcceptedRow(1, 1, 1.5, "~a", 0, b"digest", b"routes", b"body"))


def done(journal: Journal) -> None:
    journal.finish(1, [TaskState.DONE], b"body")


def drawn(journal: Journal) -> None:
    """Counts of a machine: they do not come again."""
    journal.finish(2, [TaskState.DONE], b"body", repeatable=False)


def failed(journal: Journal) -> None:
    journal.finish(1, [TaskState.DONE, TaskState.FAILED], b"body")


def ack(journal: Journal) -> None:
    journal.cursor("", "mine", 1)


def event(journal: Journal) -> None:
    journal.event(Event(1, 1.0, "kind", "subject", "message"))


def sent(journal: Journal) -> None:
    journal.sent([1])


Write = Callable[[Journal], None]


@pytest.mark.parametrize(
    ("durability", "writes", "forced"),
    [
        *(("accepted", (write,), True) for write in (accept, failed, ack, drawn)),
        ("accepted", (done, drawn), True),
        ("accepted", (done, accept), True),
        ("accepted", (done, ack), True),
        *(("accepted", (write,), False) for write in (done, event, sent)),
        *(("process", (write,), False) for write in (accept, failed, ack, done, drawn)),
        *(("power", (write,), True) for write in (accept, failed, ack, done, event)),
    ],
    ids=lambda value: "+".join(w.__name__ for w in value) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("before", [accept, done], ids=lambda write: f"after_{write.__name__}")
def test_commit_is_fsynced_as_durability_setting_requires(
    tmp_path: Path,
    synced: list[str],
    before: Write,
    durability: str,
    writes: tuple[Write, ...],
    forced: bool,
) -> None:
    journal = Journal(tmp_path / "j.db", durability)
    before(journal)
    journal.commit()
    journal._db.execute("delete from accepted")
    journal._db.execute("delete from finished")
    synced.clear()
    for write in writes:
        write(journal)
    journal.commit()
    assert synced == [str(tmp_path / "j.db-wal")] * forced


def test_journal_sync_is_fsynced(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", "accepted")
    done(journal)
    journal.commit()
    watched = Watched(journal._db)
    journal.database.db = watched  # type: ignore[assignment]
    journal.sync()
    assert watched.levels == [FULL]


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    harness = ServiceHarness(tmp_path, durability="accepted")
    harness.join()
    return harness


def break_disk(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Let the next `calls` calls of fdatasync fail. Returns the file sizes of later ones."""
    sizes: list[int] = []
    results = [OSError(errno.EIO, os.strerror(errno.EIO))] * calls
    fdatasync = os.fdatasync

    def failing(descriptor: int) -> None:
        if results:
            raise results.pop()
        sizes.append(os.fstat(descriptor).st_size)
        fdatasync(descriptor)

    monkeypatch.setattr(database.os, "fdatasync", failing)
    return sizes


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_submit_is_refused_and_removed_when_its_commit_cannot_be_fsynced(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    break_disk(monkeypatch, calls)
    assert bench.refused(spec(), key="~a").code == "journal"
    bench.step(2 * calls)
    accepted = bench.submit(spec(2), key="~a")
    bench.restart()
    assert list(bench.state.tasks) == [accepted.first]


def test_repetition_finds_no_refused_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j.db", "accepted")
    break_disk(monkeypatch, 1)
    journal.accept(AcceptedRow(1, 1, 1.5, "mine", 0, b"digest", b"routes", b"body"))
    fails(JournalError, "", journal.commit)
    assert journal.records.accepted.by_key("", "mine", 0) is None
    journal.commit()
    assert not journal.pending


def test_commit_that_was_not_fsynced_stays_pending_when_the_next_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j.db", "accepted")
    break_disk(monkeypatch, 1)
    failed(journal)
    fails(JournalError, "", journal.commit)
    accept(journal)
    monkeypatch.setattr(journal.database, "store", full_disk)
    fails(JournalError, "", journal.commit)
    assert journal.pending


def full_disk(statements: object, *, forced: bool) -> None:
    raise sqlite3.OperationalError(f"database or disk is full: {statements}, {forced}")


def test_result_waits_for_its_fsync(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(spec())
    tasks = bench.assigned()
    break_disk(monkeypatch, 3)
    assert bench.finish(tasks, TaskState.FAILED, codec.encode(m.Failure("engine", "x"))) == []
    bench.step(4)
    ((completion,),) = [each.results for each in bench.heard() if isinstance(each, m.Completed)]
    assert completion.task == tasks[0].task
    bench.restart()
    assert not bench.state.tasks


def test_unsynced_wal_is_moved_to_the_file(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = break_disk(monkeypatch, 1)
    bench.submit(spec())
    assert sizes[0] == 0
    bench.submit(spec(2), key="~b")
    assert sizes[-1] > 0
