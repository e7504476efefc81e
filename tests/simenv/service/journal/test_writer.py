"""The journal: what a commit promises, and what damage does."""

import errno
import random
import shutil
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import postgres_journal
import pytest
from failing import fails

from simenv.errors import JournalError
from simenv.model import Event, TaskState
from simenv.service import fault_injection
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.damage import damaged_rows
from simenv.service.journal.database import (
    FAILED_DISK,
    FULL_DISK,
    IN_USE,
    PostgresPlace,
    way_out_of,
)
from simenv.service.journal.schema import ACCEPTED
from simenv.service.journal.writer import Journal

DONE = TaskState.DONE
Place = Path | PostgresPlace


def row(first: int, count: int = 1, key: str = "~auto") -> AcceptedRow:
    return AcceptedRow(first, count, 1.5, key, first, b"digest", b"routes", b"body" * 50)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        is_file = request.param == "sqlite"
        yield tmp_path / "j.db" if is_file else stack.enter_context(postgres_journal.new_place())


def reopened(journal: Journal, durability: str = "accepted") -> Journal:
    """As after a crash: the old one is never closed; what the server learns is that its process
    has ended."""
    if not isinstance(journal.place, Path):
        journal.database.abandon()
    return Journal(journal.place, durability)


@pytest.mark.parametrize("durability", ["accepted", "process", "power"])
def test_committed_records_survive_crash(place: Place, durability: str) -> None:
    journal = Journal(place, durability)
    journal.accept(row(1, 3))
    journal.sent([1, 2])
    journal.finish(1, [DONE, TaskState.FAILED], b"completed")
    journal.event(Event(1, 2.0, "kind", "subject", "message"))
    journal.cursor("", "mine", 7)
    journal.commit()
    journal.accept(row(4))  # never committed
    reopening = reopened(journal, durability)
    assert reopening.epoch == journal.epoch + 1
    again = reopening.records
    assert [r.first for r in again.accepted.all()] == [1]
    assert list(again.finished.all()) == [(1, b"completed")]
    assert (again.finished.counts()[TaskState.FAILED], again.sent()) == (1, array("q", [1, 2]))
    assert (again.cursor_at("", "mine"), again.next_task(), again.last_seq()) == (7, 4, 2)


@pytest.mark.parametrize("nth", range(1, 6))
def test_failed_commit_drops_accepted_tasks_and_keeps_completions(place: Place, nth: int) -> None:
    fault_injection.install(f"journal.commit.before:{nth}:error")
    journal = Journal(place, "accepted")
    stored = []
    for number in range(1, 8):
        journal.accept(row(number))
        journal.finish(number, [DONE], b"result %d" % number)
        if number == nth:
            fails(JournalError, "No space left", journal.commit)
        else:
            journal.commit()
            stored.append(number)
    records = reopened(journal).records
    assert [r.first for r in records.accepted.all()] == stored
    assert len(list(records.finished.all())) == 7


def test_only_completions_that_cannot_be_repeated_are_synced_at_commit(place: Place) -> None:
    journal = Journal(place, "accepted")
    journal.finish(1, [DONE], b"x")
    journal.commit()
    assert journal.unsynced
    journal.finish(2, [TaskState.CANCELLED], b"x")
    journal.commit()
    assert not journal.unsynced
    journal.finish(3, [DONE], b"x")
    journal.commit()
    journal.sync()
    assert not journal.unsynced


def test_submission_key_of_user_is_indexed_and_automatic_key_is_not(place: Place) -> None:
    journal = Journal(place, "process")
    journal.accept(row(1, key="sweep"))
    journal.accept(row(2, key="~auto"))
    journal.commit()
    assert journal.records.accepted.by_key("", "sweep", 1) == (1, 1, b"digest")
    assert journal.records.accepted.by_key("", "~auto", 2) is None


