"""Channels, and the recipe of Aer."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qiskit.quantum_info import PTM, Choi, Kraus, SuperOp
from qiskit_aer.noise import NoiseModel as AerNoise
from qiskit_ibm_runtime import fake_provider

from noise_models import channel, library
from noise_models.build import build
from noise_models.channel import Channel, paulis
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError
from tests.noise_models.snapshots import transmons


def random_kraus(num_qubits: int, count: int, seed: int) -> list[NDArray[np.complex128]]:
    """Kraus operators of a random channel."""
    side = 1 << num_qubits
    rng = np.random.default_rng(seed)
    shape = (count * side, side)
    columns, _ = np.linalg.qr(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    return [columns[k * side : (k + 1) * side] for k in range(count)]


@pytest.mark.parametrize("num_qubits", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_representations_agree_with_qiskit(num_qubits: int, count: int) -> None:
    kraus = random_kraus(num_qubits, count, 5)
    result = channel.from_kraus(kraus)
    assert np.abs(PTM(Kraus(kraus)).data - result.ptm).max() < 1e-14
    assert np.abs(Choi(Kraus(kraus)).data / (1 << num_qubits) - result.choi).max() < 1e-14
    assert result.cptp_error < 1e-14
    assert np.abs(channel.from_kraus(list(result.kraus())).ptm - result.ptm).max() < 1e-13
    assert len(result.kraus()) == count


def test_reversed_exchanges_the_qubits() -> None:
    one, two = (channel.from_kraus(random_kraus(1, 2, seed)) for seed in (1, 2))
    result = channel.tensor(one, two).reversed()
    assert np.abs(result.ptm - channel.tensor(two, one).ptm).max() < 1e-15


def test_pauli_probabilities_invert_from_paulis() -> None:
    for size in (4, 16):
        result = np.random.default_rng(size).dirichlet(np.ones(size))
        outcome = channel.from_paulis(result)
        assert outcome.is_pauli
        assert np.abs(outcome.pauli_probabilities - result).max() < 1e-15


def test_controlled_phase_is_the_channel_of_its_unitary() -> None:
    for angle in (-2.0, 0.3, 1e-9):
        unitary = channel.from_unitary(np.diag([1.0, 1.0, 1.0, np.exp(1j * angle)]))
        assert np.abs(channel.controlled_phase(angle).ptm - unitary.ptm).max() < 1e-15


def test_relaxation_reaches_thermal_equilibrium() -> None:
    result = channel.relaxation(1e9, 100.0, 150.0, 0.1)
    assert np.allclose(result.ptm @ [1.0, 0.3, 0.2, 0.5], [1.0, 0.0, 0.0, 0.8], atol=1e-12)
    short = channel.relaxation(300.0, 100.0, 150.0)
    assert short.cptp_error < 1e-15
    assert not short.is_pauli


def test_infidelity_of_depolarizing_noise() -> None:
    assert channel.depolarizing(0.01, 1).infidelity == pytest.approx(0.005)
    assert channel.depolarizing(0.01, 2).infidelity == pytest.approx(0.0075)


@pytest.mark.parametrize(
    "make",
    [
        lambda: channel.from_kraus([np.eye(2), np.eye(2)]),
        lambda: channel.from_kraus([]),
        lambda: channel.from_kraus([np.eye(3)]),
        lambda: channel.depolarizing(1.4, 1),
        lambda: channel.relaxation(10.0, 100.0, 201.0),
        lambda: channel.relaxation(-1.0, 100.0, 100.0),
        lambda: channel.from_paulis(np.array([0.9, 0.2, -0.1, 0.0])),
    ],
)  # fmt: skip
def test_wrong_channels_are_refused(make: object) -> None:
    with pytest.raises(NoiseError):
        make()  # type: ignore[operator]


def test_wrong_map_has_a_cptp_error() -> None:
    assert Channel(np.diag([1.0, 1.0, 1.0, -1.0])).cptp_error > 0.1
    assert Channel(np.diag([0.9, 0.0, 0.0, 0.0])).cptp_error > 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.inf, math.nan, complex(0.0, math.inf)])
def test_kraus_operators_that_are_not_finite_are_refused_without_warning(value: complex) -> None:
    with pytest.raises(NoiseError, match="infinite element or NaN") as caught:
        channel.from_kraus([np.array([[value, 0.0], [0.0, 1.0]])])
    assert caught.value.hint == "give finite numbers"


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
        assert np.abs(channel.ptm - ptm(error)).max() < 1e-13
    readout = result.readout()
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
        delay = type("D", (), {"name": "delay", "duration": 777.0, "unit": "ns", "num_qubits": 1})
        expected = relaxation._thermal_relaxation_error(delay, [qubit])
        assert np.abs(outcome.idle(qubit, 777.0).ptm - ptm(expected)).max() < 1e-13


def test_recipe_aer_properties_is_from_backend_properties() -> None:
    result = backend("lima")
    check(AerNoise.from_backend_properties(result.properties()), "lima", "aer-properties")


def test_recipe_has_nothing_that_aer_does_not_read() -> None:
    result = build(transmons(), NoiseOptions.parse("aer"))
    assert result.crosstalk_pairs == ()
    assert result.preparation(0) is None
    assert result.after_gate("cz", (1, 0)) == ()
    readout = result.readout()
    assert readout.p01.tolist() == readout.p10.tolist() == [0.02] * 3
    assert readout.groups == ()
    idle = result.idle(0, 100.0)
    assert idle.ptm[3, 0] > 0.0
    assert np.abs((idle.ptm @ [1, 0, 0, 1]) - [1, 0, 0, 1]).max() < 1e-15  # |0> stays


@pytest.mark.parametrize("name", ["gate.coherent", "gate.zz_khz", "qubit.excited", "qubit.reset"])
def test_components_that_aer_lacks_are_refused(name: str) -> None:
    with pytest.raises(NoiseError, match=name):
        build(transmons(), NoiseOptions.parse({"recipe": "aer", name: 0.5}))


@pytest.mark.parametrize("recipe", ["simenv", "aer"])
def test_channels_of_all_devices_are_cptp(recipe: str) -> None:
    """Every 17th gate of each device, and its idle noise."""
    for name in (*library.installed_names(), *library.BUNDLED):
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
