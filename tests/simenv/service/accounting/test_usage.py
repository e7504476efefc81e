"""Usage: each end is counted once, in the hour and under the key that it belongs to."""

import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from failing import fails
from multi_user_harness import MultiUserHarness
from service import RESULT, ServiceHarness, spec

from simenv.config import Config
from simenv.errors import JournalError
from simenv.model import Origin, TaskState, Timing
from simenv.model.accounts import USAGE_KEYS, Account, AccountTree, UsageRow, Used
from simenv.scheduler.core import Route, SubmitBatch, TaskEnded, TaskRecord
from simenv.service.accounting import usage as ledger
from simenv.service.accounting.usage import UsageLedger
from simenv.service.journal import tables
from simenv.service.journal.pruning import JournalPruner
from simenv.service.journal.writer import Journal
from simenv.wire import codec
from simenv.wire.messages import accounting, client as m
from simenv.wire.messages.history import GetHistory, History, LogRow

JOURNALS = ("sqlite", "postgresql")

OPTIONS = {"durability": "process"}
HOUR_S, DAY_S = 3_600, 86_400
RUN_US, WAIT_US = 1_000, 50
TREE = AccountTree(
    {
        "physics": Account(coordinators=("boss",)),
        "chem": Account(parent="physics", users=("ana",)),
        "bio": Account(users=("ben",)),
    }
)


def usage(bench: ServiceHarness, by: tuple[str, ...] = (), peer: object = None) -> list[UsageRow]:
    return bench.get(accounting.Usage, accounting.GetUsage(3, by), peer).rows  # type: ignore[arg-type]


def total(bench: ServiceHarness) -> tuple[int, int, int, int]:
    """Tasks, shots, slot and waiting microseconds of all."""
    rows = usage(bench)
    assert len(rows) < 2
    return next(((r.tasks, r.shots, r.used.slot_us, r.wait_us) for r in rows), (0, 0, 0, 0))


def history(bench: ServiceHarness) -> list[LogRow]:
    rows: list[LogRow] = []
    page = bench.get(History, GetHistory(3))
    while rows.extend(page.rows) or not page.complete:
        page = bench.get(History, GetHistory(3, page.last))
    return rows


def summed(rows: list[LogRow]) -> tuple[int, int, int, int]:
    done = [row for row in rows if row.state is TaskState.DONE]
    return (
        len(rows), sum(row.shots * row.bindings for row in done),
        sum(row.used.slot_us for row in rows), sum(row.timing.queued_us for row in rows),
    )  # fmt: skip


def finished(bench: ServiceHarness, tasks: list[m.AssignedTask], slots: int = 2) -> None:
    """Let the worker end tasks, each after another time."""
    results = (ended(task, run_us=RUN_US + task.task) for task in tasks)
    bench.send_results(*results)


def ended(task: m.AssignedTask, payload: bytes = RESULT, run_us: int = RUN_US) -> m.AttemptResult:
    crc = zlib.crc32(payload)
    return m.AttemptResult(task.task, task.attempt, 2, payload, crc, start_us=1, run_us=run_us)


def test_sums_equal_history_with_cancels_failures_and_lost_attempts(ready: ServiceHarness) -> None:
    ready.submit(*(spec(seed, shots=100 + seed) for seed in range(6)), key="~a")
    tasks = ready.assigned()
    finished(ready, tasks[:2])
    ready.finish(tasks[2:3], TaskState.FAILED, codec.encode(m.Failure("engine", "no")))
    ready.paper.kill("main-0")  # the others are lost, and run again
    ready.step(4)
    ready.submit(*(spec(seed) for seed in range(6)), key="~b")
    ready.say(m.Cancel(4, [8, 9, 10]))
    ready.join()
    while tasks := ready.assigned():
        finished(ready, tasks)
    rows = history(ready)
    assert {row.state for row in rows} == {"DONE", "FAILED", "CANCELLED"}
    assert max(row.attempts for row in rows) == 2
    assert total(ready) == summed(rows)
    assert total(ready)[0] == 12
    (row,) = usage(ready)
    assert row.units == pytest.approx(sum(each.units for each in rows), rel=1e-12)
    assert row.units > 0


