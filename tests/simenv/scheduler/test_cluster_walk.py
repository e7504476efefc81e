"""Random walks through events of the scheduler."""

import random

import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, foretell, route, wide
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduler_invariants import check

from simenv.model import PoolSpec, TaskState, WorkerState
from simenv.scheduler.core import Phase, StartWorker
from simenv.scheduler.views.cluster_info import pool_infos
from simenv.scheduler.views.pending_reasons import pending_reason

MIB = 2**20
PICK = st.integers(0, 10**6)
POOLS = (
    PoolSpec("main", min=1, max=6, idle_s=3.0),
    PoolSpec("side", min=0, max=3, idle_s=3.0, nodes="n1,n3"),
    PoolSpec("held", min=0, max=2, idle_s=3.0, memory_bytes=700 * MIB),
    PoolSpec("qpu", "hardware", nodes="n1", provider="a:b"),
    PoolSpec("crew", min=3, max=6, idle_s=3.0, ranks=2, memory_bytes=40 * MIB),
)


class Walk(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    @initialize(slots=st.sampled_from([(2, 2, 2), (1, 1, 4), (2, 2), (8,)]))
    def begin(self, slots: tuple[int, ...]) -> None:
        self.machine = CheckedScheduler(limits=cluster(*slots), specs=POOLS)
        self.accepted: set[int] = set()

    @rule(
        cost=st.sampled_from([5.0, 900.0, 60_000.0, 3e6]), count=st.integers(1, 6),
        pool=st.sampled_from(["main", "main", "side", "held", "qpu"]),
        memory=st.sampled_from([1, 64, 500]), priority=st.integers(0, 1),
    )  # fmt: skip
    def submit_small(self, cost: float, count: int, pool: str, memory: int, priority: int) -> None:
        along = route(cost, pool=pool, memory_bytes=memory * MIB)
        self.accepted.update(self.machine.submit(count, along=along, priority=priority))

    @rule(
        ranks=st.sampled_from([2, 4]),
        cost=st.sampled_from([900.0, 400_000.0, 5e6]),
        memory=st.sampled_from([30, 256, 512]),
    )
    def submit_wide(self, ranks: int, cost: float, memory: int) -> None:
        if sum(h.node.slots for h in self.fit(memory * MIB)) < ranks:
            return  # admission refuses it
        self.accepted.update(self.machine.submit(1, along=wide(ranks, cost, memory * MIB)))

    @rule(count=st.integers(1, 3), cost=st.sampled_from([900.0, 400_000.0, 5e6]))
    def submit_to_crew(self, count: int, cost: float) -> None:
        along = route(cost, pool="crew", ranks=2, memory_bytes=30 * MIB, max_slots=1)
        self.accepted.update(self.machine.submit(count, along=along))

    @rule()
    def assign(self) -> None:
        self.machine.assign()

    @rule(seconds=st.sampled_from([0.0, 0.05, 1.1, 2.9]))
    def tick(self, seconds: float) -> None:
        self.machine.now_ns += round(seconds * SECOND)
        self.machine.hear()
        self.machine.tick()

    @rule(which=PICK)
    def join(self, which: int) -> None:
        starting = self.workers(WorkerState.STARTING)
        if starting:
            self.machine.join(starting[which % len(starting)])

    @rule(which=PICK, count=st.integers(1, 60))
    def finish(self, which: int, count: int) -> None:
        busy = self.workers(WorkerState.BUSY)
        if busy:
            value = self.machine.state.cluster.workers[busy[which % len(busy)]].held
            self.machine.finish(list(value.values())[:count])

    @rule(which=PICK, blame=st.booleans())
    def lose_worker(self, which: int, blame: bool) -> None:
        names = list(self.machine.state.cluster.workers)
        if names:
            self.machine.lose(names[which % len(names)], blame=blame)

    @rule()
    def retired_ones_end(self) -> None:
        for name in self.workers(WorkerState.DRAINING):
            self.machine.lose(name, "exit 0")

    @rule(which=PICK)
    def lose_node(self, which: int) -> None:
        self.machine.keep(
            self.machine.scheduler.node_lost(self.node(which), "off", self.machine.now_ns)
        )

    @rule(which=PICK)
    def node_back(self, which: int) -> None:
        self.machine.keep(self.machine.scheduler.node_back(self.node(which)))

    @rule(which=PICK)
    def drain(self, which: int) -> None:
        self.machine.keep(
            self.machine.scheduler.drain_node(self.node(which), "disk", self.machine.now_ns)
        )

    @rule(which=PICK)
    def resume(self, which: int) -> None:
        self.machine.keep(self.machine.scheduler.resume(self.node(which)))

    @rule(least=st.integers(0, 2), more=st.integers(0, 4))
    def scale(self, least: int, more: int) -> None:
        self.machine.keep(self.machine.scheduler.scale("main", least, least + more))

    @rule(which=PICK)
    @precondition(lambda self: self.machine.state.tasks)
    def cancel(self, which: int) -> None:
        entries = list(self.machine.state.tasks)
        number = entries[which % len(entries)]
        self.machine.keep(self.machine.scheduler.cancel([number], self.machine.now_ns)[1])

    @rule()
    def foretell(self) -> None:
        foretell(self.machine)

    @invariant()
    def all_hold(self) -> None:
        if not hasattr(self, "machine"):
            return
        state = self.machine.state
        check(state)
        pool_infos(state)
        for record in list(state.tasks.values())[:20]:
            result = pending_reason(state, record, self.machine.now_ns)
            assert result or record.phase == Phase.RUNNING

    def teardown(self) -> None:
        """With all nodes and pools back, everything ends, once."""
        if not hasattr(self, "machine"):
            return
        machine, state = self.machine, self.machine.state
        for name in [*state.cluster.nodes.hosts, *state.cluster.pools]:
            machine.keep(machine.scheduler.resume(name))
        machine.keep(machine.scheduler.scale("main", 1, 6))
        for _ in range(3_000):
            if not state.tasks:
                break
            self.go_on()
        assert not state.tasks, [
            pending_reason(state, record, machine.now_ns) for record in state.tasks.values()
        ]
        assert sorted([ending.record.number for ending in machine.endings]) == sorted(self.accepted)
        assert all(e.state is not TaskState.FAILED or e.reason for e in machine.endings)

    def go_on(self) -> None:
        """A second passes in which all goes well."""
        machine = self.machine
        machine.now_ns += SECOND
        machine.hear()
        for action in machine.tick():
            if isinstance(action, StartWorker):
                machine.join(action.worker)
        for name in self.workers(WorkerState.STARTING):
            machine.join(name)
        self.retired_ones_end()
        machine.assign()
        for name in self.workers(WorkerState.BUSY):
            machine.finish(list(machine.state.cluster.workers[name].held.values()))

    def workers(self, state: WorkerState) -> list[str]:
        return [w.name for w in self.machine.state.cluster.workers.values() if w.state == state]

    def node(self, which: int) -> str:
        names = list(self.machine.state.cluster.nodes.hosts)
        return names[which % len(names)]

    def fit(self, memory: int) -> list[object]:
        hosts = self.machine.state.cluster.nodes.hosts.values()
        return [h for h in hosts if h.node.memory_bytes // h.node.slots >= memory]


Walk.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck),
    derandomize=True,
)  # fmt: skip
TestNothingIsLostStuckOrGrantedTwiceOnSeveralNodes = Walk.TestCase


