"""kill -9 of the service, at every named point of a task's way and at random moments under load.

After each restart: nothing accepted is lost, nothing ends twice, and the counts are those of an
undisturbed run. The clients of these tests live through the restarts.
"""

import random
import time

import pytest
from circuits import layered
from ledger import Ledger
from live import environment, resurrected
from waiting import until

import simenv
from simenv.service import fault_injection

pytestmark = pytest.mark.usefixtures("no_leaks")

OTHERS = (
    "checkpoint",
    "copy",
    "reopen",
    "gc",
    "reservation",
)  # not on a task's way: drills of their own
POINTS = [point for point in fault_injection.POINTS if point.partition(".")[0] not in OTHERS]
# The acceptance is stored and not sent; the result is not stored; both are not sent; both are sent.
ALONE = ("accepted.sent", "finished.received", "completion.before", "completion.sent")
KILLS = [8, pytest.param(20, marks=pytest.mark.slow)]
LONGER = 10  # circuits of some hundredths of a second; a kill meets one of them on its way


@pytest.fixture(scope="module")
def circuits() -> list[object]:
    small = [layered(4, 3, seed) for seed in range(60)]
    return small + [layered(16, 60, 60 + seed) for seed in range(LONGER)]


@pytest.fixture(scope="module")
def oracle(circuits: list[object]) -> dict[int, dict[str, int]]:
    """Counts of an undisturbed run, by seed."""
    with simenv.local(workers=1) as env:
        seeds = list(range(len(circuits)))
        tasks = env.submit_many(circuits, shots=200, seed=seeds)
        return {seed: task.result().counts for seed, task in zip(seeds, tasks, strict=True)}


@pytest.mark.parametrize("point", POINTS)
def test_accepted_tasks_end_once_after_service_kill_at_each_fault_point(
    point: str, circuits: list[object], oracle: dict[int, dict[str, int]]
) -> None:
    nth = 7 if point.startswith("journal") else 2  # the first commits belong to the start
    ledger = Ledger(oracle)
    with (
        environment(faults=f"{point}:{nth}:kill") as live,
        resurrected(live) as deaths,
        live.client() as env,
    ):
        for start in range(0, len(circuits), 10):
            seeds = list(range(start, start + 10))
            tasks = env.submit_many(circuits[start : start + 10], shots=200, seed=seeds)
            ledger.accepted(tasks, seeds)
        for task in simenv.as_completed(tasks, timeout_s=200):
            task.result()
        ledger.check(env)
    assert deaths == live.pids[:1], f"{point} was never hit"


@pytest.mark.parametrize("point", ALONE)
def test_task_that_is_alone_ends_once_after_service_kill(
    point: str, circuits: list[object], oracle: dict[int, dict[str, int]]
) -> None:
    ledger = Ledger(oracle)
    with (
        environment(faults=f"{point}:3:kill") as live,
        resurrected(live) as deaths,
        live.client() as env,
    ):
        for seed in range(6):
            task = env.submit(circuits[seed], shots=200, seed=seed)
            ledger.accepted([task], [seed])
            task.result(timeout_s=200)
        ledger.check(env)
    assert deaths == live.pids[:1], f"{point} was never hit"


@pytest.mark.timeout(600)  # minutes where others use the machine too
@pytest.mark.parametrize("kills", KILLS)
def test_accepted_tasks_end_once_after_service_kills_under_load(
    kills: int, circuits: list[object], oracle: dict[int, dict[str, int]]
) -> None:
    chance = random.Random(20)
    ledger = Ledger(oracle)
    with environment() as live:
        with resurrected(live) as deaths, live.client() as env:
            while len(deaths) < kills:
                before = len(deaths)
                seeds = [chance.randrange(len(circuits) - LONGER) for _ in range(390)]
                seeds += range(len(circuits) - LONGER, len(circuits))
                moment = time.monotonic() + chance.uniform(0.0, 0.15)
                tasks = env.submit_many([circuits[s] for s in seeds], shots=200, seed=seeds)
                ledger.accepted(tasks, seeds)
                time.sleep(max(0.0, moment - time.monotonic()))
                live.kill_service()
                until(
                    lambda last=before: len(deaths) != last,
                    120,
                    message="the service does not come back",
                )
            for task in simenv.as_completed(tasks, timeout_s=200):
                task.result()
            attempts = ledger.check(env)
        assert max(attempts.values()) > 1, "no kill hit a task on its way"


@pytest.mark.parametrize("point", ["checkpoint.before", "checkpoint.after"])
def test_accepted_tasks_end_once_after_service_kill_around_journal_checkpoint(point: str) -> None:
    circuits = [layered(16, 1, seed).remove_final_measurements(inplace=False) for seed in range(30)]
    with (
        environment(faults=f"{point}:1:kill") as live,
        resurrected(live) as deaths,
        live.client() as env,
    ):
        # A megabyte each: together more than the WAL holds before a checkpoint is due.
        tasks = env.submit_many(circuits, shots=None, outputs=("statevector",))
        norms = [abs(task.result(timeout_s=200).statevector ** 2).sum() for task in tasks]
        until(lambda: deaths, 120, message=lambda: f"{point} was never hit")
        ended = [done.task.id for done in env.completions(since=0)]
    assert deaths == live.pids[:1]
    assert norms == pytest.approx([1.0] * 30)
    assert sorted(ended) == sorted(task.id for task in tasks)
