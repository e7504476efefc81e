"""Placement of a worker's ranks on nodes. Pure: equal arguments give equal answers.

Workers of one rank are spread over the nodes. The ranks of a gang are packed onto the fewest nodes
of one block that can hold them. Invariants: a placed worker fits the free memory and GPUs of each
node, has no more ranks on a node than the node's slots can run at once, and uses no unusable node.
Ranks of several workers may exceed a node's slots: an idle rank needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby

from launcher.base import Node, Share

_GIB = 2**30
_MIB = 2**20
_UNLIMITED = 2**31


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """Resources of one worker. `slots`, `memory_bytes` and `gpus` are those of each rank."""

    ranks: int = 1
    slots: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    nodes: str = ""  # names, patterns or features, "gpu*,node7"; "": every node


@dataclass(frozen=True, slots=True)
class NodeResources:
    """Free and total resources of a node at this moment."""

    name: str
    slots: int  # in total
    memory_bytes: int  # not reserved
    memory_total: int
    gpus: int = 0  # not reserved
    gpus_total: int = 0
    ranks: int = 0  # already placed on it
    block: int = 0
    features: tuple[str, ...] = ()
    usable: bool = True
    reason: str = ""  # reason why it is unusable: "drained: disk", "lost"
    pool: str = ""  # as in `Node`

    @staticmethod
    def of(node: Node) -> NodeResources:
        """Return the resources of a node on which nothing is placed."""
        free = node.memory_bytes, node.memory_bytes, node.gpus, node.gpus
        features, pool = node.features, node.pool
        return NodeResources(
            node.name, node.slots, *free, block=node.block, features=features, pool=pool
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """The nodes of a worker's ranks, which are numbered over the shares in their order."""

    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class _Shortage:
    """`resource` is the one that is too small: "nodes", "slots", "memory", "gpus" (of one rank) or
    "ranks" (of one worker)."""

    resource: str
    requested: int
    limit: int
    message: str


class Infeasible(_Shortage):
    """Answer: never possible on these nodes, even if all were free and usable."""


class Insufficient(_Shortage):
    """Answer: not possible now; `limit` is the present amount of `resource`."""


def place(
    request: ResourceRequest, nodes: Sequence[NodeResources]
) -> Placement | Infeasible | Insufficient:
    """Place a worker, or name the resource that is short."""
    matching = [node for node in nodes if matches(request.nodes, node)]
    if request.ranks == 1:  # the usual case, in which no node is copied
        fitting = [node for node in matching if node.usable and capacity(request, node)]
        if fitting:
            return Placement((Share(min(fitting, key=_spread_key).name, 1),))
    if _max_ranks(request, map(_when_empty, matching)) < request.ranks:
        return Infeasible(*_shortage(request, [_when_empty(node) for node in matching], nodes))
    usable = [node for node in matching if node.usable]
    if not usable:
        message = _with_unusable_nodes("no node that could hold it is", matching)
        return Insufficient("nodes", 1, 0, message)
    if _max_ranks(request, usable) < request.ranks:
        resource, requested, limit, message = _shortage(request, usable, nodes)
        return Insufficient(resource, requested, limit, _with_unusable_nodes(message, matching))
    return Placement(_pack(request, usable))


def allocate(
    request: ResourceRequest, placement: Placement, nodes: Iterable[NodeResources]
) -> tuple[NodeResources, ...]:
    """Return the nodes with this worker placed on them."""
    ranks = {share.node: share.ranks for share in placement.shares}
    return tuple(_with_ranks(request, ranks.get(node.name, 0), node) for node in nodes)


def matches(node_pattern: str, node: NodeResources) -> bool:
    """Return whether a node's name, short name or one of its features matches the pattern list. A
    node that came by a job of a pool matches the pattern of that pool alone."""
    if node.pool:
        return node_pattern == job_nodes(node.pool)
    patterns = [pattern.strip() for pattern in node_pattern.split(",") if pattern.strip()]
    labels = (node.name, node.name.partition(".")[0], *node.features)
    return not patterns or any(fnmatchcase(label, p) for p in patterns for label in labels)


def job_nodes(pool: str) -> str:
    """Return the pattern of the nodes that come by jobs of a pool. No other node has such a name,
    and no user can write the pattern."""
    return f"{pool}:*"


