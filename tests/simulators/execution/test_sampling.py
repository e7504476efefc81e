"""Records, tallies and packed outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.circuit.ir import num_words, outcome_width
from simulators.execution.sampling import pack, tally, unpack, write

RNG = np.random.default_rng(2)


def numbers(records: np.ndarray) -> list[int]:
    return [sum(int(word) << (64 * k) for k, word in enumerate(row)) for row in records]


@pytest.mark.parametrize(
    ("bits", "width"), [(0, 1), (8, 1), (9, 2), (17, 4), (33, 8), (64, 8), (65, 9), (301, 38)]
)
def test_packed_outcomes_have_documented_width_and_unpack_unchanged(bits: int, width: int) -> None:
    assert outcome_width(bits) == width
    values = sorted({int(RNG.integers(0, 2**62)) ** 5 % 2**bits for _ in range(50)})
    records = np.array(
        [[value >> (64 * k) & (2**64 - 1) for k in range(num_words(bits))] for value in values],
        np.uint64,
    )
    packed, result = pack(records, bits)
    assert result == width
    assert unpack(packed, width) == values


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tally_sorts_and_sums_records(count: int) -> None:
    records = RNG.integers(0, 3, (1000, count)).astype(np.uint64)
    records[:, 0] += np.uint64(2**63)
    weights = RNG.random(1000)
    value, sums = tally(records)
    weighed, totals = tally(records, weights)
    expected: dict[int, list[float]] = {}
    for key, weight in zip(numbers(records), weights, strict=True):
        expected.setdefault(key, []).append(weight)
    assert numbers(value) == numbers(weighed) == sorted(expected)
    assert sums.tolist() == [len(expected[key]) for key in sorted(expected)]
    np.testing.assert_allclose(totals, [sum(expected[key]) for key in sorted(expected)])


def test_writing_bits_leaves_other_bits_unchanged() -> None:
    records = np.full((4, 2), 2**64 - 1, np.uint64)
    source = np.full(128, -1)
    source[[0, 65]] = [1, 0]
    write(records, np.arange(4), source)
    all_ones = 2**128 - 1
    expected = [all_ones ^ (~(k >> 1) & 1) ^ (~k & 1) << 65 for k in range(4)]
    assert numbers(records) == expected


@pytest.mark.parametrize("kind", ["in place", "some in place", "shifted", "mixed"])
def test_bits_are_written_to_their_clbits(kind: str) -> None:
    source = np.arange(40)
    if kind == "some in place":
        source[[1, 5, 39]] = -1
    if kind == "shifted":
        source = np.concatenate(([-1] * 70, source))
    if kind == "mixed":
        source = RNG.permutation(source)
    indices = RNG.integers(0, 2**40, 200)
    records = RNG.integers(0, 2**63, (200, num_words(source.size))).astype(np.uint64)
    before = numbers(records)
    write(records, indices, source)
    for old, new, index in zip(before, numbers(records), indices.tolist(), strict=True):
        expected = old
        for clbit, bit in enumerate(source.tolist()):
            if bit >= 0:
                expected = expected & ~(1 << clbit) | (index >> bit & 1) << clbit
        assert new == expected
