"""Which nodes the ranks of a worker go to. Pure: rooms in, a value out; equal rooms, equal answer.

Workers of one rank are spread, the ranks of a gang are packed onto as few nodes as can hold them,
all in one block. Invariants: what is placed fits the free memory and GPUs of each node, a worker
has no more ranks on a node than its slots can run at once, and nothing is placed on a node that is
not usable. Ranks of several workers may exceed a node's slots: a rank that idles needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby

from launcher.base import Node, Share

_GIB = 2**30
_MIB = 2**20
_NO_BOUND = 2**31


@dataclass(frozen=True, slots=True)
class Need:
    """One worker. `slots`, `memory_bytes` and `gpus` are those of each rank."""

    ranks: int = 1
    slots: int = 1
    memory_bytes: int = 0
    gpus: int = 0
    nodes: str = ""  # names, patterns or features, "gpu*,node7"; "": everywhere


@dataclass(frozen=True, slots=True)
class Room:
    """A node as it is now."""

    name: str
    slots: int  # in total
    memory_bytes: int  # not reserved
    memory_total: int
    gpus: int = 0  # not reserved
    gpus_total: int = 0
    ranks: int = 0  # already placed there
    block: int = 0
    features: tuple[str, ...] = ()
    usable: bool = True
    reason: str = ""  # why it is not: "drained: disk", "lost"

    @staticmethod
    def of(node: Node) -> Room:
        """The node with nothing on it."""
        return Room(
            node.name,
            node.slots,
            node.memory_bytes,
            node.memory_bytes,
            node.gpus,
            node.gpus,
            block=node.block,
            features=node.features,
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the ranks go; they are numbered over the shares in their order."""

    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Never on these nodes, even if all were free and up. `figure` is what falls short: "nodes",
    "slots", "memory", "gpus" (of one rank) or "ranks" (of one worker)."""

    figure: str
    wanted: int
    limit: int
    words: str


@dataclass(frozen=True, slots=True)
class Insufficient:
    """Not now: `limit` is what there is of `figure` at present."""

    figure: str
    wanted: int
    limit: int
    words: str


def place(need: Need, rooms: Sequence[Room]) -> Placement | Infeasible | Insufficient:
    """Where the worker goes, or what there is too little of."""
    matching = [room for room in rooms if matches(need.nodes, room)]
    if _most(need, map(_emptied, matching)) < need.ranks:
        return Infeasible(*_shortage(need, [_emptied(room) for room in matching], rooms))
    usable = [room for room in matching if room.usable]
    if not usable:
        return Insufficient("nodes", 1, 0, _now("no node that could hold it is", matching))
    if _most(need, usable) < need.ranks:
        figure, wanted, limit, words = _shortage(need, usable, rooms)
        return Insufficient(figure, wanted, limit, _now(words, matching))
    if need.ranks == 1:
        return Placement((Share(_spread(need, usable).name, 1),))
    return Placement(_pack(need, usable))


def largest(memory_bytes: int, rooms: Iterable[Room], nodes: str = "") -> int:
    """The most ranks of so much memory each that one worker could ever have here."""
    need = Need(1, memory_bytes=memory_bytes, nodes=nodes)
    return _most(need, (_emptied(room) for room in rooms if matches(nodes, room)))


def filled(need: Need, placement: Placement, rooms: Iterable[Room]) -> tuple[Room, ...]:
    """The rooms with this worker in them."""
    ranks = {share.node: share.ranks for share in placement.shares}
    return tuple(_with(need, ranks.get(room.name, 0), room) for room in rooms)


def matches(nodes: str, room: Room) -> bool:
    """Does a node's name, its short name or one of its features match a pattern of the list?"""
    patterns = [pattern.strip() for pattern in nodes.split(",") if pattern.strip()]
    words = (room.name, room.name.partition(".")[0], *room.features)
    return not patterns or any(fnmatchcase(word, p) for p in patterns for word in words)


