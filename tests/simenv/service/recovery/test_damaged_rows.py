"""A fault in one row of the journal costs that row, and no number is given twice."""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from failing import fails
from postgres_journal import new_place
from service import ServiceHarness, spec

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError
from simenv.model import TaskState, task_number
from simenv.service.journal import tables
from simenv.service.journal.choice import choose_journal
from simenv.service.journal.copying import copy_into
from simenv.service.journal.marks import GAP, IdMark
from simenv.service.journal.writer import Journal
from simenv.wire import codec
from simenv.wire.messages import client as m
from testbed import damaged_journal

DOCS = Path(__file__).parents[4] / "docs" / "reference" / "journal_damage.md"


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceHarness]:
    if request.param == "sqlite":
        yield ServiceHarness(tmp_path)
        return
    with new_place() as place:
        yield ServiceHarness(tmp_path, place=place)


def with_ended_and_waiting(bench: ServiceHarness) -> None:
    """Tasks 1 and 2 have ended, 3 and 4 wait."""
    bench.join()
    bench.submit(spec(1), key="~a")
    bench.submit(spec(2), key="~b")
    bench.finish(bench.assigned())
    bench.submit(spec(3), key="~c")
    bench.submit(spec(4), key="~d")


def damage(bench: ServiceHarness, first: int, column: str = "body") -> None:
    query = f"select {column} from accepted where first = {first}"
    (value,) = bench.journal._db.execute(query).fetchone()
    changed = bytes([value[0] ^ 1]) + value[1:] if isinstance(value, bytes) else value + "x"
    bench.change(f"update accepted set {column} = ? where first = ?", changed, first)


def failure(bench: ServiceHarness, task: int) -> m.Failure:
    found = bench.loop.completions.find(task)
    assert found is not None
    assert m.STATES[found[1].state] is TaskState.FAILED
    return codec.failure(found[1].payload)


def test_damaged_submission_costs_its_waiting_tasks_alone(bench: ServiceHarness) -> None:
    with_ended_and_waiting(bench)
    damage(bench, 1)
    damage(bench, 3)
    bench.restart()
    assert (bench.scrubbed.tasks, bench.scrubbed.kept) == ([3], [1])
    assert bench.scrubbed.rows == {"accepted": 2}
    texts = dict(bench.scrubbed.messages())
    assert "t-3" in texts["task.damaged"]
    assert "t-1" in texts["journal.damaged"]
    assert failure(bench, 3).reason == "damaged"
    done = bench.loop.completions.find(1)
    assert done is not None
    assert m.STATES[done[1].state] is TaskState.DONE
    assert set(bench.loop.state.tasks) == {4}
    assert bench.submit(spec(5), key="~e").first == 5
    kept = bench.journal.records.row("select count(*) from quarantine where name = 'accepted'")
    assert kept == (2,)
    bench.restart()
    assert bench.scrubbed.rows == {}
    assert failure(bench, 3).reason == "damaged"


def test_owner_of_a_damaged_submission_is_told_unless_the_owner_is_what_is_damaged(
    bench: ServiceHarness,
) -> None:
    with_ended_and_waiting(bench)
    damage(bench, 3, "owner")
    damage(bench, 4, "key")
    bench.restart()
    assert bench.scrubbed.tasks == [3, 4]
    assert bench.journal.records.accepted.owner_of(3) == ""


@pytest.mark.parametrize(
    ("statement", "by"),
    [
        ("update accepted set owner = owner || ?", "x"),
        ("update accepted set at = at + ?", 1.0),
        ("update accepted set key = key || ?", "x"),
        ("update accepted set count = count + ?", 2**40),
        ("update accepted set first = first + ?", 2**45),
        ("update accepted set first = first + ?", 64),
    ],
)
def test_each_column_of_the_newest_submission_costs_all_its_tasks_and_no_number(
    bench: ServiceHarness, statement: str, by: object
) -> None:
    bench.submit(*(spec(k) for k in range(10)), key="~a")
    bench.submit(*(spec(k) for k in range(10)), key="~b")
    bench.change(f"{statement} where first = 11", by)
    bench.restart()
    assert bench.scrubbed.tasks == list(range(11, 21))
    assert set(bench.loop.state.tasks) == set(range(1, 11))
    assert bench.submit(spec(0), key="~c").first == 21
    bench.restart()
    assert bench.scrubbed.tasks == []


@pytest.mark.parametrize("how", ["deleted", "old", "empty"])
def test_numbers_go_on_beyond_a_journal_that_was_lost(tmp_path: Path, how: str) -> None:
    bench = ServiceHarness(tmp_path)
    bench.submit(spec(0), key="~0")
    old = tmp_path / "old.db"
    copy_into(bench.journal.database.db, old)
    with_ended_and_waiting(bench)
    last_seq, epoch = bench.journal.records.last_seq(), bench.journal.epoch
    bench.journal.abandon()
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    if how == "old":
        shutil.copyfile(old, tmp_path / "journal.db")
    elif how == "empty":
        Journal(tmp_path / "other.db", "process").close()
        shutil.copyfile(tmp_path / "other.db", tmp_path / "journal.db")
    bench.restart()
    first = 2 if how == "old" else 1
    assert bench.scrubbed.lost == (first, 5)
    assert bench.scrubbed.tasks == list(range(first, 6))
    assert f"{6 - first} tasks" in dict(bench.scrubbed.messages())["journal.dropped"]
    assert bench.submit(spec(9), key="~z").first == 6
    assert bench.journal.epoch > epoch
    assert bench.loop.completions.next_seq > last_seq