def test_sums_are_of_each_user_pool_and_engine(tmp_path: Path) -> None:
    bench = MultiUserHarness(tmp_path)
    bench.join()
    for peer, count in ((bench.ana, 2), (bench.ben, 3), (bench.peer, 1)):
        bench.order(peer, count=count)
    while tasks := bench.assigned():
        finished(bench, tasks)
    rows = usage(bench, ("user", "pool", "engine"))
    assert [(row.key, row.tasks) for row in rows] == [
        (("", "main", "statevector"), 1),
        (("ana", "main", "statevector"), 2),
        (("ben", "main", "statevector"), 3),
    ]
    (own,) = usage(bench, ("engine", "user"), bench.ana)
    assert own.key == ("statevector", "ana")
    assert sum(row.tasks for row in usage(bench, USAGE_KEYS, bench.ops)) == 6


def test_ends_are_counted_once_after_crash_at_any_moment(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2), spec(3))
    tasks = ready.assigned()
    finished(ready, tasks[:1])
    counted = total(ready)
    assert counted[0] == 1
    lost = ended(tasks[1])
    endings = ready.scheduler.tasks_finished("main-0", [lost], time.monotonic_ns())
    origin = Origin("main-0", "here", 1, "test")
    ready.loop.executor.finish(origin, m.AttemptResults([lost]), endings)
    assert len(endings) == 1
    ready.restart()  # nothing of it was committed
    assert (total(ready), ready.replayed.queued) == (counted, 2)
    ready.join()
    finished(ready, ready.assigned())
    ready.restart()
    assert total(ready) == summed(history(ready))
    assert total(ready)[0] == 3


def withdrawn_by_file(bench: ServiceHarness) -> None:
    bench.loop.result_requests._repair.task(2, bench.loop.completions.find(2)[1])  # type: ignore[index]


def withdrawn_by_record(bench: ServiceHarness) -> None:
    body = bench.journal.records.finished.unverified_body(1)
    place = body.index(b"payload-2")
    bench.change("update finished set body = ?", body[:place] + b"P" + body[place + 1 :])
    bench.say(m.GetCompletions(3))  # it cannot be read: all of its tasks run again


@pytest.mark.parametrize(
    ("withdraw", "left"), [(withdrawn_by_file, [1, 3]), (withdrawn_by_record, [])]
)
def test_withdrawn_ends_are_taken_from_usage_and_counted_again(
    ready: ServiceHarness, withdraw: Callable[[ServiceHarness], None], left: list[int]
) -> None:
    ready.submit(spec(1), spec(2), spec(3, shots=7))
    tasks = ready.assigned()
    data = codec.result_data(RESULT)
    payloads = (
        codec.encode(msgspec.structs.replace(data, remark=f"payload-{each.task}")) for each in tasks
    )
    ready.send_results(*map(ended, tasks, payloads))
    before, units = total(ready), ready.loop.accounting.usage._own[""]
    withdraw(ready)
    rows = [row for row in history(ready) if row.state is TaskState.DONE]
    assert [int(row.id[2:]) for row in rows] == left
    assert total(ready) == summed(rows)
    assert ready.loop.accounting.usage._own[""] == pytest.approx(sum(row.units for row in rows))
    finished(ready, ready.assigned(), slots=1)
    assert total(ready)[:2] == before[:2]
    assert total(ready) == summed(history(ready))
    rows = history(ready)
    own = ready.loop.accounting.usage._own[""]
    assert own == pytest.approx(sum(row.units for row in rows)) != units
    ready.restart()
    assert total(ready) == summed(history(ready))


