"""Time in which dedicated workers run nothing: charged to the account of their reservation."""

from collections.abc import Iterator

import msgspec
import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster, route

from simenv.model import PoolSpec, ReservationRequest, ReservationState, TaskState
from simenv.model.accounts import Account, AccountTree, Billing, Used
from simenv.scheduler import core

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


def charges(site: CheckedScheduler) -> Iterator[core.ChargeUnused]:
    return (action for action in site.actions if isinstance(action, core.ChargeUnused))


def charged_s(site: CheckedScheduler) -> float:
    return sum(action.used.slot_us for action in charges(site)) / 1e6


def test_idle_reservation_uses_its_share(site: CheckedScheduler) -> None:
    number = reserve(site)
    pass_time(site, 65.0)
    assert 100.0 <= charged_s(site) <= 130.0, "while it lasts"
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(130.0, abs=0.5)
    usage = site.state.fair_share.usage("b", "", site.now_ns)
    assert usage == pytest.approx(130.0, rel=0.01)
    assert site.state.fair_share.sort_key("b/") > site.state.fair_share.sort_key("a/ana")
    pass_time(site, 30.0)
    assert charged_s(site) == pytest.approx(130.0, abs=0.5), "nothing after its end"


@pytest.mark.parametrize("length_s", [0.05, 2.0, 45.0])
def test_only_the_time_between_tasks_is_charged(site: CheckedScheduler, length_s: float) -> None:
    number = reserve(site, workers=1)
    begin_ns = site.now_ns
    for _ in range(max(1, round(60.0 / (2 * length_s)))):
        site.submit(cost=length_s * 1e6, owner="ben", account="b", reservation=number)
        (send,) = site.assign()
        site.begin(send.records[0])
        pass_time(site, length_s, length_s / 5)
        site.finish(send.records)
        pass_time(site, length_s, length_s / 5)
    release(site, number)
    site.tick()
    seconds = (site.now_ns - begin_ns) / SECOND
    assert charged_s(site) == pytest.approx(seconds / 2, rel=0.03)


def test_running_task_of_the_reservation_is_not_charged_twice(site: CheckedScheduler) -> None:
    number = reserve(site, workers=1)
    site.submit(cost=300e6, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 60.0)
    assert not charged_s(site)
    site.lose(send.worker)  # the attempt is charged to nobody: the reservation held the worker
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(60.0, abs=1.0)


def test_worker_that_still_runs_tasks_of_others_is_not_charged() -> None:
    site = CheckedScheduler(workers=1, limits=cluster(1))
    site.scheduler.set_accounts(TREE, Billing(), {})
    site.submit(cost=30e6, owner="ana", account="a")
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 29.98, 0.01)
    site.state.workers[send.worker].held_us = 20_000.0  # it is nearly done
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


