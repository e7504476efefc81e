"""Outputs, random numbers, sampling and readout."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import bell, num_words, outcome_width
from simulators.circuit.noise import Readout
from simulators.engine import PauliSum, Request, RunControl
from simulators.errors import Stopped, Unsupported
from simulators.execution import packing, philox
from simulators.execution.outputs import Batch, CountedState, FinalState, PauliStrings, collect
from simulators.execution.readout import ReadoutStage
from simulators.simulate import counts_of

CIRCUIT = bell()
LAYOUTS = MeasurementLayouts.of(CIRCUIT)


class Fixed(FinalState):
    """Two batches of records; every Pauli string has the expectation value 0.5."""

    num_qubits = 2
    truncation = 0.25
    remark = "fixed"

    def sample(self, shots: int, key: tuple[int, int]) -> Iterator[Batch]:
        yield np.array([[3], [0], [3]], np.uint64), None
        yield np.array([[0]], np.uint64), np.array([shots - 3])

    def expectations(self, strings: PauliStrings) -> np.ndarray:
        return np.full(len(strings), 0.5)


def test_batches_are_added_and_remarks_are_taken_over() -> None:
    result = collect(Fixed(), LAYOUTS, Request(10, 1), (1, 0))
    assert counts_of(result) == {0: 8, 3: 2}
    assert (result.truncation, result.remark) == (0.25, "fixed")
    assert result.probabilities == b""


def test_expectation_values_are_exact_without_shots_and_sampled_with_them() -> None:
    observables = (PauliSum(("ZZ", "ZI"), np.array([1.0, 2.0])),)
    exact = collect(Fixed(), LAYOUTS, Request(0, 1, ("expectation",), observables), (1, 0))
    assert exact.expectations == ((1.5, 0.0),)
    drawn = collect(Fixed(), LAYOUTS, Request(100, 1, ("expectation",), observables), (1, 0))
    value, error = drawn.expectations[0]
    assert value != 1.5
    assert abs(value - 1.5) < 5 * error


def test_x_on_a_measured_qubit_is_refused_before_the_state_is_evaluated() -> None:
    request = Request(0, 1, ("expectation",), (PauliSum(("IX",), np.ones(1)),))
    with pytest.raises(Unsupported, match="measures at its end"):
        collect(FinalStateOfTwo(), LAYOUTS, request, (1, 0))


class FinalStateOfTwo(FinalState):
    num_qubits = 2


def test_readout_error_changes_counts_of_all_batches_and_no_expectation_value() -> None:
    readout = ReadoutStage.of(LAYOUTS.clbits, Readout(np.ones(2), np.zeros(2)))
    observables = (PauliSum(("ZZ",), np.ones(1)),)
    request = Request(10, 1, ("counts", "expectation"), observables)
    result = collect(Fixed(), LAYOUTS, request, (1, 0), readout)
    assert counts_of(result) == {3: 10}
    assert result.expectations == collect(Fixed(), LAYOUTS, request, (1, 0)).expectations


def test_outcomes_counted_by_a_device_are_packed_in_ascending_order() -> None:
    result = collect(CountedState(CIRCUIT, {3: 4, 0: 6}, "device"), LAYOUTS, Request(10, 1), (1, 0))
    assert (result.outcomes, result.remark) == (b"\x00\x03", "device")
    assert np.frombuffer(result.counts, np.uint32).tolist() == [6, 4]


@pytest.mark.parametrize("num_bits", [1, 7, 8, 9, 16, 31, 33, 64, 65, 130])
def test_select_reads_each_bit_from_its_source(num_bits: int) -> None:
    rng = np.random.default_rng(num_bits)
    every = rng.integers(0, 2, (50, 20), dtype=np.uint8)
    packed = np.packbits(every, axis=1, bitorder="little")
    source = rng.integers(-1, 20, num_bits)
    result = packing.select(packed, source)
    assert result.shape == (50, num_words(num_bits))
    for row, wanted in zip(result, every, strict=True):
        number = int.from_bytes(row.tobytes(), "little")
        expected = sum(int(wanted[s]) << c for c, s in enumerate(source) if s >= 0)
        assert number == expected
    same = packing.select(packed, np.arange(20), identical=True)
    assert np.array_equal(same, packing.select(packed, np.arange(20)))


@pytest.mark.parametrize("num_bits", [1, 8, 12, 30, 64, 65, 200])
def test_counts_are_those_of_a_dictionary(num_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_FLUSH_ROWS", 100)  # so that pieces are joined
    rng = np.random.default_rng(num_bits)
    outcome, expected = packing.Counts(num_bits), Counter[int]()
    for size in (0, 1, 70, 300, 50, 400):
        rows = np.zeros((size, num_words(num_bits)), np.uint64)
        rows[:, 0] = rng.integers(0, 2 if num_bits == 1 else 40, size)
        rows[:, -1] |= rng.integers(0, 2, size, np.uint64)
        integers = [int.from_bytes(row.tobytes(), "little") for row in rows]
        if size % 100:
            outcome.add(rows)
        else:  # counted elsewhere
            outcome.add(*packing.outcome_records(Counter(integers), num_bits))
        expected.update(integers)
    width, outcomes, counts = outcome.packed()
    assert width == outcome_width(num_bits)
    keys = packing.unpack(outcomes, width)
    assert keys == sorted(expected)
    assert dict(zip(keys, np.frombuffer(counts, np.uint32).tolist(), strict=True)) == expected


def test_counts_without_records_are_empty() -> None:
    for num_bits in (3, 90):
        assert packing.Counts(num_bits).packed() == (outcome_width(num_bits), b"", b"")


def test_blocks_have_seeds_of_their_own_whatever_the_number_of_shots() -> None:
    seed = philox.block_seed
    seeds = {seed(s, b, k) for s in (0, 2**64 - 1, 2**64 - 2) for b in (0, 5) for k in (0, 9)}
    assert len(seeds) == 12
    assert max(seeds) < 2**62
    few = list(philox.blocks(1500, 7, 3, RunControl()))
    entries = list(philox.blocks(5000, 7, 3, RunControl()))
    assert [wanted for _, wanted in few] == [philox.BLOCK_SHOTS, 1500 - philox.BLOCK_SHOTS]
    assert [seed for seed, _ in few] == [seed for seed, _ in entries][:2]
    assert sum(wanted for _, wanted in entries) == 5000


def test_a_stop_is_noticed_between_blocks() -> None:
    control = RunControl()
    work = philox.blocks(5000, 7, 3, control)
    next(work)
    control.stop()
    with pytest.raises(Stopped):
        next(work)


MAX = 2**64 - 1


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890, MAX])
@pytest.mark.parametrize("binding", [0, 1, MAX])
@pytest.mark.parametrize("draw", [0, 1, 77, 2**32 + 3, MAX])
def test_uniforms_equal_numpy_philox(seed: int, binding: int, draw: int) -> None:
    key = np.array([seed, binding], np.uint64)
    counter = np.array([0, draw, 0, 0], np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(1001)
    array = np.empty(1001)
    philox.uniforms(seed, binding, draw, np.arange(1001), array)
    assert (array == expected).all()


def test_uniform_of_shot_is_independent_of_other_shots() -> None:
    everyone = np.empty(5000)
    philox.uniforms(3, 4, 5, np.arange(5000), everyone)
    rng = np.random.default_rng(0)
    for shots in (np.sort(rng.choice(5000, 300, replace=False)), rng.permutation(5000)):
        array = np.empty(shots.size)
        philox.uniforms(3, 4, 5, shots, array)
        assert (array == everyone[shots]).all()


def test_shots_beyond_2_to_the_32_have_other_uniforms() -> None:
    far = np.array([2**40, 2**40 + 1])
    array, near = np.empty(2), np.empty(2)
    philox.uniforms(1, 0, 0, far, array)
    philox.uniforms(1, 0, 0, far % 2**32, near)
    assert (array != near).all()


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
    packed, result = packing.pack(records, bits)
    assert result == width
    assert packing.unpack(packed, width) == values


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tally_sorts_and_sums_records(count: int) -> None:
    records = RNG.integers(0, 3, (1000, count)).astype(np.uint64)
    records[:, 0] += np.uint64(2**63)
    weights = RNG.random(1000)
    value, sums = packing.tally(records)
    weighed, totals = packing.tally(records, weights)
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
    packing.write(records, np.arange(4), source)
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
    packing.write(records, indices, source)
    for old, new, index in zip(before, numbers(records), indices.tolist(), strict=True):
        expected = old
        for clbit, bit in enumerate(source.tolist()):
            if bit >= 0:
                expected = expected & ~(1 << clbit) | (index >> bit & 1) << clbit
        assert new == expected
