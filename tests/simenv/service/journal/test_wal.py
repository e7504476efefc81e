"""Damage of the journal's file and of its log costs what it hit, and is said."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from simenv.config import EnvironmentPaths
from simenv.service.journal import wal, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.choice import choose_journal
from simenv.service.journal.copying import copy_into

TASKS = 60
PLACES = 20


def environment(folder: Path) -> EnvironmentPaths:
    for each in (folder, folder / "state"):
        each.mkdir(mode=0o700, exist_ok=True)
    return EnvironmentPaths(folder, folder / "state")


def accept(journal: writer.Journal, first: int) -> None:
    body = random.Random(first).randbytes(3_000)
    journal.accept(AcceptedRow(first, 1, 0.0, f"k{first}", 0, b"", b"", body, "", ""), None)
    journal.commit()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentPaths:
    """The files of a service that was killed: most tasks are in the log alone, some in the copy."""
    paths = environment(tmp_path_factory.mktemp("killed"))
    journal = writer.Journal(paths.journal, "accepted")
    for first in range(1, TASKS + 1):
        accept(journal, first)
        if first == TASKS // 2:
            copy_into(journal.database.db, paths.copy)
    kept = copied(paths, tmp_path_factory.mktemp("kept"))
    journal.database.abandon()
    return kept


def copied(paths: EnvironmentPaths, folder: Path) -> EnvironmentPaths:
    result = environment(folder / "trial")
    for source, target in ((paths.state, result.state), (paths.home, result.home)):
        for path in source.iterdir():
            if path.is_file():
                shutil.copy2(path, target / path.name)
    return result


def tasks_in(paths: EnvironmentPaths) -> list[int]:
    journal = writer.Journal(paths.journal, "accepted")
    try:
        return [row.first for row in journal.records.accepted.all()]
    finally:
        journal.close()


def damage(path: Path, at: int, count: int = 8) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        before = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0x5A for byte in before))


def log_of(paths: EnvironmentPaths) -> Path:
    return paths.journal.with_name(paths.journal.name + "-wal")


def test_intact_log_is_read_to_its_end(killed: EnvironmentPaths, tmp_path: Path) -> None:
    paths = copied(killed, tmp_path)
    assert wal.lost_commits(paths.journal) == 0
    assert choose_journal(paths, resume=False) == ""
    assert tasks_in(paths) == list(range(1, TASKS + 1))


def test_transaction_cut_off_by_a_kill_is_no_damage(
    killed: EnvironmentPaths, tmp_path: Path
) -> None:
    paths = copied(killed, tmp_path)
    os.truncate(log_of(paths), log_of(paths).stat().st_size - 4_096)
    with log_of(paths).open("ab") as log:
        log.write(bytes(4_096))  # the frame was announced, and its page not written
    assert wal.lost_commits(paths.journal) == 0
    assert tasks_in(paths) == list(range(1, TASKS))


@pytest.mark.parametrize("place", range(PLACES))
def test_damage_in_the_log_costs_the_row_that_it_hit(
    killed: EnvironmentPaths, tmp_path: Path, place: int
) -> None:
    paths = copied(killed, tmp_path)
    size = log_of(paths).stat().st_size
    at = 0 if place == 0 else random.Random(place).randrange(32, size - 8)
    damage(log_of(paths), at)
    lost = wal.lost_commits(paths.journal)
    chosen = choose_journal(paths, resume=False)
    found = tasks_in(paths)
    if lost:
        assert "intact rows of the damaged journal" in chosen
        assert list(paths.state.glob(f"{paths.journal.name}*.damaged-*"))
    # Without that the last commit, or what no frame uses, was hit.
    assert len(found) >= TASKS - 1


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("size", [1, 64, 4_096])
def test_damage_in_the_file_costs_the_rows_of_one_page(
    killed: EnvironmentPaths, tmp_path: Path, place: int, size: int
) -> None:
    paths = copied(killed, tmp_path)
    if place % 2:
        writer.Journal(paths.journal, "accepted").close()  # all is in the database
    path = paths.journal if place % 2 else paths.copy
    pages = path.stat().st_size // 4_096
    at = random.Random(place).randrange(pages) * 4_096
    damage(path, at + (random.Random(place).randrange(4_000) if size < 4_096 else 0), size)
    choose_journal(paths, resume=False)
    found = tasks_in(paths)
    # Of half of the tasks the copy has the rows of a lost page.
    assert len(set(range(1, TASKS // 2 + 1)) - set(found)) <= (size < 4_096)
    assert len(found) >= TASKS - 4


def test_rows_that_only_the_copy_has_are_taken_from_it(
    killed: EnvironmentPaths, tmp_path: Path
) -> None:
    paths = copied(killed, tmp_path)
    for path in paths.state.glob(f"{paths.journal.name}*"):
        path.unlink()
    journal = writer.Journal(paths.journal, "accepted")
    accept(journal, 1)
    journal.close()
    assert "1 tasks, and its copy" in choose_journal(paths, resume=False)
    assert tasks_in(paths) == list(range(1, TASKS // 2 + 1))


def test_damage_after_a_start_of_the_machine_may_be_a_power_failure(
    killed: EnvironmentPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = copied(killed, tmp_path)
    damage(log_of(paths), log_of(paths).stat().st_size // 2 + 100_000)
    monkeypatch.setattr(wal, "was_used_since_boot", lambda _: False)
    choose_journal(paths, resume=False)
    assert TASKS // 2 <= len(tasks_in(paths)) < TASKS
