"""The order of deliveries, for any order of ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simenv.client.streams.delivery import DeliverySequence, Order
from simenv.errors import OptionError


@st.composite
def groups(draw: st.DrawFn) -> list[tuple[Order, int]]:
    return draw(st.lists(st.tuples(st.sampled_from(list(Order)), st.integers(0, 8)), max_size=6))


@given(st.sampled_from(list(Order)), groups(), st.randoms(use_true_random=False))
def test_each_task_is_delivered_once_in_the_promised_order(
    order: Order, shapes: list[tuple[Order, int]], chance: random.Random
) -> None:
    sequence = DeliverySequence[int](order)
    members: list[list[int]] = []
    states = []
    number = 0
    for group_order, size in shapes:
        state = sequence.open_group(group_order)
        value = list(range(number, number + size))
        for each in value:
            sequence.add(state, each)
        number += size
        members.append(value)
        states.append(state)
    steps = [("end", k) for k in range(number)] + [("close", k) for k in range(len(states))]
    chance.shuffle(steps)
    delivered: list[int] = []
    ended_at: dict[int, int] = {}
    for at, (kind, k) in enumerate(steps):
        if kind == "end":
            ended_at[k] = at
            delivered += sequence.ended(k)
            assert sequence.ended(k) == [], "told twice, delivered once"
        else:
            delivered += sequence.close(states[k])
        assert all(each in ended_at for each in delivered), "nothing is delivered before its end"
    assert sorted(delivered) == list(range(number))
    assert sequence.undelivered == 0
    place = {each: k for k, each in enumerate(delivered)}
    for (group_order, _), value in zip(shapes, members, strict=True):
        if group_order is Order.ORDERED:
            assert sorted(value, key=place.__getitem__) == value
    if order is Order.ORDERED:
        of = [k for k, value in enumerate(members) for _ in value]
        assert [of[each] for each in delivered] == sorted(of[each] for each in delivered)


def test_parallel_group_delivers_at_the_end_of_each_task() -> None:
    sequence = DeliverySequence[int](Order.PARALLEL)
    group = sequence.open_group(Order.PARALLEL)
    for number in range(3):
        sequence.add(group, number)
    assert [sequence.ended(number) for number in (2, 0, 1)] == [[2], [0], [1]]


def test_unknown_order_is_refused() -> None:
    with pytest.raises(OptionError, match="order='any'"):
        Order.of("any")