def test_record_damaged_before_a_start_is_taken_from_usage(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2))
    ready.send_results(*map(ended, ready.assigned()), passes=1)
    ready.change("delete from ended")
    ready.change("delete from meta where key = 'indexed'")
    ready.change("update finished set crc = crc + 1")
    ready.restart()
    assert (ready.mended, ready.replayed.queued) == (1, 2)
    assert total(ready) == (0, 0, 0, 0)
    assert usage(ready) == []


def test_impossible_numbers_of_a_damaged_record_are_not_subtracted(ready: ServiceHarness) -> None:
    ready.submit(spec(1))
    finished(ready, ready.assigned())
    before = total(ready)
    completed = codec.completed(ready.journal.records.finished.unverified_body(1))
    wrong = msgspec.structs.replace(completed.results[0], units=float("nan"))
    body = codec.encode(msgspec.structs.replace(completed, results=[wrong]))
    ready.journal._db.execute("update finished set body = ?", (body,))
    ready.say(m.GetCompletions(3))
    ready.step()
    assert ready.assigned(), "it runs again"
    assert total(ready) == before


# --- the ledger alone ----------------------------------------------------------------------------

ROUTE = Route("statevector", "test", "main", 2, 0, 1.0, 0.0, 1)


def ending(
    account: str,
    user: str,
    units: float,
    pool: str = "main",
    terms: m.model.TaskOptions | None = None,
    shot_ns: float = 0.0,
    **more: object,
) -> TaskEnded:
    """`terms`: None for the defaults; `shot_ns`: of an emulated device."""
    given = m.model.TaskOptions() if terms is None else terms
    batch = SubmitBatch(b"", given, "", 0, 1, 0, 0, user, account, "normal")
    route = msgspec.structs.replace(ROUTE, pool=pool, device_shot_ns=shot_ns)
    record = TaskRecord(1, spec(), batch, route, 1.0)
    used = Used(round(1e6 * units), 3, 2, 1)
    fields: dict[str, object] = {"used": used, "units": units, **more}
    return TaskEnded(record, TaskState.DONE, 1, Timing(WAIT_US, 0, RUN_US), **fields)  # type: ignore[arg-type]


