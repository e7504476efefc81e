"""Routes after a restart, for tasks that still wait, on the pools and nodes of this start."""

from __future__ import annotations

import msgspec

from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simenv.scheduler.core.gpus import rank_gpus
from simenv.scheduler.core.types import ClusterLimits, Route, base_of, gang_name
from simenv.scheduler.routing import ranks as sizing
from simenv.scheduler.routing.engine_choice import runs
from simenv.scheduler.routing.engine_support import power
from simenv.text import size
from simulators import catalog


def reroute_after_restart(
    route: Route, pools: tuple[PoolSpec, ...], limits: ClusterLimits
) -> Route:
    """Return the route itself, or one through another of the configured `pools` if its own is gone.

    Raises ConfigError if the task can run nowhere now.
    """
    card = catalog.card(route.engine)
    usable = [pool for pool in pools if card is not None and runs(pool, card)]
    if (
        card is not None and card.pool == "device"
    ):  # a task of hardware never moves to other hardware
        usable = []
    own_pools = [p for p in pools if p.name in (route.pool, base_of(route.pool))]
    for pool in (*own_pools, *usable):
        name = _place_in(pool, route, limits)
        if name:
            ranks = route.ranks if name == pool.name else power(route.ranks)
            return msgspec.structs.replace(route, pool=name, ranks=ranks, paced=pool.pace)
    if not own_pools and not usable:
        raise ConfigError(
            f"tasks wait for engine {route.engine!r} in pool {route.pool!r}, which is not there "
            "now",
            hint=f"start with --pool {base_of(route.pool) or route.pool}:engine={route.engine}",
        )
    pool = (*own_pools, *usable)[0]
    if route.ranks == 1:
        available = f"a worker of this start has {size(sizing.one_rank_bytes(pool, limits))}"
        hint = "start with the memory it had before"
    else:
        max_ranks = min(limits.max_ranks, sizing.most_ranks(pool, limits, route.memory_bytes))
        available = f"this start has {max_ranks} of them for one worker ({limits.launcher})"
        hint = "start on the nodes it had before, with MPI"
    count = f"{route.ranks} ranks of " if route.ranks > 1 else ""
    raise ConfigError(
        f"tasks wait that need {count}{size(route.memory_bytes)}; {available}", hint=hint
    )


def _place_in(pool: PoolSpec, route: Route, limits: ClusterLimits) -> str:
    """Return the name of the pool, or of the one made on demand for it, that can run the task; ""
    if neither can."""
    if route.ranks == 1:
        fits = pool.ranks == 1 and route.memory_bytes <= sizing.one_rank_bytes(pool, limits)
        return pool.name if fits else ""
    if pool.ranks > 1:
        max_ranks = pool.memory_bytes or sizing.slot_bytes(pool, limits, pool.ranks)
        return pool.name if pool.ranks == route.ranks and route.memory_bytes <= max_ranks else ""
    if rank_gpus(pool):
        return ""  # no worker on demand has GPUs
    ranks = power(route.ranks)
    max_pool_ranks = min(limits.max_ranks, sizing.most_ranks(pool, limits, route.memory_bytes))
    return gang_name(pool.name, ranks) if ranks <= max_pool_ranks else ""
