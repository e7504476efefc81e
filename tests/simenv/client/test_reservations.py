"""Reservations as an application has them: kept alive, waited for, released, refused in words."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from busy_circuits import ENDLESS
from live import Live, environment

import simenv
from simenv.client.client import Client
from simenv.errors import NotReservedError, OptionError, TaskCancelledError, TimedOutError
from simenv.model import AdmissionPolicy, DeviceProfile, ReservationState, TaskState
from simenv.wire.messages.reservations import PolicyReply, ProfileReply, SetPolicy, SetProfile

BELL = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;'
)
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
        client._session.request(PolicyReply, lambda n: SetPolicy(n, ask.device, ask.policy))
        # Units by stated gate times: without a profile they follow the engine's cost model.
        client._session.request(ProfileReply, lambda n: SetProfile(n, "main", DeviceProfile()))
        yield client
        for info in client.reservations():
            client.reservation(info.id).cancel()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_with_block_renews_and_releases_its_reservation(env: Client) -> None:
    with env.reserve("main", for_s=12.0, count=4, **UNIT) as result:
        first = result.info()
        until(lambda: result.info().expires_ns > first.expires_ns + 10**9)
        assert result.info().state is ReservationState.ACTIVE
        assert env.run(BELL, reservation=result).shots == 1024
        assert env.run(BELL, reservation=result.id, pool="main").shots == 1024
    info = result.info()
    assert (info.state, info.credits_consumed) == (ReservationState.RELEASED, 2)
    with pytest.raises(NotReservedError, match=f"reservation {result.id} is over"):
        env.submit(BELL, reservation=result)
    with pytest.raises(NotReservedError, match="is over"):
        result.renew()
    assert result.release() == []


def test_reservation_without_renewal_expires(env: Client) -> None:
    result = env.reserve("main", for_s=60.0, count=3, **UNIT)
    env.run(BELL, shots=100, reservation=result)
    result.renew(0.2)
    until(lambda: result.info().state is ReservationState.EXPIRED)
    with pytest.raises(NotReservedError, match="is over"):
        env.submit(BELL, reservation=result)


def test_cancelling_reservation_cancels_running_and_parked_tasks(env: Client) -> None:
    with env.reserve("main", count=1, **UNIT) as result:
        first, second = env.submit_many([ENDLESS] * 2, shots=1, reservation=result)
        until(lambda: first.state is TaskState.RUNNING)
        info = result.info()
        assert (info.running, info.parked, info.credits_held) == (1, 1, 1)
        assert result.cancel() == [first.id]
        for task in (first, second):
            with pytest.raises(TaskCancelledError):
                task.result(timeout_s=PATIENCE_S)
    assert result.info().credits_held == 0


def test_forked_child_releases_only_reservation_it_entered_itself(env: Client) -> None:
    with env.reserve("main", count=2, **UNIT) as result:
        child = os.fork()
        if not child:
            code = 1
            try:
                with result:
                    pass
                result.__exit__(None, None, None)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert result.info().state is not ReservationState.ACTIVE, "the child had entered it itself"
    with env.reserve("main", count=2, **UNIT) as result:
        child = os.fork()
        if not child:
            code = 1
            try:
                result.__exit__(None, None, None)  # as when an exception leaves the block
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert result.info().state is ReservationState.ACTIVE


def test_reserve_waits_until_credits_are_free(env: Client) -> None:
    first = env.reserve("main", count=8, **UNIT)
    with pytest.raises(TimedOutError, match="3 credits are needed, 2 of 10 are free"):
        env.reserve("main", count=3, timeout_s=0, **UNIT)
    entries: list[simenv.Reservation] = []
    waiting = threading.Thread(target=lambda: entries.append(env.reserve("main", count=3, **UNIT)))
    waiting.start()
    first.release()
    waiting.join(PATIENCE_S)
    assert [each.info().state for each in entries] == [ReservationState.ACTIVE]


def test_infeasible_reservation_is_refused_at_once(env: Client) -> None:
    with pytest.raises(
        NotReservedError, match=r"11 credits are needed; the device has 10.*reason 9, too large"
    ):
        env.reserve("main", count=11, **UNIT)
    with pytest.raises(NotReservedError, match=r"no device 'nowhere'.*reason 2, device not found"):
        env.reserve("nowhere")
    with pytest.raises(
        NotReservedError, match=r"needs workers of one's own.*reason 14, unsupported"
    ):
        env.reserve("main", bound_s=0.1)
    result = env.reserve("main", count=2, **UNIT)
    assert "pool main" in env.run(BELL, reservation=result, prefer="main").engine_reason
    with pytest.raises(NotReservedError, match="has 2 units"):
        env.submit(BELL, shots=THREE, reservation=result)
    with pytest.raises(NotReservedError, match="there is no reservation 999999"):
        env.submit(BELL, reservation=999_999)
    with pytest.raises(NotReservedError, match="there is no reservation 999999"):
        env.reservation(999_999)


@pytest.mark.parametrize("value", [0, -1, 2**63, 2**64 - 1, True, 1.5, "1"])
def test_invalid_reservation_ids_and_counts_are_refused(env: Client, value: object) -> None:
    before = len(env.reservations())
    with pytest.raises(OptionError, match="reservation="):
        env.submit(BELL, reservation=value)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="reservation="):
        env.reservation(value)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="count="):
        env.reserve("main", count=value)  # type: ignore[arg-type]
    assert len(env.reservations()) == before


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "60", None])
def test_invalid_reservation_durations_are_refused(env: Client, value: object) -> None:
    with pytest.raises(OptionError, match="for_s="):
        env.reserve("main", for_s=value)  # type: ignore[arg-type]


def test_exception_of_with_block_is_raised_when_service_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave() -> None:
        with env.reserve(for_s=0.1):
            monkeypatch.setattr("simenv.client.connection.liveness.LOST_S", 0.5)
            result.down()
            raise ZeroDivisionError

    with environment() as result, result.client() as env, pytest.raises(ZeroDivisionError):
        leave()


def test_reservation_of_another_client_can_be_used_and_released(env: Client, live: Live) -> None:
    result = env.reserve("main", count=2, **UNIT)
    with live.client() as other:
        outcome = other.reservation(result.id)
        assert other.run(BELL, reservation=outcome).shots == 1024
        outcome.release("done")
    assert result.info().state is ReservationState.RELEASED
