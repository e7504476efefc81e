"""Associations whose tasks may not start now: their users are removed, the budget of one of their
accounts is used up, or they would pass a limit of running slots of their user or of one of their
accounts."""

from __future__ import annotations

from simenv.scheduler import core
from simenv.scheduler.state import nodes
from simenv.scheduler.state.scheduler_state import SchedulerState


def slots_left(state: SchedulerState, leaf: str) -> int:
    """Return how many more slots the tasks of an association may be granted."""
    limits = state.shares.slot_limits(leaf)
    used = _used_slots(state) if limits else {}
    left = (max(0, limit - used.get(node, 0)) for node, limit in limits)
    return min(left, default=core.UNLIMITED)


def _used_slots(state: SchedulerState) -> dict[str, int]:
    """Return the slots granted to the tasks of each user, as @NAME, and account with a limit."""
    used: dict[str, int] = {}
    busy = (w for pool in state.cluster.pools.values() for w in pool.workers.busy.values())
    for worker in busy:
        served = (state.shares.slot_limits(batch.association) for batch in nodes.served(worker))
        for node, _ in {each for limits in served for each in limits}:
            used[node] = used.get(node, 0) + worker.slots
    return used


def used_up_budgets(state: SchedulerState, now_ns: int) -> set[str]:
    """Return the accounts whose budget the running tasks will use up: each counts with the billing
    units that were forecast for it, or with those of its time so far if they are more."""
    left = dict(state.shares.limits.budgets_left)
    for worker in state.cluster.workers.values() if left else ():
        if worker.dedication.reservation:  # whose time is charged in any case
            continue
        for record in worker.held.values():
            units = record.batch.units
            if record.phase == core.RUNNING:
                units *= max(1.0, (now_ns - record.started_ns) / 1e3 / max(1.0, record.cost_us))
            for account in state.shares.accounts.path(record.batch.account):
                if account in left:
                    left[account] -= units
    return {account for account, units in left.items() if units <= 0.0}


def is_budget_used_up(state: SchedulerState, leaf: str, used_up: set[str]) -> bool:
    """Return whether the budget of one of an association's accounts is among those that are used
    up. Associations with tasks under a reservation that has workers are exempt: its time is charged
    in any case."""
    return not used_up.isdisjoint(state.shares.fair_share.path(leaf)[:-1]) and not any(
        use.reservation in state.dedicated.all and use.association == leaf
        for use in state.tasks.by_association
    )


def refresh(state: SchedulerState, now_ns: int) -> None:
    """Set, for each queue, the associations whose tasks may not start."""
    used, limits = _used_slots(state), state.shares.limits
    used_up, user_of = used_up_budgets(state, now_ns), state.shares.fair_share.user
    for pool in state.cluster.pools.values():
        waiting = pool.queue.associations()
        for leaf in waiting.difference(limits.slot_limits):
            state.shares.slot_limits(leaf)
        held = {leaf for leaf in waiting if limits.removed and user_of(leaf) in limits.removed}
        if used_up:
            held |= {leaf for leaf in waiting if is_budget_used_up(state, leaf, used_up)}
        for node, (limit, leaves) in limits.limited.items():
            if used.get(node, 0) + pool.spec.ranks > limit:
                held |= leaves & waiting
        pool.queue.lanes.hold_back(frozenset(held))
