"""Counts keys in Qiskit's order and spacing, for every width of outcomes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simenv.client.results import bitstrings


def pack(values: list[int], width: int) -> tuple[bytes, bytes]:
    rows = b"".join(value.to_bytes(width, "little") for value in values)
    return rows, struct.pack(f"<{len(values)}I", *range(1, len(values) + 1))


def expected(value: int, sizes: list[int]) -> str:
    """Written the slow way: registers from clbit 0 up, each to the left of the last."""
    parts = []
    for size in sizes:
        parts.append("".join(str(value >> k & 1) for k in reversed(range(size))))
        value >>= size
    return " ".join(reversed(parts))


@given(data=st.data(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
@settings(max_examples=200, derandomize=True)
def test_keys_against_the_slow_way(data: st.DataObject, sizes: list[int]) -> None:
    bits = sum(sizes)
    width = next((w for w in (1, 2, 4, 8) if 8 * w >= bits), -(-bits // 8))
    values = sorted(data.draw(st.sets(st.integers(0, 2**bits - 1), min_size=1, max_size=20)))
    registers = tuple((f"r{k}", size) for k, size in enumerate(sizes))
    found = bitstrings.counts(*pack(values, width)[:1], width, pack(values, width)[1], registers)
    assert found == {expected(value, sizes): k for k, value in enumerate(values, 1)}


def test_registers_of_a_teleportation() -> None:
    rows, numbers = pack([0b1_0_1], 1)
    found = bitstrings.counts(rows, 1, numbers, (("crz", 1), ("crx", 1), ("out", 1)))
    assert found == {"1 0 1": 1}


def test_few_bits_in_wide_rows() -> None:
    rows, numbers = pack([0, 2, 3], 2)
    assert bitstrings.counts(rows, 2, numbers, (("c", 2),)) == {"00": 1, "10": 2, "11": 3}


def test_loose_bits_are_a_register_like_any_other() -> None:
    rows, numbers = pack([0b10_01], 1)
    assert bitstrings.counts(rows, 1, numbers, (("c", 2), ("", 2))) == {"10 01": 1}


def test_no_clbits_have_one_outcome() -> None:
    assert bitstrings.counts(b"", 0, struct.pack("<I", 5), ()) == {"": 5}


def test_more_strings_than_are_kept_for_a_shape() -> None:
    values = list(range(3 * bitstrings.STRINGS_KEPT))
    rows, numbers = pack(values, 2)
    for _ in range(2):
        found = bitstrings.counts(rows, 2, numbers, (("c", 16),))
        assert list(found) == [format(value, "016b") for value in values]
    assert len(bitstrings._strings((16,))) == bitstrings.STRINGS_KEPT


def test_sets_of_outcomes_are_kept_for_ever() -> None:
    registers = (("c", 6),)
    for values in ([low, high] for low in range(40) for high in range(low + 1, 64)):
        rows, numbers = pack(values, 1)
        found = bitstrings.counts(rows, 1, numbers, registers)
        assert list(found) == [format(value, "06b") for value in values]
    assert len(bitstrings._few((6,))) <= bitstrings.SETS_KEPT


def test_one_outcome_of_bits_that_nothing_was_written_to() -> None:
    assert bitstrings.counts(b"", 0, struct.pack("<I", 5), (("c", 2), ("d", 1))) == {"0 00": 5}


def test_rows_and_counts_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        bitstrings.counts(b"\0\1", 1, struct.pack("<I", 5), (("c", 1),))


def test_probabilities_have_the_same_keys() -> None:
    found = bitstrings.probabilities(b"\0\3", 1, struct.pack("<2d", 0.25, 0.75), (("c", 2),))
    assert found == {"00": 0.25, "11": 0.75}