def test_bound_of_the_mark_holds_where_the_machine_was_started_since(tmp_path: Path) -> None:
    mark = IdMark(tmp_path / "mark")
    mark.note({"task": 7, "epoch": 1})
    mark.abandon()
    assert (IdMark(tmp_path / "mark").floors["task"], mark.is_exact) == (7, True)
    data = bytearray((tmp_path / "mark").read_bytes())
    data[-5] ^= 1  # of the boot
    (tmp_path / "mark").write_bytes(data)
    damaged = IdMark(tmp_path / "mark", read_only=True)
    assert "is damaged" in damaged.error
    mark = IdMark(tmp_path / "other")
    mark._boot = b"x" * 36
    mark.note({"task": 7})
    mark.abandon()
    after = IdMark(tmp_path / "other", read_only=True)
    assert (after.is_exact, after.floors["task"]) == (False, 1_007)


@pytest.mark.parametrize("kind", ["folder", "fifo", "damaged"])
def test_mark_that_cannot_be_read_costs_a_gap_and_no_start(tmp_path: Path, kind: str) -> None:
    place, mark, copies = tmp_path / "journal.db", tmp_path / "mark", tmp_path / "copies" / "drill"
    if kind == "folder":
        mark.mkdir()
    elif kind == "fifo":
        os.mkfifo(mark)
    else:
        mark.write_bytes(b"damaged")
    journal = Journal(place, "process", mark)
    assert journal.mark is not None
    assert str(mark) in journal.mark.error
    assert journal.records.next_task() == 1 + GAP
    journal.mark.note({"task": 1 + GAP + 7})
    journal.close()
    with_copy = Journal(place, "process", mark, copies)
    assert with_copy.mark is not None
    with_copy.mark.note({"task": 1 + GAP + 9})
    with_copy.abandon()
    after = Journal(place, "process", mark, copies)
    assert 1 + GAP + 9 <= after.records.next_task() < 1 + 3 * GAP
    after.close()


def test_bounds_are_stored_by_another_thread_before_they_are_reached(tmp_path: Path) -> None:
    mark, waiting = IdMark(tmp_path / "mark"), list[Callable[[], None]]()
    mark.later = waiting.append
    mark.note({"task": 1})
    assert not waiting, "the first bound is stored at once"
    for number in range(2, 600):
        mark.note({"task": number})
    (job,) = waiting
    assert mark._synced["task"] == 1_001
    job()
    assert mark._synced["task"] > 1_400
    before = mark._synced["task"]
    mark.note({"task": before + 1})  # the thread is late
    assert mark._synced["task"] > before


def test_end_of_the_service_leaves_no_gap(tmp_path: Path) -> None:
    mark = IdMark(tmp_path / "mark")
    mark._boot = b"x" * 36
    mark.note({"task": 7})
    mark.close()
    assert IdMark(tmp_path / "mark", read_only=True).floors["task"] == 7


def test_what_restore_will_drop_is_what_it_drops(tmp_path: Path) -> None:
    """The hint of the refusal, word for word."""
    paths = EnvironmentPaths(tmp_path / "home", tmp_path / "state")
    config = damaged_journal.settings("drill")
    damaged_journal.fill(paths, config)
    for path in paths.state.glob("journal.db*"):
        path.unlink()
    error = fails(ConfigError, "there is no live journal", choose_journal, paths, resume=False)
    said = re.search(
        r"simenv up --restore uses the copy, which drops (\d+) tasks: (\S+) to (t-\w+);", error.hint
    )
    assert said is not None, error.hint
    assert "from the copy" in choose_journal(paths, resume=True)
    journal = Journal(paths.journal, "process", paths.mark)
    missing = journal.missing
    journal.close()
    expected = (len(missing), missing.start, missing.stop - 1)
    assert (int(said[1]), task_number(said[2]), task_number(said[3])) == expected


def test_tables_of_an_early_build_with_the_same_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    Journal(path, "process").close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("drop table event")
        db.execute("create table event(seq integer primary key, body blob)")
        db.execute("pragma application_id=0")
    assert choose_journal(EnvironmentPaths(tmp_path, tmp_path), resume=False) == ""
    error = fails(JournalError, "tables of another build", Journal, path, "process")
    assert "version that wrote it" in error.hint


def test_each_table_says_what_a_damaged_row_costs() -> None:
    text = " ".join(DOCS.read_text().split())
    for table in tables.ALL:
        assert table.cost, table.name
        assert f"| `{table.name}` | {table.cost} |" in text


def check(outcomes: Iterator[tuple[str, str, damaged_journal.Found]]) -> int:
    count = 0
    for table, kind, found in outcomes:
        assert found.is_good, (table, kind, found)
        count += 1
    return count


def test_a_fault_in_any_table_prevents_no_start(tmp_path: Path) -> None:
    assert check(damaged_journal.faults(tmp_path, 1, ("bit",))) == len(tables.ALL)


@pytest.mark.parametrize("kind", ["zeros", "garbage", "cut"])
def test_a_lost_page_costs_what_is_on_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [each for each in tables.ALL if each.name in ("meta", "accepted", "finished", "ended")]
    monkeypatch.setattr(damaged_journal, "ALL", few)
    assert check(damaged_journal.faults(tmp_path, 2, (kind,))) == 8


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_faults_at_ten_places_of_each_table(tmp_path: Path) -> None:
    expected = 10 * len(tables.ALL) * len(damaged_journal.KINDS)
    assert check(damaged_journal.faults(tmp_path, 10)) == expected


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_faults_in_rows_of_postgresql(tmp_path: Path) -> None:
    with new_place() as place:
        outcomes = damaged_journal.faults_of_rows(tmp_path, place.url, place.environment, 5)
        assert check(outcomes) == 5 * len(tables.ALL)
