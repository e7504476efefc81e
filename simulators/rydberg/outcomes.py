"""Outcomes and expectation values of a state of atoms.

An outcome is the index of an amplitude; its highest bit is the first atom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.rydberg.drive import Reals

Amplitudes = NDArray[np.complex128]
Outcomes = NDArray[np.uint64]


def occupations(state: Amplitudes) -> Reals:
    """Probability of 1 of each atom: [n]."""
    joint, first, last = _halves(state)
    return np.concatenate([joint.sum(axis=1) @ first, joint.sum(axis=0) @ last])


def correlations(state: Amplitudes) -> Reals:
    """Probability of 1 of both atoms of each pair: [n, n], with `occupations` on the diagonal."""
    joint, first, last = _halves(state)
    high = first.shape[1]
    n = high + last.shape[1]
    result = np.empty((n, n))
    result[:high, :high] = first.T @ (joint.sum(axis=1)[:, None] * first)
    result[high:, high:] = last.T @ (joint.sum(axis=0)[:, None] * last)
    result[:high, high:] = first.T @ (joint @ last)
    result[high:, :high] = result[:high, high:].T
    return result


def _halves(state: Amplitudes) -> tuple[Reals, Reals, Reals]:
    """Probabilities by the states of the first and the last atoms, and the values of both."""
    n = state.size.bit_length() - 1
    high = n // 2
    return (np.abs(state) ** 2).reshape(1 << high, -1), _bits(high), _bits(n - high)


def _bits(atoms: int) -> Reals:
    """Values of the atoms in each index: [2**atoms, atoms]."""
    index = np.arange(1 << atoms)[:, None]
    return np.asarray(index >> np.arange(atoms)[::-1] & 1, np.float64)


def expectation(
    state: Amplitudes,
    labels: Sequence[str],
    coefficients: Reals,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Expectation value of a Pauli sum; the first letter of a label is that of the first atom.
    `check`: called before each term."""
    index = np.arange(state.size, dtype=np.uint64)
    total = 0.0
    n = state.size.bit_length() - 1
    for label, coefficient in zip(labels, coefficients, strict=True):
        check()
        flips, signs = 0, 0
        for place, letter in enumerate(label):
            bit = 1 << (n - 1 - place)
            flips |= bit if letter in "XY" else 0
            signs |= bit if letter in "YZ" else 0
        parity = np.bitwise_count(index & np.uint64(signs)) & 1
        moved = state[index ^ np.uint64(flips)] if flips else state
        # Y = i X Z: each Y gives a factor of i to the state with the sign of its bit.
        value = np.vdot(moved, np.where(parity, -state, state)) * 1j ** label.count("Y")
        total += float(coefficient) * float(value.real)
    return total


def sample_outcomes(state: Amplitudes, uniforms: Reals) -> Outcomes:
    """Outcomes [shots] of numbers in [0, 1)."""
    sums = np.cumsum(np.abs(state) ** 2)
    found = np.searchsorted(sums, uniforms * sums[-1], side="right")
    return np.asarray(np.minimum(found, state.size - 1), np.uint64)


def flipped(
    outcomes: Outcomes, atoms: int, rates: tuple[float, float], uniforms: Reals
) -> Outcomes:
    """Outcomes with errors of detection: `rates` at which 0 is read as 1, and 1 as 0; `uniforms`:
    numbers in [0, 1), [atoms, shots]."""
    false_positive, false_negative = rates
    result = outcomes.copy()
    for bit in range(atoms):
        value = (outcomes >> np.uint64(bit)) & np.uint64(1)
        rate = np.where(value == 1, false_negative, false_positive)
        result ^= (uniforms[bit] < rate).astype(np.uint64) << np.uint64(bit)
    return result
