"""The capacity there is at present: the nodes that are up, and what fits them.

Lost and drained nodes take no part in routing: a program that fits only with one of them is refused
at submission, or waits for it if it was given a `queue_timeout_s`. What was accepted before waits,
and says for which node. While no node at all is up, the configured ones count: everything waits.
"""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec

from launcher.placement import NodeResources, Placement, ResourceRequest, place
from simenv.scheduler.core.types import (
    ClusterLimits,
    Phase,
    RecordEvent,
    Route,
    base_of,
    slot_memory,
)
from simenv.scheduler.state.state import Books
from simenv.text import size

LOOKED_AT = 10_000  # waiting tasks that are looked at when a node goes: 10 ms of the event loop


class Capacity(msgspec.Struct, frozen=True):
    """What may be used, `limits`, of what is configured, `configured`; and why not all of it."""

    configured: ClusterLimits
    limits: ClusterLimits
    away: str = ""  # "n2 is lost: no answer"

    @property
    def is_whole(self) -> bool:
        """Are all nodes up?"""
        return self.limits is self.configured


def whole(limits: ClusterLimits) -> Capacity:
    """All nodes being up."""
    return Capacity(limits, limits)


def of(books: Books) -> Capacity:
    """As it is now; made anew only when a node has come or gone."""
    ledger = books.ledger
    known = books.capacity
    if known is None or known[0] != ledger.version:
        known = books.capacity = (ledger.version, _of(books))
    return known[1]


def _of(books: Books) -> Capacity:
    limits, hosts = books.limits, list(books.ledger.hosts.values())
    up = [host.node for host in hosts if host.is_up]
    if not up or len(up) == len(hosts):
        return whole(limits)
    away = [f"{h.node.name} is {h.state}: {h.lost or h.drained}" for h in hosts if not h.is_up]
    present = msgspec.structs.replace(
        limits,
        nodes=tuple(up),
        slots=sum(node.slots for node in up),
        memory_bytes=sum(node.memory_bytes for node in up),
    )
    return Capacity(limits, present, "; ".join(away))


# --- what waits ----------------------------------------------------------------------------------


def misfit(books: Books, route: Route) -> str:
    """Why a route fits none of the nodes that are up, in words; "" if it fits, or if none is up."""
    capacity = of(books)
    if capacity.is_whole:
        return ""
    pool = books.pools.get(base_of(route.pool) or route.pool)
    if pool is None or pool.is_exclusive:
        return ""
    spec, limits = pool.spec, capacity.limits
    rank_bytes = max(route.memory_bytes, spec.memory_bytes)
    each = route.memory_bytes if base_of(route.pool) else 0
    nodes = [node for node in limits.nodes if slot_memory(node, limits) >= each]
    need = ResourceRequest(route.ranks, memory_bytes=rank_bytes, nodes=spec.nodes)
    if isinstance(place(need, [NodeResources.of(node) for node in nodes]), Placement):
        return ""
    ranks = f"{route.ranks} ranks of " if route.ranks > 1 else ""
    return f"it needs {ranks}{size(rank_bytes)}, more than the nodes in use have: {capacity.away}"


def stranded(books: Books) -> list[RecordEvent]:
    """Notes about the tasks that fit no node now, a line for each pool. To be called when a node
    has gone; of a longer queue only the first LOOKED_AT tasks are looked at."""
    if of(books).is_whole:
        return []
    words: dict[Route, str] = {}
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in itertools.islice(books.tasks.values(), LOOKED_AT):
        if record.phase != Phase.WAITING:
            continue
        why = words.get(record.route)
        if why is None:
            why = words[record.route] = misfit(books, record.route)
        if why:
            counts[record.route.pool] += 1
            reasons.setdefault(record.route.pool, why)
    more = " or more" if len(books.tasks) > LOOKED_AT else ""
    return [
        RecordEvent(
            "task.unplaceable", pool, f"{count}{more} waiting tasks fit no node: {reasons[pool]}"
        )
        for pool, count in counts.items()
    ]
