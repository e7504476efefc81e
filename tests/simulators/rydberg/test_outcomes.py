"""Outcomes of a state of atoms."""

import functools

import numpy as np
import pytest

from simulators.rydberg import outcomes as out

PAULIS = {
    "I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}  # fmt: skip


def test_expectation_values_are_those_of_matrices() -> None:
    rng = np.random.default_rng(4)
    state = rng.normal(size=8) + 1j * rng.normal(size=8)
    state /= np.linalg.norm(state)
    labels = ("XYZ", "YYI", "ZIX", "IYX", "ZZZ")
    for label in labels:
        matrix = functools.reduce(np.kron, [PAULIS[letter] for letter in label])
        expected = np.vdot(state, matrix @ state).real
        assert out.expectation(state, (label,), np.array([2.0])) == pytest.approx(2 * expected)
    checks: list[None] = []
    out.expectation(state, labels, np.ones(5), lambda: checks.append(None))
    assert len(checks) == len(labels), "a long sum can be stopped"
    zs = [out.expectation(state, (label,), np.ones(1)) for label in ("ZII", "IZI", "IIZ")]
    assert 1 - 2 * out.occupations(state) == pytest.approx(zs)


def test_outcomes_have_the_probabilities_of_the_state() -> None:
    state = np.sqrt(np.array([0.5, 0.0, 0.2, 0.3])).astype(np.complex128)
    drawn = out.sample_outcomes(state, (np.arange(1000) + 0.5) / 1000)
    assert np.bincount(drawn.astype(int), minlength=4).tolist() == [500, 0, 200, 300]


def test_detection_flips_each_atom_by_its_rate() -> None:
    rng = np.random.default_rng(1)
    ones = np.full(40_000, 0b10, np.uint64)
    read = out.flipped(ones, 2, (0.1, 0.25), rng.random((2, ones.size)))
    assert np.mean(read & 1) == pytest.approx(0.1, abs=0.01)
    assert np.mean(read >> 1 == 0) == pytest.approx(0.25, abs=0.012)


def test_correlations_are_those_of_the_probabilities() -> None:
    rng = np.random.default_rng(5)
    state = rng.normal(size=32) + 1j * rng.normal(size=32)
    state /= np.linalg.norm(state)
    ones = (np.arange(32)[:, None] >> np.arange(5)[::-1]) & 1
    expected = np.einsum("s,sj,sk->jk", np.abs(state) ** 2, ones, ones)
    assert out.correlations(state) == pytest.approx(expected)
    assert np.diag(out.correlations(state)) == pytest.approx(out.occupations(state))