def test_completions_are_read_from_any_sequence_number(place: Place) -> None:
    journal = Journal(place, "process")
    for first, count, owner in ((1, 4, ""), (5, 1, "ann"), (7, 3, ""), (10, 2, "ann")):  # 6: gone
        journal.finish(first, [DONE] * count, b"%d" % first, owner)
    journal.commit()
    after = journal.records.finished.after
    entries = [after(since) for since in range(12)]
    assert entries == [b"1"] * 4 + [b"5"] + [b"7"] * 4 + [b"10"] * 2 + [None]
    assert [after(since, "ann") for since in range(12)] == [b"5"] * 5 + [b"10"] * 6 + [None]
    assert after(0, "bob") is None
    before = journal.records.finished.before
    assert (before(10), before(7, "ann"), before(1)) == ((7, b"7"), (5, b"5"), None)
    finished = journal.records.finished
    assert (finished.newest_of("ann"), finished.newest_of("bob")) == (11, 0)
    assert finished.count_of("ann") == 3


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A journal with rows of 199 tasks."""
    journal = Journal(tmp_path / "good.db", "process")
    for number in range(1, 200):
        journal.accept(row(number))
        journal.finish(number, [DONE], b"completed %d" % number)
    journal.close()
    return tmp_path / "good.db"


def test_a_damaged_file_never_loses_rows_silently(good: Path) -> None:
    content, chance = good.read_bytes(), random.Random(3)
    refused = 0
    for _ in range(300):
        place = chance.randrange(len(content))
        flipped = bytes([content[place] ^ (1 << chance.randrange(8))])
        good.write_bytes(content[:place] + flipped + content[place + 1 :])
        refused += not _whole_or_refused(good)
    assert refused > 30


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.7, 0.999])
def test_truncated_file_never_loses_rows_silently(good: Path, share: float) -> None:
    with good.open("r+b") as file:
        file.truncate(int(good.stat().st_size * share))
    assert not _whole_or_refused(good) or share > 0.99


def _whole_or_refused(path: Path) -> bool:
    """True if it opens with every row; False if it is refused; fails if rows are missing."""
    refusal = ""
    try:
        journal = Journal(path, "process")
        rows = list(journal.records.accepted.all())
        broken = [row[0] for row in damaged_rows(journal.records, ACCEPTED)]
        bodies = [body for _, body in journal.records.finished.all()]
    except JournalError as error:
        refusal = str(error)
    for name in (f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)
    if refusal:
        assert str(path) in refusal
        return False
    # A damaged row is passed over, and said: a start ends its tasks.
    found = [r.first for r in rows]
    assert sorted({*range(1, 200)} - {*found}) == sorted(broken), "rows are missing"
    assert {r.body for r in rows} == {b"body" * 50}
    assert bodies == [b"completed %d" % n for n in range(1, 200)]
    journal._db.close()
    return True


@pytest.mark.parametrize("number", [2, 99])
def test_a_file_of_another_format_is_refused(tmp_path: Path, number: int) -> None:
    journal = Journal(tmp_path / "j.db", "process")
    journal._db.execute(f"pragma user_version={number}")
    journal.close()
    shutil.copy(tmp_path / "j.db", tmp_path / "k.db")
    fails(JournalError, f"format {number}", Journal, tmp_path / "k.db", "process")


def test_a_good_journal_that_cannot_be_opened_is_not_to_be_moved_away(tmp_path: Path) -> None:
    """As on a file system that is read-only, also for root."""
    folder = tmp_path / "taken"
    folder.mkdir()
    error = fails(JournalError, "unable to open", Journal, folder, "accepted")
    assert (error.hint or "").startswith(f"this user must be able to write {tmp_path}")
    (tmp_path / "damaged").write_bytes(b"no database" * 1000)
    error = fails(JournalError, "cannot be opened", Journal, tmp_path / "damaged", "accepted")
    assert "is it damaged? simenv up continues" in (error.hint or "")


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "no space"), FULL_DISK),
        (sqlite_error(sqlite3.SQLITE_FULL), FULL_DISK),
        (OSError(errno.EIO, "input/output error"), FAILED_DISK),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), FAILED_DISK),
        (sqlite_error(sqlite3.SQLITE_BUSY), IN_USE),
    ],
)
def test_remedy_fits_error_and_keeps_journal(
    tmp_path: Path, error: Exception, expected: str
) -> None:
    journal = Journal(tmp_path / "journal.sqlite", "accepted")
    assert journal._failed(error).hint == expected
    assert way_out_of(error, tmp_path / "journal.sqlite") == expected
    journal.close()
