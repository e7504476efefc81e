"""What is given up of ended tasks: only what may go, said before and after, and nothing doubled."""

import time
import zlib
from pathlib import Path

import pytest
from failing import Killed, fails, killed_at
from service import RESULT, ServiceHarness, filed, spec
from waiting import until

from simenv.service.results import retention
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import CollectGarbage, GarbageCollected, RetainedData

JOURNALS = ("sqlite", "postgresql")


@pytest.fixture
def bench(tmp_path: Path) -> object:
    service_harness = ServiceHarness(tmp_path)
    service_harness.join()
    service_harness.loop.result_requests.start()
    yield service_harness
    service_harness.loop.result_requests.stop()


def restart(bench: ServiceHarness) -> None:
    bench.loop.result_requests.stop()
    bench.restart()
    bench.loop.result_requests.start()


def ended(bench: ServiceHarness, count: int = 10, key: str = "~k") -> None:
    """So many tasks, each with a message and a file of its own."""
    bench.submit(*[spec(seed) for seed in range(count)], key=key)
    while tasks := bench.assigned():
        for task in tasks:
            bench.send_results(filed(bench.loop.result_requests.root, task, 1000))


def aged_priority(bench: ServiceHarness, seqs: range, days: float) -> None:
    when = time.time() - days * 86_400
    bench.change("update finished set at = ? where seq between ? and ?", when, seqs[0], seqs[-1])


def numbers(bench: ServiceHarness) -> list[int]:
    page = bench.get(m.CompletionPage, m.GetCompletions(3))
    return [g.first_seq + k for g in page.groups for k, _ in enumerate(g.results)]


def files(bench: ServiceHarness) -> int:
    done: list[object] = []
    bench.loop.result_requests.file_worker.read("0/none", 0, 1, done.append)
    while not done:
        bench.loop.run_once(timeout_s=0.002)
    return len(list(bench.loop.result_requests.root.glob("0/*.h5")))


def test_dry_run_removes_nothing_and_reports_what_would_be_freed(bench: ServiceHarness) -> None:
    ended(bench)
    result = bench.collected(older_s=0.0, dry=True)
    assert (result.freed.tasks, result.freed.files, result.freed.file_bytes) == (10, 10, 10_000)
    assert result.left.tasks == 10
    assert numbers(bench) == list(range(1, 11))
    assert files(bench) == 10
    assert bench.collected(older_s=0.0).freed == result.freed


def test_only_tasks_older_than_given_age_are_removed(bench: ServiceHarness) -> None:
    ended(bench)
    aged_priority(bench, range(1, 5), days=8)
    assert bench.collected().freed == RetainedData()
    result = bench.collected(older_s=7 * 86_400)
    assert (result.freed.tasks, result.left.tasks) == (4, 6)
    assert numbers(bench) == [5, 6, 7, 8, 9, 10]
    assert files(bench) == 6


def test_files_of_newer_tasks_stay_where_a_clock_was_set_back(bench: ServiceHarness) -> None:
    ended(bench)
    aged_priority(bench, range(4, 6), days=8)
    before_s = time.time() - 7 * 86_400
    old = bench.loop.result_requests._retention._old
    assert [entry.seq for entry in old.files_before(before_s, 0)] == [4, 5]
    assert old.files_size(before_s) == (2, 2000)


def test_submission_is_removed_only_after_all_its_tasks_are_removed(bench: ServiceHarness) -> None:
    ended(bench, 4)
    bench.submit(spec(9), spec(10), key="~later")
    (first, *_) = bench.assigned()
    bench.finish([first])
    aged_priority(bench, range(1, 3), days=40)
    bench.collected()
    assert bench.journal.records.accepted.of(1) is not None
    aged_priority(bench, range(3, 6), days=40)
    bench.collected()
    assert bench.journal.records.accepted.of(1) is None
    assert bench.journal.records.accepted.of(6) is not None, "its second task waits"
    assert 6 in bench.state.tasks


