"""A broken result is believed by nobody: its task runs again, and one completion of it counts."""

import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import Killed, fails, killed_at
from service import RESULT, ServiceHarness, completions, spec

from simenv import result_files
from simenv.errors import JournalError
from simenv.model import RESULT_FORMAT, ResultData, ResultFile
from simenv.result_files import attempt_file
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import FetchResult, ResultChunk, VerifyReply, VerifyResult
from simenv.wire.rights import Identity, Role

JOURNALS = ("sqlite", "postgresql")


def stored(bench: ServiceHarness, task: int, fence: int) -> tuple[bytes, str, int]:
    """A payload whose counts lie in a file, and that file's name and size."""
    name = attempt_file(task, fence)
    array = np.arange(100_000, dtype="<u4")
    path = bench.loop.result_requests.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = result_files.write(path, {"outcomes": array, "counts": array}, {}, name=name)
    data = ResultData(RESULT_FORMAT, (("c", 17),), 17, 10, 1, 4, file=file)
    return codec.encode(data), name, file.size_bytes


def finished(bench: ServiceHarness, *tasks: m.AssignedTask) -> list[m.ToClient]:
    """Each with a file of its own, in one message."""
    results = []
    for task in tasks:
        payload, *file = stored(bench, task.task, task.attempt)
        results.append(
            m.AttemptResult(task.task, task.attempt, 2, payload, zlib.crc32(payload), *file)
        )
    return bench.send_results(*results)


def asked(bench: ServiceHarness, task: int) -> str:
    """What a Rerun is answered, when the file has been looked at."""
    return fetched(bench, VerifyResult(9, task)).word


@pytest.fixture
def bench(tmp_path: Path) -> object:
    service_harness = ServiceHarness(tmp_path)
    service_harness.loop.result_requests.start()
    yield service_harness
    service_harness.loop.result_requests.stop()


def seqs(bench: ServiceHarness) -> list[tuple[int, int]]:
    """(number, task) of every completion that counts."""
    page = bench.get(m.CompletionPage, m.GetCompletions(3))
    return [(seq, c.task) for g in page.groups for seq, c in enumerate(g.results, g.first_seq)]


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
@pytest.mark.parametrize("is_watched", [True, False])
def test_task_with_damaged_result_file_is_rerun(
    ready: ServiceHarness, how: str, is_watched: bool
) -> None:
    ready.submit(spec(1), spec(2), spec(3))
    first = ready.assigned()
    finished(ready, *first)
    (path,) = ready.loop.result_requests.root.glob("0/t-2.*")
    if how == "flip":
        content = bytearray(path.read_bytes())
        content[-20_000] ^= 4
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    assert asked(ready, 2) == "again"
    assert seqs(ready) == [(1, 1), (3, 3)]
    ready.step()
    (again,) = ready.assigned()
    assert (again.task, again.seed, again.attempt & 0xFFFF) == (2, 2, 2)
    assert asked(ready, 2) == "waits"
    if is_watched:
        ready.say(m.WatchResults(0, [2]))
    # Whoever submitted has had an answer.
    heard = [each.attempts for each in completions(finished(ready, again))]
    assert heard == ([2] if is_watched else [])
    assert seqs(ready) == [(1, 1), (3, 3), (4, 2)]
    assert asked(ready, 2) == "intact"
    status = ready.get(m.Status, m.GetStatus(4)).info
    assert (status.done, status.queued) == (3, 0)


def test_index_of_ended_tasks_lacks_the_one_that_is_rerun(ready: ServiceHarness) -> None:
    ready.submit(*map(spec, range(1, 6)))
    finished(ready, *ready.assigned())
    ready.loop.completions.index_all()
    records = ready.journal.records
    assert list(records.finished.indexed_runs()) == [(1, 5)]
    (path,) = ready.loop.result_requests.root.glob("0/t-3.*")
    path.unlink()
    assert asked(ready, 3) == "again"
    assert sorted(records.finished.indexed_runs()) == [(1, 2), (4, 2)]
    assert [records.finished.seq_of(task) for task in range(1, 7)] == [1, 1, None, 1, 1, None]
    ready.restart()
    assert ready.replayed.queued == 1
    ready.join()
    ready.finish(ready.assigned())
    ready.loop.completions.index_all()
    assert sorted(ready.journal.records.finished.indexed_runs()) == [(1, 2), (3, 1), (4, 2)]
    assert ready.journal.records.finished.seq_of(3) == 6


