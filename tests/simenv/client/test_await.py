"""Tasks awaited inside a running loop: it is never blocked, and one thread serves all awaits."""

from __future__ import annotations

import asyncio
import threading

import pytest
from client_peer import Peer, completed, completion, spec, terms

from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task, as_completed
from simenv.errors import (
    NoServiceError,
    OptionError,
    ServiceLostError,
    TaskFailedError,
    TimedOutError,
)
from simenv.model import TaskState


def submit(link: ServiceSession, count: int = 1) -> list[Task]:
    return send(link, PreparedSubmit(terms(), [spec(k) for k in range(count)]), None)


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "simenv-await"]


async def seed(task: Task) -> int:
    return (await task).seed


def test_fifty_tasks_are_gathered_by_one_thread(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False

    async def main() -> list[int]:
        tasks = submit(link, 50)
        result = asyncio.gather(*[seed(task) for task in tasks])
        await asyncio.sleep(0)
        assert len(pumps()) == 1
        for number in reversed(range(1, 51)):
            peer.say(peer.end([number]))
        return await result

    assert asyncio.run(main()) == list(range(50))
    link.close()
    assert not pumps()


def test_event_loop_runs_while_task_is_awaited(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False

    async def main() -> int:
        [task] = submit(link)
        waiting = asyncio.create_task(seed(task))
        for _ in range(20):
            await asyncio.sleep(0)  # a blocked loop would never come to the next line
        peer.say(peer.end([1]))
        return await waiting

    assert asyncio.run(main()) == 0


def test_tasks_are_submitted_while_others_are_awaited(link: ServiceSession) -> None:
    async def one(number: int) -> int:
        [task] = send(link, PreparedSubmit(terms(), [spec(number)]), None)
        return (await task).seed

    async def main() -> list[int]:
        return await asyncio.gather(*[one(number) for number in range(30)])

    assert asyncio.run(main()) == list(range(30))


def test_cancelled_await_does_not_cancel_task(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False

    async def main() -> Task:
        [task] = submit(link)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(seed(task), 0.05)
        await asyncio.sleep(0)  # the loop calls back one turn later
        assert not link.bridge._waiting
        return task

    task = asyncio.run(main())
    peer.say(peer.end([1]))
    assert task.result(5).seed == 0


def test_result_is_available_after_its_event_loop_was_closed(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False
    [task] = submit(link)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(seed(task))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    peer.say(peer.end([1]))
    assert task.result(5).seed == 0
    del waiting


def test_await_of_failed_task_raises_task_failed_error(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    [task] = submit(link)
    peer.say(completed(completion(1, state=TaskState.FAILED)))
    with pytest.raises(TaskFailedError):
        asyncio.run(seed(task))


@pytest.mark.usefixtures("impatient")
def test_lost_service_raises_service_lost_error_in_every_await(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False

    async def main() -> list[object]:
        tasks = submit(link, 3)
        peer.silent = True
        return await asyncio.gather(*[seed(task) for task in tasks], return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [ServiceLostError] * 3


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_while_awaited(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    [task] = submit(link)
    assert asyncio.run(seed(task)) == 0


def test_closing_session_raises_no_service_error_in_awaits(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False

    async def main() -> None:
        [task] = submit(link)
        waiting = asyncio.create_task(seed(task))
        await asyncio.sleep(0)
        await asyncio.to_thread(link.close)
        with pytest.raises(NoServiceError, match="closed"):
            await waiting

    asyncio.run(main())


def test_as_completed_yields_tasks_in_order_of_completion(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    tasks = submit(link, 3)
    peer.say(peer.end([2]))
    result = as_completed(tasks, timeout_s=30)
    assert next(result) is tasks[1]
    peer.say(peer.end([3]), peer.end([1]))
    assert list(result) == [tasks[2], tasks[0]]


def test_as_completed_accepts_ended_repeated_and_no_tasks(link: ServiceSession) -> None:
    tasks = submit(link, 2)
    tasks[0].result(5)
    assert set(as_completed([*tasks, *tasks])) == set(tasks)
    assert list(as_completed([])) == []


def test_as_completed_raises_timed_out_error_after_timeout(
    link: ServiceSession, peer: Peer
) -> None:
    peer.finishes = False
    tasks = submit(link, 3)
    peer.say(peer.end([1]))
    result = as_completed(tasks, timeout_s=0.1)
    assert next(result) is tasks[0]
    with pytest.raises(TimedOutError, match="2 of 3 tasks"):
        next(result)


@pytest.mark.usefixtures("impatient")
def test_as_completed_requests_lost_results_again(link: ServiceSession, peer: Peer) -> None:
    peer.finishes = False
    tasks = submit(link, 20)
    assert set(as_completed(tasks)) == set(tasks)


def test_as_completed_refuses_tasks_of_two_clients(link: ServiceSession, peer: Peer) -> None:
    other = ServiceSession(peer)
    with pytest.raises(OptionError, match="2 clients"):
        as_completed([*submit(link), *submit(other)])
    other.close()
