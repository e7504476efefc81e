"""What unfinished tasks have of reservations is split by whether they have a worker."""

from __future__ import annotations

from claimant import Claimant

from simenv.model import Held, TargetInfo
from simenv.scheduler import steering


def _target(host: Claimant, device: str) -> TargetInfo:
    return steering.info(host.state, device)


def test_units_of_tasks_are_counted_twice_or_in_the_wrong_half() -> None:
    host = Claimant()
    host.policy("credit", total_credits=10)
    assert (_target(host, "main").reservations, _target(host, "").held) == (0, Held())
    number = host.reserve(9).reservation
    first, *_ = host.under(number, 4, shots=2_000)  # four times two units
    for device in ("main", ""):
        told = _target(host, device)
        assert (told.reservations, told.held) == (1, Held(8, 8, 0))
        assert told.in_flight == Held()
    steering.bound(host.state, "main", 1)
    sent = len([record for send in host.assign() for record in send.records])
    told = _target(host, "main")
    assert sent == 1
    assert (told.in_flight, told.held) == (Held(2, 2, 0), Held(6, 6, 0))
    host.ran(first, 10**6)
    told = _target(host, "main")
    assert (told.in_flight, told.held) == (Held(), Held(6, 6, 0))