def test_task_that_is_rerun_before_it_is_indexed_is_not_indexed(ready: ServiceHarness) -> None:
    ready.submit(*map(spec, range(1, 4)))
    finished(ready, *ready.assigned())
    completions = ready.loop.completions
    completions.index_all()
    completions._await_index(9, [7, 8, 9])
    completions.withdraw(8, 10)
    completions.index_all()
    assert sorted(ready.journal.records.finished.indexed_runs()) == [(1, 3), (7, 1), (9, 1)]


def test_task_with_wrong_payload_checksum_is_rerun(ready: ServiceHarness) -> None:
    ready.submit()
    (task,) = ready.assigned()
    ready.send_results(m.AttemptResult(task.task, task.attempt, 2, RESULT, zlib.crc32(b"another")))
    assert asked(ready, 1) == "again"


def test_verification_of_unknown_or_waiting_task_reruns_nothing(bench: ServiceHarness) -> None:
    assert asked(bench, 5) == "unknown"
    bench.submit()
    assert asked(bench, 1) == "waits"


@pytest.mark.parametrize("point", ["reopen.before", "reopen.after"])
@pytest.mark.parametrize("indexed", [True, False])
def test_crash_while_task_is_reopened(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, point: str, indexed: bool
) -> None:
    ready.submit(spec(1), spec(2))
    finished(ready, *ready.assigned())
    if indexed:
        ready.loop.completions.index_all()
    next(ready.loop.result_requests.root.glob("0/t-1.*")).unlink()
    killed_at(point, monkeypatch)
    fails(Killed, "", asked, ready, 1)
    ready.loop.result_requests.stop()
    ready.restart()
    ready.loop.result_requests.start()
    if point == "reopen.before":
        assert seqs(ready) == [(1, 1), (2, 2)]
        assert asked(ready, 1) == "again"
    else:
        assert seqs(ready) == [(2, 2)]
    ready.join()
    (again,) = ready.assigned()
    assert again.task == 1
    assert again.attempt & 0xFFFF > 1, "attempts are counted, perhaps twice, never forgotten"
    finished(ready, again)
    assert seqs(ready) == [(2, 2), (3, 1)]
    ready.restart()
    ready.loop.result_requests.start()
    assert seqs(ready) == [(2, 2), (3, 1)]
    assert ready.replayed.queued == 0


def flip_record(bench: ServiceHarness, seq: int) -> None:
    """Damage the record at a completion number, behind the service's back."""
    body = bench.journal.records.finished.unverified_body(seq)
    body = body[:-3] + bytes([body[-3] ^ 1]) + body[-2:]
    bench.change("update finished set body = ? where seq = ?", body, seq)


@pytest.mark.parametrize("ask", [m.WatchResults(3, [2]), m.GetCompletions(3), m.GetQueue(3, True)])
def test_damaged_completion_is_rerun(ready: ServiceHarness, ask: object) -> None:
    ready.submit(spec(1), spec(2))
    ready.finish(ready.assigned())
    ready.submit(spec(3), key="~other")
    ready.finish(ready.assigned())
    flip_record(ready, 1)
    assert not [a for a in ready.say(ask) if isinstance(a, m.Refused)]
    ready.step()
    again = ready.assigned()
    assert sorted(task.task for task in again) == [1, 2]
    assert seqs(ready) == [(3, 3)]
    ready.finish(again)
    assert sorted(seqs(ready)) == [(3, 3), (4, 1), (5, 2)]
    assert ready.get(m.Status, m.GetStatus(4)).info.done == 3


def test_record_damaged_before_indexing_is_rerun_after_start(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2))
    ready.finish(ready.assigned())
    ready.change("delete from ended")
    ready.change("delete from meta where key = 'indexed'")
    flip_record(ready, 1)
    ready.loop.result_requests.stop()
    ready.restart()
    ready.loop.result_requests.start()
    assert (ready.mended, ready.replayed.queued) == (1, 2)
    ready.join()
    ready.finish(ready.assigned())
    assert seqs(ready) == [(3, 1), (4, 2)], "numbers are never given out twice"


