"""The fit of a device to measured counts: choose, fit, compare with the snapshot, refuse or give.

What is fitted is judged on circuits that were left out of a fit with the same prior. A device whose
median or mean Hellinger fidelity there is below that of its snapshot is refused.
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
from simenv.calibration.fit.components import Component, DeviceChannels
from simenv.calibration.fit.device import all_components, fitted_snapshot, homogeneous
from simenv.calibration.fit.intervals import intervals
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
from simenv.calibration.fit.solve import (
    MOST_STEPS,
    FitProblem,
    Solution,
    solve,
    weights_of,
)
from simenv.calibration.fit.windows import (
    WIDTH,
    FittedWindow,
    window_matrix,
    window_starts,
    windows_of,
)
from simenv.errors import SimenvError


class FitRefusedError(SimenvError):
    """The fitted device is worse than its snapshot on circuits that it did not see."""

    code = "fit_refused"
    exit_code = 1


class HeldOut(msgspec.Struct, frozen=True):
    """Hellinger fidelities on circuits that were left out, by fold."""

    fitted_median: float
    fitted_mean: float
    snapshot_median: float
    snapshot_mean: float
    circuits: int

    @property
    def is_worse(self) -> bool:
        """Is the fit below its snapshot?"""
        return self.fitted_median < self.snapshot_median or self.fitted_mean < self.snapshot_mean


class FittedDevice(msgspec.Struct, frozen=True, eq=False):
    """A fitted snapshot, and how it came about."""

    snapshot: CalibrationSnapshot
    base: str  # "snapshot", or "homogeneous": the medians of its values
    prior: Prior
    scores: tuple[CandidateScore, ...]
    components: tuple[Component, ...]
    values: NDArray[np.float64]
    columns: tuple[str, ...]
    latent: NDArray[np.float64]
    interval: NDArray[np.float64]  # [2, columns]: of `latent`, by a bootstrap of bodies
    widths: NDArray[np.float64]  # [columns]: logarithm of a factor, or radians, for latent 1
    held_out: HeldOut | None  # None: fewer than two circuit bodies
    observed: ObservedCircuits
    windows: tuple[FittedWindow, ...]  # (): one calibration for all dates
    series: tuple[CalibrationSnapshot, ...]  # of the windows

    @property
    def factors(self) -> list[tuple[float, float, float]]:
        """Factor of each column with its interval."""
        table = np.exp(np.array([self.latent, *self.interval]) * self.widths)
        return [(float(a), float(b), float(c)) for a, b, c in table.T]


class _Attempt(msgspec.Struct, frozen=True, eq=False):
    """A fit on one base, with its losses on folds that were left out."""

    base: str
    device: DeviceChannels
    problem: FitProblem
    observed: ObservedCircuits
    folds: NDArray[np.int64]
    score: CandidateScore
    scores: tuple[CandidateScore, ...]
    losses: NDArray[np.float64]


def calibrate(
    data: CountsData,
    snapshot: CalibrationSnapshot,
    name: str,
    note: Callable[[str], None] = lambda _: None,
) -> FittedDevice:
    """Fit of a snapshot to the training part of `data`; `name`: of the new device.

    Raises DataError where no circuit can be fitted, and FitRefusedError.
    """
    training = data.part(test=False)
    if not training.records:
        raise DataError("every row of the data is a test row", hint='rows with "split": "train"')
    starts = window_starts(training.records)
    first = _problem(snapshot, training, starts)
    reference = _losses_of(first)
    attempts = [_attempt("snapshot", first, reference, note)]
    if any(each.was_placed for each in first[1].observations):
        pooled = _problem(homogeneous(snapshot), training, starts)
        attempts.append(_attempt("homogeneous", pooled, reference, note))
    best = min(attempts, key=lambda attempt: attempt.score.ratio)
    held_out = _compared(best, reference) if best.folds.any() else None
    if held_out is not None and held_out.is_worse:
        raise FitRefusedError(
            f"the fitted device is worse than its snapshot on {held_out.circuits} circuits that it"
            f" did not see: median fidelity {held_out.fitted_median:.4f} against"
            f" {held_out.snapshot_median:.4f}, mean {held_out.fitted_mean:.4f} against"
            f" {held_out.snapshot_mean:.4f}",
            hint="give more, or more varied, circuits; the snapshot is the better model",
        )
    return _given(best, data, name, held_out, starts)


def _problem(
    snapshot: CalibrationSnapshot, data: CountsData, starts: Sequence[float]
) -> tuple[FitProblem, ObservedCircuits]:
    """Observations with components of each qubit and gate; with pooled ones, where most rows are of
    circuits that are too wide for that."""
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


def _losses_of(first: tuple[FitProblem, ObservedCircuits]) -> dict[object, float]:
    """Losses of the unchanged calibration, by circuit and window."""
    problem = FitProblem(first[0].distributions, (), first[0].observations)
    losses = problem.losses(np.zeros(0)).tolist()
    return {each.key: loss for each, loss in zip(problem.observations, losses, strict=True)}


def _attempt(
    base: str,
    made: tuple[FitProblem, ObservedCircuits],
    reference: dict[object, float],
    note: Callable[[str], None],
) -> _Attempt:
    problem = made[0]
    programs = problem.distributions.programs
    qubits = [programs[each.place].qubits for each in problem.observations]
    folds = folds_of(problem.observations, qubits)
    note(
        f"{base}: {len(problem.observations)} circuits, {len(problem.components)} components,"
        f" {int(folds.max()) + 1} folds"
    )
    shared = np.array([each.key in reference for each in problem.observations])
    snapshot = np.array([reference.get(each.key, 0.0) for each in problem.observations])
    if not folds.any():
        losses = np.zeros(len(folds))
        return _Attempt(
            base,
            *_parts(made),
            folds,
            score_of(UNCHECKED, losses, snapshot + 1.0, windows=False),
            (),
            losses,
        )
    pooled = not problem.components[0].qubits
    dated = len({each.window for each in problem.observations}) > 1
    starts = _Starts(problem)
    tried: list[tuple[CandidateScore, NDArray[np.float64]]] = []
    for prior in CANDIDATES:
        if pooled and prior.own:
            continue
        losses = held_out_losses(problem, starts.near(prior), folds, prior, windows=False)
        tried.append((score_of(prior, losses[shared], snapshot[shared], windows=False), losses))
    score, losses = min(tried, key=_ratio)
    for angle in ANGLES if problem.distributions.device.coherent else ():
        prior = msgspec.structs.replace(score.prior, angle=angle)
        found = held_out_losses(problem, starts.near(prior), folds, prior, windows=False)
        tried.append((score_of(prior, found[shared], snapshot[shared], windows=False), found))
        if earns_angles(losses[shared], found[shared]):
            score, losses = tried[-1]
    if dated:
        prior = score.prior
        losses = held_out_losses(problem, starts.near(prior), folds, prior, windows=True)
        tried.append((score_of(prior, losses[shared], snapshot[shared], windows=True), losses))
        score, losses = min(tried, key=_ratio)
    note(f"{base}: prior {score.prior.text}, windows {score.has_windows}, ratio {score.ratio:.3f}")
    return _Attempt(base, *_parts(made), folds, score, tuple(each for each, _ in tried), losses)


def _ratio(pair: tuple[CandidateScore, NDArray[np.float64]]) -> float:
    return pair[0].ratio


def _parts(
    made: tuple[FitProblem, ObservedCircuits],
) -> tuple[DeviceChannels, FitProblem, ObservedCircuits]:
    return made[0].distributions.device, made[0], made[1]


class _Starts:
    """Fits of all observations, around which candidates with similar priors are fitted."""

    def __init__(self, problem: FitProblem) -> None:
        self._problem = problem
        self._known: dict[Prior, Solution] = {}

    def near(self, prior: Prior) -> Solution:
        """That of a narrow or of a wide prior."""
        around = msgspec.structs.replace(
            WIDE if prior.own > DEFAULT.own else DEFAULT, robust=prior.robust, angle=prior.angle
        )
        found = self._known.get(around)
        if found is None:
            plain = self._known.get(msgspec.structs.replace(around, robust=False))
            latent = None if plain is None else plain.latent
            found = self._known[around] = _fit(self._problem, around, latent)
        return found


def _fit(problem: FitProblem, prior: Prior, latent: NDArray[np.float64] | None = None) -> Solution:
    """The fit by one prior; weights follow from what the fit before leaves."""
    matrix = PriorMatrix(prior, problem.components).matrix
    start = np.zeros(matrix.shape[1]) if latent is None else latent
    blocks = problem.blocks(matrix @ start)
    for most in (3, 3, MOST_STEPS):
        weights = weights_of(problem.observations, blocks, robust=prior.robust)
        found = solve(problem, matrix, weights, start, most=most, blocks=blocks)
        start, blocks = found.latent, found.blocks
    return found


def _compared(attempt: _Attempt, reference: dict[object, float]) -> HeldOut:
    keys = [each.key for each in attempt.problem.observations]
    shared = np.array([key in reference for key in keys])
    snapshot = _fidelity(np.array([reference[key] for key in keys if key in reference]))
    fitted = _fidelity(attempt.losses[shared])
    return HeldOut(
        float(np.median(fitted)),
        float(fitted.mean()),
        float(np.median(snapshot)),
        float(snapshot.mean()),
        len(fitted),
    )


def _fidelity(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hellinger fidelity (sum sqrt(p q))^2 of losses 2 - 2 sum sqrt(p q)."""
    return np.asarray((1.0 - losses / 2.0) ** 2)


