"""What an owner uses of the environment now, counted by owners and workers, never by tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.model import OwnerUse, ReservationRequest
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.policies import PolicyVerdict
from simenv.scheduler.state import owner_quotas

if TYPE_CHECKING:
    from simenv.scheduler.state.state import Books

_MANY = 2**31


def of_owner(books: Books, owner: str, kept_bytes: int = 0) -> OwnerUse:
    """The use of one owner; `kept_bytes`: of results, which the scheduler knows nothing of."""
    live = [one for one in books.reservations.live.values() if one.grant.owner == owner]
    return msgspec.structs.replace(
        of_queue(books, owner),
        running_slots=running_slots(books).get(owner, 0),
        kept_bytes=kept_bytes,
        reservations=len(live),
        reserved_workers=sum(one.grant.ask.workers for one in live),
    )


def of_queue(books: Books, owner: str) -> OwnerUse:
    """Unfinished tasks and their bytes alone."""
    if owner:
        return OwnerUse(len(books.owned.of(owner)), books.owned.bytes_of(owner))
    own = len(books.tasks) - books.owned.count  # all that is nobody else's
    return OwnerUse(own, books.queued_bytes - books.owned.all_bytes)


def running_slots(books: Books) -> dict[str, int]:
    """Slots that the tasks of each owner have been granted."""
    found: dict[str, int] = {}
    for worker in books.workers.values():
        if worker.held and worker.slots:
            owner = next(iter(worker.held.values())).batch.owner
            found[owner] = found.get(owner, 0) + worker.slots
    return found


def slots_left(books: Books, owner: str) -> int:
    """How many more slots the tasks of an owner may be granted; many where there is no limit."""
    most = books.quotas.of(owner).max_running_slots
    return max(0, most - running_slots(books).get(owner, 0)) if most else _MANY


def hold_back(books: Books) -> None:
    """Tell each queue whose tasks would pass their owner's limit of running slots."""
    used = running_slots(books)
    for pool in books.pools.values():
        ranks = pool.spec.ranks
        pool.queue.held_back = frozenset(
            owner
            for owner in (*used, *pool.queue.owners())
            if (most := books.quotas.of(owner).max_running_slots)
            if used.get(owner, 0) + ranks > most
        )


def veto(books: Books, ask: ReservationRequest, owner: str) -> PolicyVerdict | None:
    """The limit of an owner that stands against a reservation; None if none does."""
    if not owner:
        return None
    limits, use = books.quotas.of(owner), of_owner(books, owner)
    ttl_ns = ask.ttl_ns or books.reservations.terms(ask.device).profile.default_ttl_ns
    pool = dedicated_workers.pool_name(books, ask)
    most, given = dedicated_workers.room_of(books, ask)
    keeps = books.keeps.all
    own = sum(
        keeps[one.grant.id].workers
        for one in books.reservations.live.values()
        if one.grant.owner == owner and one.grant.id in keeps
        if keeps[one.grant.id].pool == pool
    )
    workers = ask.workers if pool else 0  # of an unknown pool another refusal says so
    return owner_quotas.veto(limits, owner, use, workers, ttl_ns, most, given, own)
