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
from simenv.calibration.data.records import CountsData, DataError
from simenv.calibration.fit.compile import DeviceCompiler
from simenv.calibration.fit.components import DeviceChannels
from simenv.calibration.fit.device import all_components, fitted_snapshot
from simenv.calibration.fit.observations import Distributions, ObservedCircuits, observe
from simenv.calibration.fit.prior import Prior, PriorMatrix
from simenv.calibration.fit.select import (
    ANGLES,
    CANDIDATES,
    DEFAULT,
    MANY_BODIES,
    UNCHECKED,
    WIDE,
    CandidateScore,
    earns_angles,
    folds_of,
    held_out_losses,
    score_of,
)
from simenv.calibration.fit.solve import MOST_STEPS, FitProblem, Solution, solve, weights_of
from simenv.calibration.fit.windows import WIDTH, FittedWindow, window_matrix, windows_of

_REFIT_STEPS = 4  # of a fold, from the fit of all


class FitAttempt(msgspec.Struct, frozen=True, eq=False):
    """A fit on one base, with the losses of its candidates on folds that were left out."""

    base: str
    problem: FitProblem
    observed: ObservedCircuits
    starts: tuple[float, ...]  # of the date windows
    folds: NDArray[np.int64]
    score: CandidateScore
    scores: tuple[CandidateScore, ...]

    @property
    def device(self) -> DeviceChannels:
        """The base."""
        return self.problem.distributions.device

    @property
    def num_folds(self) -> int:
        """1: there are too few circuit bodies for more."""
        return int(self.folds.max()) + 1

    @property
    def fold_of_body(self) -> dict[str, int]:
        """Folds never share a body."""
        observations = self.problem.observations
        return {each.body: fold for each, fold in zip(observations, self.folds, strict=True)}

    def without(self, fold: int, start: Solution) -> tuple[Solution, tuple[FittedWindow, ...]]:
        """The fit to the other folds, from that to all of them."""
        places = np.flatnonzero(self.folds != fold)
        part = self.problem.part(places.tolist())
        matrix = PriorMatrix(self.score.prior, part.components).matrix
        weights = start.weights[places]
        found = solve(part, matrix, weights, start.latent, most=_REFIT_STEPS)
        return found, fitted_windows(part, found, self.used_starts)

    @property
    def used_starts(self) -> tuple[float, ...]:
        """Begins of the windows, where they have factors of their own."""
        return self.starts if self.score.has_windows else ()


class FittedSnapshots(msgspec.Struct, frozen=True, eq=False):
    """The calibration of a fit, and those of its date windows."""

    snapshot: CalibrationSnapshot
    series: tuple[CalibrationSnapshot, ...]

    @staticmethod
    def of(
        attempt: FitAttempt, solution: Solution, windows: Sequence[FittedWindow]
    ) -> FittedSnapshots:
        """Those of a solution, of all qubits and gates of the device."""
        every = all_components(attempt.device)
        columns = PriorMatrix(attempt.score.prior, attempt.problem.components)
        values = columns.extended(every) @ solution.latent
        shift = PriorMatrix(WIDTH, attempt.problem.components).extended(every)

        def dated(window: FittedWindow) -> CalibrationSnapshot:
            found = fitted_snapshot(attempt.device, every, values + shift @ window.latent)
            begin = datetime.fromtimestamp(window.begin_s, UTC).isoformat()
            return msgspec.structs.replace(found, calibrated=begin)

        return FittedSnapshots(
            fitted_snapshot(attempt.device, every, values), tuple(map(dated, windows))
        )


def fitted_windows(
    problem: FitProblem, solution: Solution, starts: Sequence[float]
) -> tuple[FittedWindow, ...]:
    """The fit of each window around that of all."""
    shift = window_matrix(problem.components)
    found = []
    for number, begin_s in enumerate(starts):
        places = [k for k, each in enumerate(problem.observations) if each.window == number]
        if places:
            part, weights = problem.part(places), solution.weights[places]
            made = solve(part, shift, weights, offset=solution.values)
            found.append(FittedWindow(begin_s, made.latent, made.values))
    return tuple(found)


Made = tuple[FitProblem, ObservedCircuits]


def problem_of(snapshot: CalibrationSnapshot, data: CountsData, starts: Sequence[float]) -> Made:
    """Observations with components of each qubit and gate; with pooled ones, where most rows are of
    circuits that are too wide for that. Raises DataError."""
    coherent = len({each.body for each in data.records}) >= MANY_BODIES
    found = Distributions(DeviceChannels(snapshot, coherent=coherent), DeviceCompiler(snapshot))
    windows = windows_of(data.records, starts)
    observed, pooled = observe(data, found, windows, pooled=False), False
    if 2 * sum(rows for _, rows in observed.left_out) > len(data.records):
        wider = observe(data, found, windows, pooled=True)
        pooled = len(wider.observations) > len(observed.observations)
        observed = wider if pooled else observed
    if not observed.observations:
        reasons = "; ".join(f"{count} rows: {text}" for text, count in observed.left_out)
        raise DataError(f"no circuit can be fitted: {reasons}", hint="narrower circuits")
    components = found.components([each.place for each in observed.observations], pooled=pooled)
    return FitProblem(found, components, observed.observations), observed


