"""The guard of the far door: who is cut when too many come."""

from __future__ import annotations

from simenv.wire.transport.outgoing import (
    MAX_AUTHENTICATED,
    MAX_PER_KEY,
    MAX_UNAUTHENTICATED,
    ConnectionLimiter,
)


def test_oldest_unauthenticated_connections_are_closed_beyond_limit() -> None:
    guard = ConnectionLimiter()
    cut = [guard.accepted(fd) for fd in range(3 * MAX_UNAUTHENTICATED)]
    assert cut == [None] * MAX_UNAUTHENTICATED + list(range(2 * MAX_UNAUTHENTICATED))
    assert len(guard) == MAX_UNAUTHENTICATED


def test_authenticated_connection_is_not_closed_for_unauthenticated_ones() -> None:
    guard = ConnectionLimiter()
    guard.accepted(1)
    assert guard.authenticate(1, "ana")
    assert 1 not in [guard.accepted(fd) for fd in range(2, 4 * MAX_UNAUTHENTICATED)]


def test_connections_of_one_key_are_limited() -> None:
    guard = ConnectionLimiter()
    entries = []
    for fd in range(MAX_PER_KEY + 5):
        guard.accepted(fd)
        entries.append(guard.authenticate(fd, "ana"))
    assert entries == [True] * MAX_PER_KEY + [False] * 5
    guard.accepted(9_999)
    assert guard.authenticate(9_999, "ben")


def test_closed_connection_no_longer_counts() -> None:
    guard = ConnectionLimiter()
    for fd in range(10 * MAX_PER_KEY):
        guard.accepted(fd)
        assert guard.authenticate(fd, "ana")
        guard.remove(fd)
    assert len(guard) == 0


def test_total_number_of_connections_is_limited() -> None:
    guard = ConnectionLimiter()
    entries = []
    for fd in range(MAX_AUTHENTICATED + 3):
        guard.accepted(fd)
        entries.append(guard.authenticate(fd, f"key{fd // MAX_PER_KEY}"))
    assert entries.count(False) == 3


def test_reused_descriptor_counts_for_its_new_key() -> None:
    guard = ConnectionLimiter()
    guard.accepted(7)
    assert guard.authenticate(7, "ana")
    guard.accepted(7)  # its end was not heard of
    assert guard.authenticate(7, "ben")
    assert len(guard) == 1
    assert all(guard.authenticate(fd, "ana") for fd in range(100, 100 + MAX_PER_KEY))
