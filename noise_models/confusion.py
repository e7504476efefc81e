"""Confusion of measured qubits: independent and together, with the factors of noise options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from noise_models import channel as channels
from noise_models.options import NoiseOptions


def independent_confusion(flips: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the confusion matrix of qubits that are read independently, with p01 and p10 [qubits,
    2]; the first one is bit 0."""
    result = np.ones((1, 1))
    for p01, p10 in flips:
        result = np.kron(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]), result)
    return result


def scaled_readout(
    measured: NDArray[np.float64],
    together: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]],
    options: NoiseOptions,
) -> channels.Readout | None:
    """Build the readout from measured flips and groups, with the factors of the options.
    `measured`: p01 and p10, [qubits, 2]. `together`: (qubit numbers, confusion) of each group. A
    factor of `qubit.correlated_readout` below 1 mixes the confusion of a group with that of
    independent qubits."""
    factor = options.factor("qubit.readout")
    share = min(options.factor("qubit.correlated_readout"), 1.0)
    flips = np.minimum(measured * factor, 1.0)
    groups = []
    for qubits, confusion in together if share > 0.0 and factor > 0.0 else ():
        apart = independent_confusion(measured[list(qubits)])
        mixed = scaled_confusion(share * confusion + (1.0 - share) * apart, factor)
        groups.append(channels.ReadoutGroup(qubits, mixed))
    result = channels.Readout(flips[:, 0].copy(), flips[:, 1].copy(), tuple(groups))
    return None if result.is_exact else result


def scaled_confusion(confusion: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return 1 + factor (C - 1), with the sum of the wrong outcomes of each column limited to 1."""
    wrong = confusion * factor
    np.fill_diagonal(wrong, 0.0)
    total = wrong.sum(axis=0)
    wrong /= np.maximum(total, 1.0)
    np.fill_diagonal(wrong, 1.0 - wrong.sum(axis=0))
    return wrong