def losses_of(problem: FitProblem) -> dict[object, float]:
    """Losses of the unchanged calibration, by circuit and window."""
    unchanged = FitProblem(problem.distributions, (), problem.observations)
    losses = unchanged.losses(np.zeros(0)).tolist()
    return {each.key: loss for each, loss in zip(problem.observations, losses, strict=True)}


def attempt(
    base: str,
    made: Made,
    starts: Sequence[float],
    reference: dict[object, float],
    note: Callable[[str], None],
) -> FitAttempt:
    """Choose the prior of a fit. `reference`: losses of the unchanged calibration."""
    problem, observed = made
    programs = problem.distributions.programs
    qubits = [programs[each.place].qubits for each in problem.observations]
    folds = folds_of(problem.observations, qubits)
    note(
        f"{base}: {len(problem.observations)} circuits, {len(problem.components)} components,"
        f" {int(folds.max()) + 1} folds"
    )
    if not folds.any():
        losses = np.zeros(len(folds))
        score = score_of(UNCHECKED, losses, losses + 1.0, windows=False)
        return FitAttempt(base, problem, observed, tuple(starts), folds, score, ())
    tried = _tried(problem, folds, reference)
    score = tried[-1]
    note(f"{base}: prior {score.prior.text}, windows {score.has_windows}, ratio {score.ratio:.3f}")
    return FitAttempt(base, problem, observed, tuple(starts), folds, score, tuple(tried[:-1]))


def _tried(
    problem: FitProblem, folds: NDArray[np.int64], reference: dict[object, float]
) -> list[CandidateScore]:
    """Scores of all candidates, and then that of the chosen one."""
    shared = np.array([each.key in reference for each in problem.observations])
    snapshot = np.array([reference.get(each.key, 0.0) for each in problem.observations])[shared]
    near = _Starts(problem)
    tried: list[CandidateScore] = []

    def judged(prior: Prior, *, windows: bool) -> tuple[CandidateScore, NDArray[np.float64]]:
        losses = held_out_losses(problem, near(prior), folds, prior, windows=windows)[shared]
        tried.append(score_of(prior, losses, snapshot, windows=windows))
        return tried[-1], losses

    pooled = not problem.components[0].qubits
    priors = [each for each in CANDIDATES if not (pooled and each.own)]
    score, losses = min((judged(prior, windows=False) for prior in priors), key=_ratio)
    for angle in ANGLES if problem.distributions.device.coherent else ():
        prior = msgspec.structs.replace(score.prior, angle=angle)
        found = judged(prior, windows=False)
        if earns_angles(losses, found[1]):
            score, losses = found
    if len({each.window for each in problem.observations}) > 1:
        score, _ = min((score, losses), judged(score.prior, windows=True), key=_ratio)
    return [*tried, score]


def _ratio(pair: tuple[CandidateScore, NDArray[np.float64]]) -> float:
    return pair[0].ratio


class _Starts:
    """Fits of all observations, around which candidates with similar priors are fitted."""

    def __init__(self, problem: FitProblem) -> None:
        self._problem = problem
        self._known: dict[Prior, Solution] = {}

    def __call__(self, prior: Prior) -> Solution:
        """That of a narrow or of a wide prior."""
        around = msgspec.structs.replace(
            WIDE if prior.own > DEFAULT.own else DEFAULT, robust=prior.robust, angle=prior.angle
        )
        found = self._known.get(around)
        if found is None:
            plain = self._known.get(msgspec.structs.replace(around, robust=False))
            latent = None if plain is None else plain.latent
            found = self._known[around] = fit(self._problem, around, latent)
        return found


def fit(problem: FitProblem, prior: Prior, latent: NDArray[np.float64] | None = None) -> Solution:
    """The fit by one prior; weights follow from what the fit before leaves."""
    matrix = PriorMatrix(prior, problem.components).matrix
    start = np.zeros(matrix.shape[1]) if latent is None else latent
    blocks = problem.blocks(matrix @ start)
    for most in (3, 3, MOST_STEPS):
        weights = weights_of(problem.observations, blocks, robust=prior.robust)
        found = solve(problem, matrix, weights, start, most=most, blocks=blocks)
        start, blocks = found.latent, found.blocks
    return found
