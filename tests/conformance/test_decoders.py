"""The same suite for every decoder that has a card, that of the guide too."""

import sys

import numpy as np
import pytest
import stim
import third_party_decoder
from failing import fails

from simulators.catalog import decoders as catalog
from simulators.engine import RunControl
from simulators.errors import Stopped, Unsupported
from simulators.stabilizer.decoders import SyndromeDecoder

sys.path.append(str(third_party_decoder.table()))
catalog.decoder_cards.cache_clear()
NAMES = [card.name for card in catalog.decoder_cards()]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    card = next(card for card in catalog.decoder_cards() if card.name == request.param)
    if card.missing:
        pytest.skip(card.missing)
    return str(request.param)


def code(task: str = "repetition_code:memory") -> stim.Circuit:
    return stim.Circuit.generated(
        task, distance=3, rounds=2, before_round_data_depolarization=0.01,
        before_measure_flip_probability=0.01,
    )  # fmt: skip


def packed(rows: object) -> np.ndarray:
    return np.packbits(np.array(rows, np.uint8), axis=1, bitorder="little")


def single_errors(circuit: stim.Circuit) -> tuple[np.ndarray, np.ndarray]:
    """Events and observable flips of each error mechanism alone."""
    model = circuit.detector_error_model()
    events, flips = [], []
    for item in model.flattened():
        if item.type == "error":
            events.append(np.zeros(model.num_detectors, np.uint8))
            flips.append(np.zeros(model.num_observables, np.uint8))
            for target in item.targets_copy():
                row = events if target.is_relative_detector_id() else flips
                row[-1][target.val] ^= 1
    return packed(events), packed(flips)


def test_the_guide_has_a_decoder() -> None:
    assert {"pymatching", "pymatching-correlated", "ldpc", "table"} <= set(NAMES)


@pytest.mark.parametrize("task", ["repetition_code:memory", "surface_code:rotated_memory_x"])
def test_single_errors_are_corrected_and_silence_is_none(name: str, task: str) -> None:
    circuit = code(task)
    try:
        decoder = SyndromeDecoder(name, circuit)
    except Unsupported as refusal:  # errors that flip more detectors than it takes
        assert "surface" in task
        pytest.skip(refusal.message)
    events, flips = single_errors(circuit)
    assert np.array_equal(decoder.predictions(events, RunControl()), flips)
    quiet = np.zeros((3, events.shape[1]), np.uint8)
    assert not decoder.predictions(quiet, RunControl()).any()


def test_prediction_depends_on_its_shot_alone(name: str) -> None:
    circuit = code()
    decoder = SyndromeDecoder(name, circuit)
    events = circuit.compile_detector_sampler(seed=4).sample(300, bit_packed=True)
    found = decoder.predictions(events, RunControl())
    order = np.random.default_rng(1).permutation(len(events))
    again = SyndromeDecoder(name, circuit)
    shuffled = np.concatenate(
        [again.predictions(events[order[k : k + 7]], RunControl()) for k in range(0, 300, 7)]
    )
    assert np.array_equal(shuffled, found[order])


def test_several_observables_have_their_bits(name: str) -> None:
    text = "".join(
        f"X_ERROR(0.1) {q}\nM {q}\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE({q}) rec[-1]\n"
        for q in range(10)
    )
    decoder = SyndromeDecoder(name, stim.Circuit(text))
    events = packed(np.eye(10, dtype=np.uint8))
    assert np.array_equal(decoder.predictions(events, RunControl()), events)
    assert decoder.name.startswith(f"{name} ")


def test_circuits_without_errors_or_observables_are_decoded(name: str) -> None:
    decoder = SyndromeDecoder(name, stim.Circuit("M 0\nDETECTOR rec[-1]"))
    assert decoder.predictions(np.zeros((2, 1), np.uint8), RunControl()).shape == (2, 0)


def test_runs_stop_between_calls_and_count_their_shots(name: str) -> None:
    circuit, control = code(), RunControl()
    decoder = SyndromeDecoder(name, circuit)
    events = circuit.compile_detector_sampler(seed=4).sample(500, bit_packed=True)
    control.expect(500, "shots")
    decoder.predictions(events, control)
    assert control.progress[1:3] == (500, 500)
    control.stop()
    fails(Stopped, "", decoder.predictions, events, control)


def test_random_detectors_are_refused(name: str) -> None:
    circuit = stim.Circuit("H 0\nM 0\nDETECTOR rec[-1]")
    fails(Unsupported, f"cannot be decoded by {name}", SyndromeDecoder, name, circuit)
