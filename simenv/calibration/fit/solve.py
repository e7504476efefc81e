"""Priors of a fit and its solution by Gauss-Newton.

A prior gives the widths of the deviation of a device from its calibration, common and for each
qubit (`Prior`, `PriorMatrix`). The components are v = B z with independent standard normal z, so
that the columns of the matrix B hold the prior's widths.

`solve` minimises sum w r^2 + |z|^2, with the residuals r of `judge`, by Gauss-Newton with damping,
or the logarithm of Student's distribution in place of |z|^2 (`PriorMatrix.penalty`). (Nocedal and
Wright, Numerical Optimization, second edition, sections 10.2 and 10.3.) The weight w is the inverse
of the variance of sqrt(q), 1/(4 shots), plus that of the model, which `fit` estimates from the
residuals (`weights_of`), again after each few steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration import judge
from simenv.calibration.fit import components as fit_components
from simenv.calibration.fit.acting_bodies import LEAST_BODIES, ActingBodies, Column, least_bodies
from simenv.calibration.fit.observations import Distributions, FittedCircuit

FREEDOM = 2.0  # degrees of freedom of Student's distribution
_OWN_KINDS = (
    fit_components.RELAXATION,
    fit_components.P01,
    fit_components.P10,
    f"{fit_components.ERROR} 2",
)
COMMON_WIDTH = 0.5  # standard deviation of the logarithm of a factor that all qubits share
_LEAST_OWN = 3  # number of qubits or pairs whose median says something about the others


class Prior(msgspec.Struct, frozen=True):
    """Standard deviations of the logarithm of a factor, or of an angle in radians; 0: fixed."""

    common: float
    own: float = 0.0
    dephasing: float = 0.0  # own, of the dephasing of a qubit apart from its relaxation
    angle: float = 0.0
    angle_common: float = 0.0  # of an angle that all gates of a name on two qubits share
    robust: bool = False  # robust weights of observations, see `weights_of`
    heavy: bool = False  # own unknowns have Student's distribution with FREEDOM degrees
    zz: float = 0.0  # standard deviation of the factor of all ZZ rates; 0: fixed
    asymmetry: float = 0.0  # the same, of the factor of p10 - p01
    quasistatic: float = 0.0  # of the logarithm of the factor of all detunings
    added: float = 0.0  # of the probability added to each readout error of all qubits
    joint: float = 0.0  # of the probability of a joint flip of two records, common to all pairs
    joint_own: float = 0.0  # the same, of each pair
    # Of a day's values: only these unknowns, each with its own factor of the width; (): all.
    days: tuple[tuple[Column, float], ...] = ()

    @property
    def text(self) -> str:
        """Description for reports."""
        if self.days:
            return ", ".join(
                f"{' '.join((kind, *map(str, on)))} {width:.3g}" for (kind, on), width in self.days
            )
        parts = [f"common {self.common:g}"]
        parts += [f"own {self.own:g}"] if self.own else []
        parts += [f"own dephasing {self.dephasing:g}"] if self.dephasing else []
        parts += [f"angles {self.angle:g} rad"] if self.angle else []
        parts += [f"common angles {self.angle_common:g} rad"] if self.angle_common else []
        parts += [f"ZZ {self.zz:g}"] if self.zz else []
        parts += [f"detunings {self.quasistatic:g}"] if self.quasistatic else []
        parts += [f"asymmetry {self.asymmetry:g}"] if self.asymmetry else []
        parts += [f"added readout error {self.added:g}"] if self.added else []
        parts += [f"joint flips {self.joint:g}"] if self.joint else []
        parts += [f"joint flips of each pair {self.joint_own:g}"] if self.joint_own else []
        parts += ["heavy tails"] if self.heavy else []
        parts += ["robust"] if self.robust else []
        return ", ".join(parts)


class PriorMatrix:
    """Columns of a prior for the components that circuits use.

    A column of the matrix B is one independent unknown with a standard normal prior. Common columns
    change a kind of component of all qubits or gates by the same factor; own columns change those
    of one qubit or gate. Relaxation and dephasing of a qubit change together in both, and dephasing
    alone in further columns.
    """

    def __init__(
        self,
        prior: Prior,
        components: Sequence[fit_components.Component],
        placed: Collection[int] = (),
        acting: ActingBodies | None = None,
    ) -> None:
        """Build the columns. `placed`: qubits that the compiler chose. They and their pairs have no
        own unknown, because the measured circuits ran on other qubits of the device. `acting`: the
        bodies in which each acts; those with too few are left out."""
        self.prior = prior
        self._days = dict(prior.days)
        self._lacking = frozenset() if acting is None else acting.lacking
        columns: dict[Column, None] = {}
        for component in components:
            own = not any(qubit in placed for qubit in component.qubits)
            for column, _ in self._entries(component):
                if own or not column[1]:
                    columns[column] = None
        self.columns = tuple(sorted(columns))
        self.matrix = self.extended(components)
        if acting is not None:
            counts = acting.counts(self.columns, self.matrix)
            least = [least_bodies(column) for column in self.columns]
            keep = [k for k, (n, m) in enumerate(zip(counts, least, strict=True)) if n >= m]
            self.columns = tuple(self.columns[k] for k in keep)
            self.matrix = self.matrix[:, keep]
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

    def extended(self, components: Sequence[fit_components.Component]) -> NDArray[np.float64]:
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
        components: Sequence[fit_components.Component],
        fitted: Collection[fit_components.Component],
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

    def _entries(self, component: fit_components.Component) -> list[tuple[Column, float]]:
        if component in self._lacking:
            return []
        common, own, angle = self.prior.common, self.prior.own, self.prior.angle
        kind, qubits = component.kind, component.qubits
        results: list[tuple[Column, float]]
        if kind == fit_components.ZZ:
            results = [((fit_components.ZZ, ()), self.prior.zz)]
            results += [((fit_components.ZZ, qubits), self.prior.zz * own)] if qubits else []
        elif kind == fit_components.ASYMMETRY:
            results = [((fit_components.ASYMMETRY, ()), self.prior.asymmetry)]
        elif kind == fit_components.QUASISTATIC:
            results = [((kind, ()), self.prior.quasistatic)]
        elif kind in fit_components.ADDED.values():
            results = [((kind, ()), self.prior.added)]
        elif kind == fit_components.JOINT:
            results = [((kind, ()), self.prior.joint), ((kind, qubits), self.prior.joint_own)]
        elif not qubits:
            results = [((kind, ()), common)]
            if kind == fit_components.DEPHASING:
                results.append(((fit_components.RELAXATION, ()), common))
        elif component.is_angle:
            name = f"{kind} {component.gate}"
            shared = self.prior.angle_common if len(qubits) == 2 else 0.0
            results = [((name, ()), shared), ((name, qubits), angle)]
        elif kind in (fit_components.RELAXATION, fit_components.DEPHASING):
            results = [
                ((fit_components.RELAXATION, ()), common),
                ((fit_components.RELAXATION, qubits), own),
            ]
            if kind == fit_components.DEPHASING:
                alone = fit_components.DEPHASING
                results += [((alone, ()), common), ((alone, qubits), self.prior.dephasing)]
        elif kind in (fit_components.P01, fit_components.P10):
            results = [((kind, ()), common), ((kind, qubits), own)]
        elif kind == fit_components.ERROR and len(qubits) == 1:
            results = [((f"{fit_components.ERROR} 1", ()), common)]
        else:
            results = [
                ((f"{fit_components.ERROR} 2", ()), common),
                ((f"{fit_components.ERROR} 2", qubits), own),
            ]
        if self._days:
            results = [(each, width * self._days.get(each, 0.0)) for each, width in results]
        return [(column, width) for column, width in results if width]


def _own_kind(component: fit_components.Component) -> str:
    """Kind of the own column of a component; "": it has none."""
    if component.is_angle:
        return ""
    if component.kind == fit_components.ERROR:
        return f"{fit_components.ERROR} 2" if len(component.qubits) == 2 else ""
    is_dephasing = component.kind == fit_components.DEPHASING
    return fit_components.RELAXATION if is_dephasing else component.kind


def _shrunk_median(values: Sequence[float], width2: float) -> float:
    """Median of changes of single qubits times n w^2 / (n w^2 + s^2): the posterior mean of their
    common change with the prior variance w^2 = `width2`, if they scatter by s."""
    if len(values) < _LEAST_OWN or not width2:
        return 0.0
    common = len(values) * width2
    return float(np.median(values)) * common / (common + float(np.var(values, ddof=1)))


MOST_STEPS = 20
_ENOUGH = 1e-4  # relative change of the cost
_PRECISION_STEPS = 8  # iterations of the weights of a heavy-tailed prior


class NormalBlock(msgspec.Struct, frozen=True, eq=False):
    """Part of one observation in the normal equations, at one value of the components."""

    loss: float  # of `judge`
    params: NDArray[np.int64]  # [k] its components
    gradient: NDArray[np.float64]  # [k] J^T r
    hessian: NDArray[np.float64]  # [k, k] J^T J
    by_shots: NDArray[np.float64]  # [k, k] variance of J^T r by shot noise
    num_outcomes: float  # whose sqrt(q) would have the same variance if each had many counts


class FitProblem(msgspec.Struct, frozen=True, eq=False):
    """Observations of a device whose components are unknown."""

    distributions: Distributions
    components: tuple[fit_components.Component, ...]
    observations: tuple[FittedCircuit, ...]
    acting: ActingBodies | None = None  # of the unknowns, in all observations; None: not counted

    def with_acting(self) -> FitProblem:
        """Problem whose unknowns each act in enough bodies. Rotations and joint flips of a pair
        without them stay 0: no unknown that other pairs share says how large they are."""
        blocks = self.blocks(np.zeros(len(self.components)))
        shots = [each.shots for each in self.observations]
        acting = ActingBodies(
            [each.body for each in self.observations],
            [block.params for block in blocks],
            [4.0 * n * block.hessian for n, block in zip(shots, blocks, strict=True)],
            np.array([each.kind in fit_components.READ for each in self.components], bool),
        )
        if not acting.is_known:
            return self
        counts = acting.of_components(len(self.components))
        acting.lacking = frozenset(
            each
            for each, count in zip(self.components, counts, strict=True)
            if count < LEAST_BODIES and (each.is_angle or each.kind == fit_components.JOINT)
        )
        return msgspec.structs.replace(self, acting=acting)

    def columns(self, prior: Prior) -> PriorMatrix:
        """Unknowns of a prior. If the qubits of some circuits are given, qubits that the compiler
        chose for other circuits have no own unknowns."""
        fixed = {
            qubit
            for each in self.observations
            if not each.was_placed
            for qubit in self.distributions.programs[each.place].qubits
        }
        used = {qubit for component in self.components for qubit in component.qubits}
        placed = used - fixed if fixed else ()
        return PriorMatrix(prior, self.components, placed, self.acting)

    def part(self, places: Sequence[int]) -> FitProblem:
        """Problem with some of the observations."""
        return FitProblem(
            self.distributions,
            self.components,
            tuple(self.observations[k] for k in places),
            self.acting,
        )

    def blocks(self, values: NDArray[np.float64]) -> list[NormalBlock]:
        """Normal equations of all observations at these values."""
        places = [each.place for each in self.observations]
        channels = self.distributions.channels(places, self.components, values, derivatives=True)
        built = self.distributions.outcomes(places, channels)
        blocks = []
        for each in self.observations:
            outcome = built[each.place]
            rest, slope = judge.residual(outcome.probabilities, each.frequencies, each.shots)
            jacobian = outcome.jacobian * slope[:, None]
            variance = judge.root_variance(outcome.probabilities, each.shots)
            blocks.append(
                NormalBlock(
                    float(rest @ rest),
                    np.array(outcome.params, np.int64),
                    jacobian.T @ rest,
                    jacobian.T @ jacobian,
                    (jacobian.T * variance) @ jacobian,
                    float(variance.sum()) / (0.25 / each.shots),
                )
            )
        return blocks

    def losses(
        self, values: NDArray[np.float64], among: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Loss (`judge`) of each observation, or of those in `among`."""
        chosen = self.observations if among is None else [self.observations[k] for k in among]
        places = [each.place for each in chosen]
        channels = self.distributions.channels(places, self.components, values, derivatives=False)
        built = self.distributions.outcomes(places, channels)
        return np.array(
            [
                judge.loss(built[each.place].probabilities, each.frequencies, each.shots)
                for each in chosen
            ]
        )


