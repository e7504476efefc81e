"""Tens of thousands of random events; every invariant after each, and nothing lost at the end."""

from __future__ import annotations

import random

import pytest
from checked_scheduler import CheckedScheduler

from simenv.model import TaskState, WorkerState
from simenv.scheduler.core.actions import StartWorker
from simenv.scheduler.core.types import Phase

STEPS = 1_500


@pytest.mark.parametrize("seed", range(4))
def test_every_accepted_task_ends_exactly_once_after_random_events(seed: int) -> None:
    chance = random.Random(seed)
    machine = CheckedScheduler(min=1, max=4, idle_s=2.0)
    accepted: set[int] = set()
    for _ in range(STEPS):
        entries = [r for w in machine.state.workers.values() for r in w.held.values()]
        what = chance.random()
        if what < 0.2:
            cost = chance.choice([5.0, 300.0, 3_000.0, 80_000.0, 3e6])
            terms = {"priority": chance.randrange(3), "queue_timeout_s": chance.choice([0, 0, 9])}
            accepted.update(machine.submit(chance.randrange(1, 6), cost=cost, **terms))
        elif what < 0.55 and entries:
            worker = machine.state.workers[chance.choice(entries).worker]
            records = list(worker.held.values())[: chance.randrange(1, 60)]
            state = chance.choice([TaskState.DONE] * 9 + [TaskState.FAILED])
            machine.finish(records, state)
        elif what < 0.6 and entries:
            machine.begin(chance.choice(entries))
        elif what < 0.65 and machine.state.workers:
            machine.lose(chance.choice(list(machine.state.workers)))
        elif what < 0.72 and machine.state.tasks:
            number = chance.choice(list(machine.state.tasks))
            machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
        elif what < 0.8:
            for worker in machine.state.workers.values():
                worker.heard_ns = machine.now_ns
            machine.tick(chance.random())
        elif what < 0.9:
            machine.revive()
        else:
            machine.assign()
    _finish_all(machine)
    ended = [ending.record.number for ending in machine.endings]
    assert len(ended) == len(set(ended))
    assert set(ended) == accepted
    assert all(ending.record.phase == Phase.FINAL for ending in machine.endings)


def _finish_all(machine: CheckedScheduler) -> None:
    pool = machine.state.pools["main"]
    pool.failures = 0
    for _ in range(20_000):
        if not machine.state.tasks:
            return
        machine.tick(0.5)
        for action in machine.actions[-8:]:
            if isinstance(action, StartWorker):
                machine.join(action.worker)
        machine.revive()
        machine.assign()
        for worker in list(machine.state.workers.values()):
            worker.heard_ns = machine.now_ns
            if worker.state == WorkerState.BUSY:
                machine.finish(list(worker.held.values()))
    raise AssertionError(f"{len(machine.state.tasks)} tasks never end")
