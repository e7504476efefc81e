"""Tasks whose acceptance nobody waited for: refused, lost on the way, looked at too early."""

from __future__ import annotations

import threading

import pytest
from client_peer import Peer, spec, terms
from failing import fails

import simenv
from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import InflightWindow, PostedTask, post, send
from simenv.errors import BatchRefusedError, InfeasibleError, ServiceLostError, TimedOutError
from simenv.model import TaskSpec
from simenv.wire.messages import client as m

BAD = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=0)


def posted(link: ServiceSession, seed: int = 0, key: str | None = None) -> PostedTask:
    return post(link, PreparedSubmit(terms(), [spec(seed)], single=True), key, InflightWindow())


def refusing(peer: Peer, *seeds: int) -> None:
    def picky(message: m.Submit) -> list[m.ToClient]:
        if message.tasks[0].seed in seeds:
            return [m.Refused(message.request, [BAD])]
        return peer.submitted(message)

    peer.on(m.Submit, picky)


def test_refused_posted_task_does_not_affect_others(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    tasks = [posted(link, seed) for seed in range(3)]
    ended = list(simenv.as_completed(tasks, timeout_s=60))
    assert ended[0] is tasks[1]
    assert {task.result().seed for task in ended[1:]} == {0, 2}
    assert isinstance(tasks[1].exception(), InfeasibleError)
    assert list(simenv.as_completed([tasks[1]])) == [tasks[1]]
    assert len({*tasks, tasks[1]}) == 3
    assert tasks[1] != tasks[0]


def test_silence_posts_a_task_again(link: ServiceSession, peer: Peer, impatient: None) -> None:
    peer.silent = True
    task = posted(link, 7)
    fails(ServiceLostError, "", task.result)
    peer.silent = False
    assert task.result(5).seed == 7
    first, *others = peer.of(m.Submit)
    assert {(again.key, again.offset) for again in others} == {(first.key, first.offset)}
    assert not link._requests
    assert link._pending.unanswered == 0


def test_late_acceptance_of_posted_task_is_received(link: ServiceSession, peer: Peer) -> None:
    go = threading.Event()
    peer.on(m.Submit, lambda message: peer.submitted(message) if go.wait(30) else [])
    task = posted(link, 7)
    for each in (task.result, task.exception):
        fails(TimedOutError, "", each, 0.01)
    assert repr(task) == "<Task not accepted yet>"
    assert not task.done()
    go.set()
    assert task.result(5).seed == 7
    assert repr(task) == f"<Task {task.id} DONE>"


def test_repr_of_refused_posted_task_does_not_raise(link: ServiceSession, peer: Peer) -> None:
    refusing(peer, 1)
    task = posted(link, 1)
    assert isinstance(task.exception(5), InfeasibleError)
    assert repr(task) == "<Task refused>"


def test_refused_binding_is_named_by_its_index_in_sweep(link: ServiceSession, peer: Peer) -> None:
    bad = m.Refusal("infeasible", "33 qubits do not fit", "28 do", index=2)
    peer.on(m.Submit, lambda message: [m.Refused(message.request, [bad])])
    rows = TaskSpec(spec().program, 10, 1, bytes(800), count=100)
    with pytest.raises(
        BatchRefusedError, match=r"100 of 300 items.* item 200: 33 qubits"
    ) as caught:
        send(link, PreparedSubmit(terms(), [rows, rows, rows]), None)
    assert [error.index for error in caught.value.errors] == [200]


def test_posted_submit_says_that_its_result_is_awaited(link: ServiceSession, peer: Peer) -> None:
    posted(link, 1).result(5)
    send(link, PreparedSubmit(terms(), [spec(2)], single=True), None)
    assert [message.awaits_result for message in peer.of(m.Submit)] == [True, False]


def test_window_keeps_no_answered_task_but_the_last(link: ServiceSession, peer: Peer) -> None:
    window = InflightWindow()
    for seed in range(5):
        order = PreparedSubmit(terms(), [spec(seed)], single=True)
        assert post(link, order, None, window).result(5).seed == seed
    assert len(window._open) == 1
