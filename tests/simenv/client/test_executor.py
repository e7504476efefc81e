"""Circuits through the interface of executors, in a real environment."""

from __future__ import annotations

import concurrent.futures as cf
import pickle
import time
from collections.abc import Iterator

import pytest
from busy_circuits import ENDLESS

import simenv
from simenv.client.executor import SimenvExecutor
from simenv.errors import OptionError, TimedOutError

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '
BELL = HEAD + "qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; measure q->c;"


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=1) as client:
        yield client


def test_circuits_run_as_futures_with_the_options_of_the_executor(env: simenv.Client) -> None:
    with SimenvExecutor(env, shots=100, seed=3) as executor:
        tasks = [executor.submit(BELL, seed=k) for k in range(5)] + [executor.submit(BELL)]
        assert cf.wait(tasks, timeout=60).not_done == set()
        results = [future.result() for future in cf.as_completed(tasks)]
    assert {result.seed for result in results} == {0, 1, 2, 3, 4}
    assert {result.shots for result in results} == {100}
    copies = pickle.loads(pickle.dumps(results))  # noqa: S301 - our own
    assert [copy.counts for copy in copies] == [result.counts for result in results]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(BELL)
    assert env.run(BELL, shots=10).shots == 10, "the client is its owner's"


def test_map_yields_results_in_order(env: simenv.Client) -> None:
    executor = SimenvExecutor(env, shots=50)
    circuits = [BELL.replace("h q[0]", f"rx({k}.5) q[0]") for k in range(20)]
    results = list(executor.map(circuits, seed=8))
    assert len({result.task for result in results}) == 20
    assert [result.counts for result in executor.map(circuits, seed=8)] == [
        result.counts for result in results
    ]


def test_map_that_is_late_cancels_what_is_left(env: simenv.Client) -> None:
    executor = SimenvExecutor(env, shots=10)
    with pytest.raises(TimedOutError):
        list(executor.map([ENDLESS] * 3, timeout=0.05))
    deadline = time.monotonic() + 60
    while env.queue()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_shutdown_can_cancel_what_runs(env: simenv.Client) -> None:
    executor = SimenvExecutor(env, shots=10)
    tasks = [executor.submit(ENDLESS) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(task.done() for task in tasks)
    assert tasks[-1].cancelled()


def test_functions_are_refused_by_name(env: simenv.Client) -> None:
    with pytest.raises(OptionError, match="in_process is a function: this executor runs circuits"):
        SimenvExecutor(env).submit(in_process)
    with pytest.raises(OptionError, match="is a function"):
        SimenvExecutor(env).map([in_process])
    with pytest.raises(OptionError, match="pow is a function: this executor runs circuits"):
        SimenvExecutor(env).submit(pow, 2, 3)
    with pytest.raises(OptionError, match="in_process is a function"):
        SimenvExecutor(env).map(in_process, [1, 2])
    with pytest.raises(OptionError, match="1 arguments after the circuits"):
        SimenvExecutor(env).map([ENDLESS], [ENDLESS])


def in_process() -> None: ...
