"""Pauli sums: validation, and values from the expectation values of the strings.

A string is a pair of masks (x, z), bit q for qubit q; both bits set is Y.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulators.engine import PauliSum
from simulators.errors import Unsupported
from simulators.execution.rng import uniforms

FIRST_TERM = 2**32  # draw number of the first sampled term
_SHOTS_AT_ONCE = 1 << 20

_X = str.maketrans("IXYZ", "0110")
_Z = str.maketrans("IXYZ", "0011")


def masks(label: str, num_qubits: int) -> tuple[int, int]:
    """Masks (x, z) of a Pauli string in Qiskit's order. Raises Unsupported for an invalid
    string."""
    if len(label) != num_qubits or set(label) - set("IXYZ"):
        raise Unsupported(
            f"Pauli string {label[:64]!r} does not fit {num_qubits} qubits",
            hint=f"give {num_qubits} characters of I, X, Y, Z; the last one is qubit 0",
        )
    return int(label.translate(_X) or "0", 2), int(label.translate(_Z) or "0", 2)


def terms(observables: tuple[PauliSum, ...], num_qubits: int) -> list[tuple[int, int]]:
    """Masks (x, z) of every term of all observables in order; each observable has at least one."""
    for number, observable in enumerate(observables):
        values = observable.coefficients
        if not observable.labels:
            raise Unsupported(
                f"observable {number} has no Pauli string",
                hint="leave a sum of nothing out: it is 0, and so is its gradient",
            )
        if len(observable.labels) != len(values) or not np.isfinite(values).all():
            raise Unsupported(
                f"observable {number} has {len(observable.labels)} Pauli strings and"
                f" {len(values)} coefficients, or one that is not finite",
                hint="give one finite real coefficient a string",
            )
    return [masks(label, num_qubits) for item in observables for label in item.labels]


def refuse_collapsed(
    observables: tuple[PauliSum, ...], strings: list[tuple[int, int]], measured: int
) -> None:
    """Refuse X and Y on qubits that the circuit measures at its end; `measured`: their mask.

    For these the values before and after the measurement differ; diagonal strings have one value.
    """
    labels = [label for item in observables for label in item.labels]
    for label, (x, _) in zip(labels, strings, strict=True):
        if x & measured:
            qubit = (x & measured).bit_length() - 1
            raise Unsupported(
                f"Pauli string {label[:64]!r} asks for X or Y on qubit {qubit}, which the circuit"
                " measures at its end",
                hint="remove the final measurement",
            )


def sampled(means: NDArray[np.float64], shots: int, key: tuple[int, int]) -> NDArray[np.float64]:
    """Mean of `shots` samples of +1 or -1 of each string, drawn by the seed contract.

    `means`: exact, float64 [strings]; `key`: seed and binding.
    """
    ups = np.zeros(len(means), np.int64)
    for first in range(0, shots, _SHOTS_AT_ONCE):
        shot_ids = np.arange(first, min(first + _SHOTS_AT_ONCE, shots))
        draws = np.empty(shot_ids.size)
        for term, mean in enumerate(means.tolist()):
            uniforms(*key, FIRST_TERM + term, shot_ids, draws)
            ups[term] += np.count_nonzero(draws < 0.5 * (1.0 + mean))
    return 2.0 * ups / shots - 1.0


def estimates(
    observables: tuple[PauliSum, ...], means: NDArray[np.float64], shots: int
) -> tuple[tuple[float, float], ...]:
    """(value, standard error) of each observable from its strings' means; shots 0: exact."""
    results: list[tuple[float, float]] = []
    at = 0
    for item in observables:
        mean = means[at : at + len(item.labels)]
        at += len(item.labels)
        value = float(item.coefficients @ mean)
        error = 0.0
        if shots:
            spread = np.maximum(0.0, 1.0 - mean * mean) / max(1, shots - 1)
            error = math.sqrt(float(item.coefficients**2 @ spread))
        results.append((value, error))
    return tuple(results)
