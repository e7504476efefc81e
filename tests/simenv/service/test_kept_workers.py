"""Workers kept for reservations, through the service: over a crash too, and free at the end."""

from __future__ import annotations

from reservation_harness import ReservationHarness
from service import spec

from simenv.model import TaskOptions
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import GetPools, Pools, Release, Released


def test_dedicated_worker_serves_its_reservation_after_crash(office: ReservationHarness) -> None:
    assert office.reserve(4, workers=1).status == "delayed"  # no worker is there yet
    office.join()
    decision = office.reserve(4, workers=1)
    assert (decision.status, decision.bound_ns) == ("accepted", 100_000_000)
    number = decision.reservation
    assert office.info(number).workers_kept == 1
    office.say(m.Submit(5, "~o", 0, TaskOptions(), [spec()]))
    assert office.assigned() == []
    assert office.view(1).reason.startswith("all workers of pool main are kept")
    office.begin_again()
    office.join()
    assert office.assigned() == []
    assert isinstance(office.under(number, 100), m.Accepted)
    sent = office.assigned()
    assert [each.task for each in sent] == [2]
    assert [pool.kept for pool in office.get(Pools, GetPools(1)).pools] == [1]
    office.finish(sent)
    assert office.assigned() == []
    office.get(Released, Release(2, number))
    assert [each.task for each in office.assigned()] == [1]
    assert office.info(number).workers_kept == 0


def test_queue_and_pool_views_contain_wait_forecasts(office: ReservationHarness) -> None:
    office.join()
    office.say(m.Submit(5, "~o", 0, TaskOptions(), [spec(k, shots=10**6) for k in range(300)]))
    waits = [office.view(task).wait_us for task in (100, 200, 300)]
    assert 0 < waits[0] < waits[1] < waits[2]
    (pool,) = office.get(Pools, GetPools(1)).pools
    assert pool.wait_us > 0
