"""The loop as clients and workers see it: real journal and machine, in-memory doors."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from service import ServiceHarness, completions, program, spec
from waiting import until

from simenv.model import TaskOptions, TaskState
from simenv.scheduler.core import Action, ClusterLimits
from simenv.service import event_loop
from simenv.service.control import reservations
from simenv.service.handlers import administration, queries as query_handlers
from simenv.service.handlers.tasks import Cancelling
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.transport.sockets import PeerKind


@pytest.mark.parametrize(("key", "is_users"), [("~one of a kind", False), ("mine", True)])
def test_a_repeated_submit_gets_the_same_ids_and_runs_once(
    ready: ServiceHarness, key: str, is_users: bool
) -> None:
    """A key of the user is known with its content, an automatic one by itself."""
    first = ready.submit(spec(seed=1), key=key)
    repeated = m.Accepted(5, first.first, 1, repeated=True)
    assert ready.submit(spec(seed=1), key=key) == repeated
    if is_users:
        assert ready.refused(spec(seed=2), key=key).code == "key_conflict"
    else:
        assert ready.submit(spec(seed=2), key=key) == repeated
    assert len(ready.assigned()) == 1
    ready.restart()
    assert ready.submit(spec(seed=1), key=key) == repeated
    assert len(ready.state.tasks) == 1


def test_accepted_tasks_run_after_restart_with_next_attempt(ready: ServiceHarness) -> None:
    ready.submit(spec(seed=1), spec(seed=2), spec(seed=3))
    tasks = ready.assigned()
    assert [t.task for t in tasks] == [1, 2, 3]
    ready.finish(tasks[:1])
    ready.restart()
    assert (ready.replayed.queued, ready.replayed.final) == (2, 1)
    ready.join()
    again = ready.assigned()
    assert [(t.task, t.seed) for t in again] == [(2, 2), (3, 3)]
    assert completions(ready.finish(tasks[1:])) == [], "results of earlier attempts are ignored"
    unknown = [a for a in ready.say(m.WatchResults(9, [1, 2, 3])) if isinstance(a, m.UnknownTasks)]
    assert unknown == [m.UnknownTasks(9, [])]
    (two, three) = completions(ready.finish(again))
    assert (two.attempts, three.attempts) == (2, 2)


def test_worker_of_earlier_epoch_is_stopped(bench: ServiceHarness) -> None:
    body = bench.join(epoch=bench.journal.epoch - 1).receive(0.0)
    assert body is not None
    assert isinstance(codec.to_worker(body), m.StopWorker)


def test_submission_with_invalid_tasks_is_refused_and_each_is_named(bench: ServiceHarness) -> None:
    refused = bench.submit(
        spec(), spec(shots=-1), spec(program=b"noise"), spec(program=program(5_000).packed())
    )
    refusals = [(each.index, each.code) for each in refused.refusals]
    assert refusals == [(1, "option"), (2, "program"), (3, "infeasible")]
    assert (bench.state.tasks, bench.journal.records.accepted.count()) == ({}, 0)


def test_full_queue_refuses_tasks_with_retry_time(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, limits=ClusterLimits(2, 2**30, 3, 2**24, 10**10, 10**11))
    bench.submit(spec(), spec(), key="a1")
    refused = bench.refused(spec(), spec(), key="b2")
    assert refused.code == "queue_full"
    assert refused.retry_after_s > 0
    assert isinstance(bench.submit(spec(), key="c3"), m.Accepted)


def test_invalid_messages_are_refused_and_event_loop_continues(bench: ServiceHarness) -> None:
    for body in (b"", b"\xff" * 40, codec.encode([99, 1]), codec.encode({"a": 1})):
        bench.peer.send(body)
    bench.step()
    answers = bench.heard()
    assert [type(a) for a in answers] == [m.Refused] * 4
    client = bench.listener.connect(PeerKind.WORKER, b"stranger")
    client.send(b"\x00" * 100)
    assert isinstance(bench.submit(spec()), m.Accepted)


def test_pass_reads_less_while_submits_wait_and_assigns_less_after_many(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[int] = []
    dispatch = bench.scheduler.dispatch

    def recorded(now_ns: int, number: int, left: Mapping[str, float]) -> list[Action]:
        accepted.append(number)
        return dispatch(now_ns, number, left)

    monkeypatch.setattr(bench.scheduler, "dispatch", recorded)
    monkeypatch.setattr(event_loop, "SLICE_NS", 10**12)
    monkeypatch.setattr(event_loop, "READ_NS", 0)
    for number in range(3):
        bench.peer.send(codec.encode(m.GetStatus(number)))
    for number in range(2):
        submit = m.Submit(number, f"~{number}", 0, TaskOptions(), [spec()] * 7)
        bench.peer.send(codec.encode(submit))
    for _ in range(2):
        bench.loop.run_once(0.0)
    assert accepted == [7, 7], "the second Submit was read before the first was accepted"
    answers: list[m.ToClient] = []

    def all_answered() -> bool:  # the three of the queries come from another thread
        bench.loop.run_once(0.0)
        answers.extend(bench.heard())
        return len(answers) == 5

    until(all_answered)


@pytest.mark.parametrize("unread_ns", [-(10**12), 10**12], ids=["due", "not_due"])
def test_loop_that_slept_reads_one_message_a_pass_until_full_read_is_due(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, unread_ns: int
) -> None:
    wait = bench.listener.wait

    def slept(timeout_s: float) -> bool:
        end_ns = time.monotonic_ns() + 2 * event_loop.SLEPT_NS
        while time.monotonic_ns() < end_ns:
            pass
        return wait(timeout_s)

    bench.loop.run_once(0.0)
    monkeypatch.setattr(bench.listener, "wait", slept)
    monkeypatch.setattr(event_loop, "UNREAD_NS", unread_ns)
    for number in (1, 2):
        bench.peer.send(codec.encode(m.Ping(number)))
    bench.loop.run_once()
    first = len(bench.heard())
    bench.loop.run_once()
    assert (first, first + len(bench.heard())) == (2 if unread_ns < 0 else 1, 2)


def test_cancel_reply_states_if_task_waited_ran_ended_or_is_unknown(ready: ServiceHarness) -> None:
    ready.submit(spec(), key="a1")
    running = ready.assigned()
    ready.submit(*[spec(seed=k) for k in range(300)], key="b2")
    waiting = max(ready.state.tasks)
    (first,) = [a for a in ready.say(m.Cancel(1, [waiting])) if isinstance(a, m.Cancelled)]
    assert first.words == ["cancelled"]
    second = ready.get(m.Cancelled, m.Cancel(2, [running[0].task, waiting, 10**6]))
    assert second.words == ["cancelling", "final", "unknown"]
    (done,) = completions(ready.finish(running, TaskState.CANCELLED))
    assert m.STATES[done.state] is TaskState.CANCELLED
    assert codec.failure(done.payload).reason == "cancelled"


def test_completions_are_numbered_and_a_cursor_survives_a_restart(ready: ServiceHarness) -> None:
    for key in ("a1", "b2", "c3"):
        ready.submit(spec(), spec(seed=2), key=key)
        ready.finish(ready.assigned())
    assert ready.say(m.Ack(1, "mine", 4)) == [m.Acked(1, 4)]
    for wrong in (m.Ack(1, "mine", 7), m.Ack(1, "mine", -1), m.Ack(1, "", 4)):
        ready.refusal(wrong)
    ready.restart()
    assert ready.say(m.GetCursor(1, "mine")) == [m.Acked(1, 4)]
    page = ready.get(m.CompletionPage, m.GetCompletions(1, 4))
    assert (page.newest, [g.first_seq for g in page.groups]) == (6, [5])
    status = ready.get(m.Status, m.GetStatus(1))
    assert (status.info.done, status.info.unread) == (6, 2)


def test_results_are_found_by_id_before_and_after_indexing(ready: ServiceHarness) -> None:
    ready.submit(*[spec(seed=k) for k in range(20)])
    ready.finish_in_turn()
    for _ in range(2):
        assert [c.task for c in completions(ready.say(m.WatchResults(1, [3, 17])))] == [3, 17]
        while ready.loop.completions.unindexed:
            ready.loop.completions.index_slice()
    ready.restart()
    assert [c.task for c in completions(ready.say(m.WatchResults(1, [3, 17])))] == [3, 17]


def test_a_drain_lets_running_tasks_end_and_keeps_the_others(ready: ServiceHarness) -> None:
    ready.submit(*[spec(seed=k) for k in range(400)])
    running = ready.assigned()
    stopping = ready.get(m.Stopping, m.Shutdown(1))
    assert stopping.running + stopping.queued == 400
    ready.refused(spec(), key="late")
    assert not ready.loop.lifecycle.stopped
    assert len(completions(ready.finish(running))) == len(running)
    ready.step()
    assert ready.loop.lifecycle.stopped
    ready.restart()
    assert ready.replayed.queued == 400 - len(running)


def test_invalid_task_options_are_refused(bench: ServiceHarness) -> None:
    for terms in (
        TaskOptions(outputs=()), TaskOptions(outputs=("counts", "counts")),
        TaskOptions(outputs=("colour",)), TaskOptions(precision="half"),
        TaskOptions(engine="nonesuch"), TaskOptions(pool="nonesuch"),
        TaskOptions(outputs=("expectation",)), TaskOptions(queue_timeout_s=float("nan")),
        TaskOptions(run_timeout_s=-1.0), TaskOptions(priority=10**9),
    ):  # fmt: skip
        refused = bench.refused(spec(), terms=terms)
        assert (refused.code, bool(refused.message)) == ("option", True)


GIB, MIB = 2**30, 2**20


class Memory:
    """The memory of the service as it is measured, of which a collection frees the garbage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used_bytes, self.garbage_bytes, self.collections = GIB, 0, 0
        monkeypatch.setattr(event_loop, "resident_bytes", lambda: self.used_bytes)
        monkeypatch.setattr(event_loop, "release_memory", self.collect)

    def collect(self) -> int:
        self.collections += 1
        self.used_bytes, self.garbage_bytes = self.used_bytes - self.garbage_bytes, 0
        return self.used_bytes


