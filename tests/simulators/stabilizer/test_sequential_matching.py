"""Matching of one group of detectors after the other."""

from __future__ import annotations

import numpy as np
import pytest
import stim

pytest.importorskip("pymatching")

from simenv.calibration.logical.surface_code import product_cx, rotated
from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.stabilizer.decoders import Matching, SyndromeDecoder
from simulators.stabilizer.detectors import sampled
from simulators.stabilizer.sequential_matching import SequentialMatching

# D0 and D1 of the control, D2 of the target: an error of a measurement of the control flips all.
MODEL = stim.DetectorErrorModel("""
    detector(0, 0, 0, 0, 0) D0
    detector(2, 0, 0, 0, 0) D1
    detector(8, 0, 0, 1, 0) D2
    error(0.05) D0 D1 D2
    error(0.01) D0 L0
    error(0.01) D1
    error(0.02) D2 L1
""")


def flips(model: stim.DetectorErrorModel, *detectors: int) -> list[int]:
    """Observables that the decoder predicts as flipped, for one shot."""
    events = np.zeros((1, model.num_detectors), np.uint8)
    events[0, list(detectors)] = 1
    decoder = SequentialMatching().compile_decoder_for_dem(dem=model)
    packed = np.packbits(events, axis=1, bitorder="little")
    found = decoder.decode_shots_bit_packed(bit_packed_detection_event_data=packed)
    bits = np.unpackbits(found, axis=1, count=model.num_observables, bitorder="little")
    return np.flatnonzero(bits[0]).tolist()


def test_an_error_of_an_earlier_group_explains_events_of_a_later_one() -> None:
    assert flips(MODEL, 0, 1, 2) == []
    assert flips(MODEL, 2) == [1]
    assert flips(MODEL, 0) == [0]
    assert flips(MODEL, 0, 1) == [1]  # the target has an error too, which hides what it spread


def test_kinds_without_an_observable_are_not_matched() -> None:
    model = MODEL + stim.DetectorErrorModel("""
        detector(0, 0, 0, 0, 1) D3
        error(0.001) D2 D3
        error(0.3) D3
    """)
    assert flips(model, 2, 3) == [1]


def test_an_error_of_three_detectors_of_one_group_is_refused_by_name() -> None:
    circuit = stim.Circuit("""
        R 0 1 2
        X_ERROR(0.1) 0
        CX 0 1 0 2
        M 0 1 2
        DETECTOR rec[-1]
        DETECTOR rec[-2]
        DETECTOR rec[-3]
        OBSERVABLE_INCLUDE(0) rec[-1]
    """)
    with pytest.raises(Unsupported, match="flips 3 detectors of one group: D0, D1, D2"):
        SyndromeDecoder("pymatching-sequential", circuit)


def test_without_coordinates_it_is_matching() -> None:
    circuit = stim.Circuit.generated(
        "repetition_code:memory", distance=5, rounds=5, before_round_data_depolarization=0.08,
        before_measure_flip_probability=0.05,
    )  # fmt: skip
    model = circuit.detector_error_model(decompose_errors=True)
    events = circuit.compile_detector_sampler(seed=3).sample(4_000, bit_packed=True)
    first, second = (
        maker.compile_decoder_for_dem(dem=model).decode_shots_bit_packed(
            bit_packed_detection_event_data=events
        )
        for maker in (SequentialMatching(), Matching())
    )
    assert np.mean(first != second) < 2e-3  # matchings of equal weight may differ


def test_cx_of_patches_costs_less_than_with_matching_of_split_errors() -> None:
    circuit = stim.Circuit()
    for item in product_cx(rotated(3), "Z", (3, 3)).flattened():
        noisy = "M" if item.name == "M" else ""
        circuit.append(noisy or item.name, item.targets_copy(), [0.01] if noisy else
                       item.gate_args_copy())  # fmt: skip
        if item.name in ("CZ", "CX"):
            circuit.append("DEPOLARIZE2", item.targets_copy(), 2e-3)
    wrong = {}
    for name in ("pymatching", "pymatching-sequential"):
        samples = sampled(circuit, SyndromeDecoder(name, circuit), 20_000, 1, RunControl())
        wrong[name] = samples.observable_errors / 20_000
    # Control and target, one by one: measurement errors before CX are split badly.
    assert (wrong["pymatching-sequential"][:2] < 0.75 * wrong["pymatching"][:2]).all()
