"""GPUs of workers: one for each rank, and `workers=auto`, as many workers as have GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from launcher.base import Node
from launcher.placement import NodeResources, matches
from simenv.errors import ConfigError
from simenv.model import PoolSpec
from simulators import catalog


def rank_gpus(spec: PoolSpec) -> int:
    """Return the number of GPUs of each rank of the pool's workers."""
    card = catalog.card(spec.engine)
    return 1 if card is not None and card.pool == "gpu" else 0


def with_workers_of_gpus(pools: Iterable[PoolSpec], nodes: Iterable[Node]) -> tuple[PoolSpec, ...]:
    """Return the pools, where `workers=auto` is replaced by one worker for each GPU of its nodes,
    or for as many GPUs as a worker has ranks.

    Raises ConfigError for `workers=auto` of an engine without GPUs.
    """
    resources = [NodeResources.of(node) for node in nodes]
    results = []
    for spec in pools:
        if spec.auto_workers:
            if not rank_gpus(spec):
                raise ConfigError(
                    f"pool {spec.name!r}: workers=auto is one worker for each GPU, and engine"
                    f" {spec.engine!r} uses none",
                    hint="workers=N, or engine=gpu",
                )
            usable = [node for node in resources if matches(spec.nodes, node)]
            count = max(1, _workers_on(usable, spec.ranks))
            spec = msgspec.structs.replace(spec, min=count, max=count)
        results.append(spec)
    return tuple(results)


def _workers_on(rooms: list[NodeResources], ranks: int) -> int:
    """Return the number of workers whose ranks have a GPU each: they stay in a block of nodes."""
    gpus: Counter[int] = Counter()
    for room in rooms:
        gpus[room.block] += room.gpus_total
    return sum(count // ranks for count in gpus.values())
