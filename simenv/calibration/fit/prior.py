"""Priors of a fit: widths of the deviation of a device from its calibration, common and for each
qubit.

A column of the matrix B is one independent unknown with a standard normal prior. Common columns
change a kind of component of all qubits or gates by the same factor; own columns change those of
one qubit or gate. Relaxation and dephasing of a qubit change together in both, and dephasing alone
in a common column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.components import (
    ASYMMETRY,
    DEPHASING,
    ERROR,
    P01,
    P10,
    RELAXATION,
    ZZ,
    Component,
)

FREEDOM = 2.0  # degrees of freedom of Student's distribution
Column = tuple[str, tuple[int, ...]]  # kind of component, and its qubits; (): all qubits or gates


_OWN_KINDS = (RELAXATION, P01, P10, f"{ERROR} 2")
COMMON_WIDTH = 0.5  # standard deviation of the logarithm of a factor that all qubits share
_LEAST_OWN = 3  # number of qubits or pairs whose median says something about the others


class Prior(msgspec.Struct, frozen=True):
    """Standard deviations of the logarithm of a factor, or of an angle in radians; 0: fixed."""

    common: float
    own: float = 0.0
    angle: float = 0.0
    robust: bool = False  # robust weights of observations, see `solve.weights_of`
    heavy: bool = False  # own unknowns have Student's distribution with FREEDOM degrees
    zz: float = 0.0  # standard deviation of the factor of all ZZ rates; 0: fixed
    asymmetry: float = 0.0  # the same, of the factor of p10 - p01

    @property
    def text(self) -> str:
        """Description for reports."""
        parts = [f"common {self.common:g}"]
        parts += [f"own {self.own:g}"] if self.own else []
        parts += [f"angles {self.angle:g} rad"] if self.angle else []
        parts += [f"ZZ {self.zz:g}"] if self.zz else []
        parts += [f"asymmetry {self.asymmetry:g}"] if self.asymmetry else []
        parts += ["heavy tails"] if self.heavy else []
        parts += ["robust"] if self.robust else []
        return ", ".join(parts)


class PriorMatrix:
    """Columns of a prior for the components that circuits use."""

    def __init__(
        self,
        prior: Prior,
        components: Sequence[Component],
        placed: Collection[int] = (),
    ) -> None:
        """Build the columns. `placed`: qubits that the compiler chose. They and their pairs have no
        own unknown, because the measured circuits ran on other qubits of the device."""
        self.prior = prior
        columns: dict[Column, None] = {}
        for component in components:
            own = not any(qubit in placed for qubit in component.qubits)
            for column, _ in self._entries(component):
                if own or not column[1]:
                    columns[column] = None
        self.columns = tuple(sorted(columns))
        self.matrix = self.extended(components)
        self._heavy = np.array([prior.heavy and bool(qubits) for _, qubits in self.columns], bool)

    def precision(self, latent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight of each squared unknown: 1, or that of Student's distribution at these values (the
        parabola that touches its logarithm there; Lange et al., JASA 84, 881, 1989)."""
        heavy = (FREEDOM + 1.0) / (FREEDOM + latent**2)
        return np.where(self._heavy, heavy, 1.0)

    def penalty(self, latent: NDArray[np.float64]) -> float:
        """Twice the negative logarithm of the prior, minus its value at 0."""
        square = latent**2
        heavy = (FREEDOM + 1.0) * np.log1p(square / FREEDOM)
        return float(np.where(self._heavy, heavy, square).sum())

    def extended(self, components: Sequence[Component]) -> NDArray[np.float64]:
        """Matrix B for any components; there are own columns for fitted components only."""
        place = {column: k for k, column in enumerate(self.columns)}
        result = np.zeros((len(components), len(place)))
        for row, component in enumerate(components):
            for column, width in self._entries(component):
                if column in place:
                    result[row, place[column]] = width
        return result

    def carried_over(
        self,
        components: Sequence[Component],
        fitted: Collection[Component],
        latent: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Change of the components that no circuit of the fit has, in addition to the common
        columns: for each kind the median of the own changes, shrunk by their scatter. A narrow
        prior leaves them a change that all qubits share."""
        own: dict[str, list[float]] = {}
        for (kind, qubits), value in zip(self.columns, latent.tolist(), strict=True):
            if qubits and kind in _OWN_KINDS:
                own.setdefault(kind, []).append(self.prior.own * value)
        width2 = max(COMMON_WIDTH**2 - self.prior.common**2, 0.0)
        medians = {kind: _shrunk_median(values, width2) for kind, values in own.items()}
        with_data = set(fitted)
        return np.array(
            [0.0 if each in with_data else medians.get(_own_kind(each), 0.0) for each in components]
        )

    def _entries(self, component: Component) -> list[tuple[Column, float]]:
        common, own, angle = self.prior.common, self.prior.own, self.prior.angle
        kind, qubits = component.kind, component.qubits
        results: list[tuple[Column, float]]
        if kind == ZZ:
            results = [((ZZ, ()), self.prior.zz)]
            results += [((ZZ, qubits), self.prior.zz * own)] if qubits else []
        elif kind == ASYMMETRY:
            results = [((ASYMMETRY, ()), self.prior.asymmetry)]
        elif not qubits:
            results = [((kind, ()), common)]
            results += [((RELAXATION, ()), common)] if kind == DEPHASING else []
        elif component.is_angle:
            results = [((f"{kind} {component.gate}", qubits), angle)]
        elif kind in (RELAXATION, DEPHASING):
            results = [((RELAXATION, ()), common), ((RELAXATION, qubits), own)]
            if kind == DEPHASING:
                results.append(((DEPHASING, ()), common))
        elif kind in (P01, P10):
            results = [((kind, ()), common), ((kind, qubits), own)]
        elif kind == ERROR and len(qubits) == 1:
            results = [((f"{ERROR} 1", ()), common)]
        else:
            results = [((f"{ERROR} 2", ()), common), ((f"{ERROR} 2", qubits), own)]
        return [(column, width) for column, width in results if width]


def _own_kind(component: Component) -> str:
    """Kind of the own column of a component; "": it has none."""
    if component.is_angle:
        return ""
    if component.kind == ERROR:
        return f"{ERROR} 2" if len(component.qubits) == 2 else ""
    return RELAXATION if component.kind == DEPHASING else component.kind


def _shrunk_median(values: Sequence[float], width2: float) -> float:
    """Median of changes of single qubits times n w^2 / (n w^2 + s^2): the posterior mean of their
    common change with the prior variance w^2 = `width2`, if they scatter by s."""
    if len(values) < _LEAST_OWN or not width2:
        return 0.0
    common = len(values) * width2
    return float(np.median(values)) * common / (common + float(np.var(values, ddof=1)))