def normal_equations(
    blocks: Sequence[NormalBlock], weights: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums of the blocks: hessian [size, size] and gradient [size]."""
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    for block, weight in zip(blocks, weights.tolist(), strict=True):
        if weight:
            hessian[np.ix_(block.params, block.params)] += weight * block.hessian
            gradient[block.params] += weight * block.gradient
    return hessian, gradient


def linear_solution(
    hessian: NDArray[np.float64],
    gradient: NDArray[np.float64],
    prior: PriorMatrix,
    at: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Latent values z that minimise the cost with the residuals linearised at `at`."""
    columns = prior.matrix
    matrix = columns.T @ hessian @ columns
    right = columns.T @ (hessian @ (at - offset) - gradient)
    result: NDArray[np.float64] = np.zeros(len(right))
    for _ in range(_PRECISION_STEPS if prior.prior.heavy else 1):
        result = np.asarray(np.linalg.solve(matrix + np.diag(prior.precision(result)), right))
    return result


class Solution(msgspec.Struct, frozen=True, eq=False):
    """Values of the components at the least cost, and the normal equations there. `weights`
    [observations]: weights of this fit."""

    values: NDArray[np.float64]
    latent: NDArray[np.float64]
    cost: float
    steps: int
    blocks: list[NormalBlock]
    weights: NDArray[np.float64]


def solve(
    problem: FitProblem,
    prior: PriorMatrix,
    weights: NDArray[np.float64],
    start: NDArray[np.float64] | None = None,
    offset: NDArray[np.float64] | float = 0.0,
    *,
    max_steps: int = MOST_STEPS,
    blocks: list[NormalBlock] | None = None,
) -> Solution:
    """Minimise the cost in at most `max_steps` steps; `weights` [observations]. `start`: latent
    values, with their `blocks` if known; `offset`: values of the components at latent 0."""
    columns = prior.matrix
    latent = np.zeros(columns.shape[1]) if start is None else start
    if blocks is None:
        blocks = problem.blocks(offset + columns @ latent)
    cost = _cost(blocks, weights, prior.penalty(latent))
    damping, steps = 0.0, 0
    while steps < max_steps:
        steps += 1
        hessian, gradient = normal_equations(blocks, weights, len(columns))
        precision = prior.precision(latent)
        matrix = columns.T @ hessian @ columns + np.diag(precision)
        slope = columns.T @ gradient + precision * latent
        step = -np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), slope)
        tried = problem.blocks(offset + columns @ (latent + step))
        lower = _cost(tried, weights, prior.penalty(latent + step))
        if lower < cost:
            gain, cost, latent, blocks = cost - lower, lower, latent + step, tried
            damping = damping / 10.0 if damping > 1e-3 else 0.0
            if gain <= _ENOUGH * max(cost, 1.0):
                break
        elif float(np.abs(step).max(initial=0.0)) < 1e-6 or damping > 1e6:
            break
        else:
            damping = max(10.0 * damping, 1e-2)
    return Solution(offset + columns @ latent, latent, cost, steps, blocks, weights)


