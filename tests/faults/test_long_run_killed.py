"""A worker, or one rank, dies in the middle of a long run: the next attempt goes on from there."""

import os
import re
import signal
import time

import psutil
import pytest
from circuits import layered
from launched import LAUNCHERS, missing, ranks_of
from live import PATIENCE_S, Live, environment

from simenv import config
from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model.accounts import WaitReason
from simenv.result_files import CHECKPOINTS

pytestmark = pytest.mark.usefixtures("no_leaks")

POOLS = [{"name": "pair", "engine": "statevector", "min": 1, "max": 1, "ranks": 2}]


def kept(live: Live, task: Task) -> list[str]:
    """What there is of it on disk, without what is being written; of isolated workers too."""
    result = config.read(live.home / "config.json")
    found = config.places(result).results.glob(f"**/{CHECKPOINTS}/{task.id}/*.h5")
    return sorted(path.name for path in found)


def under_way(env: Client, live: Live, task: Task, files: int) -> int:
    """Wait until so many files were left, and the service knows how far it is: in passes."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (info,) = env.tasks([task])
        assert info.state not in ("DONE", "FAILED"), "it was too short"
        if info.progress is not None and len(kept(live, task)) >= files:
            assert info.progress.unit == "passes"
            return info.progress.total
        assert time.monotonic() < deadline, (info, kept(live, task))
        time.sleep(0.005)


def begun_at(remark: str, passes: int) -> int:
    """The pass that a second attempt went on from."""
    match = re.match(r"from pass (\d+) of (\d+)", remark)
    assert match, remark
    assert int(match[2]) == passes
    return int(match[1])


@pytest.mark.parametrize("isolation", ["none", "account"])
def test_long_run_resumes_from_checkpoint_after_worker_is_killed(isolation: str) -> None:
    circuit = layered(23, 80, 1)
    with environment(checkpoint_s=0.2, isolation=isolation) as live, live.client() as env:
        undisturbed = env.submit(circuit, shots=200, seed=3).result(timeout_s=PATIENCE_S)
        assert undisturbed.remark == ""
        task = env.submit(circuit, shots=200, seed=3)
        passes = under_way(env, live, task, 1)
        busy = next(worker for worker in env.workers() if worker.task == task.id)
        os.kill(busy.pid, signal.SIGKILL)
        result = task.result(timeout_s=PATIENCE_S)
        assert result.attempts == 2
        assert 0 < begun_at(result.remark, passes) < passes
        assert result.counts == undisturbed.counts
        assert kept(live, task) == []


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_gang_resumes_from_checkpoint_after_one_rank_is_killed(launcher: str) -> None:
    """One of its ranks dies, not the first: the others end with it."""
    if why := missing(launcher):
        pytest.skip(why)
    circuit = layered(22, 80, 1)
    options = {"pools": POOLS, "launcher": {"use": launcher}, "checkpoint_s": 0.1}
    with environment(**options) as live, live.client() as env:
        undisturbed = env.submit(circuit, shots=200, seed=3).result(timeout_s=PATIENCE_S)
        assert undisturbed.remark == "2 ranks"
        task = env.submit(circuit, shots=200, seed=3)
        passes = under_way(env, live, task, 2)
        (busy,) = [worker for worker in env.workers() if worker.task == task.id]
        ranks = ranks_of(live, busy.name)
        assert len(ranks) == 2
        assert busy.pid in [rank.pid for rank in ranks]
        next(rank for rank in ranks if rank.pid != busy.pid).kill()
        result = task.result(timeout_s=PATIENCE_S)
        assert not psutil.wait_procs(ranks, PATIENCE_S)[1]
        assert (result.attempts, result.ranks) == (2, 2)
        assert 0 < begun_at(result.remark, passes) < passes
        assert result.counts == undisturbed.counts
        assert kept(live, task) == []
        lost = [event.subject for event in env.events() if event.kind == "worker.lost"]
        assert lost == [busy.name]


@pytest.mark.parametrize("ranks", [1, 2])
def test_preempted_long_run_goes_on_from_its_checkpoint_after_the_others_task(ranks: int) -> None:
    if ranks > 1 and (why := missing("mpirun")):
        pytest.skip(why)
    circuit, small = layered(23, 240, 1), layered(3, 2, 1)
    options = {
        "pools": [{"name": "main", "min": ranks, "max": ranks}], "slots": ranks,
        "accounts": {"a": {}, "b": {}}, "qos": {"low": {"preempt": True}},
        "billing": {"preempt_after_s": 0.5},
    }  # fmt: skip
    terms = {"shots": 200, "seed": 3, "account": "a", "ranks": ranks}
    with environment(**options) as live, live.client() as env:
        undisturbed = env.submit(circuit, **terms).result(PATIENCE_S)
        task = env.submit(circuit, qos="low", **terms)
        passes = under_way(env, live, task, 0)
        other = env.submit(small, account="b").result(PATIENCE_S)
        assert not task.done()
        result = task.result(timeout_s=PATIENCE_S)
        assert (result.attempts, other.attempts) == (2, 1)
        assert 0 < begun_at(result.remark, passes) < passes
        assert result.counts == undisturbed.counts
        assert kept(live, task) == []
        receipt = env.receipt(task)
        assert dict(receipt.waits)[WaitReason.PREEMPTED] > 0
        assert receipt.used.slot_us > 0
        assert [each.subject for each in env.events() if each.kind == "task.preempted"] == [task.id]
