"""Waiting for tasks, and reservations."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from busy_circuits import ENDLESS
from client_peer import Peer, completed, completion, submit
from failing import fails
from forks import forked
from live import Live, environment
from waiting import until

import simenv
from simenv import errors
from simenv.client.client import Client
from simenv.client.connection.session import ServiceSession
from simenv.client.reservations import LeaseRenewer, Reservation
from simenv.client.tasks.task import Task, as_completed
from simenv.errors import InsufficientError, LimitExceededError, NotReservedError, SimenvError
from simenv.model import (
    AdmissionPolicy,
    DeviceProfile,
    ReservationInfo,
    ReservationState,
    TaskState,
)
from simenv.wire import codec
from simenv.wire.messages import admin, client as m
from simenv.wire.messages.admin import SetPolicy, SetProfile


def pumps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "simenv-await"]


async def seed(task: Task) -> int:
    return (await task).seed


def test_fifty_tasks_are_gathered_by_one_thread(link: ServiceSession, peer: Peer) -> None:
    others = len(pumps())
    peer.finishes = False

    async def main() -> list[int]:
        tasks = submit(link, 50)
        result = asyncio.gather(*[seed(task) for task in tasks])
        await asyncio.sleep(0)
        assert len(pumps()) == others + 1
        for number in reversed(range(1, 51)):
            peer.say(peer.end([number]))
        return await result

    assert asyncio.run(main()) == list(range(50))
    link.close()
    assert len(pumps()) == others


def test_tasks_are_submitted_while_others_are_awaited(link: ServiceSession) -> None:
    async def one(number: int) -> int:
        [task] = submit(link, first=number)
        return (await task).seed

    async def main() -> list[int]:
        return await asyncio.gather(*[one(number) for number in range(30)])

    assert asyncio.run(main()) == list(range(30))


def test_cancelled_await_does_not_cancel_task(link: ServiceSession, idle: Peer) -> None:

    async def main() -> Task:
        [task] = submit(link)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(seed(task), 0.05)
        await asyncio.sleep(0)  # the loop calls back one turn later
        assert not link.bridge._waiting
        return task

    task = asyncio.run(main())
    idle.say(idle.end([1]))
    assert task.result(5).seed == 0


def test_result_is_available_after_event_loop_was_closed(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(seed(task))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    idle.say(idle.end([1]))
    assert task.result(5).seed == 0
    del waiting


def test_await_of_failed_task_raises_task_failed_error(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    idle.say(completed(completion(1, state=TaskState.FAILED)))
    fails(errors.TaskFailedError, "", asyncio.run, seed(task))


@pytest.mark.usefixtures("impatient")
def test_lost_service_raises_its_error_in_every_await(link: ServiceSession, idle: Peer) -> None:

    async def main() -> list[object]:
        tasks = submit(link, 3)
        idle.silent = True
        return await asyncio.gather(*[seed(task) for task in tasks], return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [errors.ServiceLostError] * 3


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_while_awaited(link: ServiceSession, idle: Peer) -> None:
    [task] = submit(link)
    assert asyncio.run(seed(task)) == 0


def test_closing_session_raises_its_error_in_awaits(link: ServiceSession, idle: Peer) -> None:

    async def main() -> None:
        [task] = submit(link)
        waiting = asyncio.create_task(seed(task))
        await asyncio.sleep(0)
        await asyncio.to_thread(link.close)
        with pytest.raises(errors.NoServiceError, match="closed"):
            await waiting

    asyncio.run(main())


def test_as_completed_yields_tasks_in_order_of_completion(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 3)
    idle.say(idle.end([2]))
    result = as_completed(tasks, timeout_s=30)
    assert next(result) is tasks[1]
    idle.say(idle.end([3]), idle.end([1]))
    assert list(result) == [tasks[2], tasks[0]]


def test_as_completed_accepts_ended_repeated_and_no_tasks(link: ServiceSession) -> None:
    tasks = submit(link, 2)
    tasks[0].result(5)
    assert (set(as_completed([*tasks, *tasks])), list(as_completed([]))) == (set(tasks), [])


def test_as_completed_raises_timed_out_error_in_time(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 3)
    idle.say(idle.end([1]))
    result = as_completed(tasks, timeout_s=0.1)
    assert next(result) is tasks[0]
    fails(errors.TimedOutError, "2 of 3 tasks", next, result)


@pytest.mark.usefixtures("impatient")
def test_as_completed_requests_lost_results_again(link: ServiceSession, idle: Peer) -> None:
    tasks = submit(link, 20)
    assert set(as_completed(tasks)) == set(tasks)


def test_as_completed_refuses_tasks_of_two_clients(link: ServiceSession, peer: Peer) -> None:
    other = ServiceSession(peer)
    fails(errors.OptionError, "2 clients", as_completed, [*submit(link), *submit(other)])
    other.close()


BELL = 'OPENQASM 2.0;include "qelib1.inc";qreg q[2];creg c[2];h q[0];cx q[0],q[1];measure q->c;'
# 30 + 300 + 2 x 1,000 = 2,330 ns a shot; the unit is 8.6 ms: 7,382 shots are three.
THREE = 7_382
UNIT = {"gates_1q": 20, "gates_2q": 10, "measurements": 5, "shots": 1_000}
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment() as running:
        yield running


@pytest.fixture
def env(live: Live) -> Iterator[Client]:
    with live.client() as client:
        ask = SetPolicy(0, "main", AdmissionPolicy("credit", total_credits=10))
        client._session.request(SetPolicy(0, ask.device, ask.policy))
        # Units by stated gate times: without a profile they follow the engine's cost model.
        client._session.request(SetProfile(0, "main", DeviceProfile()))
        yield client
        for info in client.reservations():
            client.reservation(info.id).cancel()


def test_with_block_renews_and_releases_its_reservation(env: Client) -> None:
    with env.reserve("main", for_s=6.0, count=4, **UNIT) as result:
        first = result.info()
        until(lambda: result.info().expires_ns > first.expires_ns + 10**9)
        assert result.info().state is ReservationState.ACTIVE
        assert env.run(BELL, reservation=result).shots == 1024
        assert env.run(BELL, reservation=result.id, pool="main").shots == 1024
    info = result.info()
    assert (info.state, info.credits_consumed) == (ReservationState.RELEASED, 2)
    fails(errors.NotReservedError, f"{result.id} is over", env.submit, BELL, reservation=result)
    fails(errors.NotReservedError, "is over", result.renew)
    assert result.release() == []


def test_cancelling_reservation_cancels_running_and_parked_tasks(env: Client) -> None:
    with env.reserve("main", count=1, **UNIT) as result:
        first, second = env.submit_many([ENDLESS] * 2, shots=1, reservation=result)
        until(lambda: first.state is TaskState.RUNNING)
        info = result.info()
        assert (info.running, info.parked, info.credits_held) == (1, 1, 1)
        assert result.cancel() == [first.id]
        for task in (first, second):
            fails(errors.TaskCancelledError, "", task.result, timeout_s=PATIENCE_S)
    assert result.info().credits_held == 0


def test_forked_child_releases_only_reservation_it_entered_itself(env: Client) -> None:
    def enters() -> None:
        with result:
            pass
        result.__exit__(None, None, None)

    with env.reserve("main", count=2, **UNIT) as result:
        assert forked(enters) == 0
        assert result.info().state is not ReservationState.ACTIVE, "the child had entered it itself"
    with env.reserve("main", count=2, **UNIT) as result:  # as when an exception leaves the block
        assert forked(lambda: result.__exit__(None, None, None)) == 0
        assert result.info().state is ReservationState.ACTIVE


def test_reserve_waits_until_credits_are_free(env: Client) -> None:
    first = env.reserve("main", count=8, **UNIT)
    with pytest.raises(errors.TimedOutError, match="3 credits are needed, 2 of 10 are free"):
        env.reserve("main", count=3, timeout_s=0, **UNIT)
    entries: list[simenv.Reservation] = []
    waiting = threading.Thread(target=lambda: entries.append(env.reserve("main", count=3, **UNIT)))
    waiting.start()
    first.release()
    waiting.join(PATIENCE_S)
    assert [each.info().state for each in entries] == [ReservationState.ACTIVE]


def test_infeasible_reservation_is_refused_at_once(env: Client) -> None:
    with pytest.raises(errors.NotReservedError, match=r"11 credits .* has 10.*reason 9, too large"):
        env.reserve("main", count=11, **UNIT)
    fails(errors.NotReservedError, r"'nowhere'.*reason 2, device not found", env.reserve, "nowhere")
    with pytest.raises(errors.NotReservedError, match=r"needs workers of one's own.*reason 14"):
        env.reserve("main", bound_s=0.1)
    result = env.reserve("main", count=2, **UNIT)
    assert "pool main" in env.run(BELL, reservation=result, prefer="main").engine_reason
    fails(errors.NotReservedError, "has 2 units", env.submit, BELL, shots=THREE, reservation=result)
    fails(errors.NotReservedError, "no reservation 999999", env.submit, BELL, reservation=999_999)
    fails(errors.NotReservedError, "there is no reservation 999999", env.reservation, 999_999)


@pytest.mark.parametrize("value", [0, -1, 2**63, 2**64 - 1, True, 1.5, "1"])
def test_invalid_reservation_ids_and_counts_are_refused(env: Client, value: object) -> None:
    before = len(env.reservations())
    fails(errors.OptionError, "reservation=", env.submit, BELL, reservation=value)
    fails(errors.OptionError, "reservation=", env.reservation, value)
    fails(errors.OptionError, "count=", env.reserve, "main", count=value)
    assert len(env.reservations()) == before


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "60", None])
def test_invalid_reservation_durations_are_refused(env: Client, value: object) -> None:
    fails(errors.OptionError, "for_s=", env.reserve, "main", for_s=value)


def test_exception_of_block_is_raised_when_service_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None:
        with env.reserve(for_s=0.1):
            monkeypatch.setattr("simenv.client.connection.channel.LOST_S", 0.5)
            result.down()
            raise ZeroDivisionError

    with environment() as result, result.client() as env, pytest.raises(ZeroDivisionError):
        leave()


INFO = ReservationInfo(7, "", "main", "", "", "", "", "quantum", ReservationState.ACTIVE, 0, 0)
BUDGET = LimitExceededError("chem: 0 slot-h left until 1 June, this needs about 2", hint="wait")
OVER = NotReservedError("reservation 7 is over (expired)", hint="make a new one")


@pytest.fixture
def renewer() -> Iterator[LeaseRenewer]:
    renewer = LeaseRenewer()
    yield renewer
    renewer.stop()
    renewer.join()


def answers(peer: Peer, errors: list[SimenvError]) -> None:
    """Refuse the renewals with these errors, the last one again and again."""

    def refuse(message: admin.Renew) -> list[m.ToClient]:
        error = errors.pop(0) if len(errors) > 1 else errors[0]
        return [m.Refused(message.request, [codec.refusal(error)])]

    peer.on(admin.Renew, refuse)
    peer.on(admin.Release, lambda q: [admin.Released(q.request, INFO, [])])


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([BUDGET, BUDGET, BUDGET, OVER], BUDGET),
        ([InsufficientError("groups are being looked up"), OVER], OVER),
    ],
)
def test_first_refusal_of_a_renewal_is_logged_once(
    link: ServiceSession,
    peer: Peer,
    renewer: LeaseRenewer,
    caplog: pytest.LogCaptureFixture,
    errors: list[SimenvError],
    told: SimenvError,
) -> None:
    answers(peer, list(errors))
    with Reservation(link, renewer, INFO, for_s=0.03):
        until(lambda: len(peer.of(admin.Renew)) >= len(errors) and not renewer._next_renewal_s)
    lines = [each.getMessage() for each in caplog.records if each.name == "simenv.client"]
    assert lines == [f"<reservation 7 of main> is not renewed: {told}"]


def test_renewal_that_a_release_has_overtaken_is_not_logged(
    link: ServiceSession, peer: Peer, renewer: LeaseRenewer, caplog: pytest.LogCaptureFixture
) -> None:
    answers(peer, [OVER])
    reservation = Reservation(link, renewer, INFO, for_s=60.0)
    with reservation:
        pass
    renewer._renew(reservation)
    assert peer.of(admin.Renew)
    assert not [each for each in caplog.records if each.name == "simenv.client"]
