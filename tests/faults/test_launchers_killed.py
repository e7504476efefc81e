"""kill -9 with workers of several ranks: of the service, of a rank, of prte; real launchers.

Nothing of ours is left after half a minute, and what was accepted ends once, with the counts of an
undisturbed run.
"""

from collections.abc import Iterator

import psutil
import pytest
from circuits import layered
from launched import LAUNCHERS, below, missing, ranks_of
from live import Live, environment

import simenv
from simenv.client.client import Client
from simenv.client.tasks.task import Task

pytestmark = pytest.mark.usefixtures("no_leaks")

LEFT_S = 30.0
RESULT_S = 120.0
CIRCUIT = layered(17, 60, 3)  # twentieths of a second
OPTIONS: dict[str, object] = {"shots": 200, "seed": 11, "engine": "statevector"}


def many(env: Client, count: int, pool: str) -> list[Task]:
    """The same task several times."""
    return env.submit_many([CIRCUIT] * count, **{**OPTIONS, "seed": [11] * count, "pool": pool})


@pytest.fixture(params=LAUNCHERS)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """An environment with one worker of one rank and one of two."""
    if why := missing(request.param):
        pytest.skip(why)
    pools = [
        {"name": "main", "min": 1, "max": 1},
        {"name": "pair", "engine": "statevector", "min": 1, "max": 1, "ranks": 2},
    ]
    with environment(pools=pools, launcher={"use": request.param}) as outcome:
        yield outcome


@pytest.fixture(scope="module")
def oracle() -> dict[str, int]:
    with simenv.local(workers=1, launcher={"use": "local"}) as env:
        return env.submit(CIRCUIT, **OPTIONS).result(RESULT_S).counts


def test_killed_service_leaves_no_process_and_queued_tasks_run_after_restart(
    live: Live, oracle: dict[str, int]
) -> None:
    with live.client() as env:
        assert len(ranks_of(live, "pair-0")) == 2
        tasks = many(env, 6, "pair")
        entries = [task.id for task in tasks]
        started = below(live.service().pid)
        live.kill_service()
    _, left = psutil.wait_procs(started, LEFT_S)
    assert not left, [process.cmdline() for process in left]
    live.up()
    with live.client() as env:
        for number in entries:
            result = env.task(number).result(RESULT_S)
            assert (result.counts, result.ranks) == (oracle, 2)


def test_killed_rank_ends_worker_and_tasks_run_again(live: Live, oracle: dict[str, int]) -> None:
    with live.client() as env:
        first = ranks_of(live, "pair-0")
        tasks = many(env, 60, "pair")
        first[-1].kill()
        for task in tasks:
            assert task.result(RESULT_S).counts == oracle
        _, left = psutil.wait_procs(first, LEFT_S)
        assert not left
        lost = [event for event in env.events() if event.kind == "worker.lost"]
        assert [event.subject for event in lost] == ["pair-0"]
