"""Present use of resources by an owner, counted by owners and workers, never by tasks."""

from __future__ import annotations

import msgspec

from simenv.model import OwnerUse
from simenv.scheduler.core.types import UNLIMITED
from simenv.scheduler.state.state import SchedulerState


def of_owner(state: SchedulerState, owner: str, kept_bytes: int = 0) -> OwnerUse:
    """Return the use of one owner; `kept_bytes`: size of stored results, which the scheduler does
    not count."""
    live = [
        reservation
        for reservation in state.reservations.live.values()
        if reservation.grant.owner == owner
    ]
    return msgspec.structs.replace(
        of_queue(state, owner),
        running_slots=running_slots(state).get(owner, 0),
        kept_bytes=kept_bytes,
        state_bytes=state_bytes(state, owner),
        reservations=len(live),
        reserved_workers=sum(reservation.grant.ask.workers for reservation in live),
    )


def of_queue(state: SchedulerState, owner: str) -> OwnerUse:
    """Return the number of unfinished tasks of an owner and their bytes."""
    if owner:
        return OwnerUse(len(state.tasks_by_owner.of(owner)), state.tasks_by_owner.bytes_of(owner))
    own = len(state.tasks) - state.tasks_by_owner.count  # tasks of the environment's own user
    return OwnerUse(own, state.queued_bytes - state.tasks_by_owner.all_bytes)


def running_slots(state: SchedulerState) -> dict[str, int]:
    """Return the slots granted to the tasks of each owner."""
    slots: dict[str, int] = {}
    for worker in state.workers.values():
        if worker.held and worker.slots:
            owner = next(iter(worker.held.values())).batch.owner
            slots[owner] = slots.get(owner, 0) + worker.slots
    return slots


def state_bytes(state: SchedulerState, owner: str) -> int:
    """Return the memory granted to states between the parts of an owner's circuits."""
    return sum(w.kept_bytes for w in state.workers.values() if w.kept_owner == owner)


def slots_left(state: SchedulerState, owner: str) -> int:
    """Return how many more slots the tasks of an owner may be granted."""
    limit = state.quotas.of(owner).max_running_slots
    return max(0, limit - running_slots(state).get(owner, 0)) if limit else UNLIMITED


def refresh_held_back(state: SchedulerState) -> None:
    """Set, for each queue, the owners whose tasks would pass their limit of running slots."""
    used = running_slots(state)
    for pool in state.pools.values():
        ranks = pool.spec.ranks
        pool.queue.held_back = frozenset(
            owner
            for owner in (*used, *pool.queue.owners())
            if (limit := state.quotas.of(owner).max_running_slots)
            if used.get(owner, 0) + ranks > limit
        )
