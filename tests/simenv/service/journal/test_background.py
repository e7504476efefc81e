"""The copy of the journal, and which of both a start goes on with."""

import fcntl
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from failing import fails
from waiting import until

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError, NotFoundError
from simenv.model import TaskState
from simenv.service import fault_injection
from simenv.service.journal import copying
from simenv.service.journal.choice import choose_journal, read_header
from simenv.service.journal.copying import JournalBackup
from simenv.service.journal.writer import Journal
from simenv.service.ownership import take_lock


@pytest.fixture
def paths(tmp_path: Path) -> EnvironmentPaths:
    (tmp_path / "home").mkdir()
    (tmp_path / "state").mkdir()
    return EnvironmentPaths(tmp_path / "home", tmp_path / "state")


def journal(paths: EnvironmentPaths, ends: int = 3) -> Journal:
    """So many ends more than there were."""
    outcome = Journal(paths.journal, "process")
    last = outcome.records.last_seq()
    for seq in range(last + 1, last + ends + 1):
        outcome.finish(seq, [TaskState.DONE], b"completed %d" % seq)
    outcome.commit()
    return outcome


def copied(paths: EnvironmentPaths, error: str | None = None) -> JournalBackup:
    backup = JournalBackup(paths.journal, paths.copy)
    backup.start()
    backup.stop()
    assert error is not None or (backup.error, backup.copies) == ("", 1)
    return backup


def first_copy(paths: EnvironmentPaths) -> JournalBackup:
    """A backup that goes on, and has made one copy."""
    backup = JournalBackup(paths.journal, paths.copy, every_s=0.01)
    backup.start()
    until(paths.copy.exists)
    return backup


def ends(path: Path) -> int:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    (value,) = db.execute("select count(*) from finished").fetchone()
    db.close()
    return int(value)


def test_backup_contains_all_commits_before_stop(paths: EnvironmentPaths) -> None:
    live = journal(paths)
    copied(paths)
    assert ends(paths.copy) == 3
    assert paths.copy.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in paths.home.iterdir()] == [paths.copy.name], "no WAL, no leftovers"
    live.close()


