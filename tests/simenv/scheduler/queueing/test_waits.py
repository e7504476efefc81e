"""Reasons of waiting: measured, they explain nearly all of each wait, and hardly more than it."""

import random
from collections import Counter

import pytest
from checked_scheduler import SECOND, cluster, route, wide
from simulation import Simulation

from simenv.model import PoolSpec, TaskState
from simenv.model.accounts import Account, AccountTree, Billing, WaitReason
from simenv.scheduler import core

LOAD_S, ENDING_S = 30.0, 300.0
MAX_LEFT, MAX_EXCESS = 0.005, 0.05  # parts of all waiting; readings begin at the last tick
ON_DEVICE_NS = 300_000_000
ACCOUNTS = {"a": Account(limits={"max_running_slots": 2}), "b": Account(share=2.0), "c": Account()}
POOLS = (
    PoolSpec("main", min=2, max=2),
    PoolSpec("late", min=0, max=1, idle_s=0.5),  # its worker starts again and again
    PoolSpec("lab", min=1, max=1, device="chip", pace=True),
)
ROUTES = {
    "main": route(200_000.0),
    "late": route(200_000.0, pool="late"),
    "gang": wide(ranks=2, cost_us=300_000.0),
    "lab": route(1_000.0, pool="lab", device_shot_ns=ON_DEVICE_NS / 100, paced=True),
}
KINDS = {
    WaitReason.SHARE, WaitReason.SLOTS, WaitReason.RANKS, WaitReason.LIMIT, WaitReason.DEVICE,
    WaitReason.STARTING, WaitReason.LOST,
}  # fmt: skip


class Load(Simulation):
    """Users who submit so many tasks when their last one has ended."""

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(seed)
        self._count = count
        self._task_of: dict[str, int] = {}
        super().__init__(cluster(3, 3), *POOLS)
        self.scheduler.set_clock(1_700_000_000 * SECOND, self.now_ns)
        self.scheduler.set_accounts(AccountTree(ACCOUNTS), Billing(), {})
        self._last_ns = self.now_ns + round(LOAD_S * SECOND)

    def _happen(self, kind: str, what: object) -> None:
        if kind == "end":
            record, fence = what  # type: ignore[misc]
            if record.fence == fence and record.worker in self._busy:  # its worker is not lost
                self._end(record)
            return
        super()._happen(kind, what)
        if kind == "tick" and self.now_ns < self._last_ns:
            self._arrive()
            if self._random.random() < 0.02:
                self._lose_one()

    def _at(self, delay_ns: int, kind: str, what: object) -> None:
        if isinstance(what, core.TaskRecord):
            what = what, what.fence
        super()._at(delay_ns, kind, what)

    def _arrive(self) -> None:
        kind = self._random.choice(list(ROUTES))
        user, account = f"{kind}{self._random.randrange(6)}", self._random.choice(list(ACCOUNTS))
        if self._task_of.get(user) not in self.state.tasks:
            tasks = self.submit(self._count, along=ROUTES[kind], owner=user, account=account)
            self._task_of[user] = tasks[-1]

    def _lose_one(self) -> None:
        running = [name for name in self._busy if self.state.cluster.workers[name].ranks == 1]
        if running:
            name = self._random.choice(sorted(running))
            self._busy.discard(name)
            self.lose(name, blame=False)

    def _end(self, record: core.TaskRecord) -> None:
        name = record.worker
        self._busy.discard(name)
        self.finish([record], device_ns=ON_DEVICE_NS if record.route.paced else 0)
        if name in self.state.cluster.workers:
            self._proceed(name)


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 1), (2, 4)])
def test_reasons_explain_all_waits_but_those_behind_own_tasks(seed: int, count: int) -> None:
    load = Load(seed, count)
    load.run(LOAD_S, until_idle=False)
    load.run(ENDING_S)
    assert all(each.state is TaskState.DONE for each in load.endings)
    waited_us = filled_us = cut_us = 0  # `explained_waits` fills and cuts so much
    parts: Counter[WaitReason] = Counter()
    for ending in load.endings:
        timing = ending.timing
        explained_us = sum(spent_us for _, spent_us in timing.waits)
        for kind, us in timing.waits:
            parts[WaitReason(kind)] += us
        waited_us += timing.queued_us
        filled_us += max(0, timing.queued_us - explained_us)
        cut_us += max(0, explained_us - timing.queued_us)
    assert count > 1 or filled_us <= MAX_LEFT * waited_us
    assert cut_us <= MAX_EXCESS * waited_us
    assert parts.keys() >= KINDS
