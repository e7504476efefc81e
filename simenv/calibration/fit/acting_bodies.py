"""Evidence of the unknowns of a fit: the circuit bodies in which each acts.

A body says something about an unknown if a change of it changes the distributions of the body's
circuits. Its weight is the Fisher information of the unknown at the calibration, of all shots of
the body; bodies with less than LEAST_PART of the largest weight count as none, since a body with
long circuits would decide alone. Of gates and relaxation, only what no errors of readout explain in
all bodies together is information: preparations of basis states count for readout errors, and not
for the gates by which they are prepared.

An unknown with too few bodies is held at the calibration (`least_bodies`): what only one body shows
cannot be left out and found again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit import components as fit_parts

Column = tuple[str, tuple[int, ...]]  # kind of component, and its qubits; (): all qubits or gates
LEAST_BODIES = 10  # of an unknown of a pair of qubits, and of a fit that is judged by CONFIDENCE
LEAST_SHARED = 2  # of other unknowns: of a qubit, of its readout, and of all pairs together
LEAST_PART = 0.01  # of the largest information of one body
_PAIRWISE = (fit_parts.JOINT, fit_parts.ZZ)


def least_bodies(column: Column) -> int:
    """Number of bodies that an unknown needs: rotations, joint flips, ZZ rates and errors of one
    pair are those of a pair; the factor of the errors of all pairs is not."""
    kind, qubits = column
    is_angle = " " in kind and not kind.startswith(f"{fit_parts.ERROR} ")
    is_pairwise = is_angle or kind in _PAIRWISE or len(qubits) == 2
    return LEAST_BODIES if is_pairwise else LEAST_SHARED


class ActingBodies:
    """Number of bodies in which unknowns act, from the information of each about components."""

    def __init__(
        self,
        bodies: Sequence[str],
        params: Sequence[NDArray[np.int64]],
        information: Sequence[NDArray[np.float64]],
        is_readout: NDArray[np.bool_],
    ) -> None:
        """Set up. Of each observation: its body, its components and their Fisher information,
        [k, k]. `is_readout` [components]: errors of readout."""
        self._is_readout = is_readout
        self.lacking: frozenset[fit_parts.Component] = frozenset()  # that stay 0
        self._bodies = np.unique(np.array(bodies, str), return_inverse=True)[1]
        self._params, self._information = params, information
        self._known: dict[Column, int] = {}

    @property
    def is_known(self) -> bool:
        """True if there are several bodies, so that one can be left out."""
        return len(np.unique(self._bodies)) > 1

    def counts(self, columns: Sequence[Column], matrix: NDArray[np.float64]) -> list[int]:
        """Number of bodies of each column; `matrix` [components, columns]: what it changes."""
        new = [k for k, column in enumerate(columns) if column not in self._known]
        if new:
            found = self._of(matrix[:, new])
            self._known.update((columns[k], n) for k, n in zip(new, found, strict=True))
        return [self._known[column] for column in columns]

    def of_components(self, count: int) -> list[int]:
        """Number of bodies of each of so many components."""
        return self._of(np.eye(count))

    def _of(self, matrix: NDArray[np.float64]) -> list[int]:
        matrix = self._beyond_readout(matrix)
        scale = np.maximum(np.abs(matrix).max(axis=0, initial=0.0), 1e-300)
        weights = np.zeros((int(self._bodies.max(initial=0)) + 1, matrix.shape[1]))
        rows = zip(self._bodies.tolist(), self._params, self._information, strict=True)
        for body, params, information in rows:
            part = matrix[params] / scale
            weights[body] += np.einsum("kc,kl,lc->c", part, information, part, optimize=True)
        largest = weights.max(axis=0, initial=0.0)
        acts = (weights > LEAST_PART * largest) & (largest > 1e-9)
        return [int(each) for each in acts.sum(axis=0)]

    def _beyond_readout(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Changes without the part that errors of readout explain, by least squares over all
        observations; those of errors of readout as they are."""
        place = np.cumsum(self._is_readout) - 1
        size = int(self._is_readout.sum())
        own, mixed = np.zeros((size, size)), np.zeros((size, matrix.shape[1]))
        for params, information in zip(self._params, self._information, strict=True):
            read = self._is_readout[params]
            rows = place[params[read]]
            own[np.ix_(rows, rows)] += information[np.ix_(read, read)]
            mixed[rows] += information[read] @ matrix[params]
        explained = np.linalg.pinv(own, rcond=1e-9, hermitian=True) @ mixed
        result = matrix.copy()
        others = ~matrix[self._is_readout].any(axis=0)
        result[np.ix_(self._is_readout, others)] = -explained[:, others]
        return result
