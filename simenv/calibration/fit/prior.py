"""Priors of a fit: how far a device may be from its calibration, all qubits together and each one.

A column of the matrix B is one independent unknown with a standard normal prior. Common columns
move a kind of component of all qubits or gates by the same factor; own columns move those of one
qubit or gate. Relaxation and dephasing of a qubit move together in both, and dephasing alone in a
common column.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.components import (
    DEPHASING,
    ERROR,
    P01,
    P10,
    RELAXATION,
    Component,
)

Column = tuple[str, tuple[int, ...]]  # what it moves; (): of all qubits or gates


class Prior(msgspec.Struct, frozen=True):
    """Standard deviations: of the logarithm of a factor, or of an angle in radians; 0: fixed."""

    common: float
    own: float = 0.0
    angle: float = 0.0
    robust: bool = False  # the weights of observations are, see `solve.weights_of`

    @property
    def text(self) -> str:
        """In words, for reports."""
        words = [f"common {self.common:g}"]
        words += [f"own {self.own:g}"] if self.own else []
        words += [f"angles {self.angle:g} rad"] if self.angle else []
        words += ["robust"] if self.robust else []
        return ", ".join(words)


class PriorMatrix:
    """The columns of a prior for the components that circuits use."""

    def __init__(self, prior: Prior, components: Sequence[Component]) -> None:
        self.prior = prior
        columns: dict[Column, None] = {}
        for component in components:
            for column, _ in self._entries(component):
                columns[column] = None
        self.columns = tuple(sorted(columns))
        self.matrix = self.extended(components)

    def extended(self, components: Sequence[Component]) -> NDArray[np.float64]:
        """B for any components; own columns of others than the fitted ones do not exist."""
        place = {column: k for k, column in enumerate(self.columns)}
        found = np.zeros((len(components), len(place)))
        for row, component in enumerate(components):
            for column, width in self._entries(component):
                if column in place:
                    found[row, place[column]] = width
        return found

    def _entries(self, component: Component) -> list[tuple[Column, float]]:
        common, own, angle = self.prior.common, self.prior.own, self.prior.angle
        kind, qubits = component.kind, component.qubits
        found: list[tuple[Column, float]]
        if not qubits:
            found = [((kind, ()), common)]
            if kind == DEPHASING:
                found.append(((RELAXATION, ()), common))
            return [(column, width) for column, width in found if width]
        if component.is_angle:
            found = [((f"{kind} {component.gate}", qubits), angle)]
        elif kind in (RELAXATION, DEPHASING):
            found = [((RELAXATION, ()), common), ((RELAXATION, qubits), own)]
            if kind == DEPHASING:
                found.append(((DEPHASING, ()), common))
        elif kind in (P01, P10):
            found = [((kind, ()), common), ((kind, qubits), own)]
        elif kind == ERROR and len(qubits) == 1:
            found = [((f"{ERROR} 1", ()), common)]
        else:
            found = [((f"{ERROR} 2", ()), common), ((f"{ERROR} 2", qubits), own)]
        return [(column, width) for column, width in found if width]
