"""Questions about the past: pages, filters, restarts, and no more than a slice of the loop."""

import math
import time

import msgspec
import pytest
from failing import fails
from service import ServiceHarness, program, spec

from simenv.client.history import TaskHistory
from simenv.errors import OptionError
from simenv.model import (
    RESULT_FORMAT,
    ResultData,
    ResultFile,
    TaskOptions,
    TaskState,
    decode_program,
    task_number,
)  # fmt: skip
from simenv.result_files import attempt_file
from simenv.wire import codec
from simenv.wire.messages import client as m, queries
from simenv.wire.messages.history import (
    App,
    GetApp,
    GetHistory,
    GetSpec,
    History,
    LogRow,
    Submitted,
)
from testbed.waiting import until

OPTIONS = {"durability": "process"}


def told(bench: ServiceHarness, **changes: object) -> list[LogRow]:
    """All rows, page by page."""
    rows: list[LogRow] = []
    after = 0
    while True:
        (page,) = bench.say(GetHistory(1, **{"after": after, **changes}))  # type: ignore[arg-type]
        rows += page.rows
        if page.complete:
            return rows
        assert page.last > after, "no step forward"
        after = page.last


def test_history_lists_each_task_once_in_order(bench: ServiceHarness) -> None:
    for k in range(5):
        bench.submit(*[spec(seed=10 * k + j) for j in range(7)], key=f"k{k}")
    bench.join()
    bench.finish(bench.assigned()[:20])
    for limit in (1, 3, 7, 1000):
        rows = told(bench, limit=limit)
        assert [row.seed for row in rows] == [10 * k + j for k in range(5) for j in range(7)]
        assert [task_number(row.id) for row in rows] == list(range(1, 36))
        assert {row.message for row in rows[7:14]} == {rows[7].id}


def test_history_shows_state_worker_and_failure_of_ended_tasks(bench: ServiceHarness) -> None:
    bench.submit(*(spec(seed=k) for k in (1, 2, 3)), terms=TaskOptions(name="scan", app="run-1"))
    bench.join()
    first, second, third = bench.assigned()
    bench.finish([first])
    failure = codec.encode(m.Failure("engine", "the dog ate it"))
    bench.finish([second], TaskState.FAILED, failure)
    done, bad, open_ = told(bench)
    assert (done.state, done.name, done.app, done.shots) == (TaskState.DONE, "scan", "run-1", 100)
    assert (done.worker, done.engine) == ("main-0", "statevector")
    assert (done.num_qubits, done.attempts) == (2, 1)
    assert (bad.state, bad.reason) == (TaskState.FAILED, "engine: the dog ate it")
    assert (open_.state, open_.ended_s) == (TaskState.QUEUED, 0.0)
    assert time.time() - 60 < done.submitted_s <= done.ended_s <= time.time() + 1
    assert done.timing.run_us == 10
    bench.finish([third])
    assert told(bench)[2].state == TaskState.DONE


def test_history_survives_restart(bench: ServiceHarness) -> None:
    bench.submit(*[spec(seed=k) for k in range(6)], terms=TaskOptions(app="run-1"))
    bench.join()
    bench.finish(bench.assigned()[:4])
    before = told(bench)
    bench.restart()
    after = told(bench)
    assert (after[:4], [row.state for row in after[4:]]) == (before[:4], [TaskState.QUEUED] * 2)
    assert bench.say(GetApp(1)) == [App(1, "run-1")]


def test_history_of_an_app_lists_only_its_tasks(bench: ServiceHarness) -> None:
    assert bench.say(GetApp(1)) == [App(1, "")]
    for k, app in enumerate(("a", "b", "", "a", "b")):
        bench.submit(spec(seed=k), spec(seed=10 + k), key=f"k{k}", terms=TaskOptions(app=app))
    for limit in (1, 3, 1000):
        assert [row.seed for row in told(bench, app="a", limit=limit)] == [0, 10, 3, 13]
        assert [row.seed for row in told(bench, app="b", limit=limit)] == [1, 11, 4, 14]
    assert told(bench, app="c") == []
    assert bench.say(GetApp(1)) == [App(1, "b")]


def test_same_key_from_another_app_returns_the_same_tasks(bench: ServiceHarness) -> None:
    first = bench.submit(spec(), key="sweep", terms=TaskOptions(app="run-1"))
    again = bench.submit(spec(), key="sweep", terms=TaskOptions(app="run-2"))
    assert (again.repeated, again.first) == (True, first.first)


