"""Placement: laws for any nodes and any worker, held against a search through all placements."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from launcher.base import Node, Share
from launcher.placement import (
    Infeasible,
    Insufficient,
    NodeResources,
    Placement,
    ResourceRequest,
    allocate,
    job_nodes,
    matches,
    place,
)

GIB = 2**30
patient = settings(deadline=None)


@st.composite
def some_rooms(draw: st.DrawFn) -> tuple[NodeResources, ...]:
    rooms = []
    for number in range(draw(st.integers(1, 4))):
        total, gpus = draw(st.integers(0, 8)), draw(st.integers(0, 2))
        rooms.append(
            NodeResources(
                f"n{number}.site", draw(st.integers(1, 4)), draw(st.integers(-1, total)), total,
                draw(st.integers(0, gpus)), gpus, draw(st.integers(0, 6)), draw(st.integers(0, 1)),
                draw(st.sampled_from([(), ("big",), ("big", "ib")])), draw(st.integers(0, 4)) > 0,
            )
        )  # fmt: skip
    return tuple(rooms)


NEEDS = st.builds(
    ResourceRequest, st.integers(1, 8), st.integers(1, 3), st.integers(0, 4), st.integers(0, 1),
    st.sampled_from(["", "", "n0", "n[01]*", "big", "ib,n2", "none"]),
)  # fmt: skip


def matching(need: ResourceRequest, rooms: Sequence[NodeResources]) -> list[NodeResources]:
    nodes = need.nodes
    number = {"n0": "0", "n[01]*": "01", "ib,n2": "2"}.get(nodes, "0123" if not nodes else "")
    feature = {"big": "big", "ib,n2": "ib"}.get(nodes)
    return [each for each in rooms if each.name[1] in number or feature in each.features]


def fits(need: ResourceRequest, ranks: int, room: NodeResources) -> bool:
    return ranks == 0 or (
        ranks * need.slots <= room.slots
        and (not need.memory_bytes or ranks * need.memory_bytes <= room.memory_bytes)
        and (not need.gpus or ranks * need.gpus <= room.gpus)
    )


def ways(need: ResourceRequest, rooms: Sequence[NodeResources]) -> list[tuple[int, ...]]:
    """Every right way to share the ranks out, one number for each room."""
    entries = []
    for ranks in product(*[range(min(need.ranks, value.slots) + 1) for value in rooms]):
        blocks = {value.block for value, count in zip(rooms, ranks, strict=True) if count}
        if (
            sum(ranks) == need.ranks
            and len(blocks) == 1
            and all(fits(need, count, value) for value, count in zip(rooms, ranks, strict=True))
        ):
            entries.append(ranks)
    return entries


def emptied(rooms: Sequence[NodeResources]) -> list[NodeResources]:
    return [
        replace(each, memory_bytes=each.memory_total, gpus=each.gpus_total, usable=True)
        for each in rooms
    ]


@patient
@given(NEEDS, some_rooms())
def test_placement_fits_stays_in_a_block_and_uses_the_fewest_nodes(
    need: ResourceRequest, rooms: tuple[NodeResources, ...]
) -> None:
    answer = place(need, rooms)
    right = ways(need, [each for each in matching(need, rooms) if each.usable])
    assert isinstance(answer, Placement) == bool(right)
    if not isinstance(answer, Placement):
        return
    by_name = {each.name: each for each in rooms}
    for share in answer.shares:
        assert share.ranks > 0
        assert fits(need, share.ranks, by_name[share.node])
        assert by_name[share.node].usable
        assert by_name[share.node] in matching(need, rooms)
    assert sum(share.ranks for share in answer.shares) == need.ranks
    assert len({by_name[share.node].block for share in answer.shares}) == 1
    assert len(answer.shares) == len({share.node for share in answer.shares})
    assert len(answer.shares) == min(sum(map(bool, ranks)) for ranks in right)


@patient
@given(NEEDS, some_rooms())
def test_request_is_infeasible_exactly_if_empty_nodes_cannot_hold_it(
    need: ResourceRequest, rooms: tuple[NodeResources, ...]
) -> None:
    ever = bool(ways(need, matching(need, emptied(rooms))))
    answer = place(need, rooms)
    assert isinstance(answer, Infeasible) == (not ever)
    if not isinstance(answer, Placement):
        assert answer.requested > answer.limit >= 0
        assert answer.message


@patient
@given(NEEDS, some_rooms(), st.integers(0, 3), st.sampled_from(["memory", "gpus", "slots", "up"]))
def test_more_resources_never_make_placement_impossible(
    need: ResourceRequest, rooms: tuple[NodeResources, ...], which: int, what: str
) -> None:
    item = rooms[which % len(rooms)]
    more = {
        "memory": replace(
            item, memory_bytes=item.memory_bytes + 2, memory_total=item.memory_total + 2
        ),
        "gpus": replace(item, gpus=item.gpus + 1, gpus_total=item.gpus_total + 1),
        "slots": replace(item, slots=item.slots + 1),
        "up": replace(item, usable=True),
    }[what]
    before, after = place(need, rooms), place(need, [more if r is item else r for r in rooms])
    rank = (Infeasible, Insufficient, Placement).index
    assert rank(type(after)) >= rank(type(before))


@patient
@given(NEEDS, some_rooms())
def test_fewer_ranks_can_be_placed(need: ResourceRequest, rooms: tuple[NodeResources, ...]) -> None:
    if need.ranks > 1 and isinstance(place(need, rooms), Placement):
        assert isinstance(place(replace(need, ranks=need.ranks - 1), rooms), Placement)


@patient
@given(st.lists(st.integers(1, 16), min_size=1, max_size=6), st.integers(1, 60))
def test_workers_of_one_rank_are_spread_by_slots(slots: list[int], workers: int) -> None:
    rooms = tuple(NodeResources(f"n{i}", count, GIB, GIB) for i, count in enumerate(slots))
    for _ in range(workers):
        answer = place(ResourceRequest(), rooms)
        assert isinstance(answer, Placement)
        rooms = allocate(ResourceRequest(), answer, rooms)
    assert sum(item.ranks for item in rooms) == workers
    for each in rooms:
        for other in rooms:  # no rank would be better off elsewhere
            assert not each.ranks or each.ranks / each.slots <= (other.ranks + 1) / other.slots


def test_memory_decides_between_nodes_of_equal_load() -> None:
    rooms = [NodeResources("a", 2, 1 * GIB, 4 * GIB), NodeResources("b", 2, 3 * GIB, 4 * GIB)]
    assert place(ResourceRequest(), rooms) == Placement((Share("b", 1),))


@pytest.mark.parametrize(
    ("nodes", "shares"),
    [
        ({"a": (3,), "b": (3,), "c": (2,)}, {"a": 2, "b": 2}),  # balanced over its nodes
        ({"a": (4, 4), "b": (2, 1), "c": (2,)}, {"c": 2}),  # the least loaded that can hold it
        ({"a": (1,), "b": (1,), "c": (2, 9)}, {"c": 2}),  # fewer rather than less loaded ones
    ],
)
def test_gang_goes_to_few_balanced_and_little_loaded_nodes(
    nodes: dict[str, tuple[int, ...]], shares: dict[str, int]
) -> None:
    rooms = [
        NodeResources(name, slots, GIB, GIB, ranks=sum(ranks))
        for name, (slots, *ranks) in nodes.items()
    ]
    wanted = Placement(tuple(Share(name, ranks) for name, ranks in shares.items()))
    assert place(ResourceRequest(sum(shares.values())), rooms) == wanted


def test_gang_stays_in_one_block() -> None:
    rooms = [NodeResources("a", 2, GIB, GIB, block=0), NodeResources("b", 2, GIB, GIB, block=1)]
    answer = place(ResourceRequest(4), rooms)
    assert isinstance(answer, Infeasible)
    assert (answer.resource, answer.requested, answer.limit) == ("ranks", 4, 2)
    assert answer.message == ("4 ranks of 1 slot each; the largest of 2 blocks of nodes holds 2")


@pytest.mark.parametrize(
    ("need", "figure", "wanted", "limit", "words"),
    [
        (ResourceRequest(nodes="x*"), "nodes", 1, 0, "no node matches 'x*' (there are: a, b)"),
        (ResourceRequest(slots=8), "slots", 8, 4,
         "a rank needs 8 slots; the largest node has 4 slots"),
        (ResourceRequest(memory_bytes=3 * GIB), "memory", 3 * GIB, 2 * GIB,
         "a rank needs 3 GiB; the largest node has 2 GiB"),
        (ResourceRequest(gpus=1), "gpus", 1, 0, "a rank needs 1 GPUs; the largest node has 0 GPUs"),
        (ResourceRequest(4, memory_bytes=GIB), "ranks", 4, 3,
         "4 ranks of 1 slot, 1 GiB each; its nodes hold 3"),
    ],
)  # fmt: skip
def test_message_names_the_short_resource(
    need: ResourceRequest, figure: str, wanted: int, limit: int, words: str
) -> None:
    rooms = [NodeResources("a", 4, GIB, GIB), NodeResources("b", 2, 2 * GIB, 2 * GIB)]
    assert place(need, rooms) == Infeasible(figure, wanted, limit, words)


def test_message_names_free_memory_and_unusable_nodes() -> None:
    rooms = [
        NodeResources("a", 2, 0, GIB),
        NodeResources("b", 2, GIB, GIB, usable=False, reason="drained: disk"),
    ]
    answer = place(ResourceRequest(memory_bytes=GIB // 2), rooms)
    assert answer == Insufficient(
        "memory", GIB // 2, 0,
        "a rank needs 512 MiB; the largest node has 0 MiB free now; out of use: b (drained: disk)",
    )  # fmt: skip
    none = place(ResourceRequest(), [replace(rooms[0], usable=False), rooms[1]])
    assert isinstance(none, Insufficient)
    assert (none.resource, none.limit) == ("nodes", 0)
    assert "a (not usable), b (drained: disk)" in none.message


def test_resources_of_an_empty_node_are_all_free() -> None:
    node = Node("a", 4, GIB, 2, ("big",), block=3)
    assert NodeResources.of(node) == NodeResources("a", 4, GIB, GIB, 2, 2, 0, 3, ("big",))


@pytest.mark.parametrize("pattern", ["", "*", "big:*,n1", "other:*", "gpu"])
def test_node_of_a_job_is_for_its_pool_alone(pattern: str) -> None:
    node = NodeResources.of(Node("big:1", 2, GIB, features=("gpu",), pool="big"))
    assert not matches(pattern, node)
    assert matches(job_nodes("big"), node)
    assert not matches(job_nodes("big"), NodeResources.of(Node("n1", 2, GIB)))