def _given(
    best: _Attempt,
    data: CountsData,
    name: str,
    held_out: HeldOut | None,
    starts: Sequence[float],
) -> FittedDevice:
    problem, prior = best.problem, best.score.prior
    columns = PriorMatrix(prior, problem.components)
    solution = _fit(problem, prior)
    every = all_components(best.device)
    spread = columns.extended(every)
    values = spread @ solution.latent
    windows = _windows(problem, solution, starts) if best.score.has_windows else ()
    shift = PriorMatrix(WIDTH, problem.components).extended(every)
    about = f"fitted to counts, {best.base}, {prior.text}"
    times = [each.time_s for each in data.records if each.time_s == each.time_s]

    def made(values: NDArray[np.float64], time_s: float | None) -> CalibrationSnapshot:
        changes = {"name": name, "version": about, "source_format": "counts"}
        if time_s is not None:
            changes["calibrated"] = datetime.fromtimestamp(time_s, UTC).isoformat()
        found = fitted_snapshot(best.device, every, values)
        return msgspec.structs.replace(found, source_digest=data.digest, **changes)

    return FittedDevice(
        made(values, max(times, default=None)),
        best.base,
        prior,
        best.scores,
        problem.components,
        solution.values,
        tuple(" ".join((kind, *map(str, qubits))) for kind, qubits in columns.columns),
        solution.latent,
        intervals(problem, solution, columns.matrix),
        np.abs(spread).max(axis=0),
        held_out,
        best.observed,
        windows,
        tuple(made(values + shift @ window.latent, window.begin_s) for window in windows),
    )


def _windows(
    problem: FitProblem, solution: Solution, starts: Sequence[float]
) -> tuple[FittedWindow, ...]:
    """The fit of each window around that of all."""
    shift = window_matrix(problem.components)
    found = []
    for number, begin_s in enumerate(starts):
        places = [k for k, each in enumerate(problem.observations) if each.window == number]
        part = msgspec.structs.replace(
            problem, observations=tuple(problem.observations[k] for k in places)
        )
        if places:
            made = solve(part, shift, solution.weights[places], offset=solution.values)
            found.append(FittedWindow(begin_s, made.latent, made.values))
    return tuple(found)
