"""Requests of an event loop: without a thread in the ordinary case, and with one in all others."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from client_peer import Peer, submit
from failing import fails

from simenv import errors
from simenv.client.connection import channel, loop_reader
from simenv.client.connection.session import ServiceSession
from simenv.wire.messages import client as m

FAR_S = 30.0


class Caller:
    """Requests of one loop; `threads` counts those that a thread has waited for."""

    def __init__(self, link: ServiceSession) -> None:
        self.link = link
        self.threads = 0

    async def newest(self, number: int) -> int:
        """The answer to the request of the events above a number."""
        ask = self.link.loop_reader.request
        answer = await ask(m.GetEvents(0, number, 1), self.in_thread)
        return answer.newest

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        self.threads += 1
        return await asyncio.to_thread(function)


def in_loop(function: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(FAR_S):
            return await function()

    return asyncio.run(bounded())


@pytest.fixture
def answering(peer: Peer) -> Peer:
    def answer(message: m.GetEvents) -> list[m.ToClient]:
        return [m.Events(message.request, [], message.since)]

    peer.on(m.GetEvents, answer)
    return peer


@pytest.fixture
def caller(link: ServiceSession, answering: Peer, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """With more patience than the tests have: what is late was forgotten."""
    assert answering.name
    monkeypatch.setattr(loop_reader, "QUIET_S", 2 * FAR_S)
    return Caller(link)


def test_requests_of_loop_need_no_thread(caller: Caller) -> None:
    async def many() -> list[int]:
        first = await asyncio.gather(*map(caller.newest, range(40)))
        return [*first, await caller.newest(40), await caller.newest(41)]

    assert (in_loop(many), caller.threads) == (list(range(42)), 0)
    assert not caller.link.requests._open


def test_answer_whose_signal_was_taken_by_sending_is_read(caller: Caller, peer: Peer) -> None:
    def answer(message: m.GetEvents) -> list[m.ToClient]:
        return [m.Events(message.request, [], message.since)] if message.since < 2 else []

    async def block_loop() -> None:
        inbox: Any = caller.link.channel._connection
        _until(lambda: len(inbox._inbox) > 0)

    async def two() -> int:
        assert await caller.newest(0) == 0  # the descriptor is watched from now on
        first = asyncio.create_task(caller.newest(1))
        blocking = asyncio.create_task(block_loop())
        second = asyncio.create_task(caller.newest(2))
        await blocking
        result = await first
        second.cancel()
        return result

    peer.on(m.GetEvents, answer)
    assert in_loop(two) == 1


def test_loop_and_threads_share_connection(caller: Caller, idle: Peer) -> None:
    [task] = submit(caller.link)

    async def beside_thread() -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(task.result, FAR_S)
            for number in range(50):
                assert await caller.newest(number) == number
                if number == 25:
                    idle.say(idle.end([1]))
            assert (await asyncio.wrap_future(waiting)).seed == 0
        assert await caller.newest(51) == 51

    in_loop(beside_thread)
    assert caller.threads == 0


def test_thread_that_stops_reading_leaves_answers_to_loop(caller: Caller, idle: Peer) -> None:
    late: list[m.GetEvents] = []

    def keep(message: m.GetEvents) -> list[m.ToClient]:
        late.append(message)
        return []

    idle.on(m.GetEvents, keep)
    [task] = submit(caller.link)

    async def beside_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(task.result, FAR_S)
            await asyncio.to_thread(_until, lambda: caller.link.channel._threads.leader is not None)
            asked = asyncio.create_task(caller.newest(7))
            await asyncio.to_thread(idle.until, lambda: bool(late))
            idle.say(idle.end([1]))
            await asyncio.wrap_future(waiting)
        idle.say(m.Events(late[0].request, [], 7))
        return await asked

    assert (in_loop(beside_thread), caller.threads) == (7, 0)


def _until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def test_refusal_is_raised(caller: Caller, peer: Peer) -> None:
    refusal = m.Refusal("not_found", "no such events")
    peer.on(m.GetEvents, lambda message: [m.Refused(message.request, [refusal])])
    fails(errors.NotFoundError, "no such events", in_loop, lambda: caller.newest(1))


def test_cancelled_request_is_forgotten(caller: Caller, peer: Peer) -> None:
    peer.on(m.GetEvents, lambda _: [])

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await caller.newest(1)

    in_loop(impatient)
    assert not caller.link.requests._open


def test_closed_client_ends_requests_of_loop(caller: Caller, peer: Peer) -> None:
    peer.on(m.GetEvents, lambda _: [])

    async def closed() -> None:
        asked = asyncio.create_task(caller.newest(1))
        await asyncio.to_thread(peer.until, lambda: bool(peer.of(m.GetEvents)))
        await asyncio.to_thread(caller.link.close)
        await asked

    fails(errors.NoServiceError, "this client is closed", in_loop, closed)
    assert caller.threads == 0


@pytest.mark.usefixtures("impatient")
def test_silent_service_is_left_to_thread(
    link: ServiceSession, answering: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_reader, "QUIET_S", channel.QUIET_S)
    caller = Caller(link)

    async def restarted() -> int:
        answering.silent = True
        asked = asyncio.create_task(caller.newest(5))
        await asyncio.to_thread(answering.until, lambda: bool(answering.of(m.GetEvents)))
        answering.restart()
        answering.silent = False
        result = await asked
        assert await caller.newest(6) == 6  # over the new connection
        answering.silent = True
        with pytest.raises(errors.ServiceLostError, match="has ended"):
            await caller.newest(7)
        return result

    assert in_loop(restarted) == 5
    assert caller.threads >= 2


def test_lock_of_thread_that_reconnects_does_not_stop_loop(caller: Caller) -> None:
    held, done = threading.Event(), threading.Event()

    def reconnect() -> None:
        with caller.link.channel.lock:
            held.set()
            done.wait(FAR_S)

    async def beside_thread() -> int:
        holding = asyncio.create_task(asyncio.to_thread(reconnect))
        await asyncio.to_thread(held.wait)
        asked = asyncio.create_task(caller.newest(3))
        await asyncio.sleep(0.1)
        assert not asked.done()
        done.set()
        await holding
        return await asked

    assert (in_loop(beside_thread), caller.threads) == (3, 1)
