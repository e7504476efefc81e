"""Capacity that routing may use: the nodes that are up, and the programs that fit them.

Lost and drained nodes take no part in routing: a program that fits only with one of them is refused
at submission, or waits for it if it has a `queue_timeout_s`. Tasks accepted before wait, and their
pending reason names the node. While no node is up, all configured ones count and every task waits.
"""

from __future__ import annotations

import msgspec

from launcher.placement import NodeResources, Placement, ResourceRequest, place
from simenv.model import PoolSpec
from simenv.model.views import base_of
from simenv.scheduler.core.gpus import rank_gpus
from simenv.scheduler.core.types import ClusterLimits, Route, slot_memory
from simenv.text import size


class Capacity(msgspec.Struct, frozen=True):
    """Configured limits, limits of the nodes that are up, and the nodes that are not up with the
    reasons."""

    configured: ClusterLimits
    limits: ClusterLimits
    away: str = ""  # "n2 is lost: no answer"

    @property
    def is_whole(self) -> bool:
        """True if all nodes are up."""
        return self.limits is self.configured


def all_nodes(limits: ClusterLimits) -> Capacity:
    """Return the capacity while every node is up."""
    return Capacity(limits, limits)


def unplaceable_reason(capacity: Capacity, spec: PoolSpec, route: Route) -> str:
    """Return why a route of this pool fits none of the nodes that are up; "" if it fits."""
    limits = capacity.limits
    rank_bytes = max(route.memory_bytes, spec.memory_bytes)
    each = route.memory_bytes if base_of(route.pool) else 0
    nodes = [node for node in limits.nodes if slot_memory(node, limits) >= each]
    need = ResourceRequest(
        route.ranks, memory_bytes=rank_bytes, gpus=rank_gpus(spec), nodes=spec.nodes
    )
    if isinstance(place(need, [NodeResources.of(node) for node in nodes]), Placement):
        return ""
    ranks = f"{route.ranks} ranks of " if route.ranks > 1 else ""
    return f"it needs {ranks}{size(rank_bytes)}, more than the nodes in use have: {capacity.away}"