@pytest.mark.parametrize("older_s", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_age_removes_nothing(bench: ServiceHarness, older_s: float) -> None:
    ended(bench, 2)
    answers = bench.say(CollectGarbage(3, older_s))
    assert [type(answer) for answer in answers] == [m.Refused]
    assert numbers(bench) == [1, 2]


def test_task_numbers_continue_after_all_tasks_were_removed(bench: ServiceHarness) -> None:
    ended(bench)
    bench.collected(older_s=0.0)
    before = bench.get(m.Status, m.GetStatus(1)).info
    restart(bench)
    after = bench.get(m.Status, m.GetStatus(1)).info
    assert (before.done, after.done, after.queued) == (10, 10, 0)
    assert bench.submit() == m.Accepted(5, 11, 1)
    bench.join()
    bench.finish(bench.assigned())
    assert numbers(bench) == [11]


def test_removed_task_is_reported_as_gone_and_unknown_task_is_not(bench: ServiceHarness) -> None:
    ended(bench, 3)
    bench.collected(older_s=0.0)
    unknown = bench.get(m.UnknownTasks, m.WatchResults(3, [2, 99]))
    assert (unknown.tasks, unknown.gone) == ([2, 99], [2])


@pytest.mark.parametrize("key", ["mine", "~auto"])
def test_submission_key_of_removed_tasks_can_be_used_again(bench: ServiceHarness, key: str) -> None:
    ended(bench, 2, key)
    assert bench.submit(spec(0), spec(1), key=key) == m.Accepted(5, 1, 2, repeated=True)
    bench.collected(older_s=0.0)
    assert bench.submit(spec(0), spec(1), key=key) == m.Accepted(5, 3, 2)
    assert bench.submit(spec(0), spec(1), key=key) == m.Accepted(5, 3, 2, repeated=True)


def test_removal_of_unacknowledged_completions_is_reported(bench: ServiceHarness) -> None:
    ended(bench)
    bench.say(m.Ack(2, "reader", 4))
    assert bench.collected(older_s=0.0).freed.unread == 6
    assert "6 completions among them had not been acknowledged" in bench.events()[-1].message


def test_old_tasks_are_removed(bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(bench)
    aged_priority(bench, range(1, 4), days=31)
    monkeypatch.setattr(retention, "LIMITS_POLL_S", 0.0)
    bench.loop.result_requests._retention._next_poll_ns = 0
    for _ in range(50):
        bench.loop.run_once(timeout_s=0.0)
    assert numbers(bench) == list(range(4, 11))


def test_result_files_beyond_size_limit_are_removed_and_history_is_kept(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, results={"keep_gib": 0.001})
    bench.join()
    bench.loop.result_requests.start()
    ended(bench)
    bench.change("update file set bytes = 500000")
    result = bench.collected()
    assert result.freed.files >= 8
    assert result.freed.tasks == 0
    assert len(numbers(bench)) == 10
    assert files(bench) == 10 - result.freed.files
    bench.loop.result_requests.stop()


@pytest.mark.parametrize("point", ["gc.before", "gc.after"])
def test_crash_during_removal_keeps_counts_of_tasks(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    ended(bench)
    killed_at(point, monkeypatch)
    fails(Killed, "", bench.collected, older_s=0.0)
    restart(bench)
    assert bench.get(m.Status, m.GetStatus(1)).info.done == 10
    assert numbers(bench) == (list(range(1, 11)) if point == "gc.before" else [])
    bench.collected(older_s=0.0)
    assert bench.get(m.Status, m.GetStatus(1)).info.done == 10
    restart(bench)
    assert files(bench) == 0


def test_journal_shrinks_after_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SPARE_PAGES", 0)
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.loop.result_requests.start()
    for k in range(20):
        ended(bench, 50, key=f"~{k}")
    before = bench.collected(older_s=1e6).left.journal_bytes
    bench.collected(older_s=0.0)
    while bench.loop.result_requests._retention._vacuuming:
        bench.loop.run_once(timeout_s=0.0)
    assert bench.collected(older_s=1e6).left.journal_bytes < before / 4
    bench.loop.result_requests.stop()


def test_removal_resumes_once_journal_can_be_written_again(bench: ServiceHarness) -> None:
    ended(bench)
    bench.submit(spec(1), key="~waits")
    bench.assigned()
    bench.read_only(True)
    bench.peer.send(codec.encode(CollectGarbage(7, 0.0)))
    for _ in range(5):
        bench.loop.run_once(timeout_s=0.0)
    assert "cannot be written" in bench.loop.lifecycle.store_error
    bench.read_only(False)

    def freed() -> list[int]:  # a thread beside the loop has its part in it
        bench.loop.run_once(timeout_s=0.005)
        return [a.freed.tasks for a in bench.heard() if isinstance(a, GarbageCollected)]

    assert (until(freed), bench.loop.lifecycle.store_error) == ([10], "")
    assert bench.submit(spec(2), key="~later") == m.Accepted(5, 12, 1)


def test_old_records_are_removed_under_continuous_client_requests(bench: ServiceHarness) -> None:
    """The loop is never idle: a message has come in each of its passes."""
    ended(bench)
    aged_priority(bench, range(1, 11), days=1e4)
    bench.loop.result_requests._retention._next_poll_ns = 0
    passes = 0
    while list(bench.journal.records.rows("select seq from finished")):
        bench.peer.send(codec.encode(m.Ping(passes)))
        bench.loop.run_once(timeout_s=0.0)
        assert bench.heard()
        passes += 1
        assert passes < 50_000


def test_index_is_written_under_continuous_client_requests(bench: ServiceHarness) -> None:
    bench.submit(spec())
    tasks = bench.assigned()
    done = m.AttemptResult(tasks[0].task, tasks[0].attempt, 2, RESULT, zlib.crc32(RESULT))
    bench.work.send(codec.encode(m.AttemptResults([done])))
    bench.loop.run_once(timeout_s=0.0)
    passes = 0
    while bench.loop.completions.unindexed or not passes:
        bench.peer.send(codec.encode(m.Ping(passes)))
        bench.loop.run_once(timeout_s=0.0)
        assert bench.heard()
        passes += 1
        assert passes < 50_000
