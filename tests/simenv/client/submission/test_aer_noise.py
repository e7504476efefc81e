"""Aer noise models travel as noise documents with the same channels."""

from __future__ import annotations

import warnings

import numpy as np
from failing import fails
from qiskit.quantum_info import PTM
from qiskit_aer import noise as aer
from qiskit_ibm_runtime.fake_provider import FakeLimaV2

from noise_models import document
from noise_models.library import load
from noise_models.model import NoiseOptions
from simenv.client.submission.noise import document_of
from simenv.errors import OptionError


def lima() -> aer.NoiseModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return aer.NoiseModel.from_backend(FakeLimaV2())


def test_model_of_a_backend_is_sent_with_its_idle_noise() -> None:
    result = lima()
    outcome = document.model(document.load(document_of(result)))
    expected = document.model(load("lima"), NoiseOptions.parse("aer"))
    assert outcome.num_qubits == 5
    for qubit in range(5):
        for one, two in (
            (outcome.idle(qubit, 555.0), expected.idle(qubit, 555.0)),
            (outcome.after_reset(qubit), expected.after_reset(qubit)),
            (
                outcome.after_gate("sx", (qubit,))[0].channel,
                expected.after_gate("sx", (qubit,))[0].channel,
            ),
        ):
            assert np.abs(one.ptm - two.ptm).max() < 1e-13
    error = result._local_quantum_errors["cx"][(1, 0)]
    (located,) = outcome.after_gate("cx", (1, 0))
    assert np.abs(located.channel.ptm - PTM(error).data.real).max() < 1e-13
    readouts = outcome.readout(), expected.readout()
    assert np.array_equal(readouts[0].p01, readouts[1].p01)


def test_dictionary_is_of_a_model_without_passes() -> None:
    noise_model = aer.NoiseModel()
    noise_model.add_all_qubit_quantum_error(aer.depolarizing_error(0.1, 2), "cx")
    from_object = document.load(document_of(noise_model))
    assert from_object == document.load(document_of(noise_model.to_dict(serializable=True)))
    assert document.model(from_object).after_gate("cx", (3, 1))
    result = lima()
    result._custom_noise_passes.append(aer.LocalNoisePass(lambda *_: None))
    fails(OptionError, "noise passes", document_of, result)
