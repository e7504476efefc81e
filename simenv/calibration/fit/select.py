"""Choice of a prior by cross-validation inside the training part.

Folds never share a circuit body, nor (where there are enough of them) a set of qubits. They are
contiguous in the number of two-qubit gates, so that a fold is predicted from shorter or longer
circuits. A candidate is fitted by one Gauss-Newton step from the fit of all observations, with the
fold left out of the normal equations, and judged by its exact distributions on the fold: by the
mean Hellinger distance, as a ratio to that of the unchanged snapshot. (The mean loss, its square,
follows the few circuits that are predicted worst; the median loss does not see what they gain.)
Where runs lie in several date windows, candidates are compared with pooled factors of each window;
then the best one without, and with factors of each qubit in each window.
Candidates with angles, with an unknown factor of the ZZ rates, or (from `LEAST_BODIES` on) with one
of the asymmetry of readout, must have a mean loss that is lower by more than one standard error
than without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.observations import FittedCircuit
from simenv.calibration.fit.prior import Prior, PriorMatrix
from simenv.calibration.fit.solve import FitProblem, Solution, linear_solution, normal_equations

FOLDS = 4
MANY_BODIES = 100  # least number of different circuits for fits with angles
# Priors whose fits are the start of similar ones.
DEFAULT, WIDE, HEAVY = Prior(0.3, 0.1), Prior(0.3, 0.5), Prior(0.3, 0.5, heavy=True)
UNCHECKED = Prior(0.1, 0.1)  # used with too few bodies for a choice
_WIDTHS = (
    *(Prior(0.01, 0.01), Prior(0.1), Prior(0.5), Prior(0.1, 0.1)),
    *(Prior(0.5, 0.1), Prior(0.5, 0.3), Prior(0.03, 0.3), Prior(0.1, 1.0)),
    *(Prior(0.1, 0.1, heavy=True), Prior(0.1, 0.3, heavy=True), Prior(0.3, 1.0, heavy=True)),
)
CANDIDATES = tuple(
    msgspec.structs.replace(width, robust=robust) for robust in (False, True) for width in _WIDTHS
)
ANGLES = (0.01, 0.03, 0.1)  # widths of rotations, rad, with the best of the others
# Width of the factor of the ZZ rates: fits of it to counts of seven devices are between 0 and 1.
ZZ_WIDTH = 0.5
# Width of the factor of p10 - p01 around 1: the best ones for training counts of six devices,
# unfitted, are 1, 1, 1, 0.75, 0.25 and 0.
ASYMMETRY_WIDTH = 0.5


class CandidateScore(msgspec.Struct, frozen=True):
    """Loss 2 - 2 sum sqrt(p q) of one candidate on circuits that its fit did not see."""

    prior: Prior
    windows: Prior | None  # prior of the factors of each date window; None: no windows
    mean_loss: float
    median_loss: float
    ratio: float  # of the mean Hellinger distances of the fit and of the snapshot


def folds_of(observations: Sequence[FittedCircuit], qubits: Sequence[object]) -> NDArray[np.int64]:
    """Fold of each observation; all 0 with fewer than two bodies.

    `qubits`: the device's qubits of each observation.
    """
    groups = _groups(observations, qubits)
    gates: dict[int, list[int]] = {}
    for group, each in zip(groups, observations, strict=True):
        gates.setdefault(group, []).append(each.two_qubit_gates)
    order = sorted(gates, key=lambda group: (float(np.mean(gates[group])), group))
    count = min(FOLDS, len(order))
    fold = {group: rank * count // len(order) for rank, group in enumerate(order)}
    return np.array([fold[group] for group in groups], np.int64)


def _groups(observations: Sequence[FittedCircuit], qubits: Sequence[object]) -> list[int]:
    """Group number of each observation: bodies, joined if they share qubits and that leaves enough
    groups."""
    bodies = [each.body for each in observations]
    joined = _joined(bodies, qubits)
    if len(set(joined)) >= FOLDS:
        return joined
    group_of = {body: k for k, body in enumerate(dict.fromkeys(bodies))}
    return [group_of[body] for body in bodies]


class _DisjointSets:
    """Disjoint sets of the items 0 to `size` - 1, at first each alone (Cormen et al., Introduction
    to Algorithms, chapter 19)."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, item: int) -> int:
        """Representative item of an item's set."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        """Join the sets of two items; the representative is that of the second."""
        self._parent[self.root(first)] = self.root(second)


def _joined(*labels: Sequence[object]) -> list[int]:
    """Connected components of items that share a label."""
    size = len(labels[0])
    sets = _DisjointSets(size)
    for kind in labels:
        first: dict[object, int] = {}
        for item, label in enumerate(kind):
            sets.join(item, first.setdefault(label, item))
    return [sets.root(item) for item in range(size)]


def held_out_losses(
    problem: FitProblem,
    around: Solution,
    folds: NDArray[np.int64],
    prior: Prior,
    windows: Prior | None,
) -> NDArray[np.float64]:
    """Loss of each observation by the fit of the other folds; `windows`: prior of its date
    window."""
    columns = problem.columns(prior)
    shift = problem.columns(windows or prior)
    window = np.array([each.window for each in problem.observations])
    result = np.zeros(len(folds))
    for fold in range(int(folds.max()) + 1):
        inside = folds != fold
        values = columns.matrix @ _step(problem, around, inside, columns, 0.0)
        for number in np.unique(window).tolist() if windows is not None else [-1]:
            in_window = (window == number) | (number < 0)
            own = values
            if number >= 0:
                change = _step(problem, around, inside & in_window, shift, values)
                own = values + shift.matrix @ change
            held = np.flatnonzero(~inside & in_window)
            if held.size:
                result[held] = problem.losses(own, held.tolist())
    return result


def _step(
    problem: FitProblem,
    around: Solution,
    used: NDArray[np.bool_],
    columns: PriorMatrix,
    offset: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    weights = np.where(used, around.weights, 0.0)
    hessian, gradient = normal_equations(around.blocks, weights, len(problem.components))
    return linear_solution(hessian, gradient, columns, around.values, offset)


def score_of(
    prior: Prior,
    losses: NDArray[np.float64],
    snapshot: NDArray[np.float64],
    windows: Prior | None = None,
) -> CandidateScore:
    """Score of a candidate; `snapshot`: losses of the unchanged calibration."""
    mean, median = float(losses.mean()), float(np.median(losses))
    ratio = float(np.sqrt(losses).mean() / np.sqrt(snapshot).mean())
    return CandidateScore(prior, windows, mean, median, ratio)


def is_lower(plain: NDArray[np.float64], extended: NDArray[np.float64]) -> bool:
    """Return whether the mean loss with more unknowns is lower by more than a standard error of the
    difference."""
    gain = plain - extended
    return float(gain.mean()) > float(gain.std(ddof=1)) / math.sqrt(max(len(gain), 2))