class Books:
    """A ledger over a journal of its own."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "j.db", "process")
        share = SimpleNamespace(tree=TREE, take_changes=lambda _: {})
        self.state: Any = SimpleNamespace(
            shares=SimpleNamespace(fair_share=share, accounts=TREE), remembers_usage=True
        )
        self.ledger = UsageLedger(self.journal, self.state)

    def add(self, *endings: TaskEnded, at_s: float | None = None) -> None:
        for each in endings:
            self.ledger.add([each], time.time() if at_s is None else at_s)
        self.journal.commit()

    def report(
        self, by: tuple[str, ...] = (), since_s: float = 0.0, until_s: float = 0.0
    ) -> accounting.Usage:
        message = accounting.GetUsage(1, by, since_s, until_s)
        *_, answer = ledger.usage_report(self.journal, self.ledger.names, message, lambda *_: True)
        assert answer is not None
        return answer

    def merge(self) -> None:
        while JournalPruner(self.journal, self.state).merge_usage():
            pass

    def levels(self) -> list[int]:
        return [row[0] for row in self.journal.records.rows("select level from usage order by 1")]


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def test_keys_of_usage_are_those_of_requests() -> None:
    assert tables.UsageKey._fields == USAGE_KEYS


def test_sums_by_device_are_of_the_tasks_that_it_emulated(books: Books) -> None:
    options = m.model.TaskOptions
    books.add(ending("chem", "ana", 1.0, terms=options(device="fez"), shot_ns=9.0))
    books.add(ending("chem", "ana", 2.0, "emu", terms=options(device="fez")))  # one without times
    preferred = options(device="fez", prefer=("emulator", "simulator"))
    books.add(ending("bio", "ben", 4.0, "emu", terms=preferred, shot_ns=9.0))
    books.add(ending("bio", "ben", 8.0, terms=preferred))  # the ideal simulator ran it
    books.add(ending("bio", "ben", 16.0, "emu", terms=options(device="kyiv"), shot_ns=5.0))
    books.add(ending("bio", "ben", 32.0))
    rows = {row.key: row for row in books.report(("device",)).rows}
    assert {key: row.units for key, row in rows.items()} == {
        ("fez",): 7.0, ("kyiv",): 16.0, ("",): 40.0,
    }  # fmt: skip
    assert rows["fez",].used == Used(7_000_000, 9, 6, 3)
    assert {row.key: row.tasks for row in books.report(("pool", "device")).rows} == {
        ("main", "fez"): 1, ("emu", "fez"): 2, ("emu", "kyiv"): 1, ("main", ""): 2,
    }  # fmt: skip
    books.merge()
    assert {row.key: row for row in books.report(("device",)).rows} == rows


def test_hours_become_days_then_months_and_no_sum_changes(books: Books) -> None:
    now_s = time.time()
    for days in (0, 10, 34, 36.1, 36.2, 50, 119, 152, 399, 440, 441, 500, 800):
        books.add(ending("chem", "ana", 1.5), ending("bio", "ben", 2.0), at_s=now_s - days * DAY_S)
    before = books.report(("account",))
    assert set(books.levels()) == {tables.HOUR}
    books.merge()
    levels = books.levels()
    assert {tables.HOUR, tables.DAY, tables.MONTH} == set(levels)
    assert levels.count(tables.HOUR) == 6
    assert levels.count(tables.DAY) in (6, 8), "36.1 and 36.2 may be one day; 152 is in a month"
    assert books.report(("account",)).rows == before.rows
    assert [row.tasks for row in before.rows] == [13, 13]
    for _ in range(2):  # more of a day that is merged already
        books.add(ending("chem", "ana", 1.0), at_s=now_s - 50 * DAY_S)
        books.merge()
    assert books.levels() == levels
    assert [row.tasks for row in books.report(("account",)).rows] == [13, 15]
    assert JournalPruner(books.journal, books.state).merge_usage() is False


def test_clock_that_jumps_over_the_end_of_the_month_and_back_keeps_what_was_spent(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    books.add(ending("chem", "ana", 1.5), at_s=now_s)
    spent = books.ledger.month_units("chem")
    assert spent > 0
    with monkeypatch.context() as clock:
        clock.setattr(ledger.time, "time", lambda: now_s + 40 * DAY_S)
        assert books.ledger.month_units("chem") == 0.0
        books.add(ending("chem", "ana", 4.5), at_s=now_s + 40 * DAY_S)
        assert books.ledger.month_units("chem") == pytest.approx(3 * spent)
    assert books.ledger.month_units("chem") == pytest.approx(spent)


def test_merging_amid_an_answer_changes_no_sum(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PAGE_ROWS", 1)
    for days in (40, 50, 60, 70):
        books.add(ending("chem", "ana", 1.0), at_s=time.time() - days * DAY_S)
    JournalPruner(books.journal, books.state).merge_usage()
    books.add(ending("chem", "ana", 1.0), at_s=time.time() - 45 * DAY_S)
    steps = ledger.usage_report(
        books.journal, books.ledger.names, accounting.GetUsage(1), lambda *_: True
    )
    assert [next(steps) for _ in range(4)] == [None] * 4  # all days were read
    books.merge()  # hours become days meanwhile
    *_, answer = steps
    assert [row.tasks for row in answer.rows] == [5]


def test_bounds_are_widened_to_what_is_kept(books: Books) -> None:
    now_s = time.time() // HOUR_S * HOUR_S + 600
    books.add(ending("chem", "ana", 1.0), at_s=now_s - 2 * HOUR_S)
    books.add(ending("chem", "ana", 1.0), at_s=now_s - 100 * DAY_S)
    books.merge()
    answer = books.report((), now_s - 2 * HOUR_S, now_s - HOUR_S)
    assert (answer.from_s, answer.to_s) == (now_s - 600 - 2 * HOUR_S, now_s - 600)
    assert [row.tasks for row in answer.rows] == [1]
    assert books.report((), now_s - HOUR_S).rows == []
    answer = books.report((), now_s - 100 * DAY_S, now_s - 100 * DAY_S + 1)
    day_s = (now_s - 100 * DAY_S) // DAY_S * DAY_S
    assert (answer.from_s, answer.to_s) == (day_s, day_s + DAY_S)
    assert [row.tasks for row in answer.rows] == [1]


def test_month_units_include_accounts_below(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_800_000_000.0  # in January 2027
    monkeypatch.setattr(time, "time", lambda: now_s)
    books = Books(books.journal.place.parent)
    books.add(ending("chem", "ana", 1.5), ending("physics", "boss", 1.0), ending("bio", "ben", 4.0))
    books.add(ending("chem", "ana", 99.0), at_s=now_s - 40 * DAY_S)  # in December
    units = books.ledger.month_units
    assert (units("chem"), units("physics"), units("bio"), units("none")) == (1.5, 2.5, 4.0, 0.0)
    again = UsageLedger(books.journal, books.state)
    assert (again.month_units("chem"), again.month_units("physics")) == (1.5, 2.5)
    books.state.shares.accounts = books.state.shares.fair_share.tree = AccountTree(
        {"bio": Account(), "chem": Account(parent="bio")}
    )
    assert (units("physics"), units("bio")) == (1.0, 5.5)
    monkeypatch.setattr(time, "time", lambda: now_s + 31 * DAY_S)
    assert units("bio") == 0.0
    books.add(ending("chem", "ana", 0.5))
    assert (units("chem"), units("bio")) == (0.5, 0.5)


def test_names_of_pools_and_sums_are_bounded(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.add(ending("bio", "ben", 1.0, used=Used(2**63 - 1, 0, 2**70, 0)))
    assert books.report().rows[0].used.slot_us == tables.MAX_SUM, "so are numbers"
    monkeypatch.setattr(ledger, "MAX_KEYS", 3)
    for k in range(20):
        books.add(ending("chem", "ana", 1.0, pool=f"p{k}"))
    rows = books.report(("account", "user", "pool")).rows
    assert [(row.key, row.tasks) for row in rows if row.key[1] == "ana"] == [
        (("chem", "ana", ""), 18), *((("chem", "ana", f"p{k}"), 1) for k in range(2)),
    ]  # fmt: skip


def test_fair_usage_is_in_the_commit_of_the_ends(books: Books) -> None:
    changes = {"chem/ana": ("chem", "ana", 7.5, 12_000_000_000)}
    books.state.shares.fair_share.take_changes = lambda _: changes
    books.ledger.add([ending("chem", "ana", 1.0)], time.time())
    assert tables.read_fair_usage(books.journal.records) == {}
    books.journal.commit()
    assert tables.read_fair_usage(books.journal.records) == changes


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"by": ("colour",)}, "usage by 'colour'"),
        ({"by": ("user", "user")}, "usage by 'user'"),
        ({"since_s": float("nan")}, "since = nan is no time"),
        ({"until_s": 1e300}, "until = 1e"),
        ({"until_s": float("nan")}, "until = nan"),
        ({"until_s": -1.0}, "until = -1.0"),
        ({"since_s": -1.0}, "since = -1.0 is no time"),
        ({"since_s": 7200.0, "until_s": 3600.0}, " is later than until 19"),
        ({"since_s": 4e9}, "is in the future: now it is 20"),
    ],
)
def test_bad_request_is_refused(
    bench: ServiceHarness, fields: dict[str, object], message: str
) -> None:
    refusal = bench.refusal(accounting.GetUsage(3, **fields))  # type: ignore[arg-type]
    assert message in refusal.message
    assert refusal.hint
    assert bench.get(accounting.Usage, accounting.GetUsage(3, until_s=float("inf"))).rows == []


def test_answers_are_bounded(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 1)
    bench.loop.accounting.usage.add([ending("chem", "ana", 1.0)], time.time())
    bench.loop.accounting.usage.add([ending("bio", "ben", 1.0)], time.time())
    bench.step()
    assert bench.refusal(accounting.GetUsage(3, ("account",))).code == "limit"
    assert usage(bench)[0].tasks == 2


def test_coordinators_see_their_accounts_and_those_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MultiUserHarness(tmp_path)
    accounts = {
        "physics": Account(coordinators=("ben",)), "chem": Account(parent="physics"),
        "bio": Account(),
    }  # fmt: skip
    monkeypatch.setattr(UsageLedger, "tree", AccountTree(accounts))
    for account in accounts:
        bench.loop.accounting.usage.add([ending(account, "carl", 1.0)], time.time())
    bench.loop.accounting.usage.add([ending("bio", "ben", 1.0)], time.time())
    bench.step()
    by = ("account", "user")
    seen = [("bio", "ben"), ("chem", "carl"), ("physics", "carl")]
    assert [row.key for row in usage(bench, by, bench.ben)] == seen
    assert usage(bench, by, bench.ana) == []
    assert len(usage(bench, by, bench.ops)) == 4


@pytest.mark.parametrize("places", [3, 8])
def test_year_of_ten_million_tasks_needs_few_bytes_an_hour(places: int, tmp_path: Path) -> None:
    """Two days of a site of 500 users and 40 accounts, at 1,142 tasks an hour; the benchmark
    `usage_sums` writes a whole year."""
    from testbed.usage_site import PLACES, Site

    books = Books(tmp_path)
    site = Site(1, PLACES[:places])
    hours = 48
    for hour in range(hours):
        site.write_hour(books.journal, 480_000 + hour)
    books.journal.close()
    rows, size = site.rows, (tmp_path / "j.db").stat().st_size
    assert rows > 400 * hours, "fewer keys than users of a site have"
    days = tables.DAYS_DAYS + 31 - tables.HOURS_DAYS  # the most: whole months are merged
    kept = tables.HOURS_DAYS * 24 * rows / hours + (days + 12) * site.combinations
    assert size / rows * kept < 100e6


def test_journal_that_cannot_be_read_is_an_error_of_the_request(bench: ServiceHarness) -> None:
    bench.journal._db.execute("drop table usage")
    refusal = bench.refusal(accounting.GetUsage(3))
    assert refusal.code == JournalError.code


def test_sums_of_a_service_that_is_down_are_read(tmp_path: Path) -> None:
    from simenv.config import EnvironmentPaths
    from simenv.service.queries.history import Archive

    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(spec(1))
    bench.finish(bench.assigned())
    archive = Archive(Config(name="lab"), EnvironmentPaths(tmp_path, tmp_path))
    (answer,) = (codec.to_client(body) for body in archive.answer(accounting.GetUsage(3)))
    assert isinstance(answer, accounting.Usage)
    assert [row.tasks for row in answer.rows] == [1]
    (answer,) = (codec.to_client(body) for body in archive.answer(accounting.GetReceipts(3, [1])))
    assert isinstance(answer, accounting.Receipts)
    assert len(answer.receipts) == 1
    archive.close()


def test_a_failed_commit_or_repair_leaves_usage_as_it_was(ready: ServiceHarness) -> None:
    ready.submit(spec(1))
    ready.read_only(True)
    finished(ready, ready.assigned())
    assert ready.loop.lifecycle.store_error
    ready.read_only(False)
    ready.step(4)
    assert total(ready) == summed(history(ready)), "stored late, and counted once"
    before = total(ready), ready.loop.accounting.usage._own[""]
    found = ready.loop.completions.find(1)
    ready.read_only(True)
    fails(JournalError, "", ready.loop.result_requests._repair.task, 1, found[1])
    ready.read_only(False)
    assert (total(ready), ready.loop.accounting.usage._own[""]) == before
