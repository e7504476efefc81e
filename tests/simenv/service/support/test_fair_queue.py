"""Owners take turns, whatever the number of their connections."""

from __future__ import annotations

import pytest

from simenv.service.support.fair_queue import FairQueue


def test_an_owner_with_many_connections_gets_one_turn_in_two() -> None:
    turns: FairQueue[str] = FairQueue()
    for peer in range(100):
        for item in range(3):
            turns.put("crowd", b"%d" % peer, f"crowd {peer} {item}")
    for item in range(3):
        turns.put("one", b"single", f"one {item}")
    order = []
    while turns:
        _, _, item = turns.first()
        order.append(item)
        turns.end_turn(done=True)
    assert order[:6:2] == ["crowd 0 0", "crowd 1 0", "crowd 2 0"]
    assert order[1:7:2] == ["one 0", "one 1", "one 2"]
    assert len(order) == 303
    for peer in range(100):  # each connection's own in their order
        assert [text for text in order if text.startswith(f"crowd {peer} ")] == [
            f"crowd {peer} {item}" for item in range(3)
        ]
    with pytest.raises(IndexError):
        turns.first()


def test_items_put_back_precede_items_added_since() -> None:
    turns: FairQueue[int] = FairQueue()
    for number in range(3):
        turns.put("ana", b"a", number)
    result = turns.remove_connection()
    assert not turns
    turns.put("ana", b"a", 3)
    turns.restore_connection("ana", b"a", result)
    assert turns.of("ana", b"a") == 4
    entries = []
    while turns:
        entries.append(turns.first()[2])
        turns.end_turn(done=True)
    assert entries == [0, 1, 2, 3]
