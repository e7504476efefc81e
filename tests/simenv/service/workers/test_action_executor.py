"""Messages to workers that cannot be sent."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from service import ServiceHarness, completions, spec
from waiting import until

from simenv.model import TaskState
from simenv.scheduler import core
from simenv.scheduler.events.workers import IDLE_BEATS
from simenv.service.devices.resolve import NoiseDocuments
from simenv.service.job_thread import JobThread
from simenv.service.workers import action_executor
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.transport.sockets import PeerKind


def test_worker_that_cannot_be_sent_a_document_is_replaced_before_it_gets_the_tasks(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, listener, first = ready.loop.executor, ready.listener, ready.work
    executor._documents = documents = NoiseDocuments(ready.journal, set)
    documents.add("d0", b"document")
    pack, send, refused = action_executor.packed, listener.send, []

    def packed(assign, needed, *functions):  # type: ignore[no-untyped-def]
        needed.append("d0")
        return pack(assign, needed, *functions)

    def full(kind: PeerKind, peer: bytes, body: bytes) -> bool:
        if kind is PeerKind.WORKER and not refused:
            refused.extend(e for e in [codec.to_worker(body)] if isinstance(e, m.NoiseDocument))
            return not refused and send(kind, peer, body)
        return send(kind, peer, body)

    monkeypatch.setattr(action_executor, "packed", packed)
    monkeypatch.setattr(listener, "send", full)
    ready.submit(spec(seed=1))
    assert refused
    sent = [codec.to_worker(body) for body in iter(lambda: first.receive(0.0), None)]
    assert not [each for each in sent if isinstance(each, m.AssignChunk)]
    assert [each.message for each in ready.events("worker.lost")] == ["it cannot be reached"]
    while "main-0" not in ready.paper.commands and "main-1" not in ready.paper.commands:
        ready.step()
    second = ready.join(next(iter(ready.paper.commands)))
    answers = [codec.to_worker(body) for body in iter(lambda: second.receive(0.0), None)]
    kinds = [type(each) for each in answers if not isinstance(each, m.LeaseRenewed)]
    assert kinds == [m.NoiseDocument, m.AssignChunk]
    (chunk,) = (each for each in answers if isinstance(each, m.AssignChunk))
    (done,) = completions(ready.finish(chunk.tasks))
    assert m.STATES[done.state] is TaskState.DONE


@pytest.mark.parametrize(
    "action",
    [core.SetThreads("main-0", 1, 2**16 + 1, 2), core.DropKeptStates("main-0")],
    ids=lambda action: type(action).__name__,
)
def test_worker_that_keeps_slots_or_memory_of_others_is_replaced(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, action: core.Action
) -> None:
    monkeypatch.setattr(ready.listener, "send", lambda *_: False)
    ready.loop.executor.execute([action])
    monkeypatch.undo()
    ready.step()
    assert [each.message for each in ready.events("worker.lost")] == ["it cannot be reached"]


def test_stop_that_is_not_sent_is_left_to_the_grace_of_the_task(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready.listener, "send", lambda *_: False)
    ready.loop.executor.execute([core.StopAttempt("main-0", 1, 2**16 + 1, "cancelled")])
    assert "main-0" in ready.state.cluster.workers


def test_worker_whose_tasks_wait_for_their_files_is_not_taken_for_one_that_lost_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = ServiceHarness(tmp_path, isolation="account")
    harness.join()
    workers, may_end = harness.loop.workers, threading.Event()
    isolation = workers.isolation
    assert isolation is not None
    monkeypatch.setattr(workers, "file_jobs", JobThread("worker-files"))
    monkeypatch.setattr(isolation, "assign", lambda *_: may_end.wait)
    start = harness.paper.commands["main-0"].start
    control = harness.listener.connect(PeerKind.WORKER, b"control")

    def beats(grants: int) -> None:
        for _ in range(2 * IDLE_BEATS):
            beat = m.Heartbeat("main-0", harness.journal.epoch, 0, 0, 1, start, grants=grants)
            control.send(codec.encode(beat))
        harness.step(2 * IDLE_BEATS)

    harness.submit(spec(seed=1))
    grants = harness.state.dispatch.grants
    beats(grants)
    assert harness.assigned() == []
    may_end.set()
    until(lambda: harness.step() or not workers.file_jobs.is_busy)
    beats(grants)  # they were sent before it came
    assert harness.events("worker.lost") == []
    (done,) = completions(harness.finish(harness.assigned()))
    assert m.STATES[done.state] is TaskState.DONE
    workers.file_jobs.close()
