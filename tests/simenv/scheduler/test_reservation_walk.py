"""Ten thousand random events: units are never lost, doubled or overdrawn, restarts included."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from checked_scheduler import SECOND
from claimant import Claimant

from simenv.errors import InsufficientError, NotReservedError
from simenv.model import AdmissionPolicy, ReservationState, TaskState
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.policies import POLICIES
from simenv.scheduler.reservations import ledger as reservations

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
            *[self.reserve] * 4,
            *[self.submit] * 8,
            *[self.assign] * 8,
            *[self.finish] * 8,
            *[self.cancel] * 2,
            *[self.release] * 2,
            *[self.renew] * 1,
            *[self.lose] * 2,
            *[self.pass_time] * 4,
            *[self.withdraw] * 1,
            *[self.reconfigure] * 1,
            *[self.restart] * 1,
            *[self.steer] * 2,
            *[self.others] * 2,
        ]

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
            units,
            owner,
            device=device,
            ttl_ns=ttl_ns,
            walltime_ns=10 * SECOND,
            workers=self.chance.choice((0, 0, 0, 1, 2)),
        )
        self.seen["kept"] += any(w.reservation_id > 0 for w in self.host.state.workers.values())
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
        busy = [w for w in self.host.state.workers.values() if w.held]
        if not busy:
            return None
        entries = list(self.chance.choice(busy).held.values())
        done = entries[: self.chance.randint(1, len(entries))]
        for record in done:
            record.cost_us = float(self.chance.randint(1, 12 * UNIT_US))
            self.note(record)
        final = self.chance.choice((TaskState.DONE, TaskState.DONE, TaskState.FAILED))
        return self.host.finish(done, final)

    def note(self, record: TaskRecord) -> None:
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
        name = self.chance.choice(list(self.host.state.workers) or [""])
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
            devices.set_state(state, device, verb, "", "", 0.0, self.host.wall_ns)
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
def test_reservation_units_add_up_after_ten_thousand_random_events(
    seed: int, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MAX_OVER", 8)
    walk = Walk(seed, limited)
    for _ in range(EVENTS // 3 + 1):
        walk.step()
    assert min(walk.seen[event.__name__] for event in walk.events) > 5, walk.seen
    assert walk.seen["kept"] > 5, walk.seen
    for number in list(walk.host.state.reservations.live):
        walk.host.end(number, ReservationState.CANCELLED)
    for worker in list(walk.host.state.workers.values()):
        if worker.held:
            walk.host.finish(list(worker.held.values()), TaskState.CANCELLED)
    walk.host.keep(walk.host.scheduler.cancel(list(walk.host.state.tasks), walk.host.now_ns)[1])
    walk.host.settle()
    assert not walk.host.state.tasks
    assert walk.host.state.reservations.reserved("").credits == 0
    assert walk.host.state.reservations.reserved("").rate == 0
    assert not walk.host.rows.execute("select * from units").fetchall()
