"""The account of a reservation pays for the time of its workers; its tasks cost nothing more."""

from collections.abc import Iterator

import msgspec
import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route

from simenv.model import PoolSpec, ReservationRequest, ReservationState, TaskState
from simenv.model.accounts import Account, AccountTree, Billing, Used
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.wire.messages.client import STATES, AttemptResult

WALL_NS = 1_800_000_000 * SECOND
TREE = AccountTree({"a": Account(users=("ana",)), "b": Account(users=("ben",))})


@pytest.fixture
def site() -> CheckedScheduler:
    machine = CheckedScheduler(workers=4, limits=cluster(4))
    machine.scheduler.set_accounts(TREE, Billing(), {})
    return machine


def reserve(site: CheckedScheduler, workers: int = 2, device: str = "main") -> int:
    ask = ReservationRequest(device=device, workers=workers, ttl_ns=600 * SECOND, account="b")
    decision, _ = site.scheduler.reserve(ask, "", WALL_NS)
    assert decision.reservation, decision.message
    site.assign()
    return decision.reservation


def release(site: CheckedScheduler, number: int) -> None:
    entry = site.state.reservations.all[number]
    ended = site.scheduler.close_reservation(
        entry, ReservationState.RELEASED, "", WALL_NS, site.now_ns
    )
    site.keep(ended)


def pass_time(site: CheckedScheduler, seconds: float, step_s: float = 0.5) -> None:
    for _ in range(round(seconds / step_s)):
        site.hear()
        site.tick(step_s)


def charges(site: CheckedScheduler) -> Iterator[core.ChargeReserved]:
    return (action for action in site.actions if isinstance(action, core.ChargeReserved))


def charged_s(site: CheckedScheduler) -> float:
    return sum(action.used.slot_us for action in charges(site)) / 1e6


def test_idle_reservation_uses_its_share(site: CheckedScheduler) -> None:
    number = reserve(site)
    pass_time(site, 65.0)
    assert 100.0 <= charged_s(site) <= 130.0, "while it lasts"
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(130.0, abs=0.5)
    usage = site.state.shares.fair_share.usage("b", "", site.now_ns)
    assert usage == pytest.approx(130.0, rel=0.01)
    assert site.state.shares.fair_share.sort_key("b/") > site.state.shares.fair_share.sort_key(
        "a/ana"
    )
    pass_time(site, 30.0)
    assert charged_s(site) == pytest.approx(130.0, abs=0.5), "nothing after its end"


def test_worker_that_still_runs_tasks_of_others_is_not_charged() -> None:
    site = CheckedScheduler(workers=1, limits=cluster(1))
    site.scheduler.set_accounts(TREE, Billing(), {})
    site.submit(cost=30e6, owner="ana", account="a")
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 29.98, 0.01)
    site.state.cluster.workers[send.worker].held.cost_us = 20_000.0  # it is nearly done
    number = reserve(site, workers=1)
    pass_time(site, 20.0)
    assert not charged_s(site)
    (ending,) = site.finish(send.records)
    assert ending.state is TaskState.DONE
    pass_time(site, 20.0)
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(20.0, abs=1.0)


def test_workers_held_for_a_repeated_request_are_charged(site: CheckedScheduler) -> None:
    site.submit(owner="ana", account="a", along=route(300e6, max_slots=1))
    (send,) = site.assign()
    site.begin(send.records[0])
    ask = ReservationRequest(device="main", workers=4, ttl_ns=600 * SECOND, account="b")
    wall_ns = WALL_NS
    for _ in range(60):
        decision, _ = site.scheduler.reserve(ask, "", wall_ns)
        assert decision.status == "delayed", decision
        site.assign()
        pass_time(site, 1.0)
        wall_ns += SECOND
        site.keep(site.scheduler.wall_clock_tick(wall_ns, site.now_ns))
    site.keep(site.scheduler.wall_clock_tick(wall_ns + 60 * SECOND, site.now_ns))
    site.tick()
    assert charged_s(site) == pytest.approx(3 * 60.0, rel=0.05)


def test_reserved_machine_is_charged_by_its_price() -> None:
    spec = PoolSpec("qpu", provider="here", min=1, max=1)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    pass_time(site, 20.0)
    release(site, number)
    site.tick()
    used = sum((action.used for action in charges(site)), Used())
    assert used.device_us == pytest.approx(20e6, rel=0.03)
    assert sum(action.units for action in charges(site)) == pytest.approx(20 * 101.0, rel=0.03)


