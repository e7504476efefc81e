"""Questions are answered in turns and in slices, from what is stored."""

import time

import pytest
from failing import fails
from service import ServiceHarness, spec

from simenv.errors import QueueFullError
from simenv.service import event_loop, fault_injection
from simenv.service.queries import query_queue
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.rights import LOCAL, Identity, Role
from simenv.wire.transport.sockets import PeerKind


def ended(ready: ServiceHarness, count: int, key: str = "~many") -> None:
    ready.submit(*[spec(seed=k) for k in range(count)], key=key)
    ready.finish_in_turn()


@pytest.mark.parametrize(
    "long",
    [
        m.WatchResults(1, list(range(1, 101))), m.GetTasks(1, list(range(1, 101))),
        m.GetQueue(1, True, 1000), m.GetCompletions(1), m.Cancel(1, list(range(1, 101))),
    ],
    ids=lambda question: type(question).__name__,
)  # fmt: skip
def test_other_connections_are_answered_during_long_query(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, long: m.FromClient
) -> None:
    ended(ready, 100)
    other = ready.listener.connect(PeerKind.CLIENT, b"other")
    monkeypatch.setattr(event_loop, "SLICE_NS", 0)  # one step a pass
    for peer, question in ((ready.peer, long), (other, m.Ping(2))):
        peer.send(codec.encode(question))
    for _ in range(4):
        ready.loop.run_once(timeout_s=0.0)
    assert ready.heard(other) == [m.Pong(2, ready.state.epoch)]
    assert ready.loop.query_queue.busy
    monkeypatch.undo()
    ready.step()
    assert ready.heard()


def test_answers_keep_their_order(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(ready, 10)
    monkeypatch.setattr(event_loop, "SLICE_NS", 0)
    ready.peer.send(codec.encode(m.GetTasks(1, list(range(1, 11)))))
    ready.peer.send(codec.encode(m.Ping(2)))
    ready.step()
    assert [getattr(answer, "request", 0) for answer in ready.heard()] == [1, 2]


def test_completions_are_read_once(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.submit(*[spec(seed=k) for k in range(100)])
    tasks = ready.assigned()
    ready.finish(tasks)
    looks: list[int] = []
    records = ready.journal.records
    real = records.finished.at
    monkeypatch.setattr(records.finished, "at", lambda seq: looks.append(seq) or real(seq))
    item = [task.task for task in tasks][::2]
    answers = ready.say(m.WatchResults(1, item))
    assert len(looks) == 1
    groups = [answer for answer in answers if isinstance(answer, m.Completed)]
    table = {c.task: g.first_seq + k for g in groups for k, c in enumerate(g.results)}
    assert (table, answers[-1]) == ({number: number for number in item}, m.UnknownTasks(1, []))


def test_completion_not_stored_yet_is_not_reported_as_unknown(ready: ServiceHarness) -> None:
    ready.submit(spec())
    tasks = ready.assigned()
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 20)))
    ready.finish(tasks)
    assert ready.loop.lifecycle.store_error
    other = ready.listener.connect(PeerKind.CLIENT, b"other")
    assert ready.say(m.WatchResults(1, [1]), other) == [m.UnknownTasks(1, [])]
    fault_injection.install("")
    (completed, _) = ready.say(m.WatchResults(2, [1]), other)
    assert isinstance(completed, m.Completed)


def test_index_holds_no_completion_that_was_never_stored(ready: ServiceHarness) -> None:
    ready.submit(spec())
    tasks = ready.assigned()
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 20)))
    ready.finish(tasks)
    ready.step(5)  # with idle moments, in which the index is written
    assert ready.loop.lifecycle.store_error
    ready.restart()
    assert (ready.replayed.queued, ready.replayed.final) == (1, 0)


def test_number_of_waiting_queries_per_connection_is_bounded(ready: ServiceHarness) -> None:
    waiting = ready.loop.query_queue
    for number in range(query_queue.MAX_QUERIES_PER_CONNECTION):
        waiting.enqueue(b"flood", LOCAL, m.Ping(number))
    text = f"limit is {query_queue.MAX_QUERIES_PER_CONNECTION}"
    fails(QueueFullError, text, waiting.enqueue, b"flood", LOCAL, m.Ping(0))
    waiting.enqueue(b"other", LOCAL, m.Ping(0))
    ready.step()
    assert not waiting.busy
    # Also of those that cannot begin yet.
    waiting = query_queue.QueryQueue(
        lambda *_: iter(()), lambda _: None, lambda *_: None, lambda _: False
    )
    for number in range(query_queue.MAX_QUERIES_PER_CONNECTION):
        waiting.enqueue(b"p", LOCAL, m.Ping(number))
    fails(QueueFullError, text, waiting.enqueue, b"p", LOCAL, m.Ping(0))


