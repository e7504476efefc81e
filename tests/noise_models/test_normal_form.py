"""The normal form reassembles its channel, and its parts are as heavy as they can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noise_models import channel, normal_form
from noise_models.channel import Channel
from noise_models.normal_form import NormalForm
from tests.noise_models.test_channel import random_kraus


def checked(given: Channel) -> NormalForm:
    """The normal form, with every part checked; those of the norm-based form too."""
    drawn = _checked(given, normal_form.norm_based_form(given))
    assert drawn.rest_weight == 1.0
    return _checked(given, normal_form.normal_form(given))


def _checked(given: Channel, form: NormalForm) -> NormalForm:
    """A form of channels to 1e-12 whose sum is the given one."""
    assert np.abs(form.channel.ptm - given.ptm).max() < 1e-12
    assert form.probabilities.min() >= 0.0
    assert form.probabilities.sum() + form.rest_weight == pytest.approx(1.0, abs=1e-12)
    side = 1 << given.num_qubits
    total = (form.rest.conj().transpose(0, 2, 1) @ form.rest).sum(axis=0)
    if form.rest_weight:
        assert np.abs(total - np.eye(side)).max() < 1e-12
    else:
        assert len(form.rest) == 0
    if form.unitary is not None:
        assert np.abs(form.unitary @ form.unitary.conj().T - np.eye(side)).max() < 1e-13
    return form


def rotation(angle: float, generator: int, num_qubits: int) -> Channel:
    pauli = channel.paulis(num_qubits)[generator]
    half = angle / 2.0
    return channel.from_unitary(math.cos(half) * np.eye(len(pauli)) - 1j * math.sin(half) * pauli)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 5), st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-13, 1e-9, 1e-4, 0.02, 0.5, 1.0]),
    st.sampled_from([0.0, 1e-8, 3e-3, 0.4, 2.0]),
)  # fmt: skip
def test_random_channels_reassemble(
    num_qubits: int, count: int, seed: int, weight: float, angle: float
) -> None:
    size = 4**num_qubits
    noise = channel.from_kraus(random_kraus(num_qubits, count, seed)).ptm
    near = Channel((1.0 - weight) * np.eye(size) + weight * noise)
    checked(near)
    generator = 1 + seed % (size - 1)
    checked(rotation(angle, generator, num_qubits).then(near))
    checked(near.then(channel.depolarizing(3e-3, num_qubits)))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5, 1.9, 1.999, 2.0])
@pytest.mark.parametrize("excited", [0.0, 0.05])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 3e-3])
def test_relaxation_reassembles(ratio: float, excited: float, rate: float) -> None:
    one = channel.relaxation(300.0, 100.0, 100.0 * ratio, excited)
    two = channel.tensor(one, channel.relaxation(300.0, 70.0, 50.0, excited))
    checked(one)
    checked(two)
    checked(channel.depolarizing(rate, 1).then(one))
    checked(rotation(0.02, 15, 2).then(channel.depolarizing(rate, 2)).then(two))


@pytest.mark.parametrize(
    ("ratio", "error"),
    [(0.5, 0.0107), (1.0, 0.0085), (1.5, 0.0088), (1.8, 0.0101), (1.95, 0.0112), (2.0, 0.0117)],
)
def test_identity_has_its_largest_weight(ratio: float, error: float) -> None:
    """Depolarizing noise 3e-3 and relaxation of both qubits over 300 ns, T1 = 100 us; the largest
    weight is 1 / <<1|C^-1|1>> of the Choi matrix."""
    outcome = channel.relaxation(300.0, 100.0, 100.0 * ratio)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    form = checked(result)
    assert form.error_probability == pytest.approx(error, abs=5e-5)
    ket = np.eye(4).reshape(-1) / 2.0
    largest = 1.0 / float((ket @ np.linalg.solve(result.choi, ket)).real)
    assert form.probabilities[0] == pytest.approx(largest, abs=1e-9)


def test_pure_amplitude_damping_has_no_identity_part() -> None:
    form = checked(channel.relaxation(300.0, 100.0, 200.0))
    assert form.rest_weight > 1.0 - 1e-9
    assert len(form.rest) == 2


def test_dephasing_limited_relaxation_has_the_weight_of_its_resets_and_flips() -> None:
    """T2 = T1: identity with probability (1 + 3 e^(-t/T1)) / 4."""
    form = checked(channel.relaxation(300.0, 100.0, 100.0))
    decay = math.exp(-3e-3)
    assert form.probabilities[0] == pytest.approx((1.0 + 3.0 * decay) / 4.0 - (1 - decay) / 4.0)


def test_pauli_channels_have_no_rest() -> None:
    weights = np.random.default_rng(3).dirichlet(np.ones(16))
    form = checked(channel.from_paulis(weights))
    assert form.unitary is None
    assert np.abs(form.probabilities - weights).max() < 1e-15
    assert form.rest_weight == 0.0


@pytest.mark.parametrize("generator", [1, 3, 6, 15])
def test_coherent_part_is_taken_out_as_the_unitary(generator: int) -> None:
    turned = rotation(0.05, generator, 2)
    form = checked(turned.then(channel.depolarizing(0.01, 2)))
    assert form.unitary is not None
    assert form.rest_weight == 0.0
    assert np.abs(channel.from_unitary(form.unitary).ptm - turned.ptm).max() < 1e-12
    assert form.error_probability == pytest.approx(0.01 * 15 / 16)


def test_pauli_part_is_as_heavy_as_it_can_be() -> None:
    """Weak duality: sum d <= tr(M Y) for every Y >= 0 with a diagonal of at least 1."""
    outcome = channel.relaxation(300.0, 100.0, 150.0)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    form = checked(result)
    basis = channel.paulis(2).transpose(0, 2, 1).reshape(16, 16).T
    chi = basis.conj().T @ result.choi @ basis / 4.0
    weights = form.probabilities
    chosen = np.flatnonzero(weights[1:] > 0.0) + 1
    assert len(chosen) == 12  # all outside the block of the identity
    part = chi[np.ix_(chosen, chosen)]
    dual = np.linalg.inv(part - np.diag(weights[chosen]))
    scale = 1.0 / np.sqrt(dual.diagonal().real)
    dual = scale[:, None] * dual * scale
    bound = float(np.trace(part @ dual).real)
    assert weights[chosen].sum() <= bound
    assert weights[chosen].sum() > bound * (1.0 - 1e-3)


def test_equal_channels_have_one_normal_form() -> None:
    first = channel.depolarizing(0.01, 2)
    assert normal_form.normal_form(first) is normal_form.normal_form(Channel(first.ptm.copy()))


def test_ties_of_the_rest_are_decomposed_alike_in_spite_of_rounding() -> None:
    outcome = channel.relaxation(300.0, 100.0, 100.0)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    noise = 1e-17 * np.random.default_rng(1).normal(size=(16, 16))
    noise[0] = 0.0
    first = normal_form.normal_form(result)
    second = normal_form.normal_form(Channel(result.ptm + noise))
    assert first.rest.shape == second.rest.shape
    assert np.abs(first.rest - second.rest).max() < 1e-6


def test_norm_based_form_has_a_heavier_leading_term_under_strong_damping() -> None:
    damping = channel.depolarizing(3e-3, 1).then(channel.relaxation(1_000.0, 10.0, 20.0))
    mixed, drawn = normal_form.normal_form(damping), normal_form.norm_based_form(damping)
    assert mixed.probabilities[0] < 0.6
    assert drawn.leading_probability > 0.9
    assert drawn.leading_probability > mixed.leading_probability