def test_reservations_shorter_than_a_tick_are_charged(site: CheckedScheduler) -> None:
    for _ in range(100):
        number = reserve(site, workers=2)
        site.now_ns += SECOND // 2
        release(site, number)
    site.hear()
    site.tick()
    assert charged_s(site) == pytest.approx(100.0, abs=1.0)


@pytest.mark.parametrize("is_expired", [True, False])
def test_actions_that_end_a_reservation_charge_its_rest(
    site: CheckedScheduler, is_expired: bool
) -> None:
    number = reserve(site, workers=2)
    pass_time(site, 4.0)
    assert not charged_s(site)
    if is_expired:
        site.keep(site.scheduler.wall_clock_tick(WALL_NS + 601 * SECOND, site.now_ns))
    else:
        release(site, number)
    assert charged_s(site) == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("verb", ["pause", "drain", "outage"])
def test_time_in_which_the_device_starts_nothing_is_not_charged(
    site: CheckedScheduler, verb: str
) -> None:
    number = reserve(site, workers=2)
    pass_time(site, 10.0)
    site.submit(cost=40e6, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 10.0)
    if verb == "outage":
        site.scheduler.begin_outage("main", None)
    else:
        site.scheduler.set_device_state("main", verb, "", "", 0.0, WALL_NS)
    pass_time(site, 30.0)
    site.finish(send.records)
    pass_time(site, 30.0)
    if verb == "outage":
        site.scheduler.end_outage("main")
    else:
        site.scheduler.set_device_state("main", "resume", "", "", 0.0, WALL_NS)
    pass_time(site, 10.0)
    release(site, number)
    assert charged_s(site) == pytest.approx(30.0 + 20.0 + 40.0, abs=0.6)  # the task ran on


def test_time_in_which_the_service_shuts_down_is_not_charged(site: CheckedScheduler) -> None:
    reserve(site, workers=2)
    pass_time(site, 4.0)
    site.now_ns += SECOND // 4
    site.keep(site.scheduler.begin_drain("here", site.now_ns))
    assert charged_s(site) == pytest.approx(8.5)
    pass_time(site, 30.0)
    site.keep(site.scheduler.charge_reserved(site.now_ns))
    assert charged_s(site) == pytest.approx(8.5)


