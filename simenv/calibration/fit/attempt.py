"""An attempt: a fit on one base, with its prior chosen by cross-validation.

A base is the device whose values the components change: the snapshot, or a homogeneous one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.accept.scope import LEAST_BODIES
from simenv.calibration.data.records import CountsData, DataError
from simenv.calibration.fit.compile import DeviceCompiler
from simenv.calibration.fit.components import ASYMMETRY, ZZ, DeviceChannels
from simenv.calibration.fit.device import all_components, fitted_snapshot
from simenv.calibration.fit.observations import (
    MAX_QUBITS,
    Distributions,
    ObservedCircuits,
    observe,
)
from simenv.calibration.fit.prior import Prior, PriorMatrix
from simenv.calibration.fit.select import (
    ANGLES,
    ASYMMETRY_WIDTH,
    CANDIDATES,
    DEFAULT,
    HEAVY,
    MANY_BODIES,
    UNCHECKED,
    WIDE,
    ZZ_WIDTH,
    CandidateScore,
    folds_of,
    held_out_losses,
    is_lower,
    score_of,
)
from simenv.calibration.fit.solve import FitProblem, Solution, solve, weights_of
from simenv.calibration.fit.windows import OWN_SHIFT, POOLED_SHIFT, FittedWindow, windows_of

_REFIT_STEPS = 4  # for a fold, from the fit of all observations
_WINDOW_STEPS = 6  # for a window
_STEPS = (2, 2, 8)  # of a fit; new weights before each


class FitAttempt(msgspec.Struct, frozen=True, eq=False):
    """A fit on one base, with the losses of its candidates on folds that were left out."""

    base: str
    problem: FitProblem
    observed: ObservedCircuits
    starts: tuple[float, ...]  # begins of the date windows
    folds: NDArray[np.int64]
    score: CandidateScore
    scores: tuple[CandidateScore, ...]

    @property
    def device(self) -> DeviceChannels:
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

    def without(self, fold: int, start: Solution) -> tuple[Solution, tuple[FittedWindow, ...]]:
        """Fit to the other folds, started from the fit to all."""
        places = np.flatnonzero(self.folds != fold)
        part = self.problem.part(places.tolist())
        columns = self.problem.columns(self.score.prior)
        weights = start.weights[places]
        result = solve(part, columns, weights, start.latent, max_steps=_REFIT_STEPS)
        return result, self.windows(result, fold)

    def windows(self, solution: Solution, without: int = -1) -> tuple[FittedWindow, ...]:
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
        part: FitProblem,
        shift: PriorMatrix,
        weights: NDArray[np.float64],
        offset: NDArray[np.float64],
    ) -> Solution:
        """Fit one window, then again with weights by its own residuals: the residuals of the common
        fit contain drift."""
        first = solve(part, shift, weights, offset=offset, max_steps=_WINDOW_STEPS)
        weights = weights_of(part.observations, first.blocks, robust=self.score.prior.robust)
        return solve(
            part, shift, weights, first.latent, offset, max_steps=_WINDOW_STEPS, blocks=first.blocks
        )


class FittedSnapshots(msgspec.Struct, frozen=True, eq=False):
    """The calibration of a fit, and those of its date windows."""

    snapshot: CalibrationSnapshot
    series: tuple[CalibrationSnapshot, ...]

    @staticmethod
    def of(
        attempt: FitAttempt, solution: Solution, windows: Sequence[FittedWindow]
    ) -> FittedSnapshots:
        """Snapshots of a solution, for all qubits and gates of the device."""
        every = all_components(attempt.device)
        columns = attempt.problem.columns(attempt.score.prior)
        values = columns.extended(every) @ solution.latent
        values += columns.carried_over(every, attempt.problem.components, solution.latent)
        prior = attempt.score.windows or attempt.score.prior
        shift = attempt.problem.columns(prior).extended(every)

        def dated(window: FittedWindow) -> CalibrationSnapshot:
            result = fitted_snapshot(attempt.device, every, values + shift @ window.latent)
            begin = datetime.fromtimestamp(window.begin_s, UTC).isoformat()
            return msgspec.structs.replace(result, calibrated=begin)

        return FittedSnapshots(
            fitted_snapshot(attempt.device, every, values), tuple(map(dated, windows))
        )


Made = tuple[FitProblem, ObservedCircuits]


def problem_of(snapshot: CalibrationSnapshot, data: CountsData, starts: Sequence[float]) -> Made:
    """Observations with components of each qubit and gate, or with pooled ones if most rows are of
    circuits that are too wide for that. Raises DataError."""
    coherent = len({each.body for each in data.records}) >= MANY_BODIES
    result = Distributions(DeviceChannels(snapshot, coherent=coherent), DeviceCompiler(snapshot))
    windows = windows_of(data.records, starts)
    observed, pooled = observe(data, result, windows, pooled=False), False
    if 2 * sum(rows for _, rows in observed.left_out) > len(data.records):
        wider = observe(data, result, windows, pooled=True)
        pooled = len(wider.observations) > len(observed.observations)
        observed = wider if pooled else observed
    if not observed.observations:
        reasons = "; ".join(f"rows {count}: {text}" for text, count in observed.left_out)
        raise DataError(
            f"no circuit can be fitted: {reasons}",
            hint=f"circuits of at most {MAX_QUBITS} qubits that are measured at their ends",
        )
    components = result.components([each.place for each in observed.observations], pooled=pooled)
    return FitProblem(result, components, observed.observations), observed


def losses_of(problem: FitProblem) -> dict[object, float]:
    """Losses of the unchanged calibration, by circuit and window."""
    unchanged = FitProblem(problem.distributions, (), problem.observations)
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
    problem: FitProblem, folds: NDArray[np.int64], reference: dict[object, float]
) -> tuple[list[CandidateScore], list[CandidateScore]]:
    """Scores of all candidates, and of the chosen ones."""
    shared = np.array([each.key in reference for each in problem.observations])
    snapshot = np.array([reference.get(each.key, 0.0) for each in problem.observations])[shared]
    near = _StartFits(problem)
    tried: list[CandidateScore] = []

    def judged(prior: Prior, windows: Prior | None) -> tuple[CandidateScore, NDArray[np.float64]]:
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
        more: list[dict[str, float]] = [{"zz": ZZ_WIDTH}] if ZZ in kinds else []
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

    def __init__(self, problem: FitProblem) -> None:
        self._problem = problem
        self._known: dict[Prior, Solution] = {}

    def __call__(self, prior: Prior) -> Solution:
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

    def _start(self, prior: Prior) -> NDArray[np.float64] | None:
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
