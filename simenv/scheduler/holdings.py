"""What unfinished tasks have of a device's reservations, for those who look at it from outside.

Counted by reservations and workers, never by tasks that wait: there may be very many of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from simenv.model import Held
from simenv.scheduler import policy as policies
from simenv.scheduler.soundness import MOST

if TYPE_CHECKING:
    from simenv.scheduler.books import Books


def of(books: Books, device: str) -> tuple[int, Held, Held]:
    """Active reservations of the device (of "": all), what tasks without a worker hold of them,
    and what tasks with one do."""
    ledger = books.reservations
    there = [one for one in ledger.all.values() if device in ("", one.grant.ask.device)]
    flying: dict[int, int] = {}  # units by reservation
    if ledger.by_task:
        for worker in books.workers.values():
            for task in worker.held:
                under = ledger.by_task.get(task)
                if under is not None:
                    number = under.grant.id
                    flying[number] = flying.get(number, 0) + under.holds.get(task, 0)
    scale = policies.scale(ledger.terms(device))
    in_flight = _sum(one.shown(flying.get(one.grant.id, 0), device, scale) for one in there)
    held = _sum(one.shown(one.held - flying.get(one.grant.id, 0), device, scale) for one in there)
    return sum(not one.is_over for one in there), held, in_flight


def _sum(parts: Iterable[Held]) -> Held:
    units = price = rate = 0
    for part in parts:
        units, price, rate = units + part.units, price + part.credits, rate + part.rate
    return Held(min(MOST, units), min(MOST, price), min(MOST, rate))
