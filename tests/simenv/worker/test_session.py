"""What a worker answers must fit a message; what may wait is done when nothing comes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from simenv.model import Origin
from simenv.wire import codec
from simenv.wire.keyfiles import KEYS_FORMAT, new_pair
from simenv.wire.messages import client as m
from simenv.wire.transport.worker_endpoint import WorkerBootstrap
from simenv.worker import session
from simenv.worker.runner import Runner

ORIGIN = Origin("main-0", "here", 1, "test")
CHUNK = m.AssignChunk(1, 2**20, False, "statevector", "test", [], [])


def test_results_too_large_for_one_message_are_sent_separately() -> None:
    half = session.ANSWER_BYTES // 2 + 1
    results = [m.AttemptResult(task, 1, 2, bytes(half), 0) for task in (1, 2)]
    bodies = session.packed(ORIGIN, CHUNK, results)
    entries = [codec.from_worker(body) for body in bodies]
    assert [done.results for done in entries if isinstance(done, m.AttemptResults)] == [
        results[:1],
        results[1:],
    ]


def test_result_too_large_for_any_message_is_reported_as_failure() -> None:
    small = m.AttemptResult(1, 1, 2, b"r", 0)
    large = m.AttemptResult(2, 7, 2, bytes(m.MAX_MESSAGE_BYTES), 0)
    bodies = session.packed(ORIGIN, CHUNK, [small, large])
    assert all(len(body) <= session.ANSWER_BYTES for body in bodies)
    first, second = (codec.from_worker(body) for body in bodies)
    assert isinstance(first, m.AttemptResults)
    assert isinstance(second, m.AttemptResults)
    assert first.results == [small]
    (failed,) = second.results
    assert (failed.task, failed.attempt) == (2, 7)
    assert m.STATES[failed.state] == "FAILED"
    failure = codec.failure(failed.payload)
    assert failure.reason == "limit"
    assert str(session.ANSWER_BYTES) in failure.message


def test_an_idle_worker_does_deferred_work_once_and_does_not_count_as_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "IDLE_S", 0.01)
    monkeypatch.setattr(session, "FOREVER_S", 0.02)
    done: list[str] = []
    with tempfile.TemporaryDirectory(prefix="simenv-") as folder:
        Path(folder, "worker.sock").touch()
        service = WorkerBootstrap(
            KEYS_FORMAT,
            os.uname().nodename,
            folder,
            "token",
            server_key=new_pair().public,
            epoch=1,
        )
        idle = session.Session(service, "w", 1, Runner())
        idle.when_idle(lambda: done.append(f"rest, waiting: {idle._current.waiting}"))
        assert idle.work()
        assert idle.work()
        idle._work.close()
        idle._control.close()
    assert done == ["rest, waiting: False"]
