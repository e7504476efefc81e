"""GPUs of workers: GPUs of each rank, and `workers=auto`, which is one worker for each GPU."""

from __future__ import annotations

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
    return 1 if card is not None and card.gpus else 0


def with_workers_of_gpus(pools: Iterable[PoolSpec], nodes: Iterable[Node]) -> tuple[PoolSpec, ...]:
    """Return the pools, where `workers=auto` is replaced by one worker for each GPU of its nodes.

    Raises ConfigError for `workers=auto` of an engine without GPUs.
    """
    rooms = [NodeResources.of(node) for node in nodes]
    results = []
    for spec in pools:
        if spec.auto_workers:
            if not rank_gpus(spec):
                raise ConfigError(
                    f"pool {spec.name!r}: workers=auto is one worker for each GPU, and engine"
                    f" {spec.engine!r} uses none",
                    hint="workers=N, or engine=gpu",
                )
            count = max(1, sum(room.gpus_total for room in rooms if matches(spec.nodes, room)))
            spec = msgspec.structs.replace(spec, min=count, max=count)
        results.append(spec)
    return tuple(results)