def test_since_selects_by_time(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.service.handlers.tasks.PAGE_NS", 10**12)  # one page takes all
    now = time.time()
    for k in range(9):
        monkeypatch.setattr(time, "time", lambda k=k: now + 100 * k)
        bench.submit(spec(seed=2 * k), spec(seed=2 * k + 1), key=f"k{k}")
    for k in range(9):
        seeds = [row.seed for row in told(bench, since_s=now + 100 * k - 50)]
        assert seeds == list(range(2 * k, 18))
    assert told(bench, since_s=now + 10_000) == []
    assert [row.seed for row in told(bench, since_s=now + 750)] == [16, 17]
    link = BenchLink(bench)
    result = TaskHistory(link).newest(100, since_s=now + 650)  # type: ignore[arg-type]
    assert [row.seed for row in result] == [14, 15, 16, 17]
    assert [(page.last, page.complete) for page in link.pages] == [(15, True)]


class BenchLink:
    """A client's link to the service under test, which keeps what was asked and answered."""

    def __init__(self, bench: ServiceHarness) -> None:
        self._bench = bench
        self.pages: list[History] = []

    def request(self, message: GetHistory) -> History:
        (page,) = self._bench.say(msgspec.structs.replace(message, request=1))
        assert isinstance(page, History)
        self.pages.append(page)
        return page


def scans(bench: ServiceHarness) -> None:
    """Ten messages of three tasks, every other one of the run `b`; the first four tasks end."""
    for k in range(10):
        terms = TaskOptions(app="ab"[k % 2])
        bench.submit(*[spec(seed=10 * k + j) for j in range(3)], key=f"k{k}", terms=terms)
    bench.join()
    bench.finish(bench.assigned()[:4])


@pytest.mark.parametrize("filters", [{}, {"run_name": "b"}, {"states": (TaskState.DONE,)}], ids=str)
def test_newest_are_end(bench: ServiceHarness, filters: dict[str, object]) -> None:
    scans(bench)
    past = TaskHistory(BenchLink(bench))  # type: ignore[arg-type]
    every = list(past.tasks(**filters))  # type: ignore[arg-type]
    entries = [(row.id, row.state) for row in every]
    assert len(entries) in (4, 15, 30)
    for limit in (1, 2, 3, 7, 1000):
        result = past.newest(limit, **filters)  # type: ignore[arg-type]
        assert [(row.id, row.state) for row in result] == entries[-limit:]


def test_windows_that_adjoin_have_each_ended_task_once(bench: ServiceHarness) -> None:
    bench.submit(*[spec(seed=k) for k in range(9)])
    bench.join()
    for task in bench.assigned()[:7]:
        time.sleep(0.001)  # so that their ends differ
        bench.finish([task])
    link = BenchLink(bench)
    past = TaskHistory(link)  # type: ignore[arg-type]
    for ask in (
        lambda: list(past.tasks(ended_between=(2.0, 1.0))),
        lambda: past.newest(1, since_s=2.0, until_s=1.0),
    ):
        fails(OptionError, " is later than until ", ask)
    ended = [row for row in past.tasks() if row.ended_s]
    border_s = ended[3].ended_s
    assert ended[0].submitted_s < border_s < ended[-1].ended_s  # some were running at the border
    first = [row.seed for row in past.tasks(ended_between=(0.0, border_s))]
    link.pages.clear()
    second = [row.seed for row in past.tasks(ended_between=(border_s, math.inf))]
    assert (first, second) == ([0, 1, 2], [3, 4, 5, 6])
    assert sum(len(page.rows) for page in link.pages) == 4  # others are not sent


def test_newest_rows_need_no_others(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    scans(bench)
    link = BenchLink(bench)
    past = TaskHistory(link)  # type: ignore[arg-type]
    (row,) = past.newest(1)
    assert (task_number(row.id), row.seed) == (30, 92)
    assert [(page.last, page.complete) for page in link.pages] == [(30, False)]
    (row,) = past.newest(1, run_name="a")
    assert task_number(row.id) == link.pages[-1].last == 27
    link.pages.clear()
    monkeypatch.setattr("simenv.service.handlers.tasks.PAGE_NS", -1)  # a page has one row
    assert [task_number(row.id) for row in past.newest(100)] == list(range(1, 31))
    assert len(link.pages) == 31


def test_page_ends_with_time_slice(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(*[spec(seed=k) for k in range(200)])
    monkeypatch.setattr("simenv.service.handlers.tasks.PAGE_NS", -1)  # the time is over already
    page = bench.get(History, GetHistory(1))
    assert len(page.rows) == 1
    assert not page.complete
    monkeypatch.undo()
    assert len(told(bench)) == 200


def test_submitted_program_and_options_are_returned_unchanged(bench: ServiceHarness) -> None:
    wide = program(3).packed()
    bench.submit(
        spec(), spec(program=wide, seed=9, shots=55), terms=TaskOptions(priority=3, app="x")
    )
    value = bench.get(Submitted, GetSpec(1, 2))
    assert (value.spec.program, value.spec.seed, value.spec.shots) == (wide, 9, 55)
    assert (value.terms.priority, value.terms.engine) == (3, "statevector")
    for number in (0, 3, 10**6):
        assert bench.refusal(GetSpec(1, number)).code == "not_found"


def test_programs_of_same_structure_have_same_structure_digest(bench: ServiceHarness) -> None:
    programs = [program(2, 0.1), program(2, 0.2), program(3, 0.1)]
    bench.submit(*[spec(program=each.packed()) for each in programs])
    same, alike, other = [row.structure for row in told(bench, structure=True)]
    assert same == alike != other
    assert same == decode_program(programs[0].packed()).structure.hex()
    assert {row.structure for row in told(bench)} == {""}


def test_history_shows_latest_completion_of_rerun_task(bench: ServiceHarness) -> None:
    bench.loop.result_requests.start()
    try:
        bench.submit()
        bench.join()
        (sent,) = bench.assigned()
        name = attempt_file(sent.task, sent.attempt)
        path = bench.loop.result_requests.root / name
        path.parent.mkdir()
        path.write_bytes(bytes(len(name)))
        lost = ResultFile(name, len(name), 1, ())
        data = codec.encode(ResultData(RESULT_FORMAT, (("c", 17),), 17, 10, 1, 4, file=lost))
        bench.finish([sent], payload=data, file=lost.name)
        assert [row.attempts for row in told(bench)] == [1]
        path.unlink()
        bench.peer.send(codec.encode(queries.VerifyResult(9, 1)))
        again: list[m.AssignedTask] = []

        def is_sent() -> bool:
            bench.step()
            again.extend(bench.assigned())
            return bool(again)

        until(is_sent)
        bench.finish(again)
        assert [row.attempts for row in told(bench)] == [2]
    finally:
        bench.loop.result_requests.stop()