def _cost(blocks: Sequence[NormalBlock], weights: NDArray[np.float64], penalty: float) -> float:
    losses = np.array([block.loss for block in blocks])
    return float(weights @ losses) + penalty


def weights_of(
    observations: Sequence[FittedCircuit], blocks: Sequence[NormalBlock], *, robust: bool
) -> NDArray[np.float64]:
    """Inverse variance of an outcome's residual in each observation: shot noise plus the model's
    error, estimated from the squared residuals at the best fit so far.

    The model's error is the same for all observations, their mean. With `robust` it is that of each
    observation, but at least the median: the cost is then that of residuals with a Cauchy
    distribution, for which a circuit that no parameters can explain counts little.
    """
    seen = np.array([max(block.num_outcomes, 1.0) for block in blocks])
    noise = np.array([0.25 / each.shots for each in observations])
    losses = np.array([block.loss for block in blocks])
    excess = losses / seen - noise
    if robust:
        excess = np.maximum(excess, 0.0)
        return np.asarray(1.0 / (noise + float(np.median(excess)) + excess))
    return np.asarray(1.0 / (noise + max(float((excess * seen).sum() / seen.sum()), 0.0)))


_STEPS = (2, 2, 8)  # of a fit; new weights before each


def fit(problem: FitProblem, prior: Prior, latent: NDArray[np.float64] | None = None) -> Solution:
    """Fit with one prior; the weights follow from the residuals of the previous fit."""
    columns = problem.columns(prior)
    start = np.zeros(len(columns.columns)) if latent is None else latent
    blocks = problem.blocks(columns.matrix @ start)
    for max_steps in _STEPS:
        weights = weights_of(problem.observations, blocks, robust=prior.robust)
        result = solve(problem, columns, weights, start, max_steps=max_steps, blocks=blocks)
        start, blocks = result.latent, result.blocks
    return result
