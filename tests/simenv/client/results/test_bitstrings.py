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
@settings(derandomize=True)
def test_counts_keys_agree_with_reference_formatting(data: st.DataObject, sizes: list[int]) -> None:
    bits = sum(sizes)
    width = next((w for w in (1, 2, 4, 8) if 8 * w >= bits), -(-bits // 8))
    values = sorted(data.draw(st.sets(st.integers(0, 2**bits - 1), min_size=1, max_size=20)))
    registers = tuple((f"r{k}", size) for k, size in enumerate(sizes))
    counts = bitstrings.counts(*pack(values, width)[:1], width, pack(values, width)[1], registers)
    assert counts == {expected(value, sizes): k for k, value in enumerate(values, 1)}


def test_each_register_is_separated_in_counts_keys() -> None:
    rows, value = pack([0b1_0_1], 1)
    counts = bitstrings.counts(rows, 1, value, (("crz", 1), ("crx", 1), ("out", 1)))
    assert counts == {"1 0 1": 1}


def test_outcome_rows_may_be_wider_than_clbits() -> None:
    rows, value = pack([0, 2, 3], 2)
    assert bitstrings.counts(rows, 2, value, (("c", 2),)) == {"00": 1, "10": 2, "11": 3}


def test_loose_bits_are_formatted_as_register() -> None:
    rows, value = pack([0b10_01], 1)
    assert bitstrings.counts(rows, 1, value, (("c", 2), ("", 2))) == {"10 01": 1}


def test_circuit_without_clbits_has_one_empty_outcome() -> None:
    assert bitstrings.counts(b"", 0, struct.pack("<I", 5), ()) == {"": 5}


def test_cache_of_bitstrings_is_bounded() -> None:
    values = list(range(3 * bitstrings.STRINGS_KEPT))
    rows, result = pack(values, 2)
    for _ in range(2):
        counts = bitstrings.counts(rows, 2, result, (("c", 16),))
        assert list(counts) == [format(value, "016b") for value in values]
    assert len(bitstrings._strings((16,))) == bitstrings.STRINGS_KEPT


def test_cache_of_outcome_sets_is_bounded() -> None:
    registers = (("c", 6),)
    for values in ([low, high] for low in range(40) for high in range(low + 1, 64)):
        rows, result = pack(values, 1)
        counts = bitstrings.counts(rows, 1, result, registers)
        assert list(counts) == [format(value, "06b") for value in values]
    assert len(bitstrings._outcome_sets((6,))) <= bitstrings.SETS_KEPT


def test_unwritten_clbits_are_zero_in_single_outcome() -> None:
    assert bitstrings.counts(b"", 0, struct.pack("<I", 5), (("c", 2), ("d", 1))) == {"0 00": 5}


def test_outcomes_and_counts_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        bitstrings.counts(b"\0\1", 1, struct.pack("<I", 5), (("c", 1),))


def test_probabilities_have_keys_of_counts() -> None:
    result = bitstrings.probabilities(b"\0\3", 1, struct.pack("<2d", 0.25, 0.75), (("c", 2),))
    assert result == {"00": 0.25, "11": 0.75}
