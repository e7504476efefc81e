"""Conditions of each decoder: errors above one half are decoded, and what cannot be decoded is
refused by its cause."""

import numpy as np
import pytest
import stim

from simulators.engine import RunControl
from simulators.errors import Unsupported
from simulators.stabilizer.decoders import SyndromeDecoder

DECODERS = ("pymatching", "pymatching-correlated", "pymatching-sequential", "ldpc")
ONE = "R 0\nX_ERROR({p}) 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"
BIASED = (
    "R 0 1\nX_ERROR({p}) 0\nX_ERROR(.1) 1\nM 0 1\nDETECTOR rec[-2]\nDETECTOR rec[-1]\n"
    "OBSERVABLE_INCLUDE(0) rec[-2]"
)
RANDOM = "R 0\nH 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"
THREE = (
    "R 0 1 2\nE(.1) X0 X1 X2\nM 0 1 2\nDETECTOR rec[-3]\nDETECTOR rec[-2]\nDETECTOR rec[-1]\n"
    "OBSERVABLE_INCLUDE(0) rec[-1]"
)
MIXED = "R 0\nDEPOLARIZE1(.9) 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]"


def errors(decoder: str, circuit: stim.Circuit) -> int:
    """Wrong predictions in 500 shots."""
    sampler = circuit.compile_detector_sampler(seed=5)
    events, flips = sampler.sample(500, separate_observables=True, bit_packed=True)
    found = SyndromeDecoder(decoder, circuit).predictions(events, RunControl())
    return int(np.any(found != flips, axis=1).sum())


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.7, 0.9999, 1.0])
@pytest.mark.parametrize("text", [ONE, BIASED], ids=["one", "biased"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_errors_of_any_probability_are_decoded(decoder: str, text: str, p: float) -> None:
    assert errors(decoder, stim.Circuit(text.format(p=p))) == 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_certain_flips_change_no_prediction_of_a_code(decoder: str) -> None:
    """A certain flip of a data qubit after the preparation, whose detectors then always fire."""
    code = stim.Circuit.generated(
        "repetition_code:memory", distance=5, rounds=3, before_measure_flip_probability=0.05
    )
    text = str(code).replace("\nTICK\n", "\nX_ERROR(1) 0\nX_ERROR(0) 2\nTICK\n", 1)
    assert errors(decoder, stim.Circuit(text)) == errors(decoder, code)


@pytest.mark.parametrize(
    ("text", "decoder", "words", "hint"),
    [
        (RANDOM, "pymatching", "not deterministic without noise", "parity is fixed"),
        (RANDOM, "ldpc", "not deterministic without noise", "parity is fixed"),
        (THREE, "pymatching", "flips more than two detectors", "decoder='ldpc'"),
        (THREE, "pymatching-correlated", "flips more than two detectors", "decoder='ldpc'"),
        (THREE, "pymatching-sequential", "flips 3 detectors of one group", "decoder=None"),
        (MIXED, "pymatching", "DEPOLARIZE1(0.9) mixes more than completely", "at most 0.75"),
        (MIXED, "ldpc", "DEPOLARIZE1(0.9) mixes more than completely", "at most 0.75"),
    ],
)
def test_refusal_names_the_cause(text: str, decoder: str, words: str, hint: str) -> None:
    with pytest.raises(Unsupported) as refused:
        SyndromeDecoder(decoder, stim.Circuit(text))
    assert words in refused.value.message
    assert hint in refused.value.hint
