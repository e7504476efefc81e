"""Pools, limits and task counts of one device: a pool with the pools made on demand for it.

The device "" is all pools together.
"""

from __future__ import annotations

from simenv.errors import NotFoundError
from simenv.model.views import base_of
from simenv.scheduler.core.types import UNLIMITED, Phase
from simenv.scheduler.state.pools import Pool
from simenv.scheduler.state.state import SchedulerState


def check_device(state: SchedulerState, device: str) -> None:
    """Raise NotFoundError if there is no device of that name."""
    names = [name for name, pool in state.pools.items() if not pool.base]
    if device and device not in names:
        hint = f"pools: {', '.join(names)}; '' for all together"
        raise NotFoundError(f"there is no device {device[:64]!r}", hint=hint)


def pools_of(state: SchedulerState, device: str) -> list[Pool]:
    """Return the pools of a device."""
    return [pool for pool in state.pools.values() if device in ("", pool.device)]


def inflight_limit(state: SchedulerState, device: str) -> int:
    """Return the most tasks that the workers of a device may hold at a time; 0: no limit."""
    depth = state.reservations.terms(device).profile.max_provider_queue_depth
    return min((n for n in (state.controls.of(device).max_inflight, depth) if n), default=0)


def refresh_assignable_tasks(state: SchedulerState) -> None:
    """Recompute how many tasks may be assigned to the workers of each device."""
    state.controls.set_assignable_tasks(
        {
            device: limit - sum(inflight(state, device)) if limit else UNLIMITED
            for device in {*state.controls.all, *state.reservations.devices}
            for limit in (inflight_limit(state, device),)
        }
    )


def inflight(state: SchedulerState, device: str) -> tuple[int, int]:
    """Return the numbers of tasks that the workers of a device hold: not started, and running."""
    held = [
        record
        for pool in pools_of(state, device)
        for worker in pool.workers.values()
        for record in worker.held.values()
    ]
    running = sum(record.phase == Phase.RUNNING for record in held)
    return len(held) - running, running


def parked(state: SchedulerState, device: str) -> int:
    """Return the number of parked tasks of a device, including tasks whose pool does not exist
    yet."""
    counts = [each.parked_in for each in state.reservations.all.values() if each.parked]
    return sum(
        count
        for by_pool in counts
        for name, count in by_pool.items()
        if device in ("", base_of(name) or name)
    )
