"""Pulse sequences in the queue: forecasts, stops, limits of time, receipts, usage and pace."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from live import environment, with_keys
from waiting import until

from simenv.client.client import Client
from simenv.errors import TaskCancelledError, TaskExpiredError
from simenv.model import TaskState

pulser = pytest.importorskip("pulser")
PATIENCE_S = 120.0
STOP_S = 20.0  # on a machine with much to do; a second on a quiet one


def chain(atoms: int, duration_ns: int, device: Any = pulser.MockDevice) -> Any:
    register = pulser.Register.from_coordinates([(5.5 * k, 0) for k in range(atoms)], prefix="q")
    sequence = pulser.Sequence(register, device)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(duration_ns, 7.0, 1.0, 0.0), "global")
    return sequence


LONG = chain(20, 20_000)  # two minutes


def running(env: Client, **options: Any) -> Any:
    task = env.submit(LONG, shots=10, **options)
    until(lambda: task.state is TaskState.RUNNING)
    return task


@pytest.fixture(scope="module")
def up() -> Iterator[Client]:
    options = {"listen": "tcp://127.0.0.1:0", "pools": [{"name": "main", "min": 1, "max": 1}]}
    with environment(**options) as live, live.client() as env:
        env.run(chain(3, 100), shots=1)
        yield env


@pytest.fixture
def one(up: Client) -> Iterator[Client]:
    """One worker, which is free again afterwards."""
    yield up
    up.cancel([info.id for info in up.queue()[1]])


def test_long_evolution_is_forecast_waited_for_reported_and_cancelled(one: Client) -> None:
    task = running(one)
    waiting = one.submit(chain(3, 100), shots=1)
    start_s = until(lambda: waiting.expected_start)
    assert start_s - time.time() > 20.0, "behind minutes"
    progress = until(lambda: one.tasks(task)[0].progress)
    assert (progress.total, progress.unit) == (20_000, "nanoseconds")
    begin_s = time.monotonic()
    task.cancel()
    fails(TaskCancelledError, "", task.result, STOP_S)
    assert time.monotonic() - begin_s < STOP_S
    assert waiting.result(PATIENCE_S).shots == 1
    receipt = one.receipt(task)
    assert receipt.forecast_us > 20e6
    assert (receipt.engine, receipt.slots) == ("rydberg", 1)
    assert 0 < receipt.used.slot_us < 60e6


def test_limits_of_time_end_evolutions_and_waits(one: Client) -> None:
    task = running(one, run_timeout_s=5.0)
    late = one.submit(chain(3, 100), shots=1, queue_timeout_s=0.5)
    fails(TaskExpiredError, "longer than its queue_timeout_s", late.result, STOP_S)
    fails(TaskExpiredError, "longer than its run_timeout_s", task.result, 5.0 + STOP_S)


def test_forecast_of_a_receipt_is_near_the_run(one: Client) -> None:
    tasks = [one.submit(chain(14, 2_000), shots=100, seed=k) for k in range(4)]
    for task in tasks:
        task.result(PATIENCE_S)
    receipt = one.receipt(tasks[-1])  # after it has learned how slow this machine is
    assert receipt.run_us / 6 < receipt.forecast_us < 6 * receipt.run_us
    assert receipt.used.slot_us >= 0.9 * receipt.run_us


def test_slot_time_of_a_sequence_counts_as_usage_of_its_user(one: Client, tmp_path: Path) -> None:
    with with_keys(one, tmp_path, "ana", "ben") as users:
        long = users["ana"].submit(chain(15, 2_000), shots=10)
        short = users["ben"].submit(chain(3, 100), shots=10)
        for task in (long, short):
            task.result(PATIENCE_S)
    rows = {row.key[0]: row.used.slot_us for row in one.usage(("user",)).rows}
    assert rows["ana"] > 2 * rows["ben"] > 0
    assert rows["ana"] == one.receipt(long).used.slot_us


def test_paced_pool_takes_the_time_of_the_machine(tmp_path: Path) -> None:
    pools = [{"name": "lab", "device": "neutral-atoms-analog", "pace": True, "min": 1, "max": 1}]
    with environment(pools=pools) as live, live.client() as env:
        explained = env.explain(chain(2, 100, pulser.AnalogDevice), shots=10, pool="lab")
        begin_s = time.monotonic()
        task = env.submit(chain(2, 100, pulser.AnalogDevice), shots=10, pool="lab", noise="off")
        result = task.result(PATIENCE_S)
        device_s = task.details.device_time_s
        assert device_s == pytest.approx(2.0, rel=0.1), "5 shots a second"
        assert time.monotonic() - begin_s >= device_s
        assert explained.engines[0].seconds >= 1.9
        assert env.receipt(task).used.device_us == pytest.approx(device_s * 1e6, rel=0.01)
        assert result.shots == 10
