"""Tasks as futures of `concurrent.futures`: its functions take them beside futures of others."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import copy
import pickle
import threading

import pytest
from client_peer import Peer, completed, completion, spec, terms

from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import OptionError, ServiceLostError, TaskCancelledError, TimedOutError
from simenv.model import TaskState

WAIT_S = 30.0


def submit(link: ServiceSession, count: int = 1) -> list[Task]:
    return send(link, PreparedSubmit(terms(), [spec(k) for k in range(count)]), None)


def test_task_is_a_future_with_its_exceptions(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    [task] = submit(link)
    assert isinstance(task, cf.Future)
    assert not task.cancelled()
    with pytest.raises(cf.TimeoutError):
        task.result(timeout=0.01)
    with pytest.raises(TimedOutError):
        task.exception(timeout=0.01)
    peer.say(peer.end([1]))
    assert task.result(timeout=WAIT_S).seed == 0
    assert task.exception() is None
    for setter in (task.set_result, task.set_exception):
        with pytest.raises(OptionError, match="the end of a task comes from the service"):
            setter(None)
    with pytest.raises(OptionError):
        task.set_running_or_notify_cancel()


def test_pickled_task_is_refused_and_a_copy_is_the_task(link: ServiceSession) -> None:
    [task] = submit(link)
    assert copy.copy(task) is copy.deepcopy(task) is task
    with pytest.raises(OptionError, match=f"task {task.id} cannot be pickled.*\n.*result"):
        pickle.dumps([task])
    with pytest.raises(OptionError, match=r"connection of a client cannot be pickled.*\n.*connect"):
        pickle.dumps(link)


def test_cancelled_task_raises_the_error_of_cancelled_futures(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False
    [task] = submit(link)
    peer.say(completed(completion(1, state=TaskState.CANCELLED)))
    with pytest.raises(cf.CancelledError) as caught:
        task.result(WAIT_S)
    assert isinstance(caught.value, TaskCancelledError)
    assert task.cancelled()
    assert not task.running()


@pytest.mark.parametrize("count", [1, 40])
def test_wait_returns_when_all_tasks_and_futures_have_ended(
    link: ServiceSession, peer: Peer, count: int
) -> None:
    peer.finishes = False
    tasks = submit(link, count)
    other: cf.Future[int] = cf.Future()
    assert cf.wait([*tasks, other], timeout=0.02).done == set()
    threading.Timer(0.1, other.set_result, [1]).start()
    for number in reversed(range(1, count + 1)):
        peer.say(peer.end([number]))
    ended = cf.wait([*tasks, other], timeout=WAIT_S)
    assert ended.not_done == set()
    assert ended.done == {*tasks, other}
    assert cf.wait(tasks, timeout=0.0).not_done == set()


def test_wait_for_the_first_leaves_the_others(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    tasks = submit(link, 3)
    peer.say(peer.end([2]))
    ended = cf.wait(tasks, timeout=WAIT_S, return_when=cf.FIRST_COMPLETED)
    assert ended.done == {tasks[1]}
    peer.say(completed(completion(1, state=TaskState.FAILED)))
    ended = cf.wait(tasks, timeout=WAIT_S, return_when=cf.FIRST_EXCEPTION)
    assert ended.done == {tasks[0], tasks[1]}


def test_as_completed_hands_out_each_task_once_in_order_of_their_ends(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False
    tasks = submit(link, 3)
    ending = cf.as_completed(tasks, timeout=WAIT_S)
    entries = []
    for number in (3, 1, 2):
        peer.say(peer.end([number]))
        entries.append(next(ending))
    assert entries == [tasks[2], tasks[0], tasks[1]]
    assert list(ending) == []


def test_tasks_that_ended_before_are_complete_at_once(link: ServiceSession, peer: Peer) -> None:
    tasks = submit(link, 5)
    for task in tasks:
        task.result(WAIT_S)
    assert cf.wait(tasks, timeout=0.0).done == set(tasks)
    assert set(cf.as_completed(tasks, timeout=0.0)) == set(tasks)


def test_callbacks_run_once_each_outside_the_waiting_thread(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False
    [task] = submit(link)
    heard: list[tuple[Task, str]] = []
    all_heard = threading.Event()

    def note(ended: Task) -> None:
        heard.append((ended, threading.current_thread().name))
        assert ended.result().seed == 0, "a callback may use the task"
        if len(heard) == 2:
            all_heard.set()

    task.add_done_callback(lambda _: 1 / 0)  # logged; the next one runs all the same
    task.add_done_callback(note)
    task.add_done_callback(note)
    assert heard == []
    peer.say(peer.end([1]))
    assert all_heard.wait(WAIT_S)
    assert heard == [(task, "simenv-await")] * 2
    task.add_done_callback(note)
    assert heard[2] == (task, threading.current_thread().name)


def test_event_loop_wraps_a_task(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False

    async def main() -> int:
        [task] = submit(link)
        wrapped = asyncio.wrap_future(task)
        await asyncio.sleep(0.02)
        assert not wrapped.done()
        peer.say(peer.end([1]))
        return (await asyncio.wait_for(wrapped, WAIT_S)).seed

    assert asyncio.run(main()) == 0


@pytest.mark.usefixtures("impatient")
def test_wait_ends_when_the_service_is_lost(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    [task] = submit(link)
    peer.__exit__(None, None, None)
    assert cf.wait([task], timeout=WAIT_S).done == {task}
    with pytest.raises(ServiceLostError):
        task.result(WAIT_S)