def test_reopening_that_cannot_be_stored_changes_nothing(ready: ServiceHarness) -> None:
    ready.submit()
    finished(ready, *ready.assigned())
    result = ready.loop.completions.find(1)
    ready.read_only(True)
    fails(JournalError, "", ready.loop.result_requests._rerun, 1, result[1], "test")
    ready.read_only(False)
    assert seqs(ready) == [(1, 1)]
    assert 1 not in ready.state.tasks


def fetched(bench: ServiceHarness, question: m.FromClient) -> Any:
    bench.peer.send(codec.encode(question))
    for _ in range(2_000):
        bench.loop.run_once(timeout_s=0.002)
        for answer in bench.heard():
            if isinstance(answer, VerifyReply | ResultChunk | m.Refused):
                return answer
    raise AssertionError("no answer")


def test_result_file_is_fetched_in_chunks_and_for_its_task_only(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2))
    finished(ready, *ready.assigned())
    path = next(ready.loop.result_requests.root.glob("0/t-1.*"))
    name = str(path.relative_to(ready.loop.result_requests.root))
    answer = fetched(ready, FetchResult(3, 1, name, 100, 1000))
    assert answer.data == path.read_bytes()[100:1100]
    for task, file, size in ((2, name, 10), (1, "../journal.db", 10), (1, name, 2**21)):
        assert isinstance(fetched(ready, FetchResult(3, task, file, 0, size)), m.Refused)


def test_result_of_another_owner_can_be_neither_fetched_nor_verified(ready: ServiceHarness) -> None:
    ready.submit()
    finished(ready, *ready.assigned())
    path = next(ready.loop.result_requests.root.glob("0/t-1.*"))
    entries, ana = list[m.ToClient](), Identity("ana", Role.CLIENT)
    requests = ready.loop.result_requests
    requests.listen(requests._record_event, lambda _, body: entries.append(codec.to_client(body)))
    requests.handle(b"ana", ana, FetchResult(3, 1, f"0/{path.name}", 0, 10))
    requests.handle(b"ana", ana, VerifyResult(4, 1))
    assert isinstance(entries[0], m.Refused)
    assert entries[1:] == [VerifyReply(4, "unknown")]


def test_result_file_of_ignored_attempt_is_removed(ready: ServiceHarness) -> None:
    ready.submit()
    (task,) = ready.assigned()
    finished(ready, msgspec.structs.replace(task, attempt=7))
    settled(ready)
    assert list(ready.loop.result_requests.root.glob("*/*")) == []
    assert 1 in ready.state.tasks


def settled(bench: ServiceHarness) -> None:
    """When every job given to the threads before has been done."""
    done: list[object] = []
    bench.loop.result_requests.file_worker.read("0/none", 0, 1, done.append)
    bench.loop.result_requests.file_worker.check(
        "0/none", ResultFile("0/none", 0, 0, ()), done.append
    )
    while len(done) < 2:
        bench.loop.run_once(timeout_s=0.002)


def test_start_removes_unfinished_and_unreferenced_result_files(ready: ServiceHarness) -> None:
    ready.submit(spec(1), spec(2))
    finished(ready, *ready.assigned())
    ready.loop.result_requests.stop()
    root = ready.loop.result_requests.root
    values = {path.name for path in root.glob("0/*")}
    epoch = ready.state.epoch << 16
    (root / "0" / f".t-1.{epoch + 9:x}.h5.77.new").write_bytes(b"half")
    (root / "0" / f"t-9.{epoch + 1:x}.h5").write_bytes(b"nobody's")
    (root / "0" / "notes.txt").write_bytes(b"not ours")
    ready.restart()
    later = (ready.state.epoch << 16) + 1
    (root / "0" / f".t-1.{later:x}.h5.78.new").write_bytes(b"being written")
    ready.loop.result_requests.start()
    settled(ready)
    names = {path.name for path in root.glob("0/*")}
    assert names == {*values, "notes.txt", f".t-1.{later:x}.h5.78.new"}
