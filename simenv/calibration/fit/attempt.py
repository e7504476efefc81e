"""An attempt of a fit: date windows, the choice of a prior, and the fit on one base."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.accept import LEAST_BODIES
from simenv.calibration.data import CountsData, CountsRecord, DataError
from simenv.calibration.fit import (
    components as fit_components,
    observations as fit_observations,
    solve as fit_solve,
)
from simenv.calibration.fit.components import ASYMMETRY
from simenv.calibration.fit.observations import MAX_QUBITS

# Choice of a prior by cross-validation inside the training part.
#
# Folds never share a circuit body, nor (where there are enough of them) a set of qubits. They are
# contiguous in the number of two-qubit gates, so that a fold is predicted from shorter or longer
# circuits. A candidate is fitted by one Gauss-Newton step from the fit of all observations, with
# the fold left out of the normal equations, and judged by its exact distributions on the fold: by
# the mean Hellinger distance, as a ratio to that of the unchanged snapshot. (The mean loss, its
# square, follows the few circuits that are predicted worst; the median loss does not see what they
# gain.) Where runs lie in several date windows, candidates are compared with pooled factors of each
# window; then the best one without, and with factors of each qubit in each window. Candidates with
# angles, with an unknown factor of the ZZ rates, or (from `LEAST_BODIES` on) with one of the
# asymmetry of readout, must have a mean loss that is lower by more than one standard error than
# without.

FOLDS = 4
MANY_BODIES = 100  # least number of different circuits for fits with angles
# Priors whose fits are the start of similar ones.
DEFAULT, WIDE, HEAVY = (
    fit_solve.Prior(0.3, 0.1),
    fit_solve.Prior(0.3, 0.5),
    fit_solve.Prior(0.3, 0.5, heavy=True),
)
UNCHECKED = fit_solve.Prior(0.1, 0.1)  # used with too few bodies for a choice
_WIDTHS = (
    *(
        fit_solve.Prior(0.01, 0.01),
        fit_solve.Prior(0.1),
        fit_solve.Prior(0.5),
        fit_solve.Prior(0.1, 0.1),
    ),
    *(
        fit_solve.Prior(0.5, 0.1),
        fit_solve.Prior(0.5, 0.3),
        fit_solve.Prior(0.03, 0.3),
        fit_solve.Prior(0.1, 1.0),
    ),
    *(
        fit_solve.Prior(0.1, 0.1, heavy=True),
        fit_solve.Prior(0.1, 0.3, heavy=True),
        fit_solve.Prior(0.3, 1.0, heavy=True),
    ),
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

    prior: fit_solve.Prior
    windows: fit_solve.Prior | None  # prior of the factors of each date window; None: no windows
    mean_loss: float
    median_loss: float
    ratio: float  # of the mean Hellinger distances of the fit and of the snapshot


def folds_of(
    observations: Sequence[fit_observations.FittedCircuit], qubits: Sequence[object]
) -> NDArray[np.int64]:
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


def _groups(
    observations: Sequence[fit_observations.FittedCircuit], qubits: Sequence[object]
) -> list[int]:
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
    problem: fit_solve.FitProblem,
    around: fit_solve.Solution,
    folds: NDArray[np.int64],
    prior: fit_solve.Prior,
    windows: fit_solve.Prior | None,
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
    problem: fit_solve.FitProblem,
    around: fit_solve.Solution,
    used: NDArray[np.bool_],
    columns: fit_solve.PriorMatrix,
    offset: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    weights = np.where(used, around.weights, 0.0)
    hessian, gradient = fit_solve.normal_equations(around.blocks, weights, len(problem.components))
    return fit_solve.linear_solution(hessian, gradient, columns, around.values, offset)


def score_of(
    prior: fit_solve.Prior,
    losses: NDArray[np.float64],
    snapshot: NDArray[np.float64],
    windows: fit_solve.Prior | None = None,
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


# Date windows: runs that are close in time, each window with its own calibration.
#
# The components of a window differ from the common ones by factors with their own prior.

GAP_S = 3 * 86_400.0  # gap without runs between two windows
LEAST_CIRCUITS = 4  # circuits of a window
# Priors of a window's factors around the common ones: pooled, or also for each qubit and pair.
POOLED_SHIFT, OWN_SHIFT = fit_solve.Prior(0.3), fit_solve.Prior(0.3, 0.5, heavy=True)


class FittedWindow(msgspec.Struct, frozen=True, eq=False):
    """Values of one window; it begins at `begin_s` and ends where the next one begins."""

    begin_s: float
    latent: NDArray[np.float64]
    values: NDArray[np.float64]


def window_starts(records: Sequence[CountsRecord]) -> list[float]:
    """Begins of the windows, seconds since 1970; [] if a time is unknown."""
    dated = [each for each in records if each.time_s == each.time_s]
    if len(dated) < len(records) or not dated:
        return []
    results: list[float] = []
    circuits: set[tuple[str, int]] = set()
    last_s = -np.inf
    for each in sorted(dated, key=lambda record: record.time_s):
        if each.time_s - last_s > GAP_S and (not results or len(circuits) >= LEAST_CIRCUITS):
            results.append(each.time_s)
            circuits = set()
        circuits.add((each.source.text, each.level))
        last_s = each.time_s
    if len(results) > 1 and len(circuits) < LEAST_CIRCUITS:
        results.pop()
    return results


def windows_of(records: Sequence[CountsRecord], starts: Sequence[float]) -> list[int]:
    """Window of each record; 0 for those before the first one."""
    if not starts:
        return [0] * len(records)
    times = [each.time_s for each in records]
    results: list[int] = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0).tolist()
    return results


# An attempt: a fit on one base, with its prior chosen by cross-validation.
#
# A base is the device whose values the components change: the snapshot, or a homogeneous one.

_REFIT_STEPS = 4  # for a fold, from the fit of all observations
_WINDOW_STEPS = 6  # for a window
_STEPS = (2, 2, 8)  # of a fit; new weights before each


class FitAttempt(msgspec.Struct, frozen=True, eq=False):
    """A fit on one base, with the losses of its candidates on folds that were left out."""

    base: str
    problem: fit_solve.FitProblem
    observed: fit_observations.ObservedCircuits
    starts: tuple[float, ...]  # begins of the date windows
    folds: NDArray[np.int64]
    score: CandidateScore
    scores: tuple[CandidateScore, ...]

    @property
    def device(self) -> fit_components.DeviceChannels:
        """Base device."""
        return self.problem.distributions.device

    @property
    def num_folds(self) -> int:
        """Number of folds; 1: too few circuit bodies for more."""
        return int(self.folds.max()) + 1

    @property
    def fold_of_body(self) -> dict[str, int]:
        """Fold of each body; folds never share a body."""
        observations = self.problem.observations
        return {each.body: fold for each, fold in zip(observations, self.folds, strict=True)}

    def without(
        self, fold: int, start: fit_solve.Solution
    ) -> tuple[fit_solve.Solution, tuple[FittedWindow, ...]]:
        """Fit to the other folds, started from the fit to all."""
        places = np.flatnonzero(self.folds != fold)
        part = self.problem.part(places.tolist())
        columns = self.problem.columns(self.score.prior)
        weights = start.weights[places]
        result = fit_solve.solve(part, columns, weights, start.latent, max_steps=_REFIT_STEPS)
        return result, self.windows(result, fold)

    def windows(self, solution: fit_solve.Solution, without: int = -1) -> tuple[FittedWindow, ...]:
        """Fit of each window around the common fit; `without`: a fold that is left out."""
        prior = self.score.windows
        if prior is None:
            return ()
        shift, observations = self.problem.columns(prior), self.problem.observations
        included = np.flatnonzero(self.folds != without).tolist()
        weights = dict(zip(included, solution.weights.tolist(), strict=True))
        results = []
        for number, begin_s in enumerate(self.starts):
            places = [k for k in included if observations[k].window == number]
            if places:
                start = np.array([weights[k] for k in places])
                built = self._window(self.problem.part(places), shift, start, solution.values)
                results.append(FittedWindow(begin_s, built.latent, built.values))
        return tuple(results)

    def _window(
        self,
        part: fit_solve.FitProblem,
        shift: fit_solve.PriorMatrix,
        weights: NDArray[np.float64],
        offset: NDArray[np.float64],
    ) -> fit_solve.Solution:
        """Fit one window, then again with weights by its own residuals: the residuals of the common
        fit contain drift."""
        first = fit_solve.solve(part, shift, weights, offset=offset, max_steps=_WINDOW_STEPS)
        weights = fit_solve.weights_of(
            part.observations, first.blocks, robust=self.score.prior.robust
        )
        return fit_solve.solve(
            part, shift, weights, first.latent, offset, max_steps=_WINDOW_STEPS, blocks=first.blocks
        )


class FittedSnapshots(msgspec.Struct, frozen=True, eq=False):
    """The calibration of a fit, and those of its date windows."""

    snapshot: CalibrationSnapshot
    series: tuple[CalibrationSnapshot, ...]

    @staticmethod
    def of(
        attempt: FitAttempt, solution: fit_solve.Solution, windows: Sequence[FittedWindow]
    ) -> FittedSnapshots:
        """Snapshots of a solution, for all qubits and gates of the device."""
        every = fit_components.all_components(attempt.device)
        columns = attempt.problem.columns(attempt.score.prior)
        values = columns.extended(every) @ solution.latent
        values += columns.carried_over(every, attempt.problem.components, solution.latent)
        prior = attempt.score.windows or attempt.score.prior
        shift = attempt.problem.columns(prior).extended(every)

        def dated(window: FittedWindow) -> CalibrationSnapshot:
            result = fit_components.fitted_snapshot(
                attempt.device, every, values + shift @ window.latent
            )
            begin = datetime.fromtimestamp(window.begin_s, UTC).isoformat()
            return msgspec.structs.replace(result, calibrated=begin)

        return FittedSnapshots(
            fit_components.fitted_snapshot(attempt.device, every, values),
            tuple(map(dated, windows)),
        )


Made = tuple[fit_solve.FitProblem, fit_observations.ObservedCircuits]


def problem_of(snapshot: CalibrationSnapshot, data: CountsData, starts: Sequence[float]) -> Made:
    """Observations with components of each qubit and gate, or with pooled ones if most rows are of
    circuits that are too wide for that. Raises DataError."""
    coherent = len({each.body for each in data.records}) >= MANY_BODIES
    result = fit_observations.Distributions(
        fit_components.DeviceChannels(snapshot, coherent=coherent),
        fit_observations.DeviceCompiler(snapshot),
    )
    windows = windows_of(data.records, starts)
    observed, pooled = fit_observations.observe(data, result, windows, pooled=False), False
    if 2 * sum(rows for _, rows in observed.left_out) > len(data.records):
        wider = fit_observations.observe(data, result, windows, pooled=True)
        pooled = len(wider.observations) > len(observed.observations)
        observed = wider if pooled else observed
    if not observed.observations:
        reasons = "; ".join(f"rows {count}: {text}" for text, count in observed.left_out)
        raise DataError(
            f"no circuit can be fitted: {reasons}",
            hint=f"circuits of at most {MAX_QUBITS} qubits that are measured at their ends",
        )
    components = result.components([each.place for each in observed.observations], pooled=pooled)
    return fit_solve.FitProblem(result, components, observed.observations), observed


def losses_of(problem: fit_solve.FitProblem) -> dict[object, float]:
    """Losses of the unchanged calibration, by circuit and window."""
    unchanged = fit_solve.FitProblem(problem.distributions, (), problem.observations)
    losses = unchanged.losses(np.zeros(0)).tolist()
    return {each.key: loss for each, loss in zip(problem.observations, losses, strict=True)}


def attempts_on(
    base: str,
    problem_data: Made,
    starts: Sequence[float],
    reference: dict[object, float],
    note: Callable[[str], None],
) -> list[FitAttempt]:
    """Fits with the best Gaussian prior, with the best heavy-tailed one if its ratio is lower, and
    with the best factors that all qubits share, which keep the spread of the calibration.
    `reference`: losses of the unchanged calibration."""
    problem, observed = problem_data
    programs = problem.distributions.programs
    qubits = [programs[each.place].qubits for each in problem.observations]
    folds = folds_of(problem.observations, qubits)
    note(
        f"{base}: {len(problem.observations)} circuits, {len(problem.components)} components,"
        f" {int(folds.max()) + 1} folds"
    )
    if not folds.any():
        losses = np.zeros(len(folds))
        score = score_of(UNCHECKED, losses, losses + 1.0)
        return [FitAttempt(base, problem, observed, tuple(starts), folds, score, ())]
    tried, chosen = _tried(problem, folds, reference)
    for score in chosen:
        shift = "none" if score.windows is None else score.windows.text
        note(f"{base}: prior {score.prior.text}; windows: {shift}; ratio {score.ratio:.3f}")
    return [
        FitAttempt(base, problem, observed, tuple(starts), folds, score, tuple(tried))
        for score in chosen
    ]


def _tried(
    problem: fit_solve.FitProblem, folds: NDArray[np.int64], reference: dict[object, float]
) -> tuple[list[CandidateScore], list[CandidateScore]]:
    """Scores of all candidates, and of the chosen ones."""
    shared = np.array([each.key in reference for each in problem.observations])
    snapshot = np.array([reference.get(each.key, 0.0) for each in problem.observations])[shared]
    near = _StartFits(problem)
    tried: list[CandidateScore] = []

    def judged(
        prior: fit_solve.Prior, windows: fit_solve.Prior | None
    ) -> tuple[CandidateScore, NDArray[np.float64]]:
        losses = held_out_losses(problem, near(prior), folds, prior, windows)[shared]
        tried.append(score_of(prior, losses, snapshot, windows))
        return tried[-1], losses

    pooled = not any(each.qubits for each in problem.components)
    kinds = {each.kind for each in problem.components}
    has_many = len({each.body for each in problem.observations}) >= LEAST_BODIES
    priors = [each for each in CANDIDATES if not (pooled and each.own)]
    is_dated = len({each.window for each in problem.observations}) > 1
    shift = POOLED_SHIFT if is_dated else None
    others = (None, *(() if pooled else (OWN_SHIFT,))) if is_dated else ()

    def refined(score: CandidateScore, losses: NDArray[np.float64]) -> CandidateScore:
        more: list[dict[str, float]] = [{"zz": ZZ_WIDTH}] if fit_components.ZZ in kinds else []
        more += [{"asymmetry": ASYMMETRY_WIDTH}] if ASYMMETRY in kinds and has_many else []
        if problem.distributions.device.coherent:
            more += [{"angle": angle} for angle in ANGLES]
        for widths in more:
            prior = msgspec.structs.replace(score.prior, **widths)
            results = judged(prior, shift)
            if is_lower(losses, results[1]):
                score, losses = results
        dated = [judged(score.prior, each) for each in others]
        return min([(score, losses), *dated], key=_ratio)[0]

    results = [judged(prior, shift) for prior in priors]
    best = min((each for each in results if not each[0].prior.heavy), key=_ratio)
    heavy = [each for each in results if each[0].prior.heavy and each[0].ratio < best[0].ratio]
    common = [each for each in results if not each[0].prior.own]
    chosen = [best, *sorted(heavy, key=_ratio)[:1]]
    if not pooled and not any(each is best for each in common):
        chosen.append(min(common, key=_ratio))
    return tried, [refined(*each) for each in chosen]


def _ratio(pair: tuple[CandidateScore, NDArray[np.float64]]) -> float:
    return pair[0].ratio


class _StartFits:
    """Fits of all observations, from which candidates with similar priors are fitted."""

    def __init__(self, problem: fit_solve.FitProblem) -> None:
        self._problem = problem
        self._known: dict[fit_solve.Prior, fit_solve.Solution] = {}

    def __call__(self, prior: fit_solve.Prior) -> fit_solve.Solution:
        """Fit with a narrow, a wide or a heavy-tailed prior, whichever is closest to `prior`."""
        wide = HEAVY if prior.heavy else WIDE
        around = msgspec.structs.replace(
            wide if prior.own > DEFAULT.own else DEFAULT,
            robust=prior.robust,
            angle=prior.angle,
            zz=prior.zz,
            asymmetry=prior.asymmetry,
        )
        result = self._known.get(around)
        if result is None:
            result = self._known[around] = fit(self._problem, around, self._start(around))
        return result

    def _start(self, prior: fit_solve.Prior) -> NDArray[np.float64] | None:
        """Latent values of the closest known fit: without one of asymmetry, ZZ, angles and robust
        weights."""
        for nearest in (
            msgspec.structs.replace(prior, asymmetry=0.0),
            msgspec.structs.replace(prior, zz=0.0),
            msgspec.structs.replace(prior, angle=0.0),
            msgspec.structs.replace(prior, robust=False),
        ):
            solution = self._known.get(nearest)
            if solution is not None:
                columns = self._problem.columns(nearest).columns
                latent = dict(zip(columns, solution.latent.tolist(), strict=True))
                wanted = self._problem.columns(prior).columns
                return np.array([latent.get(column, 0.0) for column in wanted])
        return None


def fit(
    problem: fit_solve.FitProblem, prior: fit_solve.Prior, latent: NDArray[np.float64] | None = None
) -> fit_solve.Solution:
    """Fit with one prior; the weights follow from the residuals of the previous fit."""
    columns = problem.columns(prior)
    start = np.zeros(len(columns.columns)) if latent is None else latent
    blocks = problem.blocks(columns.matrix @ start)
    for max_steps in _STEPS:
        weights = fit_solve.weights_of(problem.observations, blocks, robust=prior.robust)
        result = fit_solve.solve(
            problem, columns, weights, start, max_steps=max_steps, blocks=blocks
        )
        start, blocks = result.latent, result.blocks
    return result
