"""Detectors against stim and PyMatching called directly: statistics, bits, blocks, refusals."""

from __future__ import annotations

import numpy as np
import pymatching
import pytest
import stim

from simulators.control import RunControl
from simulators.errors import Stopped, Unsupported
from simulators.execution.rng import block_seed
from simulators.stabilizer.detectors import MatchingDecoder, _ones, block_shots, sampled

NOISE = {
    "after_clifford_depolarization": 0.01,
    "before_measure_flip_probability": 0.01,
    "after_reset_flip_probability": 0.01,
}


def code(distance: int = 3, task: str = "surface_code:rotated_memory_z") -> stim.Circuit:
    return stim.Circuit.generated(task, distance=distance, rounds=distance, **NOISE)


@pytest.mark.parametrize("task", ["surface_code:rotated_memory_z", "repetition_code:memory"])
def test_logical_error_rate_is_that_of_stim_and_pymatching(task: str) -> None:
    circuit, shots = code(3, task), 20_000
    result = sampled(circuit, MatchingDecoder(circuit), shots, 7, RunControl())
    events, flips = circuit.compile_detector_sampler(seed=1).sample(
        shots, separate_observables=True
    )
    matching = pymatching.Matching.from_detector_error_model(
        circuit.detector_error_model(decompose_errors=True)
    )
    expected = (matching.decode_batch(events) != flips).any(axis=1).mean()
    assert expected > 0
    error = np.sqrt(2 * expected / shots)
    assert abs(result.errors / shots - expected) < 5 * error
    rates = events.mean(axis=0)
    assert np.all(np.abs(result.detections / shots - rates) < 5 * np.sqrt(2 * rates / shots))
    assert abs(result.flips[0] / shots - flips.mean()) < 5 * np.sqrt(2 * flips.mean() / shots)


def test_bits_of_blocks_are_those_of_stim_with_their_seeds_decoded() -> None:
    circuit = code()
    size = block_shots(circuit)
    decoder = MatchingDecoder(circuit)
    result = sampled(circuit, decoder, size + 100, 3, RunControl(), keep=True)
    expected = [
        circuit.compile_detector_sampler(seed=block_seed(3, 0, number)).sample(
            size, separate_observables=True, bit_packed=True
        )
        for number in range(2)
    ]
    events = np.concatenate([expected[0][0], expected[1][0][:100]])
    flips = np.concatenate([expected[0][1], expected[1][1][:100]])
    assert np.array_equal(result.events, events)
    assert np.array_equal(result.observable_flips, flips)
    matching = pymatching.Matching.from_detector_error_model(
        circuit.detector_error_model(decompose_errors=True)
    )
    predicted = matching.decode_batch(events, bit_packed_shots=True, bit_packed_predictions=True)
    assert np.array_equal(result.predictions, predicted)
    assert result.errors == (predicted != flips).any(axis=1).sum() == result.observable_errors.sum()
    fewer = sampled(circuit, decoder, 50, 3, RunControl(), keep=True)
    assert np.array_equal(fewer.events, events[:50])


@pytest.mark.parametrize("shape", [(1, 1), (128, 8), (129, 9), (1000, 17), (5, 0)])
def test_bits_are_counted_column_by_column(shape: tuple[int, int]) -> None:
    bits = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    bits[: shape[0] // 2] = 255
    width = max(0, 8 * shape[1] - 3)
    expected = np.unpackbits(bits, axis=1, bitorder="little").sum(axis=0)[:width]
    assert np.array_equal(_ones(bits, width), expected)


def test_wide_circuits_run_in_smaller_blocks() -> None:
    assert block_shots(code()) == 8192
    assert block_shots(stim.Circuit("R 40000\nM 40000")) == 1024
    assert block_shots(stim.Circuit("REPEAT 2000000 {\nM 0\n}")) == 256


def test_several_observables_are_counted_each_and_together() -> None:
    circuit = stim.Circuit(
        "X_ERROR(1) 0 1\nM 0 1 2\nOBSERVABLE_INCLUDE(0) rec[-3]\nOBSERVABLE_INCLUDE(9) rec[-2]\n"
        "OBSERVABLE_INCLUDE(3) rec[-1]\n"
    )
    result = sampled(circuit, None, 10, 1, RunControl())
    assert result.flips.tolist() == [10, 0, 0, 0, 0, 0, 0, 0, 0, 10]
    assert result.errors == 0
    assert result.predictions.size == 0


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"cannot be decoded by matching: .*non-deterministic"):
        MatchingDecoder(stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]"))
    flips_three = "X_ERROR(0.1) 0\nM 0\n" + "DETECTOR rec[-1]\n" * 3
    with pytest.raises(Unsupported, match="cannot be decoded by matching"):
        MatchingDecoder(stim.Circuit(flips_three))


def test_run_stops_between_blocks_and_counts_them() -> None:
    control = RunControl()
    sampled(code(), None, 20_000, 1, control)
    assert control.passes == (3, 3)
    control.stop()
    with pytest.raises(Stopped):
        sampled(code(), None, 10, 1, control)
    with pytest.raises(Stopped):
        MatchingDecoder(code()).predictions(np.zeros((1, 3), np.uint8), control)
