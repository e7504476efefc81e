"""Completions, and files of results."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from service import RESULT, ServiceHarness, completions as ended, result_of, spec
from waiting import until

from simenv.errors import JournalError, StoreError
from simenv.model import Origin, TaskState, Timing, task_name
from simenv.result_files import CHECKPOINTS
from simenv.service import event_loop
from simenv.service.results import completions
from simenv.service.results.completions import Completions
from simenv.service.results.file_worker import FileWorker, fence_of
from simenv.wire import codec
from simenv.wire.messages import client as m

JOURNALS = ("sqlite", "postgresql")


def test_index_that_could_not_be_written_is_written_later(bench: ServiceHarness) -> None:
    origin = Origin("main-0", "here", 1, "test")
    for task in (1, 2):
        results = [m.Completion(task, 2, 1, 1, b"r", zlib.crc32(b"r"), Timing(1, 1, 1))]
        body = codec.encode(m.Completed(origin, "statevector", "test", results, task))
        bench.journal.finish(task, [TaskState.DONE], body)
    bench.journal.commit()
    outcome = Completions(bench.journal, origin)
    bench.read_only(True)
    fails(JournalError, "", outcome.index_slice)
    bench.read_only(False)
    assert outcome.unindexed
    assert outcome.find(1) is not None
    outcome.index_slice()
    assert not outcome.unindexed
    assert sorted(bench.journal.records.finished.indexed_runs()) == [(1, 1), (2, 1)]


def test_engine_error_during_cancel_keeps_its_message(ready: ServiceHarness) -> None:
    ready.submit(spec())
    tasks = ready.assigned()
    ready.say(m.Cancel(1, [1]))
    payload = codec.encode(m.Failure("engine", "the matrix is not unitary"))
    (done,) = ended(ready.finish(tasks, TaskState.FAILED, payload))
    assert codec.failure(done.payload).message == "the matrix is not unitary"


def test_busy_loop_writes_index_and_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions, "MAX_UNINDEXED", 10)
    monkeypatch.setattr(event_loop, "SYNC_DELAY_S", 0.0)
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(*[spec(seed=k) for k in range(40)])
    tasks = bench.assigned()
    results = [m.AttemptResult(t.task, t.attempt, 2, RESULT, zlib.crc32(RESULT)) for t in tasks]
    bench.send_results(*results, passes=1)  # busy: something arrived
    assert not bench.loop.completions.unindexed
    assert not bench.journal.unsynced


def test_later_commit_keeps_sync_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "SYNC_DELAY_S", 1e6)  # not on a slow machine either
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(spec())
    bench.finish(bench.assigned())
    assert bench.journal.unsynced
    began_ns = bench.loop._upkeep._unsynced_ns
    bench.loop.executor.record_event("a.kind", "subject", "another commit, not forced either")
    bench.loop._commit()
    bench.loop._upkeep.run(idle=False)
    assert bench.loop._upkeep._unsynced_ns == began_ns > 0


def test_one_read_lists_many_tasks(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.submit(*[spec(seed=k) for k in range(40)])
    ready.finish_in_turn()
    looks: list[str] = []
    records = ready.journal.records
    rows = records.rows

    def watched(query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        looks.append(query)
        return rows(query, *values)

    monkeypatch.setattr(records, "rows", watched)
    (answer,) = ready.say(m.GetQueue(1, done=True, limit=40))
    monkeypatch.undo()
    assert len(answer.tasks) == 40
    assert {(t.shots, t.num_qubits, t.pool) for t in answer.tasks} == {(100, 2, "main")}
    assert sum("from accepted" in each for each in looks) == 1


def test_a_page_of_large_results_fits_a_message(ready: ServiceHarness) -> None:
    for key in ("~a", "~b", "~c"):
        ready.submit(spec(), key=key)
        ready.finish(ready.assigned(), payload=result_of(12 * 2**20))
    page = ready.get(m.CompletionPage, m.GetCompletions(1, 0))
    assert [group.first_seq for group in page.groups] == [1]


DEAD, NAMESAKE, OTHER = "main-0.3", "main-0.13", "main.x4-0.3"


def half(folder: Path, attempt: int, worker: str) -> Path:
    path = folder / "0" / f".t-5.{attempt:x}.h5.{worker}.new"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_only_unfinished_files_of_dead_worker_are_removed(tmp_path: Path) -> None:
    files = {worker: half(tmp_path, 65_537, worker) for worker in (DEAD, NAMESAKE, OTHER)}
    beside = FileWorker(tmp_path)
    beside.start()
    beside.unfinished(DEAD)
    until(lambda: not files[DEAD].exists(), message="the half file stays")
    beside.stop()
    assert [worker for worker, path in files.items() if path.exists()] == [NAMESAKE, OTHER]


def test_start_removes_unfinished_files_of_earlier_starts_only(tmp_path: Path) -> None:
    old, new = half(tmp_path, 65_537, DEAD), half(tmp_path, 131_073, NAMESAKE)
    (tmp_path / ".token").touch()
    assert [fence_of(path.name) for path in (old, new)] == [65_537, 131_073]
    beside = FileWorker(tmp_path)
    beside.sweep(set(), 131_072)
    beside.start()
    beside.stop()
    assert [path.exists() for path in (old, new, tmp_path / ".token")] == [False, True, True]


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), OverflowError("large")])
def test_no_error_of_a_job_ends_the_thread(tmp_path: Path, error: Exception) -> None:
    def fail(_folder: Path) -> int:
        raise error

    outcomes: list[object] = []
    (tmp_path / "folder").mkdir()
    beside = FileWorker(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simenv.foreign_files.tree_bytes", fail)
        beside.start()
        beside.list_sizes(tmp_path, {}, outcomes.append)
        beside.after(outcomes.append)
        until(lambda: beside.run_callbacks() or len(outcomes) == 2)
    beside.stop()
    assert any(isinstance(each, StoreError) for each in outcomes)


def test_checkpoints_are_removed_when_their_task_has_ended(bench: ServiceHarness) -> None:
    """Of two tasks one has ended; and nothing beside the folder is touched."""
    accepted = bench.submit(spec())
    root = bench.loop.result_requests.root
    over, live = (root / CHECKPOINTS / task_name(accepted.first + k) for k in (1, 0))
    for folder in (over, live):
        folder.mkdir(parents=True)
        (folder / "0.0.h5").write_bytes(b"part")
    (root / "other").mkdir()
    bench.loop.result_requests.start()
    until(lambda: bench.loop.run_once(timeout_s=0.01) or not over.exists(), message="it stays")
    bench.loop.result_requests.stop()
    assert (live / "0.0.h5").exists()
    assert (root / "other").exists()


def test_task_asked_to_stop_ends_cancelled_though_its_result_comes(ready: ServiceHarness) -> None:
    """Its caller was answered "cancelling", for which `Task.cancel` returns True."""
    number = ready.submit(spec(seed=1)).first
    tasks = ready.assigned()
    assert ready.get(m.Cancelled, m.Cancel(2, [number])).words == ["cancelling"]
    (done,) = ended(ready.finish(tasks))
    assert m.STATES[done.state] is TaskState.CANCELLED
    assert codec.failure(done.payload).reason == "cancelled"
    (info,) = ready.get(m.Queue, m.GetTasks(3, [number])).tasks
    assert info.state is TaskState.CANCELLED
