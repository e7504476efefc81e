"""What a worker says about its results costs its own task, and no other one."""

import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from service import FAILURE, RESULT, ServiceHarness, completions, filed, result_of, spec
from waiting import until

from simenv.model import ResultFile, StoredArray, TaskState
from simenv.result_files import WORKERS, attempt_file
from simenv.scheduler import core
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import FetchResult, VerifyResult

DONE = m.STATES.index(TaskState.DONE)
SIZE = 1_000
MODES = ["account", "none"]


@pytest.fixture(params=MODES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceHarness]:
    harness = ServiceHarness(tmp_path, isolation=request.param)
    harness.join()
    harness.loop.result_requests.start()
    yield harness
    harness.loop.result_requests.stop()


@pytest.fixture
def isolated(tmp_path: Path) -> Iterator[ServiceHarness]:
    harness = ServiceHarness(tmp_path, isolation="account")
    harness.join()
    harness.loop.result_requests.start()
    yield harness
    harness.loop.result_requests.stop()


def folder(bench: ServiceHarness) -> Path:
    """Where the worker writes its results."""
    root = bench.loop.result_requests.root
    if bench.config.isolation == "none":
        return root
    return root / WORKERS / f"main-0.{bench.paper.commands['main-0'].start}"


def ended(bench: ServiceHarness, *results: m.AttemptResult) -> list[m.Completion]:
    """The completions of all of them, when their files have been taken over."""
    found = completions(bench.send_results(*results))

    def have_ended() -> bool:
        found.extend(completions(bench.heard()))
        bench.loop.run_once(timeout_s=0.002)
        return len(found) == len(results)

    until(have_ended)
    return found


def failure(completion: m.Completion) -> m.Failure:
    assert m.STATES[completion.state] is TaskState.FAILED
    return codec.failure(completion.payload)


def task(bench: ServiceHarness) -> m.AssignedTask:
    bench.submit(spec(), key=f"~{len(bench.state.tasks)}-{bench.loop.completions.next_seq}")
    (only,) = bench.assigned()
    return only


def of(work: m.AssignedTask, payload: bytes, file: str = "", size: int = 0) -> m.AttemptResult:
    return m.AttemptResult(
        work.task, work.attempt, DONE, payload, zlib.crc32(payload), file, size, 0, 1
    )


def test_task_is_done_when_its_file_is_in_its_place(bench: ServiceHarness) -> None:
    work = task(bench)
    (done,) = ended(bench, filed(folder(bench), work, SIZE))
    assert m.STATES[done.state] is TaskState.DONE
    name = attempt_file(work.task, work.attempt)
    assert (bench.loop.result_requests.root / name).stat().st_size == SIZE
    assert bench.journal.records.file_of(name) == (work.task, SIZE)


@pytest.mark.parametrize("kind", ["missing", "short", "folder", "link", "pipe"])
def test_task_whose_file_cannot_be_stored_fails(bench: ServiceHarness, kind: str) -> None:
    """It never ends as DONE without one; and what was there goes with the worker."""
    work = task(bench)
    result = filed(folder(bench), work, SIZE)
    path = folder(bench) / result.file
    path.unlink()
    if kind == "short":
        path.write_bytes(bytes(SIZE - 1))
    elif kind == "folder":
        (path / "d").mkdir(parents=True)
    elif kind == "link":
        other = bench.folder / "other"
        other.write_bytes(bytes(SIZE))
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    (done,) = ended(bench, result)
    assert failure(done).reason == "result_store"
    assert str(bench.folder) not in failure(done).message
    assert bench.journal.records.file_of(result.file) is None
    if bench.config.isolation == "account":
        assert list(bench.loop.result_requests.root.glob("0/*")) == []
        place = folder(bench)
        bench.paper.kill("main-0")
        until(lambda: bench.step() or not place.exists())


def test_task_fails_when_the_folder_of_results_cannot_be_read(isolated: ServiceHarness) -> None:
    """Its worker is not taken for one whose files are still being moved."""
    work, root = task(isolated), isolated.loop.result_requests.root
    result = filed(folder(isolated), work, SIZE)
    away = root.rename(root.with_name("away"))
    (done,) = ended(isolated, result)
    away.rename(root)
    assert failure(done).reason == "result_store"
    assert not isolated.loop._intake.is_taking("main-0")
    (done,) = ended(isolated, filed(folder(isolated), task(isolated), SIZE))
    assert m.STATES[done.state] is TaskState.DONE


def test_time_in_which_the_service_moves_files_is_not_charged(isolated: ServiceHarness) -> None:
    work = task(isolated)
    file_worker, may_begin = isolated.loop.result_requests.file_worker, threading.Event()
    file_worker.take(may_begin.wait, lambda _: None)  # an earlier file is large
    held = isolated.state.cluster.workers["main-0"].held
    begin_ns, record = held.charged_ns, held[work.task]
    isolated.send_results(filed(folder(isolated), work, SIZE))
    arrived_ns, found = time.monotonic_ns(), list[core.TaskEnded]()
    finish = isolated.scheduler.tasks_finished

    def finished(*given: Any) -> list[core.TaskEnded]:
        found.extend(endings := finish(*given))
        return endings

    vars(isolated.scheduler)["tasks_finished"] = finished
    time.sleep(1.0)
    may_begin.set()
    until(lambda: isolated.step() or found)
    assert found[0].record is record
    assert 0 < found[0].used.slot_us <= (arrived_ns - begin_ns) // 1000 * found[0].slots


