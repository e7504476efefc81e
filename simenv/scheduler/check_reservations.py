"""Every invariant of reservations: nothing of what was reserved is lost, doubled or overdrawn."""

from __future__ import annotations

from collections import Counter

from simenv.model import WorkerState
from simenv.scheduler import policy as policies
from simenv.scheduler.holds import Reservation
from simenv.scheduler.kept import ASKED
from simenv.scheduler.state import State
from simenv.scheduler.values import Phase


def check_reservations(state: State) -> set[int]:
    """AssertionError with the broken rule, if one is; else the parked tasks."""
    ledger = state.reservations
    live = {number: one for number, one in ledger.all.items() if not one.is_over}
    assert live == ledger.live, "a reservation is live and over"
    assert all(0 < number < ledger.next_id for number in ledger.all), "an id was not given out"
    found: dict[int, Reservation] = {}
    parked: set[int] = set()
    for number, one in ledger.all.items():
        assert number == one.grant.id, f"reservation {number} has another id"
        _check_units(one)
        found.update(dict.fromkeys(one.holds, one))
        found.update(dict.fromkeys(one.parked, one))
        parked.update(one.parked)
        in_pools = Counter(record.route.pool for record, _ in one.parked.values())
        assert +one.parked_in == in_pools, f"reservation {number} miscounts what is parked"
        ending = number in ledger.emptying
        assert ending == (one.is_over and bool(one.parked)), f"reservation {number} never empties"
    assert found == ledger.by_task, "a task's reservation is off"
    for task, one in found.items():
        record = state.tasks[task]
        is_parked = task in one.parked
        assert (record.phase == Phase.PARKED) == is_parked, f"task {task} is parked by half"
        assert record.batch.terms.reservation == one.grant.id, f"task {task} is another's"
        assert record.batch.owner == one.grant.owner, f"task {task} is another owner's"
    _check_devices(state)
    return parked


def check_kept(state: State) -> None:
    """Workers of reservations: theirs alone, no more than they asked for, freed at their end."""
    live = state.reservations.live
    assert state.keeps.all.keys() <= live.keys(), "workers are kept for what is over"
    there: Counter[tuple[str, int]] = Counter()
    for worker in state.workers.values():
        own = worker.kept_for
        if not own:
            continue
        there[worker.pool, own] += 1
        assert not worker.leaving, f"{worker.name} leaves and is kept"
        assert worker.state in (WorkerState.IDLE, WorkerState.BUSY), f"{worker.name} is not there"
        for record in worker.held.values():
            mine = record.batch.terms.reservation == own
            assert mine or record.sent_ns <= worker.kept_ns, f"{worker.name} runs another's task"
    for (pool, own), count in there.items():
        keep = state.keeps.asks[pool] if own == ASKED else state.keeps.all[own]
        assert keep.pool == pool, f"reservation {own} keeps workers of another pool"
        assert count <= keep.workers, f"reservation {own} keeps {count} workers"


def _check_units(one: Reservation) -> None:
    name = f"reservation {one.grant.id}"
    assert one.held == sum(one.holds.values()), f"{name}: what tasks hold is off"
    assert min(one.spent, one.held, one.returned) >= 0, f"{name}: negative units"
    assert one.units < 0 or one.is_over or one.free >= 0, f"{name}: more than there is"
    if one.units >= 0:
        assert one.spent + one.held + one.free == one.units, f"{name}: units do not add up"
    info = one.info(0)
    assert info.credits_consumed <= info.credits_reserved, f"{name}: credits overdrawn"
    assert info.rate_consumed <= info.rate_reserved, f"{name}: rate overdrawn"
    assert list(one.parked) == sorted(one.parked), f"{name}: parked tasks are out of order"
    assert one.is_over or not one.parked or all(task < min(one.parked) for task in one.holds), (
        f"{name}: a parked task was overtaken"
    )


def _check_devices(state: State) -> None:
    ledger = state.reservations
    for device, terms in ledger.devices.items():
        taken = ledger.taken(device)
        if terms.policy.name == "credit":
            assert taken.credits <= policies.credit_capacity(terms), f"{device!r}: credits leak"
        if terms.policy.name == "rate":
            assert taken.rate <= policies.rate_capacity(terms), f"{device!r}: rate leaks"