def capacity(need: Need, room: Room) -> int:
    """The ranks of one worker that this node can take now."""
    bounds = [room.slots // need.slots if need.slots else _NO_BOUND]
    if need.memory_bytes:
        bounds.append(max(0, room.memory_bytes) // need.memory_bytes)
    if need.gpus:
        bounds.append(max(0, room.gpus) // need.gpus)
    return min(bounds)


def _emptied(room: Room) -> Room:
    return replace(
        room, memory_bytes=room.memory_total, gpus=room.gpus_total, ranks=0, usable=True, reason=""
    )


def _with(need: Need, ranks: int, room: Room) -> Room:
    return replace(
        room,
        ranks=room.ranks + ranks,
        memory_bytes=room.memory_bytes - ranks * need.memory_bytes,
        gpus=room.gpus - ranks * need.gpus,
    )


def _blocks(rooms: Iterable[Room]) -> list[list[Room]]:
    ordered = sorted(rooms, key=lambda room: room.block)
    return [list(block) for _, block in groupby(ordered, lambda room: room.block)]


def _most(need: Need, rooms: Iterable[Room]) -> int:
    return max(
        (sum(capacity(need, room) for room in block) for block in _blocks(rooms)),
        default=0,
    )


def _load(room: Room) -> float:
    return (room.ranks + 1) / max(1, room.slots)


def _spread(need: Need, rooms: list[Room]) -> Room:
    """The node with the fewest ranks a slot once it has this one; then the one with most room."""
    able = [room for room in rooms if capacity(need, room)]
    return min(able, key=lambda room: (_load(room), -room.memory_bytes))


def _pack(need: Need, rooms: list[Room]) -> tuple[Share, ...]:
    choices = [
        _fewest(need, block)
        for block in _blocks(rooms)
        if sum(capacity(need, room) for room in block) >= need.ranks
    ]
    chosen = min(choices, key=lambda few: (len(few), sum(map(_load, few)) / len(few)))
    return _level(need, chosen)


def _fewest(need: Need, block: list[Room]) -> list[Room]:
    """As few nodes of the block as can hold the gang; of several that can, the least loaded."""
    by_size = sorted(block, key=lambda room: (-capacity(need, room), _load(room)))
    count, held = 0, 0
    while held < need.ranks:
        held += capacity(need, by_size[count])
        count += 1
    even = -(-need.ranks // count)
    level = sorted((room for room in block if capacity(need, room) >= even), key=_load)
    return level[:count] if len(level) >= count else by_size[:count]


def _level(need: Need, rooms: list[Room]) -> tuple[Share, ...]:
    """The ranks shared out as evenly as the nodes' capacities allow, every node with one or more:
    ranks that exchange amplitudes all wait for the busiest node."""
    shares, left = {}, need.ranks
    for place, room in enumerate(sorted(rooms, key=lambda room: capacity(need, room))):
        fair = -(-left // (len(rooms) - place))
        shares[room.name] = min(fair, capacity(need, room))
        left -= shares[room.name]
    return tuple(Share(room.name, shares[room.name]) for room in rooms)


def _shortage(
    need: Need, rooms: list[Room], everywhere: Sequence[Room]
) -> tuple[str, int, int, str]:
    """The first figure that falls short, what was wanted of it, what there is, and in words."""
    if not rooms:
        there = ", ".join(room.name for room in everywhere[:8])
        return "nodes", 1, 0, f"no node matches {need.nodes or '*'!r} (there are: {there})"
    for figure, wanted, limit in (
        ("slots", need.slots, max(room.slots for room in rooms)),
        ("memory", need.memory_bytes, max(0, *(room.memory_bytes for room in rooms))),
        ("gpus", need.gpus, max(room.gpus for room in rooms)),
    ):
        if wanted > limit:
            size = size_words if figure == "memory" else str
            unit = {"slots": " slots", "memory": "", "gpus": " GPUs"}[figure]
            words = f"a rank needs {size(wanted)}{unit}; the roomiest node has {size(limit)}"
            return figure, wanted, limit, words
    most = _most(need, rooms)
    blocks = len({room.block for room in rooms})
    where = f"the largest of {blocks} blocks of nodes holds" if blocks > 1 else "its nodes hold"
    words = f"{need.ranks} ranks of {_rank_words(need)} each; {where} {most}"
    return "ranks", need.ranks, most, words


def _now(words: str, matching: list[Room]) -> str:
    away = [f"{room.name} ({room.reason or 'not usable'})" for room in matching if not room.usable]
    return f"{words} free now" + (f"; out of use: {', '.join(away)}" if away else "")


def _rank_words(need: Need) -> str:
    parts = [f"{need.slots} slot{'s' * (need.slots != 1)}"]
    if need.memory_bytes:
        parts.append(size_words(need.memory_bytes))
    if need.gpus:
        parts.append(f"{need.gpus} GPU{'s' * (need.gpus != 1)}")
    return ", ".join(parts)


def size_words(size_bytes: int) -> str:
    """'1.5 GiB', '512 MiB'."""
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:.3g} GiB"
    return f"{size_bytes / _MIB:.3g} MiB"