def test_name_of_another_file_in_a_result_is_never_used(bench: ServiceHarness) -> None:
    """By it a function deleted files of the machine as the service, and read them by their sums."""
    victim = task(bench)
    (done,) = ended(bench, filed(folder(bench), victim, SIZE))
    root = bench.loop.result_requests.root
    kept = root / attempt_file(victim.task, victim.attempt)
    secret = bench.folder / "secret"
    secret.write_bytes(b"secret")
    link = folder(bench) / "tmp"
    link.mkdir(exist_ok=True)
    (link / "l").symlink_to(bench.folder)
    through = os.path.relpath(link / "l" / "secret", root)
    for name in (attempt_file(victim.task, victim.attempt), through, "../secret", str(secret)):
        for file in ("", name):
            work = task(bench)
            payload = result_of(200, ResultFile(name, 1, 0, ()))
            (done,) = ended(bench, of(work, payload, file, 1))
            assert failure(done).reason == "bad_answer"
            assert repr(name)[:40] in failure(done).message or not file
            bench.say(VerifyResult(3, work.task))
            refusal = bench.refusal(FetchResult(4, work.task, name, 0, 10))
            assert "has no file" in refusal.message
    bench.step(4)
    assert secret.read_bytes() == b"secret"
    assert kept.stat().st_size == SIZE


def test_attempt_of_another_worker_is_neither_stored_nor_removed(bench: ServiceHarness) -> None:
    victim = task(bench)
    result = filed(folder(bench), victim, SIZE)
    ended(bench, result)
    kept = bench.loop.result_requests.root / result.file
    before = kept.stat().st_ino
    path = folder(bench) / result.file
    if not path.exists():
        path.write_bytes(b"new" * SIZE)
    for _ in range(2):
        bench.send_results(result)
        bench.step(4)
    bench.loop.result_requests.file_worker.stop()
    assert (kept.stat().st_ino, kept.stat().st_size) == (before, SIZE)


BAD = {
    "no message": b"\xc1garbage",
    "another type": codec.encode([1, 2, 3]),
    "format": codec.encode(msgspec.structs.replace(codec.result_data(RESULT), format=99)),
    "rows": codec.encode(msgspec.structs.replace(codec.result_data(RESULT), count=0)),
    "counts": codec.encode(
        msgspec.structs.replace(codec.result_data(RESULT), counts=b"123", outcome_width=1)
    ),
    "memory": codec.encode(msgspec.structs.replace(codec.result_data(RESULT), memory=b"1")),
    "gradients": codec.encode(
        msgspec.structs.replace(codec.result_data(RESULT), gradients=b"8" * 8, expectations=b"1")
    ),
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD)
def test_garbage_is_not_stored(bench: ServiceHarness, payload: bytes) -> None:
    good, bad = (task(bench) for _ in range(2))
    found = {each.task: each for each in ended(bench, of(bad, payload), of(good, RESULT))}
    assert failure(found[bad.task]).reason == "bad_answer"
    assert found[good.task].payload == RESULT


def test_garbage_in_place_of_a_failure_is_not_stored(bench: ServiceHarness) -> None:
    work = task(bench)
    result = msgspec.structs.replace(of(work, b"\xc1"), state=m.STATES.index(TaskState.FAILED))
    (done,) = ended(bench, result)
    assert failure(done).reason == "bad_answer"
    work = task(bench)
    result = msgspec.structs.replace(of(work, FAILURE, "x"), state=result.state)
    (done,) = ended(bench, result)
    assert done.payload == FAILURE


@pytest.mark.parametrize("kind", ["twice", "overlap", "outside", "before", "sizes"])
def test_file_whose_arrays_do_not_fit_is_not_stored(bench: ServiceHarness, kind: str) -> None:
    """A check of the file would read it once for each of millions of arrays."""
    first = StoredArray("value", "|u1", (SIZE,), 0, SIZE, 0)
    second = StoredArray("value" if kind == "twice" else "memory", "|u1", (1,), SIZE, 0, 0)
    if kind == "overlap":
        second = msgspec.structs.replace(second, offset=SIZE - 1)
    elif kind == "outside":
        first = msgspec.structs.replace(first, size_bytes=SIZE + 1)
    elif kind == "before":
        first = msgspec.structs.replace(first, offset=-1)
    work = task(bench)
    result = filed(folder(bench), work, SIZE)
    file = ResultFile(result.file, SIZE + (kind == "sizes"), 0, (first, second))
    data = msgspec.structs.replace(codec.result_data(RESULT), file=file)
    (done,) = ended(bench, of(work, codec.encode(data), result.file, SIZE))
    assert failure(done).reason == "bad_answer"


def test_worker_that_ends_after_its_results_loses_none(isolated: ServiceHarness) -> None:
    """Its end waits until its files are taken over, and so does the removal of its folder."""
    work = task(isolated)
    result = filed(folder(isolated), work, SIZE)
    isolated.send_results(result, passes=1)
    isolated.paper.kill("main-0")
    isolated.step(4)
    found = completions(isolated.heard())
    until(lambda: isolated.step() or found.extend(completions(isolated.heard())) or found)
    assert (m.STATES[found[0].state], found[0].attempts) == (TaskState.DONE, 1)
    assert (isolated.loop.result_requests.root / result.file).exists()


def test_file_of_a_task_that_was_cancelled_meanwhile_is_removed(isolated: ServiceHarness) -> None:
    work = task(isolated)
    result = filed(folder(isolated), work, SIZE)
    isolated.say(m.Cancel(4, [work.task]))
    (done,) = ended(isolated, result)
    assert m.STATES[done.state] is TaskState.CANCELLED
    until(lambda: isolated.step() or not list(isolated.loop.result_requests.root.glob("0/*")))