def test_reservation_that_expires_before_the_next_request_is_charged_to_its_end(
    site: CheckedScheduler,
) -> None:
    ask = ReservationRequest(device="main", workers=4, ttl_ns=SECOND // 2, account="b")
    wall_ns = WALL_NS
    for _ in range(10):  # none lasts until a tick
        decision, actions = site.scheduler.reserve(ask, "", wall_ns, now_ns=site.now_ns)
        assert decision.reservation, decision.message
        site.keep(actions)
        site.assign()
        site.now_ns += SECOND // 2
        wall_ns += SECOND // 2
    site.keep(site.scheduler.wall_clock_tick(wall_ns, site.now_ns))
    assert charged_s(site) == pytest.approx(20.0, abs=0.1)


def run_task(site: CheckedScheduler, number: int, **given: object) -> core.AssignTasks:
    """A task of the reservation that runs on a worker."""
    site.submit(owner="ben", account="b", reservation=number, **{"cost": 600e6, **given})
    (send,) = site.assign()
    site.begin(send.records[0])
    return send


def total_units(site: CheckedScheduler) -> float:
    return sum(action.units for action in charges(site)) + sum(each.units for each in site.endings)


@pytest.mark.parametrize("length_s", [0.05, 2.0, 45.0])
def test_tasks_cost_nothing_more_than_the_reservation(
    site: CheckedScheduler, length_s: float
) -> None:
    number = reserve(site, workers=1)
    begin_ns = site.now_ns
    for _ in range(max(1, round(60.0 / (2 * length_s)))):
        send = run_task(site, number, cost=length_s * 1e6)
        pass_time(site, length_s, length_s / 5)
        (ending,) = site.finish(send.records, run_us=round(length_s * 1e6))
        assert ending.used.slot_us == round(length_s * 1e6)
        assert ending.units == pytest.approx(0.0, abs=1e-3), "its memory"
        pass_time(site, length_s, length_s / 5)
    release(site, number)
    seconds = (site.now_ns - begin_ns) / SECOND
    assert total_units(site) == pytest.approx(seconds, rel=0.01)
    usage = site.state.shares.fair_share.usage("b", "", site.now_ns)
    assert usage + site.state.shares.fair_share.usage("b", "ben", site.now_ns) == pytest.approx(
        seconds, rel=0.01
    )


@pytest.mark.parametrize("usage_factor", [0.0, 0.5, 2.0])
def test_class_of_its_tasks_changes_no_price(site: CheckedScheduler, usage_factor: float) -> None:
    number = reserve(site, workers=1)
    (task,) = site.submit(cost=300e6, owner="ben", account="b", reservation=number)
    record = site.state.tasks[task]
    record.batch = msgspec.structs.replace(record.batch, usage_factor=usage_factor)
    (send,) = site.assign()
    site.begin(record)
    pass_time(site, 300.0, 3.0)
    site.finish(send.records, run_us=300_000_000)
    release(site, number)
    assert total_units(site) == pytest.approx(300.0, abs=0.1)


def ended(site: CheckedScheduler, number: int, how: str, send: core.AssignTasks) -> None:
    """The worker leaves its reservation, or the reservation ends."""
    if how == "retired":
        site.keep(
            site.state.cluster.retire(
                site.state.cluster.workers[send.worker], "a drain", site.now_ns
            )
        )
    elif how == "expired":
        site.keep(site.scheduler.wall_clock_tick(WALL_NS + 601 * SECOND, site.now_ns))
    else:
        release(site, number)


@pytest.mark.parametrize("how", ["released", "expired", "retired"])
def test_task_that_runs_on_pays_for_the_rest(site: CheckedScheduler, how: str) -> None:
    number = reserve(site, workers=1)
    send = run_task(site, number)
    pass_time(site, 100.0)
    ended(site, number, how, send)
    reserved = charged_s(site)
    assert how == "retired" or reserved == pytest.approx(100.0, abs=0.1)
    pass_time(site, 50.0)
    (ending,) = site.finish(send.records, run_us=150_000_000)
    assert ending.used.slot_us == 150_000_000
    assert ending.units == pytest.approx(50.0, abs=0.6)


@pytest.mark.parametrize("how", ["released", "expired", "lost", "outage", "shutdown"])
def test_attempt_without_a_result_is_paid_by_its_reservation(
    site: CheckedScheduler, how: str
) -> None:
    number = reserve(site, workers=1)
    send = run_task(site, number)
    pass_time(site, 100.0)
    if how == "outage":
        site.scheduler.begin_outage("main", None)
        site.finish(send.records, run_us=100_000_000)
    elif how == "shutdown":
        site.keep(site.scheduler.begin_drain("here", site.now_ns))
        site.keep(site.scheduler.charge_reserved(site.now_ns))
    else:
        if how != "lost":
            ended(site, number, how, send)
        site.scheduler.cancel([send.records[0].number], site.now_ns)
        site.lose(send.worker)
    if how in ("lost", "outage"):
        release(site, number)
    assert total_units(site) == pytest.approx(100.0, abs=0.6)


def test_next_attempt_pays_for_all_of_it(site: CheckedScheduler) -> None:
    number = reserve(site, workers=1)
    send = run_task(site, number)
    pass_time(site, 100.0)
    release(site, number)
    site.lose(send.worker)
    (again,) = site.assign()
    site.begin(again.records[0])
    (ending,) = site.finish(again.records, run_us=150_000_000)
    assert ending.units == pytest.approx(150.0, rel=1e-3)


def test_tasks_beyond_the_workers_of_the_reservation_are_charged() -> None:
    site = CheckedScheduler(workers=2, limits=cluster(2))
    site.scheduler.set_accounts(TREE, Billing(), {})
    number = reserve(site, workers=1)
    site.submit(2, cost=60e6, owner="ben", account="b", reservation=number)
    sends = {
        site.state.cluster.workers[send.worker].dedication.reservation: send
        for send in site.assign()
    }
    for send in sends.values():
        site.begin(send.records[0])
    pass_time(site, 60.0)
    units = {n: site.finish(send.records, run_us=60_000_000)[0].units for n, send in sends.items()}
    assert units == {number: pytest.approx(0.0, abs=1e-3), 0: pytest.approx(60.0, rel=1e-3)}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("left_s", [0.0, 20.0, 60.0])
def test_paced_device_is_paid_once(workers: int, left_s: float) -> None:
    """A task of 60 s on the device; the reservation of one worker ends `left_s` before its end."""
    spec = PoolSpec("qpu", min=workers, max=workers, device="chip", pace=True)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    pass_time(site, 20.0)
    on_device = route(pool="qpu", device_shot_ns=0.6 * SECOND, paced=True)  # 100 shots: 60 s
    site.submit(along=on_device, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    site.finish(send.records, device_ns=60 * SECOND, run_us=1)  # simulated ahead of the device
    reserved_s = 60.0 - left_s if left_s else 70.0
    for _ in range(round(2 * reserved_s)):
        site.hear()
        site.tick(0.5)  # comes before the end of the task is due
        site.assign()
    reserved_s += 20.0
    release(site, number)
    pass_time(site, left_s + 1.0)
    site.assign()
    (ending,) = site.endings
    assert ending.used.device_us == pytest.approx(60e6)
    paid_s = min(60.0 - left_s, min(reserved_s, 80.0) / workers)
    assert ending.units == pytest.approx(100.0 * (60.0 - paid_s), abs=110.0)
    units = sum(action.units for action in charges(site))
    assert units == pytest.approx(reserved_s * (1 + 100.0 / workers), rel=0.03)


def test_task_pays_for_slots_and_memory_beyond_its_worker(site: CheckedScheduler) -> None:
    number = reserve(site, workers=1)
    large = route(600e6, max_slots=4, memory_bytes=2**30)
    send = run_task(site, number, along=large)
    slots = site.state.cluster.workers[send.worker].slots
    assert slots == 4
    pass_time(site, 100.0)
    results = [
        AttemptResult(r.number, r.fence, STATES.index(TaskState.DONE), b"", 0, run_us=100_000_000)
        for r in send.records
    ]
    (ending,) = site.scheduler.tasks_finished(send.worker, results, site.now_ns)
    release(site, number)
    assert ending.units == pytest.approx(100.0 * (slots - 1) + 1.0)
    assert total_units(site) == pytest.approx(100.0)


@pytest.mark.parametrize("is_released", [True, False])
def test_task_pays_for_its_time_before_its_worker_was_dedicated(is_released: bool) -> None:
    site = CheckedScheduler(workers=2, limits=cluster(2))
    site.scheduler.set_accounts(TREE, Billing(), {})
    number = reserve(site, workers=1)
    site.submit(2, cost=600e6, owner="ben", account="b", reservation=number)
    sends = {
        site.state.cluster.workers[send.worker].dedication.reservation: send
        for send in site.assign()
    }
    for send in sends.values():
        site.begin(send.records[0])
    pass_time(site, 500.0, 5.0)
    site.lose(sends[number].worker)
    site.assign()
    assert site.state.cluster.workers[sends[0].worker].dedication.reservation == number
    pass_time(site, 50.0, 5.0)
    if is_released:
        release(site, number)
    pass_time(site, 50.0, 5.0)
    (ending,) = site.finish(sends[0].records, run_us=600_000_000)
    assert ending.units == pytest.approx(550.0 if is_released else 500.0, abs=1.0)


def test_device_time_that_was_paid_stays_so_when_a_worker_is_lost() -> None:
    spec = PoolSpec("qpu", min=1, max=1, device="chip", pace=True)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    on_device = route(pool="qpu", device_shot_ns=6.0 * SECOND, paced=True)  # 600 s
    send = run_task(site, number, along=on_device)
    pass_time(site, 500.0, 5.0)
    release(site, number)
    site.lose(send.worker)
    site.revive()
    (record,) = send.records
    for _ in range(5):
        pass_time(site, 1.0)
        site.assign()
    site.begin(record)
    site.finish([record], device_ns=600 * SECOND, run_us=1)
    for _ in range(120):
        pass_time(site, 1.0)
        site.assign()
    (ending,) = site.endings
    assert ending.units == pytest.approx(100.0 * 100.0, rel=0.03)


def test_forecasts_are_paid_by_runs_on_workers_and_on_a_paced_device() -> None:
    spec = PoolSpec("qpu", min=1, max=1, device="chip", pace=True)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    on_device = route(pool="qpu", device_shot_ns=6.0 * SECOND, paced=True)  # 600 s
    (task,) = site.submit(owner="ben", account="b", reservation=number, along=on_device)
    record = site.state.tasks[task]
    record.batch = msgspec.structs.replace(record.batch, units=30_000.0)
    (send,) = site.assign()
    site.begin(record)
    site.finish(send.records, device_ns=600 * SECOND, run_us=1)
    pool = site.state.cluster.pools["qpu"]
    for seconds, units in ((100.0, 10_000.0), (300.0, 30_000.0)):  # no more than was forecast
        pass_time(site, seconds, 5.0)
        paid = dedicated_workers.paid_units(site.state, pool, number, lambda name: name == "b")
        assert paid == pytest.approx(units, rel=0.06)
    assert not dedicated_workers.paid_units(site.state, pool, number, lambda name: name == "a")
