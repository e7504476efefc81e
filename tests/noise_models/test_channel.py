"""Channels agree with Qiskit's representations, and their parts with one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from qiskit.quantum_info import PTM, Choi, Kraus

from noise_models import channel
from noise_models.channel import Channel
from noise_models.errors import NoiseError


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
    again = channel.from_kraus(list(result.kraus()))
    assert np.abs(again.ptm - result.ptm).max() < 1e-13
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
