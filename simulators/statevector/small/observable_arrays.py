"""Observables of a request as flat arrays for compiled code."""

from __future__ import annotations

import numpy as np

from simulators.compiler.simd import LANES
from simulators.engine import PauliSum
from simulators.execution import pauli_sums


class ObservableArrays:
    """Strings of a list of observables in the form of the kernel."""

    def __init__(self, observables: tuple[PauliSum, ...], num_qubits: int) -> None:
        terms = pauli_sums.terms(observables, num_qubits)
        factors = [1j ** ((x & z).bit_count() % 4) for x, z in terms]
        sizes = [len(item.labels) for item in observables]
        self.observables = observables
        self.num_qubits = num_qubits
        self.masks = np.array(terms, np.uint64).reshape(-1, 2)
        self.factors = np.array([(f.real, -f.imag) for f in factors]).reshape(-1, 2)
        self.coefficients = np.concatenate([np.zeros(0), *[o.coefficients for o in observables]])
        self.ends = np.cumsum([0, *sizes])
        self.means = np.empty(LANES * len(terms))