def test_garbage_is_collected_after_growth(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The growth since the last collection, or since the least memory after it."""
    memory, upkeep = Memory(monkeypatch), event_loop.Upkeep(bench.loop)
    collections = []
    for growth in (0, 256, 1, 255, 1, 1, -200, 256, 1):
        memory.used_bytes += growth * MIB
        memory.garbage_bytes = 100 * MIB if growth == 1 else 0
        upkeep._watch_memory(0)
        collections.append(memory.collections)
        assert bench.state.service_bytes == memory.used_bytes
    assert collections == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_service_above_its_limit_collects_garbage_once_in_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ClusterLimits(2, 2**30, 3, 2**24, 10**10, 10**11, service_bytes=GIB)
    bench = ServiceHarness(tmp_path, limits=limits)
    memory, upkeep = Memory(monkeypatch), event_loop.Upkeep(bench.loop)
    collections = []
    for second, used_bytes in ((10, GIB), (11, GIB + 1), (16, GIB + 1), (17, GIB + 1), (30, GIB)):
        memory.used_bytes = used_bytes
        upkeep._watch_memory(second * 10**9)
        collections.append(memory.collections)
    assert collections == [0, 1, 1, 2, 2]


def test_each_message_of_clients_has_one_handler() -> None:
    tables = (query_handlers.QUERIES, administration.CHANGES, reservations.CHANGES)
    handled = [m.Submit, m.Cancel, *(kind for table in tables for kind in table)]
    handled.remove(Cancelling)
    assert Counter(handled) == Counter(get_args(m.FromClient))
