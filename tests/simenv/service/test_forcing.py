"""Which commits are fsynced: what SQLite itself has in force at the moment of each commit."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simenv.model import Event, TaskState
from simenv.service.journal.reader import AcceptedRow
from simenv.service.journal.writer import Journal

NORMAL, FULL = 1, 2


class Watched:
    """The journal's connection, asked for its level of synchronization at every commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.levels: list[int] = []

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        alone = query.startswith(("insert", "update")) and not self._db.in_transaction
        if alone or query == "commit":
            self.levels.append(self._db.execute("pragma synchronous").fetchone()[0])
        return self._db.execute(query, values)


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
    ("durability", "writes", "level"),
    [
        *(("accepted", (write,), FULL) for write in (accept, failed, ack, drawn)),
        ("accepted", (done, drawn), FULL),
        ("accepted", (done, accept), FULL),
        ("accepted", (done, ack), FULL),
        *(("accepted", (write,), NORMAL) for write in (done, event, sent)),
        *(("process", (write,), NORMAL) for write in (accept, failed, ack, done, drawn)),
        *(("power", (write,), FULL) for write in (accept, failed, ack, done, event)),
    ],
    ids=lambda value: "+".join(w.__name__ for w in value) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("before", [accept, done], ids=lambda write: f"after_{write.__name__}")
def test_commit_is_fsynced_as_durability_setting_requires(
    tmp_path: Path, before: Write, durability: str, writes: tuple[Write, ...], level: int
) -> None:
    journal = Journal(tmp_path / "j.db", durability)
    before(journal)
    journal.commit()
    journal._db.execute("delete from accepted")
    journal._db.execute("delete from finished")
    watched = Watched(journal._db)
    journal.database.db = watched  # type: ignore[assignment]
    for write in writes:
        write(journal)
    journal.commit()
    assert watched.levels == [level]


def test_journal_sync_is_fsynced(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", "accepted")
    done(journal)
    journal.commit()
    watched = Watched(journal._db)
    journal.database.db = watched  # type: ignore[assignment]
    journal.sync()
    assert watched.levels == [FULL]