def test_commits_during_backup(paths: EnvironmentPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    live = journal(paths)
    for seq in range(4, 300):
        live.finish(seq, [TaskState.DONE], bytes(20_000))
    live.commit()
    pauses = []

    def pause(_self: JournalBackup, _status: int, _remaining: int, total: int) -> None:
        pauses.append(total)
        assert len(pauses) < 100, "every commit has it begin anew"
        other = sqlite3.connect(paths.journal, isolation_level=None)
        other.execute("delete from finished where seq = ?", (len(pauses),))
        other.close()

    monkeypatch.setattr(JournalBackup, "_pause", pause)
    copied(paths)
    assert len(pauses) > 3
    assert ends(paths.copy) == 299
    live.close()


@pytest.mark.parametrize("point", ["copy.before", "copy.after"])
def test_failed_backup_leaves_a_complete_copy(paths: EnvironmentPaths, point: str) -> None:
    live = journal(paths)
    copied(paths)
    fault_injection.install(f"{point}:1:error")
    live.finish(4, [TaskState.DONE], b"more")
    live.commit()
    assert "could not be copied" in copied(paths, "").error
    assert ends(paths.copy) == (3 if point == "copy.before" else 4)
    live.close()


def test_same_journal_stays(paths: EnvironmentPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    live = journal(paths)
    done = threading.Event()
    real = copying.copy_into

    def copy_into(*values: object) -> None:
        real(*values)  # type: ignore[arg-type]
        done.set()

    monkeypatch.setattr(copying, "copy_into", copy_into)
    backup = JournalBackup(paths.journal, paths.copy)
    backup.start()
    backup.request_copy()
    assert done.wait(20)
    backup.stop()
    assert backup.copies == 1
    live.close()


def test_start_without_journal_and_backup_is_empty_and_no_resume(paths: EnvironmentPaths) -> None:
    assert choose_journal(paths, resume=False) == ""
    fails(NotFoundError, "neither", choose_journal, paths, resume=True)


def test_start_with_only_a_copy_of_ended_service_continues_it(paths: EnvironmentPaths) -> None:
    journal(paths).close()
    copied(paths)
    paths.journal.unlink()
    assert choose_journal(paths, resume=False).startswith(f"from the copy {paths.copy}, ")
    assert ends(paths.journal) == 3
    for path in (paths.copy, paths.journal):
        assert not read_header(path).is_complete, "this start has no copy of its own yet"


@pytest.mark.parametrize("was_complete", [False, True])
def test_start_with_older_copy_needs_resume(paths: EnvironmentPaths, was_complete: bool) -> None:
    live = journal(paths)
    if was_complete:
        copied(paths)
        assert choose_journal(paths, resume=False) == "", "the next start, whose machine is lost"
    else:
        first_copy(paths)
    live.close()
    paths.journal.unlink()
    error = fails(ConfigError, "no live journal", choose_journal, paths, resume=False)
    assert "simenv up --restore" in error.hint
    assert not paths.journal.exists()
    assert choose_journal(paths, resume=True).startswith(f"from the copy {paths.copy}, ")
    assert ends(paths.journal) == 3
    assert paths.copy.exists()


def test_copy_of_a_restored_journal_is_not_complete(paths: EnvironmentPaths) -> None:
    journal(paths).close()
    copying.mark_complete(paths.journal, complete=True)
    live = journal(paths)  # the start that goes on with it
    backup = first_copy(paths)
    assert not read_header(paths.copy).is_complete
    backup.stop()
    assert read_header(paths.copy).is_complete
    live.close()


def test_newer_live_journal_is_used_instead_of_backup(paths: EnvironmentPaths) -> None:
    live = journal(paths)
    copied(paths)
    live.finish(4, [TaskState.DONE], b"later")
    live.close()
    assert choose_journal(paths, resume=False) == ""
    assert choose_journal(paths, resume=True) == f"from the live journal {paths.journal}"
    assert ends(paths.journal) == 4


@pytest.mark.parametrize("is_complete", [False, True])
def test_backup_of_later_start_replaces_older_live_journal(
    paths: EnvironmentPaths, is_complete: bool
) -> None:
    journal(paths, ends=9).close()
    elsewhere = EnvironmentPaths(paths.home, paths.home.with_name("other"))
    elsewhere.state.mkdir()
    journal(elsewhere, ends=1).close()
    journal(elsewhere, ends=1).close()  # its second start
    copied(elsewhere)
    if not is_complete:
        copying.mark_complete(paths.copy, complete=False)
        fails(ConfigError, r"start 1.*start 2", choose_journal, paths, resume=False)
    assert choose_journal(paths, resume=not is_complete).startswith("from the copy")
    assert ends(paths.journal) == 2
    (aside,) = paths.state.glob("*.of-start-1")
    assert ends(aside) == 9, "what is not taken is kept"


def test_damaged_backup_does_not_prevent_start_from_live_journal(paths: EnvironmentPaths) -> None:
    journal(paths).close()
    paths.copy.write_bytes(b"not a database" * 1000)
    assert choose_journal(paths, resume=True) == f"from the live journal {paths.journal}"


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000])
def test_journal_of_which_nothing_is_left_continues_from_its_copy(
    paths: EnvironmentPaths, content: bytes
) -> None:
    journal(paths).close()
    copied(paths)
    before = read_header(paths.copy)
    paths.journal.write_bytes(content)
    assert "rows of its copy" in choose_journal(paths, resume=False)
    after = read_header(paths.journal)
    assert (after.epoch, after.next_task) == (before.epoch, before.next_task)
    (kept,) = paths.state.glob("journal.db.damaged-*")
    assert kept.read_bytes() == content


def held(path: Path, node: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, f"pid 4711 on {node}\n".encode())
    return descriptor


def test_lock_held_on_same_machine_is_refused_even_with_force(tmp_path: Path) -> None:
    descriptor = held(tmp_path / "lock", os.uname().nodename)
    for force in (False, True):
        fails(JournalError, "pid 4711 on", take_lock, tmp_path / "lock", force)
    os.close(descriptor)
    os.close(take_lock(tmp_path / "lock"))


def test_lock_of_another_machine_is_taken_only_with_force(tmp_path: Path) -> None:
    descriptor = held(tmp_path / "lock", "elsewhere")
    error = fails(JournalError, "pid 4711 on elsewhere", take_lock, tmp_path / "lock")
    assert "--force-lock" in error.hint
    lock = take_lock(tmp_path / "lock", force=True)
    assert f"pid {os.getpid()}" in (tmp_path / "lock").read_text()
    os.close(lock)
    os.close(descriptor)