def capacity(request: ResourceRequest, node: NodeResources) -> int:
    """Return how many ranks of one worker this node can take now."""
    bounds = [node.slots // request.slots if request.slots else _UNLIMITED]
    if request.memory_bytes:
        bounds.append(max(0, node.memory_bytes) // request.memory_bytes)
    if request.gpus:
        bounds.append(max(0, node.gpus) // request.gpus)
    return min(bounds)


def _when_empty(node: NodeResources) -> NodeResources:
    return replace(
        node, memory_bytes=node.memory_total, gpus=node.gpus_total, ranks=0, usable=True, reason=""
    )


def _with_ranks(request: ResourceRequest, ranks: int, node: NodeResources) -> NodeResources:
    return replace(
        node,
        ranks=node.ranks + ranks,
        memory_bytes=node.memory_bytes - ranks * request.memory_bytes,
        gpus=node.gpus - ranks * request.gpus,
    )


def _blocks(nodes: Iterable[NodeResources]) -> list[list[NodeResources]]:
    ordered = sorted(nodes, key=lambda node: node.block)
    return [list(block) for _, block in groupby(ordered, lambda node: node.block)]


def _max_ranks(request: ResourceRequest, nodes: Iterable[NodeResources]) -> int:
    return max(
        (sum(capacity(request, node) for node in block) for block in _blocks(nodes)), default=0
    )


def spread_key(ranks: int, slots: int, memory_bytes: int) -> tuple[float, int]:
    """Return the key of a node by which workers of one rank are spread: the fewest ranks per slot,
    including this one; ties go to the most free memory."""
    return (ranks + 1) / max(1, slots), -memory_bytes


def _spread_key(node: NodeResources) -> tuple[float, int]:
    return spread_key(node.ranks, node.slots, node.memory_bytes)


def _load(node: NodeResources) -> float:
    return _spread_key(node)[0]


def _pack(request: ResourceRequest, nodes: list[NodeResources]) -> tuple[Share, ...]:
    choices = [
        _fewest_nodes(request, block)
        for block in _blocks(nodes)
        if sum(capacity(request, node) for node in block) >= request.ranks
    ]
    chosen = min(choices, key=lambda few: (len(few), sum(map(_load, few)) / len(few)))
    return _balance(request, chosen)


def _fewest_nodes(request: ResourceRequest, block: list[NodeResources]) -> list[NodeResources]:
    """Return the fewest nodes of the block that can hold the gang; of several sets, the least
    loaded."""
    by_size = sorted(block, key=lambda node: (-capacity(request, node), _load(node)))
    count, held = 0, 0
    while held < request.ranks:
        held += capacity(request, by_size[count])
        count += 1
    even = -(-request.ranks // count)
    fitting = sorted((node for node in block if capacity(request, node) >= even), key=_load)
    return fitting[:count] if len(fitting) >= count else by_size[:count]


def _balance(request: ResourceRequest, nodes: list[NodeResources]) -> tuple[Share, ...]:
    """Distribute the ranks as evenly as the capacities allow, at least one on every node. Ranks
    that exchange amplitudes all wait for the busiest node."""
    shares, remaining = {}, request.ranks
    for index, node in enumerate(sorted(nodes, key=lambda node: capacity(request, node))):
        fair = -(-remaining // (len(nodes) - index))
        shares[node.name] = min(fair, capacity(request, node))
        remaining -= shares[node.name]
    return tuple(Share(node.name, shares[node.name]) for node in nodes)


def _shortage(
    request: ResourceRequest, nodes: list[NodeResources], all_nodes: Sequence[NodeResources]
) -> tuple[str, int, int, str]:
    """Return the first resource that is short, the requested amount, the limit and a message."""
    if not nodes:
        names = ", ".join(node.name for node in all_nodes[:8])
        message = f"no node matches {request.nodes or '*'!r} (there are: {names})"
        return "nodes", 1, 0, message
    for resource, requested, limit in (
        ("slots", request.slots, max(node.slots for node in nodes)),
        ("memory", request.memory_bytes, max(0, *(node.memory_bytes for node in nodes))),
        ("gpus", request.gpus, max(node.gpus for node in nodes)),
    ):
        if requested > limit:
            size = format_size if resource == "memory" else str
            unit = {"slots": " slots", "memory": "", "gpus": " GPUs"}[resource]
            message = (
                f"a rank needs {size(requested)}{unit}; the largest node has {size(limit)}{unit}"
            )
            return resource, requested, limit, message
    limit = _max_ranks(request, nodes)
    blocks = len({node.block for node in nodes})
    description = (
        f"the largest of {blocks} blocks of nodes holds" if blocks > 1 else "its nodes hold"
    )
    message = f"{request.ranks} ranks of {_format_rank(request)} each; {description} {limit}"
    return "ranks", request.ranks, limit, message


def _with_unusable_nodes(message: str, matching: list[NodeResources]) -> str:
    unusable = [
        f"{node.name} ({node.reason or 'not usable'})" for node in matching if not node.usable
    ]
    return f"{message} free now" + (f"; out of use: {', '.join(unusable)}" if unusable else "")


def _format_rank(request: ResourceRequest) -> str:
    parts = [f"{request.slots} slot{'s' * (request.slots != 1)}"]
    if request.memory_bytes:
        parts.append(format_size(request.memory_bytes))
    if request.gpus:
        parts.append(f"{request.gpus} GPU{'s' * (request.gpus != 1)}")
    return ", ".join(parts)


def format_size(size_bytes: int) -> str:
    """Format bytes as '1.5 GiB' or '512 MiB'."""
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:.3g} GiB"
    return f"{size_bytes / _MIB:.3g} MiB"
