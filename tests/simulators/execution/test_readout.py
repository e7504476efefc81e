"""Readout error: flips of sampled bits, and the exact distribution of what is read."""

import itertools

import numpy as np
import pytest
from arrays import Arrays

from noise_models.channel import Readout, ReadoutGroup
from simulators.circuit.analysis.measurements import MeasurementLayout, measurement_layout
from simulators.errors import Unsupported
from simulators.execution.readout import MAX_BITS, ReadoutStage

SHOTS = 200_000


def layout(num_qubits: int, num_clbits: int = 0) -> MeasurementLayout:
    """Qubit q is measured into clbit q."""
    circuit = Arrays(num_qubits, max(num_qubits, num_clbits))
    return measurement_layout(circuit.measure(range(num_qubits)).circuit())


def stage(
    p01: list[float], p10: list[float], groups: tuple[ReadoutGroup, ...] = ()
) -> ReadoutStage:
    result = ReadoutStage.of(layout(len(p01)), Readout(np.array(p01), np.array(p10), groups))
    assert result is not None
    return result


def correlated() -> ReadoutGroup:
    """A confusion matrix of two qubits that no pair of single ones gives."""
    random = np.random.default_rng(4)
    raw = random.uniform(0.0, 0.1, (4, 4)) + np.eye(4)
    return ReadoutGroup((2, 0), raw / raw.sum(axis=0))


@pytest.mark.parametrize("grouped", [False, True])
def test_flips_have_the_probabilities_of_the_confusion(grouped: bool) -> None:
    result = stage([0.02, 0.3, 0.0], [0.1, 0.0, 1.0], (correlated(),) if grouped else ())
    for true in range(8):
        records = np.full((SHOTS, 1), true, np.uint64)
        result.flip(records, 0, (7, true))
        counts = np.bincount(records[:, 0].astype(int), minlength=8)
        values, probs = result.confuse((np.array([[true]], np.uint64), np.ones(1)))
        expected = np.zeros(8)
        expected[values[:, 0].astype(int)] = probs
        assert abs(expected.sum() - 1.0) < 1e-12
        spread = np.sqrt(SHOTS * expected * (1 - expected)) + 1e-9
        assert (np.abs(counts - SHOTS * expected) < 5 * spread + 1e-6).all()


def test_exact_confusion_is_that_of_each_bit_and_of_the_group() -> None:
    group = correlated()
    result = stage([0.02, 0.3, 0.0], [0.1, 0.0, 1.0], (group,))
    values, probs = result.confuse((np.array([[0b001]], np.uint64), np.ones(1)))
    table = dict(zip(values[:, 0].tolist(), probs.tolist(), strict=True))
    for read in range(8):
        pair = (read >> 2 & 1) | (read & 1) << 1
        single = 0.3 if read >> 1 & 1 else 0.7
        assert table.get(read, 0.0) == pytest.approx(single * group.confusion[pair, 0b10])


def test_flips_of_a_shot_do_not_depend_on_the_batch_it_is_in() -> None:
    result = stage([0.05, 0.4], [0.2, 0.01])
    records = np.random.default_rng(1).integers(0, 4, (200_000, 1)).astype(np.uint64)
    outcome = records.copy()
    result.flip(outcome, 0, (3, 1))
    for cuts in ([0, 1, 65_535, 65_536, 65_537, 200_000], [0, 131_072, 150_000, 200_000]):
        for first, last in itertools.pairwise(cuts):
            piece = records[first:last].copy()
            result.flip(piece, first, (3, 1))
            assert np.array_equal(piece, outcome[first:last])
    assert (outcome != records).any()


def test_other_seeds_and_bindings_flip_others() -> None:
    result = stage([0.5], [0.5])
    results = []
    for key in ((1, 0), (1, 1), (2, 0)):
        records = np.zeros((1000, 1), np.uint64)
        result.flip(records, 0, key)
        results.append(records.tobytes())
    assert len(set(results)) == 3


def test_bits_beyond_the_first_word_flip() -> None:
    circuit = Arrays(2, 130).add("measure", [0], [3]).add("measure", [1], [129]).circuit()
    readout = Readout(np.array([0.0, 1.0]), np.zeros(2))
    result = ReadoutStage.of(measurement_layout(circuit), readout)
    assert result is not None
    records = np.zeros((5, 3), np.uint64)
    result.flip(records, 0, (1, 0))
    assert records.tolist() == [[0, 0, 2]] * 5
    values, probs = result.confuse((np.array([[8, 0, 0]], np.uint64), np.ones(1)))
    assert (values.tolist(), probs.tolist()) == ([[8, 0, 2]], [1.0])


def test_a_group_counts_where_all_its_qubits_are_measured_once() -> None:
    group = ReadoutGroup((0, 1), np.eye(4)[::-1])
    readout = Readout(np.array([0.25, 0.0]), np.zeros(2), (group,))
    alone = Arrays(2, 1).add("measure", [0], [0]).circuit()
    result = ReadoutStage.of(measurement_layout(alone), readout)
    assert result is not None
    assert result.groups.bounds.tolist() == [0.25]
    both = ReadoutStage.of(layout(2), readout)
    assert both is not None
    assert both.groups.bounds.tolist() == [1.0]


def test_a_measurement_before_the_end_is_no_part_of_the_stage() -> None:
    circuit = Arrays(1, 2).add("measure", [0], [0]).add("x", [0]).add("measure", [0], [1])
    result = ReadoutStage.of(measurement_layout(circuit.circuit()), Readout(np.ones(1), np.ones(1)))
    assert result is not None
    assert result.groups.clbits.tolist() == [1]
    assert ReadoutStage.of(layout(1), Readout(np.zeros(1), np.zeros(1))) is None


def test_too_many_bits_for_exact_probabilities_are_refused() -> None:
    count = MAX_BITS + 1
    result = stage([0.1] * count, [0.1] * count)
    with pytest.raises(Unsupported, match="exact probabilities of 25 bits"):
        result.confuse((np.zeros((1, 1), np.uint64), np.ones(1)))
