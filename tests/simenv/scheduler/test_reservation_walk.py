"""Random walks with reservations, and interference of owners."""

import random
from collections import Counter

import msgspec
import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, foretell
from claimant import Claimant

from simenv.errors import InsufficientError, NotReservedError
from simenv.model import AdmissionPolicy, ReservationState, TaskState, WorkerState
from simenv.scheduler import core
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.lanes import POLICIES
from simenv.scheduler.reservations import ledger as reservations
from simenv.wire.messages.client import STATES
from simenv.worker.runner import ENDED_EARLY

EVENTS = 10_000
OWNERS = ("", "ada", "eve")
MOST_TASKS = 40
UNIT_US = 8_600


class Walk:
    """Chance decides what happens; what each reservation must have spent is counted beside."""

    def __init__(self, seed: int, limited: str) -> None:
        self.chance = random.Random(seed)
        self.host = Claimant(workers=3)
        self.seen: Counter[str] = Counter()
        self.spent: Counter[int] = Counter()
        if limited == "credit":
            self.host.policy("credit", total_credits=60)
            self.host.policy("credit", device="", total_credits=80)
        elif limited == "credit of others":  # all together count in units of another size
            self.host.policy("credit", total_credits=60)
            baseline = msgspec.structs.replace(AdmissionPolicy().baseline, shots=2_700)
            others = AdmissionPolicy("credit", baseline, total_credits=30)
            self.host.state.reservations.set_policy("", others, -1)
        else:
            self.host.policy("rate", device_rate=20, time_span_ns=SECOND)
        self.events = [
            *[self.reserve] * 4, *[self.submit] * 8, *[self.assign] * 8, *[self.finish] * 8,
            *[self.cancel] * 2, *[self.release] * 2, *[self.renew] * 1, *[self.lose] * 2,
            *[self.pass_time] * 4, *[self.withdraw] * 1, *[self.reconfigure] * 1,
            *[self.restart] * 1, *[self.steer] * 2, *[self.others] * 2, *[self.foretell] * 1,
        ]  # fmt: skip

    def step(self) -> None:
        event = self.chance.choice(self.events)
        self.seen[event.__name__] += event() is not None
        self.host.settle()
        for number, value in self.host.ledger.items():
            assert value.spent == self.spent[number], f"reservation {number} spent otherwise"

    def some(self) -> int:
        """The number of a live reservation; 0: there is none."""
        live = list(self.host.state.reservations.live)
        return self.chance.choice(live) if live else 0

    def reserve(self) -> object:
        units = self.chance.randint(1, 30)
        device = self.chance.choice(("main", "main", "side", ""))
        owner = self.chance.choice(OWNERS)
        ttl_ns = self.chance.randint(1, 60) * SECOND
        result = self.host.reserve(
            units, owner, device=device, ttl_ns=ttl_ns, walltime_ns=10 * SECOND,
            workers=self.chance.choice((0, 0, 0, 1, 2)),
        )  # fmt: skip
        self.seen["kept"] += any(
            w.dedication.reservation > 0 for w in self.host.state.cluster.workers.values()
        )
        return result.reservation or None

    def submit(self) -> object:
        number = self.some()
        if not number or len(self.host.state.tasks) > MOST_TASKS:
            return None
        item = self.host.ledger[number]
        pool = item.grant.ask.device or self.chance.choice(("main", "side"))
        count, shots = self.chance.randint(1, 4), self.chance.randint(1, 9_000)
        try:
            return self.host.under(number, count, shots, pool, item.grant.owner)
        except NotReservedError:
            return None

    def assign(self) -> object:
        return self.host.assign() or None

    def finish(self) -> object:
        busy = [w for w in self.host.state.cluster.workers.values() if w.held]
        if not busy:
            return None
        entries = list(self.chance.choice(busy).held.values())
        done = entries[: self.chance.randint(1, len(entries))]
        for record in done:
            record.cost_us = float(self.chance.randint(1, 12 * UNIT_US))
            self.note(record)
        # They are charged the time since the last message, which is that of their runs.
        held = self.host.state.cluster.workers[done[0].worker].held
        held.charged_ns = self.host.now_ns - 1_000 * round(sum(each.cost_us for each in done))
        for each in held.values():
            each.sent_ns = min(each.sent_ns, held.charged_ns)
        final = self.chance.choice((TaskState.DONE, TaskState.DONE, TaskState.FAILED))
        return self.host.finish(done, final)

    def foretell(self) -> object:
        before = self.host.digest()
        starts = foretell(self.host)
        assert self.host.digest() == before
        return starts.tasks_us or None

    def note(self, record: core.TaskRecord) -> None:
        if not record.batch.terms.reservation:
            return
        item = self.host.state.reservations.by_task[record.number]
        used = max(1, -(-1_000 * round(record.cost_us) // item.grant.one_ns))
        self.spent[item.grant.id] += min(used, item.holds[record.number])

    def cancel(self) -> object:
        tasks = list(self.host.state.tasks)
        if not tasks:
            return None
        chosen = self.chance.sample(tasks, min(len(tasks), 3))
        return self.host.keep(self.host.scheduler.cancel(chosen, self.host.now_ns)[1])

    def release(self) -> object:
        number = self.some()
        how = self.chance.choice((ReservationState.RELEASED, ReservationState.CANCELLED))
        return self.host.end(number, how) if number else None

    def renew(self) -> object:
        number, ledger = self.some(), self.host.state.reservations
        try:
            return ledger.renew(number, "", self.chance.randint(1, 60) * SECOND, self.host.wall_ns)
        except NotReservedError:
            return None

    def lose(self) -> object:
        name = self.chance.choice(list(self.host.state.cluster.workers) or [""])
        if not name:
            return None
        self.host.lose(name)
        self.host.revive()
        return name

    def pass_time(self) -> object:
        actions = self.host.pass_time(self.chance.choice((0.1, 3, 20)))
        self.host.tick()
        self.host.revive()
        if self.chance.random() < 0.02:
            self.host.pass_time(3_700)
        return actions or None

    def withdraw(self) -> object:
        tasks = self.submit()
        if not isinstance(tasks, list) or not all(t in self.host.state.tasks for t in tasks):
            return None
        self.host.scheduler.rollback_submit(tasks[0], len(tasks), self.host.now_ns)
        return tasks

    def reconfigure(self) -> object:
        try:
            if self.host.state.reservations.terms("main").policy.name == "rate":
                rate = self.chance.randint(1, 40)
                self.host.policy("rate", device_rate=rate, time_span_ns=SECOND)
            else:
                self.host.policy("credit", total_credits=self.chance.randint(1, 90))
            return True
        except InsufficientError:
            return None

    def steer(self) -> object:
        state, device = self.host.state, self.chance.choice(("main", "side", ""))
        what = self.chance.random()
        if what < 0.4:
            verb = self.chance.choice(("pause", "drain", "resume", "resume", "resume"))
            devices.set_device_state(state, device, verb, "", "", 0.0, self.host.wall_ns)
        elif what < 0.7:
            devices.set_max_inflight(state, device, self.chance.choice((0, 0, 1, 3)))
        else:
            policy = self.chance.choice(POLICIES)
            keys = (("keys", "longest,priority"),) if policy == "ordered" else ()
            devices.set_queue_policy(state, device, policy, keys)
        return True

    def others(self) -> object:
        if len(self.host.state.tasks) > MOST_TASKS:
            return None
        return self.host.submit(self.chance.randint(1, 3), priority=self.chance.randint(-1, 1))

    def restart(self) -> object:
        before = self.host.digest()
        self.host.restart()
        assert self.host.digest() == before, "a restart finds something else"
        return True


@pytest.mark.parametrize(
    ("seed", "limited"), [(1, "credit"), (2, "credit"), (3, "rate"), (4, "credit of others")]
)
def test_units_add_up_at_random(seed: int, limited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "MAX_OVER", 8)
    walk = Walk(seed, limited)
    for _ in range(EVENTS // 3 + 1):
        walk.step()
    assert min(walk.seen[event.__name__] for event in walk.events) > 5, walk.seen
    assert walk.seen["kept"] > 5, walk.seen
    for number in list(walk.host.state.reservations.live):
        walk.host.end(number, ReservationState.CANCELLED)
    for worker in list(walk.host.state.cluster.workers.values()):
        if worker.held:
            walk.host.finish(list(worker.held.values()), TaskState.CANCELLED)
    walk.host.keep(walk.host.scheduler.cancel(list(walk.host.state.tasks), walk.host.now_ns)[1])
    walk.host.settle()
    assert not walk.host.state.tasks
    assert walk.host.state.reservations.reserved("").credits == 0
    assert walk.host.state.reservations.reserved("").rate == 0
    assert not walk.host.rows.execute("select * from units").fetchall()


def test_cancel_of_a_waiting_task_ends_it_at_once(machine: CheckedScheduler) -> None:
    task = machine.submit(3, cost=60_000.0)
    machine.assign()
    value, actions = machine.scheduler.cancel(task[1:2], machine.now_ns)
    machine.keep(actions)
    assert (value, [e.state for e in machine.endings]) == (["cancelled"], [TaskState.CANCELLED])
    assert len(machine.state.cluster.pools["main"].queue) == 1


def test_cancel_of_running_task_sends_one_stop_request(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    value, actions = machine.scheduler.cancel([number, 999], machine.now_ns)
    assert value == ["cancelling", "unknown"]
    assert [type(action) for action in actions] == [core.StopAttempt]
    again, more = machine.scheduler.cancel([number], machine.now_ns)
    assert (again, more) == (["cancelling"], [])
    (ending,) = machine.finish(send.records, TaskState.CANCELLED)
    assert ending.reason == "cancelled"


def test_worker_is_killed_when_its_cancelled_task_does_not_stop(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
    assert not any(isinstance(action, core.KillWorker) for action in machine.tick(1.0))
    assert any(isinstance(action, core.KillWorker) for action in machine.tick(1.5))
    machine.lose("main-0")
    assert [e.state for e in machine.endings] == [TaskState.CANCELLED]


def test_waiting_task_expires_at_its_queue_timeout(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.submit(1, cost=60_000.0, queue_timeout_s=2.0)
    machine.tick(1.0)
    assert machine.endings == []
    machine.tick(1.5)
    assert [(e.state, e.reason) for e in machine.endings] == [(TaskState.EXPIRED, "queue_timeout")]


def test_a_task_is_stopped_at_its_run_timeout(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0, run_timeout_s=1.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    actions = machine.tick(1.5)
    assert [a.reason for a in actions if isinstance(a, core.StopAttempt)] == ["run_timeout"]


def test_a_pool_without_workers_starts_one_on_demand() -> None:
    machine = CheckedScheduler(min=0, max=2)
    assert machine.state.cluster.workers == {}
    machine.submit(1)
    assert [type(a) for a in machine.tick()] == [core.StartWorker]


def test_a_pool_grows_with_its_backlog_and_shrinks_when_idle() -> None:
    machine = CheckedScheduler(min=1, max=3, idle_s=5.0)
    machine.submit(100, cost=90_000.0)
    (first,) = machine.assign()
    machine.tick(0.1)
    assert len(machine.state.cluster.workers) == 2
    machine.revive()
    machine.finish(first.records)
    while sends := machine.assign():
        for send in sends:
            machine.finish(send.records)
    machine.tick(1.0)
    actions = machine.tick(6.0)
    assert any(isinstance(action, core.RetireWorker) for action in actions)
    assert (
        len([w for w in machine.state.cluster.workers.values() if w.state == WorkerState.IDLE]) == 1
    )


def test_withdrawn_tasks_are_removed_and_their_slots_freed(machine: CheckedScheduler) -> None:
    task = machine.submit(10)
    machine.assign()
    machine.scheduler.rollback_submit(task[0], len(task), machine.now_ns)
    machine.tick()
    assert (machine.state.tasks, machine.free_slots) == ({}, 2)


def test_cancel_of_prefetched_task_does_not_stop_running_task(machine: CheckedScheduler) -> None:
    machine.submit(2, cost=4_000.0)
    front, behind = (send.records[0] for send in machine.assign())
    machine.begin(front)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    assert not any(isinstance(action, core.KillWorker) for action in machine.tick(1.5))
    machine.finish([front])
    machine.begin(behind)
    assert any(isinstance(action, core.KillWorker) for action in machine.tick(2.5))


def test_cancelled_tasks_leave_memory_behind_a_waiting_one(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.submit(1, cost=60_000.0)
    task = machine.submit(3_000)
    machine.keep(machine.scheduler.cancel(task, machine.now_ns)[1])
    queue = machine.state.cluster.pools["main"].queue
    assert len(queue) == 1
    assert sum(len(lanes.short) for lanes in queue.lanes.shared.values()) < 1_500


def test_retired_worker_that_does_not_exit_is_removed() -> None:
    machine = CheckedScheduler(min=0, max=1, idle_s=1.0)
    machine.submit(1)
    machine.revive()
    for send in machine.assign():
        machine.finish(send.records)
    assert any(isinstance(action, core.RetireWorker) for action in machine.tick(1.5))
    for _ in range(12):
        for worker in machine.state.cluster.workers.values():
            worker.heard_ns = machine.now_ns
        machine.tick(1.0)
    assert machine.state.cluster.workers == {}


def sent_behind(
    machine: CheckedScheduler, **terms: object
) -> tuple[core.TaskRecord, core.TaskRecord]:
    """A task that runs, and a small one that its worker holds behind it."""
    (first,) = machine.submit(1, cost=3_000.0)
    machine.assign()
    machine.begin(machine.state.tasks[first])
    (number,) = machine.submit(1, cost=10.0, **terms)
    (send,) = machine.assign()
    assert send.worker == "main-0"
    return machine.state.tasks[first], machine.state.tasks[number]


def beat(machine: CheckedScheduler, running: core.TaskRecord) -> list[core.Action]:
    worker, start = "main-0", machine.start_of("main-0")
    _, actions = machine.scheduler.heartbeat_received(
        core.WorkerHeartbeat(worker, start, running.number, running.fence), machine.now_ns
    )
    return machine.keep(actions)


def test_prefetched_task_expires_at_its_queue_timeout() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine, queue_timeout_s=2.0)
    assert machine.tick(1.0) == []
    (stop,) = machine.tick(1.0)
    assert stop == core.StopAttempt("main-0", behind.number, behind.fence, "queue_timeout")
    machine.finish([front])
    (ending,) = machine.finish([behind], TaskState.EXPIRED)
    assert (ending.state, ending.reason) == (TaskState.EXPIRED, "queue_timeout")
    assert ENDED_EARLY["queue_timeout"] == STATES.index(TaskState.EXPIRED)


def test_expired_prefetched_task_ends_after_grace_period_and_its_worker_is_not_killed() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine, queue_timeout_s=2.0)
    machine.tick(2.0)
    assert machine.endings == []
    machine.tick(2.1)
    assert [(e.record, e.state) for e in machine.endings] == [(behind, TaskState.EXPIRED)]
    machine.finish([front])
    assert machine.finish([behind], TaskState.EXPIRED) == [], "it was told before"
    assert not any(isinstance(action, core.KillWorker) for action in machine.actions)
    assert machine.state.cluster.workers["main-0"].held.skipped == {}


def test_skipped_task_that_begins_is_stopped_and_then_its_worker_is_killed() -> None:
    machine = CheckedScheduler(1, cluster(1))
    _, behind = sent_behind(machine)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    machine.tick(2.1)
    assert [e.state for e in machine.endings] == [TaskState.CANCELLED]
    assert [type(action) for action in beat(machine, behind)] == [core.StopAttempt]
    machine.tick(1.0)
    assert beat(machine, behind) == []
    machine.tick(1.0)
    assert [type(action) for action in beat(machine, behind)] == [core.KillWorker]


def test_cancelled_task_that_may_have_begun_gets_usual_grace_period() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    machine.finish([front])
    machine.tick(2.1)
    assert machine.endings[1:] == [], "it may have begun"
    assert any(isinstance(action, core.KillWorker) for action in machine.tick(2.1))
    machine.lose("main-0")
    assert [e.state for e in machine.endings] == [TaskState.DONE, TaskState.CANCELLED]


def test_nothing_is_prefetched_to_worker_whose_result_is_late() -> None:
    machine = CheckedScheduler(1, cluster(1))
    machine.submit(1, cost=100.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.submit(1, cost=100.0)
    assert len(machine.assign()) == 1, "sent ahead"
    machine.tick(0.5)
    machine.submit(1, cost=100.0)
    assert machine.assign() == []
    machine.finish(send.records)
    assert len(machine.assign()) == 1, "it has answered"