@pytest.mark.parametrize("workers", [1, 2])
def test_reserved_paced_device_is_charged_by_the_price_of_its_time(workers: int) -> None:
    spec = PoolSpec("qpu", min=workers, max=workers, device="chip", pace=True)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    pass_time(site, 20.0)
    on_device = route(pool="qpu", device_shot_ns=0.6 * SECOND, paced=True)  # 100 shots: 60 s
    site.submit(along=on_device, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    site.finish(send.records, device_ns=60 * SECOND)  # simulated ahead of the device
    for _ in range(160):
        site.hear()
        site.tick(0.5)  # comes before the end of the task is due
        site.assign()
    release(site, number)
    (ending,) = site.endings
    assert ending.used.device_us == pytest.approx(60e6)
    used = sum((action.used for action in charges(site)), Used())
    assert used.slot_us == pytest.approx(40e6, abs=1e5)
    assert used.device_us == pytest.approx(40e6 / workers, abs=1e5)
    units = sum(action.units for action in charges(site))
    assert units == pytest.approx(40 + 4_000 / workers, abs=20)


def test_release_while_a_paced_device_runs_a_task_charges_it_once() -> None:
    spec = PoolSpec("qpu", min=1, max=1, device="chip", pace=True)
    site = CheckedScheduler(specs=(spec,))
    site.scheduler.set_accounts(TREE, Billing(device_s={"qpu": 100.0}), {})
    number = reserve(site, workers=1, device="qpu")
    on_device = route(pool="qpu", device_shot_ns=0.6 * SECOND, paced=True)
    site.submit(along=on_device, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    site.finish(send.records, device_ns=60 * SECOND)
    pass_time(site, 40.0)
    release(site, number)
    assert not charged_s(site)


def test_task_that_runs_on_after_a_release_is_charged_once(site: CheckedScheduler) -> None:
    number = reserve(site, workers=1)
    site.submit(cost=300e6, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 60.0)
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(0.0, abs=0.1), "the task pays for its time"


def test_reservations_shorter_than_a_tick_are_charged(site: CheckedScheduler) -> None:
    for _ in range(100):
        number = reserve(site, workers=2)
        site.now_ns += SECOND // 2
        release(site, number)
    site.hear()
    site.tick()
    assert charged_s(site) == pytest.approx(100.0, abs=1.0)


@pytest.mark.parametrize(("usage_factor", "unused_s"), [(0.0, 400.0), (0.5, 250.0), (2.0, 100.0)])
def test_reservation_pays_what_the_class_of_its_tasks_does_not(
    site: CheckedScheduler, usage_factor: float, unused_s: float
) -> None:
    number = reserve(site, workers=1)
    (task,) = site.submit(cost=300e6, owner="ben", account="b", reservation=number)
    record = site.state.tasks[task]
    record.batch = msgspec.structs.replace(record.batch, usage_factor=usage_factor)
    (send,) = site.assign()
    site.begin(record)
    pass_time(site, 300.0, 3.0)
    assert charged_s(site) == pytest.approx(unused_s - 100.0, abs=11.0), "while it runs"
    site.finish(send.records)
    pass_time(site, 100.0, 1.0)
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(unused_s, abs=0.1)


@pytest.mark.parametrize("is_released", [True, False])
def test_run_before_the_dedication_pays_for_no_idle_time_after_it(is_released: bool) -> None:
    site = CheckedScheduler(workers=2, limits=cluster(2))
    site.scheduler.set_accounts(TREE, Billing(), {})
    number = reserve(site, workers=1)
    site.submit(2, cost=550e6, owner="ben", account="b", reservation=number)
    sends = {site.state.workers[send.worker].reservation_id: send for send in site.assign()}
    for send in sends.values():
        site.begin(send.records[0])
    own, other = sends[number], sends[0]
    pass_time(site, 500.0, 5.0)
    site.scheduler.cancel([own.records[0].number], site.now_ns)
    site.lose(own.worker)  # 500 s are charged to the reservation: its task is charged for none
    site.assign()
    assert site.state.workers[other.worker].reservation_id == number
    pass_time(site, 50.0, 5.0)
    if not is_released:
        site.finish(other.records)
        pass_time(site, 400.0, 5.0)
    release(site, number)
    site.tick()
    assert charged_s(site) == pytest.approx(500.0 if is_released else 900.0, abs=0.1)


def test_compilation_is_charged_to_the_reservation(site: CheckedScheduler) -> None:
    number = reserve(site, workers=1)
    site.submit(cost=1e6, owner="ben", account="b", reservation=number)
    (send,) = site.assign()
    site.begin(send.records[0])
    pass_time(site, 61.0, 1.0)
    (ending,) = site.finish(send.records, compile_us=60_000_000)
    release(site, number)
    site.tick()
    assert ending.used.slot_us + 1e6 * charged_s(site) == pytest.approx(61e6, abs=1e5)


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
    assert charged_s(site) == pytest.approx(30.0 + 20.0, abs=0.1)


def test_time_in_which_the_service_shuts_down_is_not_charged(site: CheckedScheduler) -> None:
    reserve(site, workers=2)
    pass_time(site, 4.0)
    site.now_ns += SECOND // 4
    site.keep(site.scheduler.begin_drain("here", site.now_ns))
    assert charged_s(site) == pytest.approx(8.5)
    pass_time(site, 30.0)
    site.keep(site.scheduler.charge_unused(site.now_ns))
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
