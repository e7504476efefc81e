"""Devices: their choice, their noise, and noise models of Aer as documents."""

import warnings
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from qiskit.quantum_info import PTM
from qiskit_aer import noise as aer
from qiskit_ibm_runtime.fake_provider import FakeLimaV2

from noise_models import document, library
from noise_models.library import load
from noise_models.options import NoiseOptions
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.noise import document_of, factors_of
from simenv.client.submission.options import checked_options
from simenv.errors import NotFoundError, OptionError
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import device_info


@pytest.mark.parametrize(
    "noise",
    ["on", "off", "aer", {"gate.depolarizing": 0.5, "qubit": 0}, {"recipe": "aer", "idle": False}],
)
def test_factors_are_read_back_as_the_same_options(noise: Any) -> None:
    assert NoiseOptions.parse(factors_of(noise)) == NoiseOptions.parse(noise)


@pytest.mark.parametrize(
    "noise",
    [
        *(3, ["gate"], {"gate": "much"}, {"gate": float("nan")}, {3: 1}, ""),
        *({"gate": True}, {"gate.depolarizing": False}, {"qubit.t1_us": True}),
        {"gate": 10**400},
    ],
)
def test_what_is_no_noise_is_refused(noise: Any) -> None:
    assert document_of(noise) == b""
    fails(OptionError, "noise", factors_of, noise)


def test_noise_is_a_document_without_nan_or_factors() -> None:
    assert document_of({"kind": "channels", "name": "mine"}) == b'{"kind":"channels","name":"mine"}'
    assert (document_of(b"{}"), document_of({"gate": 1})) == (b"{}", b"")
    relaxation = {"t1_us": float("nan"), "t2_us": 1.0}
    with pytest.raises(OptionError, match=r"channels\[0\].relaxation.t1_us = nan"):
        document_of({"kind": "channels", "channels": [{"gate": "cx", "relaxation": relaxation}]})


@pytest.mark.parametrize(
    ("noise", "text"),
    [
        ({"idle": False, "recipe.idle": 1}, "idle is given twice"),
        ({"idle": "no"}, "True or False"),
        ({"recipe": 3}, "noise: recipe = 3"),
        ({"kind": "channels"}, "not taken here"),
    ],
)
def test_refusal_names_the_option_as_it_was_given(noise: Any, text: str) -> None:
    fails(OptionError, text, factors_of, noise)


def test_noise_is_factors_or_a_document() -> None:
    assert factors_of({"gate": np.int64(2), "qubit": np.float32(0.5)}) == (
        *(("gate", 2.0), ("qubit", 0.5)),
    )
    fails(OptionError, "noise=<ndarray>", checked_options, {"noise": np.zeros(2)})
    fails(OptionError, "an empty document", document_of, b"")


class _Pools:
    """Pools of which the first has a device without calibration."""

    def __init__(self) -> None:
        snapshot = library.load("superconducting-lattice")
        ready = device_info("ready", snapshot, snapshot.digest.hex())
        broken = msgspec.structs.replace(ready, name="broken", num_qubits=0, problem="no file")
        self._pools = {"broken": broken, "ready": ready}

    def device(self, name: str) -> DeviceInfo:
        if self._pools[name].problem:
            raise NotFoundError("no file", hint="import one")
        return self._pools[name]

    def devices(self) -> Mapping[str, DeviceInfo]:
        return self._pools

    def store(self, document: bytes) -> str:
        raise AssertionError(document)


def test_calibration_of_a_pool_or_its_reason_is_told() -> None:
    fails(NotFoundError, "no file", SubmitDevices(_Pools())._info_for, "", "broken", ())
    assert SubmitDevices(_Pools())._info_for("", "", ("emulator",)).name == "ready"


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
