"""The guard of the far door: who is cut when too many come."""

from __future__ import annotations

from simenv.wire.transport.connection_limiter import (
    MAX_KNOWN,
    MAX_OF_ONE_KEY,
    MAX_STRANGERS,
    ConnectionLimiter,
)


def test_strangers_without_end_are_kept() -> None:
    guard = ConnectionLimiter()
    cut = [guard.accepted(fd) for fd in range(3 * MAX_STRANGERS)]
    assert cut == [None] * MAX_STRANGERS + list(range(2 * MAX_STRANGERS))
    assert len(guard) == MAX_STRANGERS


def test_a_known_one_is_cut_for_strangers() -> None:
    guard = ConnectionLimiter()
    guard.accepted(1)
    assert guard.spoke(1, "ana")
    cut = [guard.accepted(fd) for fd in range(2, 4 * MAX_STRANGERS)]
    assert 1 not in cut


def test_one_key_takes_all_connections() -> None:
    guard = ConnectionLimiter()
    spoke = []
    for fd in range(MAX_OF_ONE_KEY + 5):
        guard.accepted(fd)
        spoke.append(guard.spoke(fd, "ana"))
    assert spoke == [True] * MAX_OF_ONE_KEY + [False] * 5
    guard.accepted(9_999)
    assert guard.spoke(9_999, "ben")


def test_a_connection_that_ended_still_counts() -> None:
    guard = ConnectionLimiter()
    for fd in range(10 * MAX_OF_ONE_KEY):
        guard.accepted(fd)
        assert guard.spoke(fd, "ana")
        guard.gone(fd)
    assert len(guard) == 0


def test_more_than_all_together_are_let_in() -> None:
    guard = ConnectionLimiter()
    spoke = []
    for fd in range(MAX_KNOWN + 3):
        guard.accepted(fd)
        spoke.append(guard.spoke(fd, f"key{fd // MAX_OF_ONE_KEY}"))
    assert spoke.count(False) == 3


def test_a_descriptor_used_again_keeps_its_old_key() -> None:
    guard = ConnectionLimiter()
    guard.accepted(7)
    assert guard.spoke(7, "ana")
    guard.accepted(7)  # its end was not heard of
    assert guard.spoke(7, "ben")
    assert len(guard) == 1
    assert all(guard.spoke(fd, "ana") for fd in range(100, 100 + MAX_OF_ONE_KEY))