STEPS = 1_500


@pytest.mark.parametrize("seed", range(4))
def test_every_accepted_task_ends_exactly_once_after_random_events(seed: int) -> None:
    chance = random.Random(seed)
    machine = CheckedScheduler(min=1, max=4, idle_s=2.0)
    accepted: set[int] = set()
    for _ in range(STEPS):
        entries = [r for w in machine.state.cluster.workers.values() for r in w.held.values()]
        what = chance.random()
        if what < 0.2:
            cost = chance.choice([5.0, 300.0, 3_000.0, 80_000.0, 3e6])
            terms = {"priority": chance.randrange(3), "queue_timeout_s": chance.choice([0, 0, 9])}
            accepted.update(machine.submit(chance.randrange(1, 6), cost=cost, **terms))
        elif what < 0.55 and entries:
            worker = machine.state.cluster.workers[chance.choice(entries).worker]
            records = list(worker.held.values())[: chance.randrange(1, 60)]
            machine.finish(records, chance.choice([TaskState.DONE] * 9 + [TaskState.FAILED]))
        elif what < 0.6 and entries:
            machine.begin(chance.choice(entries))
        elif what < 0.65 and machine.state.cluster.workers:
            machine.lose(chance.choice(list(machine.state.cluster.workers)))
        elif what < 0.72 and machine.state.tasks:
            number = chance.choice(list(machine.state.tasks))
            machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
        elif what < 0.8:
            for worker in machine.state.cluster.workers.values():
                worker.heard_ns = machine.now_ns
            machine.tick(chance.random())
        elif what < 0.9:
            machine.revive()
        else:
            machine.assign()
    _finish_all(machine)
    ended = [ending.record.number for ending in machine.endings]
    assert (len(ended), set(ended)) == (len(set(ended)), accepted)
    assert all(ending.record.phase == Phase.FINAL for ending in machine.endings)


def _finish_all(machine: CheckedScheduler) -> None:
    machine.state.cluster.pools["main"].starts.failures = 0
    for _ in range(20_000):
        if not machine.state.tasks:
            return
        machine.tick(0.5)
        for action in machine.actions[-8:]:
            if isinstance(action, StartWorker):
                machine.join(action.worker)
        machine.revive()
        machine.assign()
        for worker in list(machine.state.cluster.workers.values()):
            worker.heard_ns = machine.now_ns
            if worker.state == WorkerState.BUSY:
                machine.finish(list(worker.held.values()))
    raise AssertionError(f"{len(machine.state.tasks)} tasks never end")