def test_several_pages_of_results(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        ended(ready, 3, f"~{number}")
    monkeypatch.setattr("simenv.service.handlers.tasks.PAGE_BYTES", 1)
    entries: list[int] = []
    pages = 0
    while True:
        page = ready.get(m.CompletionPage, m.GetCompletions(1, len(entries)))
        if not page.groups:
            break
        assert len(page.groups) == 1
        entries += [c.task for group in page.groups for c in group.results]
        pages += 1
    assert entries == list(range(1, 16))
    assert pages >= 5


def test_a_task_keeps_its_newest_watchers_only(ready: ServiceHarness) -> None:
    ready.submit(spec())
    completions = ready.loop.completions
    for number in range(1000):
        completions.watch(1, b"%d" % number)
    assert len(completions._watchers[1]) <= 8
    ready.say(m.WatchResults(1, [1]))
    assert completions._watchers[1][-1] == b"client"


def test_unread_answers_hold_others(ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its questions wait, in their order; others are answered meanwhile, and the loop rests."""
    monkeypatch.setattr("memory_transport.SEND_QUEUE_MESSAGES", 8)
    other = ready.listener.connect(PeerKind.CLIENT, b"other")
    for number in range(1, 31):
        ready.peer.send(codec.encode(m.GetCursor(number, "mine")))
    ready.step()
    assert ready.say(m.Ping(99), other) == [m.Pong(99, ready.state.epoch)]
    assert ready.loop.query_queue.holds
    assert not ready.loop.query_queue.busy
    heard: list[int] = []
    while len(heard) < 30:
        heard += [answer.request for answer in ready.heard() if isinstance(answer, m.Acked)]
        ready.loop.query_queue._next_poll_ns = 0
        ready.step()
    assert heard == list(range(1, 31))
    assert not ready.loop.query_queue.holds


def test_resumed_queries_follow_held_queries_of_their_connection() -> None:
    """A connection that reads nothing keeps both: those held, and those that had come too early."""
    ready, entries, items = [False], [False], list[int]()

    def answer(_peer: bytes, _who: Identity, q: m.FromClient) -> query_queue.ReplySteps:
        assert isinstance(q, m.Ping)
        items.append(q.request)
        yield None

    table = query_queue.QueryQueue(
        answer,
        lambda _: None,
        lambda *_: None,
        lambda q: ready[0] or not isinstance(q, m.Ping) or q.request != 2,
        lambda *_: entries[0],
    )
    ana = Identity("ana", Role.CLIENT)
    for number in (1, 2, 3):
        table.enqueue(b"p", ana, m.Ping(number))
        table.process(time.monotonic_ns() + 10**9)
    ready[0] = True
    table.resume()
    table.process(time.monotonic_ns() + 10**9)
    entries[0], table._next_poll_ns = True, 0
    table.process(time.monotonic_ns() + 10**9)
    assert items == [1, 3, 2]
    assert not table.holds


def test_waiting_queries_of_one_owner_are_bounded_in_bytes(ready: ServiceHarness) -> None:
    waiting = ready.loop.query_queue
    ana = Identity("ana", Role.CLIENT)
    for number in range(4):
        waiting.enqueue(b"%d" % number, ana, m.Ping(number), query_queue.MAX_OWNER_BYTES // 5)
    with pytest.raises(QueueFullError, match=f"owner is {query_queue.MAX_OWNER_BYTES}"):
        waiting.enqueue(b"more", ana, m.Ping(9), query_queue.MAX_OWNER_BYTES // 5)
    waiting.enqueue(b"ben", Identity("ben", Role.CLIENT), m.Ping(9), query_queue.MAX_OWNER_BYTES)
    ready.step()
    waiting.enqueue(b"more", ana, m.Ping(9), query_queue.MAX_OWNER_BYTES // 5)
