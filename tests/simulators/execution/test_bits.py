"""Packed rows: the bits chosen, the rows counted, in every width."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulators.circuit.ir import num_words, outcome_width
from simulators.control import RunControl
from simulators.errors import Stopped
from simulators.execution import sampling
from simulators.execution.rng import BLOCK_SHOTS, block_seed, blocks
from simulators.execution.sampling import Counts, outcome_records, select, unpack


@pytest.mark.parametrize("num_bits", [1, 7, 8, 9, 16, 31, 33, 64, 65, 130])
def test_select_reads_each_bit_from_its_source(num_bits: int) -> None:
    rng = np.random.default_rng(num_bits)
    every = rng.integers(0, 2, (50, 20), dtype=np.uint8)
    packed = np.packbits(every, axis=1, bitorder="little")
    source = rng.integers(-1, 20, num_bits)
    result = select(packed, source)
    assert result.shape == (50, num_words(num_bits))
    for row, wanted in zip(result, every, strict=True):
        number = int.from_bytes(row.tobytes(), "little")
        expected = sum(int(wanted[s]) << c for c, s in enumerate(source) if s >= 0)
        assert number == expected
    same = select(packed, np.arange(20), identical=True)
    assert np.array_equal(same, select(packed, np.arange(20)))


@pytest.mark.parametrize("num_bits", [1, 8, 12, 30, 64, 65, 200])
def test_counts_are_those_of_a_dictionary(num_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_FLUSH_ROWS", 100)  # so that pieces are joined
    rng = np.random.default_rng(num_bits)
    outcome, expected = Counts(num_bits), Counter[int]()
    for size in (0, 1, 70, 300, 50, 400):
        rows = np.zeros((size, num_words(num_bits)), np.uint64)
        rows[:, 0] = rng.integers(0, 2 if num_bits == 1 else 40, size)
        rows[:, -1] |= rng.integers(0, 2, size, np.uint64)
        integers = [int.from_bytes(row.tobytes(), "little") for row in rows]
        if size % 100:
            outcome.add(rows)
        else:  # counted elsewhere
            outcome.add(*outcome_records(Counter(integers), num_bits))
        expected.update(integers)
    width, outcomes, counts = outcome.packed()
    assert width == outcome_width(num_bits)
    keys = unpack(outcomes, width)
    assert keys == sorted(expected)
    assert dict(zip(keys, np.frombuffer(counts, np.uint32).tolist(), strict=True)) == expected


def test_counts_without_records_are_empty() -> None:
    for num_bits in (3, 90):
        assert Counts(num_bits).packed() == (outcome_width(num_bits), b"", b"")


def test_blocks_have_seeds_of_their_own_whatever_the_number_of_shots() -> None:
    seeds = {block_seed(s, b, k) for s in (0, 2**64 - 1, 2**64 - 2) for b in (0, 5) for k in (0, 9)}
    assert len(seeds) == 12
    assert max(seeds) < 2**62
    few = list(blocks(1500, 7, 3, RunControl()))
    entries = list(blocks(5000, 7, 3, RunControl()))
    assert [wanted for _, wanted in few] == [BLOCK_SHOTS, 1500 - BLOCK_SHOTS]
    assert [seed for seed, _ in few] == [seed for seed, _ in entries][:2]
    assert sum(wanted for _, wanted in entries) == 5000


def test_a_stop_is_noticed_between_blocks() -> None:
    control = RunControl()
    work = blocks(5000, 7, 3, control)
    next(work)
    control.stop()
    with pytest.raises(Stopped):
        next(work)
