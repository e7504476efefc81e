"""The recipe of Aer has the channels and readout errors of Aer's own noise models."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from qiskit.quantum_info import SuperOp
from qiskit_aer.noise import NoiseModel as AerNoise
from qiskit_ibm_runtime import fake_provider

from noise_models import library
from noise_models.build import build
from noise_models.channel import Channel, paulis
from noise_models.errors import NoiseError
from noise_models.library import installed
from noise_models.options import NoiseOptions
from tests.noise_models.snapshots import transmons

# Directions of cx, faulty gates, T2 > 2 T1, relaxation above the error.
DEVICES = ("lima", "yorktown", "jakarta", "casablanca")


def backend(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(fake_provider, f"Fake{name.title()}V2")()


def ptm(error: Any) -> np.ndarray:
    """Pauli transfer matrix of a quantum error of Aer."""
    basis = paulis(error.num_qubits)
    vectors = basis.transpose(0, 2, 1).reshape(len(basis), -1)  # columns stacked
    return np.asarray((vectors.conj() @ SuperOp(error).data @ vectors.T).real / len(basis) ** 0.5)


def check(given: AerNoise, name: str, recipe: str) -> None:
    result = build(library.load(name), NoiseOptions.parse(recipe))
    errors = [
        (gate, qubits, error)
        for gate, by_qubits in given._local_quantum_errors.items()
        for qubits, error in by_qubits.items()
    ]
    assert errors
    for gate, qubits, error in errors:
        channel: Channel | None
        if gate == "reset":
            channel = result.after_reset(qubits[0])
        else:
            (located,) = result.after_gate(gate, qubits)
            assert located.qubits == qubits
            channel = located.channel
        assert channel is not None
        assert np.abs(channel.ptm - ptm(error)).max() < 1e-13
    readout = result.readout()
    assert readout is not None
    read = np.zeros((result.num_qubits, 2))
    for (qubit,), error in given._local_readout_errors.items():
        read[qubit] = error.probabilities[0][1], error.probabilities[1][0]
    assert np.abs(read[:, 0] - readout.p01).max() < 1e-15
    assert np.abs(read[:, 1] - readout.p10).max() < 1e-15


@pytest.mark.parametrize("name", DEVICES)
def test_recipe_aer_is_from_backend(name: str) -> None:
    result = backend(name)
    check(AerNoise.from_backend(result), name, "aer")
    (relaxation,) = AerNoise.from_backend(result)._custom_noise_passes
    outcome = build(library.load(name), NoiseOptions.parse("aer"))
    assert outcome.has_idle_noise
    for qubit in range(outcome.num_qubits):
        delay = type(
            "Delay", (), {"name": "delay", "duration": 777.0, "unit": "ns", "num_qubits": 1}
        )
        expected = relaxation._thermal_relaxation_error(delay, [qubit])
        channel = outcome.idle(qubit, 777.0)
        assert channel is not None
        assert np.abs(channel.ptm - ptm(expected)).max() < 1e-13


def test_recipe_aer_properties_is_from_backend_properties() -> None:
    result = backend("lima")
    check(AerNoise.from_backend_properties(result.properties()), "lima", "aer-properties")


def test_recipe_has_nothing_that_aer_does_not_read() -> None:
    result = build(transmons(), NoiseOptions.parse("aer"))
    assert result.crosstalk_pairs == ()
    assert result.preparation(0) is None
    assert result.after_gate("cz", (1, 0)) == ()
    readout = result.readout()
    assert readout is not None
    assert readout.p01.tolist() == readout.p10.tolist() == [0.02] * 3
    assert readout.groups == ()
    idle = result.idle(0, 100.0)
    assert idle is not None
    assert idle.ptm[3, 0] > 0.0
    assert np.abs((idle.ptm @ [1, 0, 0, 1]) - [1, 0, 0, 1]).max() < 1e-15  # |0> stays


@pytest.mark.parametrize("name", ["gate.coherent", "gate.zz_khz", "qubit.excited", "qubit.reset"])
def test_components_that_aer_lacks_are_refused(name: str) -> None:
    with pytest.raises(NoiseError, match=name):
        build(transmons(), NoiseOptions.parse({"recipe": "aer", name: 0.5}))


@pytest.mark.parametrize("recipe", ["simenv", "aer"])
def test_channels_of_all_devices_are_cptp(recipe: str) -> None:
    """Every 17th gate of each device, and its idle noise."""
    for name in (*installed.names(), *library.BUNDLED):
        snapshot = library.load(name)
        result = build(snapshot, NoiseOptions.parse({"recipe": recipe}))
        sizes = {gate.name: gate.num_qubits for gate in snapshot.native_gates}
        for gate in snapshot.gates[:: 17 if recipe == "simenv" else 71]:
            qubits = gate.qubits or tuple(range(sizes[gate.name]))
            for located in result.after_gate(gate.name, qubits):
                assert located.channel.cptp_error < 1e-12
                if gate.error is not None and gate.error < 0.5:
                    assert located.channel.infidelity > gate.error - 1e-12
        for qubit in range(0, snapshot.num_qubits, 9):
            idle = result.idle(qubit, 500.0)
            assert idle is None or idle.cptp_error < 1e-12
