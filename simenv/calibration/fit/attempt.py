"""Attempts of a fit: each with the components of one base and with a prior chosen for it.

A base is the device whose values the components change: the snapshot, or a homogeneous one
(`FitBase`). Candidates for the prior are judged by cross-validation inside the training part
(`CrossValidation`), and `chosen_priors` compares them. `FitAttempt` is the fit with a chosen prior,
to all observations or without a fold, also for each date window; `FittedSnapshots` are the
calibrations that follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData, DataError
from simenv.calibration.fit import components as fit_parts, observations as fit_runs, solve
from simenv.calibration.fit.acting_bodies import LEAST_BODIES
from simenv.calibration.fit.day_values import DayTest, day_prior, day_tests
from simenv.calibration.fit.significance import Evidence, NullGains
from simenv.calibration.fit.solve import FitProblem, Prior, PriorMatrix, Solution

MANY_BODIES = 15  # least number of different circuits for fits with angles of each gate


class FitBase(msgspec.Struct, frozen=True, eq=False):
    """Device whose values a fit changes, and the observations that it is fitted to."""

    name: str
    problem: FitProblem
    observed: fit_runs.ObservedCircuits
    starts: tuple[float, ...]  # begins of the date windows
    windows: tuple[int, ...]  # date window of each record

    @staticmethod
    def of(name: str, snapshot: CalibrationSnapshot, data: CountsData) -> FitBase:
        """Observations with components of each qubit and gate, or with pooled ones if most rows are
        of circuits that are too wide for that. Raises DataError."""
        coherent = len({each.body for each in data.records}) >= LEAST_BODIES
        distributions = fit_runs.Distributions(
            fit_parts.DeviceChannels(snapshot, coherent=coherent), fit_runs.DeviceCompiler(snapshot)
        )
        starts = fit_runs.window_starts(data.records)
        windows = fit_runs.windows_of(data.records, starts)
        observed = fit_runs.observe(data, distributions, windows, pooled=False)
        pooled = False
        if 2 * sum(rows for _, rows in observed.left_out) > len(data.records):
            wider = fit_runs.observe(data, distributions, windows, pooled=True)
            pooled = len(wider.observations) > len(observed.observations)
            observed = wider if pooled else observed
        if not observed.observations:
            reasons = "; ".join(f"rows {count}: {text}" for text, count in observed.left_out)
            raise DataError(
                f"no circuit can be fitted: {reasons}",
                hint=f"circuits of at most {fit_runs.MAX_QUBITS} qubits that are measured"
                " at their ends",
            )
        places = [each.place for each in observed.observations]
        components = distributions.components(places, pooled=pooled)
        problem = FitProblem(distributions, components, observed.observations).with_acting()
        return FitBase(name, problem, observed, tuple(starts), tuple(windows))

    @property
    def device(self) -> fit_parts.DeviceChannels:
        """Channels of the device as functions of its components."""
        return self.problem.distributions.device

    @property
    def qubits(self) -> frozenset[int]:
        """Qubits of the circuits."""
        programs = self.problem.distributions.programs
        used = [programs[each.place].qubits for each in self.problem.observations]
        return frozenset(qubit for each in used for qubit in each)

    def unchanged_losses(self) -> dict[object, float]:
        """Losses of the unchanged device, by circuit and window."""
        unchanged = FitProblem(self.problem.distributions, (), self.problem.observations)
        losses = unchanged.losses(np.zeros(0)).tolist()
        return {each.key: loss for each, loss in zip(unchanged.observations, losses, strict=True)}

    def folds(self) -> NDArray[np.int64]:
        """Fold of each observation."""
        programs, observations = self.problem.distributions.programs, self.problem.observations
        return fit_runs.folds_of(
            observations, [programs[each.place].qubits for each in observations]
        )


UNCHECKED = Prior(0.1, 0.1)  # used with too few bodies for a choice
# Widths (common, own) of the candidates.
_GAUSSIAN_WIDTHS: tuple[tuple[float, float], ...] = (
    (0.01, 0.01), (0.1, 0.0), (0.5, 0.0), (0.1, 0.1),
    (0.5, 0.1), (0.5, 0.3), (0.03, 0.3), (0.1, 1.0),
)  # fmt: skip
_HEAVY_WIDTHS: tuple[tuple[float, float], ...] = ((0.1, 0.1), (0.1, 0.3), (0.3, 1.0))
CANDIDATES = tuple(
    Prior(common, own, heavy=heavy, robust=robust)
    for robust in (False, True)
    for heavy, widths in ((False, _GAUSSIAN_WIDTHS), (True, _HEAVY_WIDTHS))
    for common, own in widths
)
# Candidates by likelihood: folds would judge dephasing apart from relaxation by few circuits.
LIKELIEST = CANDIDATES + tuple(
    msgspec.structs.replace(each, dephasing=each.own) for each in CANDIDATES if each.own
)
ANGLES = (0.01, 0.03, 0.1)  # widths of rotations, rad, with the best of the others
# Width of the factor of the ZZ rates: fits of it to counts of seven devices are between 0 and 1.
ZZ_WIDTH = 0.5
# Width of the logarithm of the factor of all detunings, as that of another factor of all qubits.
QUASISTATIC_WIDTH = 0.5
# Width of the factor of p10 - p01 around 1: the best ones for training counts of six devices,
# unfitted, are 1, 1, 1, 0.75, 0.25 and 0.
ASYMMETRY_WIDTH = 0.5
# Width of what is added to all readout errors: compilers choose the qubits of the least measured
# errors, which are the least by chance too, and which no factor of theirs makes as large as others.
ADDED_WIDTH = 0.02
# Width of the probability that two records are flipped together.
JOINT_WIDTH = 0.02
POOLED_SHIFT = Prior(0.3)  # of a day's factors, while it is not known which of them drift


class CandidateScore(msgspec.Struct, frozen=True):
    """Loss (`judge`) of one candidate on circuits that its fit did not see."""

    prior: Prior
    windows: Prior | None  # prior of the factors of each date window; None: no windows
    mean_loss: float
    median_loss: float
    ratio: float  # of the mean Hellinger distances of the fit and of the snapshot


def score_of(
    prior: Prior,
    losses: NDArray[np.float64],
    snapshot: NDArray[np.float64],
    windows: Prior | None = None,
) -> CandidateScore:
    """Score of a candidate; `snapshot`: losses of the unchanged calibration. Candidates are
    compared by the ratio of mean Hellinger distances. The mean loss, its square, follows the few
    circuits that are predicted worst; the median loss does not see what they gain."""
    mean, median = float(losses.mean()), float(np.median(losses))
    ratio = float(np.sqrt(losses).mean() / np.sqrt(snapshot).mean())
    return CandidateScore(prior, windows, mean, median, ratio)


class JudgedPrior(msgspec.Struct, frozen=True, eq=False):
    """Score of a candidate, with the losses that it is made of."""

    score: CandidateScore
    losses: NDArray[np.float64]  # [observations that the snapshot has as well]
    bodies: NDArray[np.int64]  # [the same] number of their body

    def is_below(self, other: JudgedPrior) -> bool:
        """Return whether the mean loss is lower than that of a prior with fewer unknowns, by more
        than a standard error of the difference; circuit bodies are independent."""
        gain = np.bincount(self.bodies, other.losses - self.losses)
        error = float(gain.std(ddof=1)) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
        return float(gain.mean()) > error


class CrossValidation:
    """Judge of candidates on the folds of one problem; `scores` holds those of all candidates. A
    candidate is fitted by one Gauss-Newton step from a fit of all observations, with the fold left
    out of the normal equations, and judged by its exact distributions on the fold."""

    def __init__(
        self, problem: FitProblem, folds: NDArray[np.int64], reference: Mapping[object, float]
    ) -> None:
        """`reference`: losses of the unchanged calibration, by circuit and window; only circuits
        that it has are compared."""
        keys = [each.key for each in problem.observations]
        self.problem = problem
        self._folds = folds
        self._windows = np.array([each.window for each in problem.observations])
        self._compared = np.array([key in reference for key in keys])
        self._snapshot = np.array([reference.get(key, 0.0) for key in keys])[self._compared]
        bodies = np.array([each.body for each in problem.observations])[self._compared]
        self._bodies = np.unique(bodies, return_inverse=True)[1]
        self._starts = _StartFits(problem)
        self.scores: list[CandidateScore] = []

    @property
    def is_dated(self) -> bool:
        """True if runs lie in several date windows."""
        return len(np.unique(self._windows)) > 1

    def day_tests(self, prior: Prior) -> tuple[DayTest, ...]:
        """Tests of the parameters that drift, at the common fit closest to a prior."""
        return day_tests(self.problem, self._starts.near(prior), self._windows)

    def judge(self, prior: Prior, windows: Prior | None) -> JudgedPrior:
        """Fit without each fold. `windows`: prior of the factors of each date window."""
        losses = self._held_out_losses(self._starts.near(prior), prior, windows)[self._compared]
        self.scores.append(score_of(prior, losses, self._snapshot, windows))
        return JudgedPrior(self.scores[-1], losses, self._bodies)

    def _held_out_losses(
        self, start: Solution, prior: Prior, windows: Prior | None
    ) -> NDArray[np.float64]:
        """Loss of each observation by the fit of the other folds."""
        columns = self.problem.columns(prior)
        shift = None if windows is None else self.problem.columns(windows)
        result = np.zeros(len(self._folds))
        for fold in range(int(self._folds.max()) + 1):
            seen = self._folds != fold
            common = columns.matrix @ self._step(start, seen, columns)
            for place, values in self._dated(start, seen, common, shift):
                held = np.flatnonzero(~seen & place)
                if held.size:
                    result[held] = self.problem.losses(values, held.tolist())
        return result

    def _dated(
        self,
        start: Solution,
        seen: NDArray[np.bool_],
        common: NDArray[np.float64],
        shift: PriorMatrix | None,
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float64]]]:
        """Observations of each date window and values for them, fitted around the `common` ones;
        without `shift`, all observations and the common values."""
        if shift is None:
            yield np.ones(len(seen), bool), common
            return
        for number in np.unique(self._windows).tolist():
            place = self._windows == number
            change = self._step(start, seen & place, shift, common)
            yield place, common + shift.matrix @ change

    def _step(
        self,
        start: Solution,
        seen: NDArray[np.bool_],
        columns: PriorMatrix,
        offset: NDArray[np.float64] | float = 0.0,
    ) -> NDArray[np.float64]:
        """Latent values after one step to the observations that are `seen`."""
        weights = np.where(seen, start.weights, 0.0)
        hessian, gradient = solve.normal_equations(
            start.blocks, weights, len(self.problem.components)
        )
        return solve.linear_solution(hessian, gradient, columns, start.values, offset)


_START_COMMON, _START_NARROW, _START_WIDE = 0.3, 0.1, 0.5  # widths of their priors


class _StartFits:
    """Fits of all observations with a few priors, from which similar candidates are fitted."""

    def __init__(self, problem: FitProblem) -> None:
        self._problem = problem
        self._known: dict[Prior, Solution] = {}

    def near(self, prior: Prior) -> Solution:
        """Fit with a narrow, a wide or a heavy-tailed prior, whichever is closest to `prior`."""
        is_wide = prior.own > _START_NARROW
        around = msgspec.structs.replace(
            prior,
            common=_START_COMMON,
            own=_START_WIDE if is_wide else _START_NARROW,
            heavy=prior.heavy and is_wide,
        )
        result = self._known.get(around)
        if result is None:
            latent = self._latent_near(around)
            result = self._known[around] = solve.fit(self._problem, around, latent)
        return result

    def _latent_near(self, prior: Prior) -> NDArray[np.float64] | None:
        """Latent values of the closest known fit: without one of joint flips, added errors,
        asymmetry, ZZ, detunings, angles and robust weights."""
        for nearest in (
            msgspec.structs.replace(prior, joint=0.0, joint_own=0.0),
            msgspec.structs.replace(prior, added=0.0),
            msgspec.structs.replace(prior, asymmetry=0.0),
            msgspec.structs.replace(prior, zz=0.0),
            msgspec.structs.replace(prior, quasistatic=0.0),
            msgspec.structs.replace(prior, dephasing=0.0),
            msgspec.structs.replace(prior, angle=0.0),
            msgspec.structs.replace(prior, angle_common=0.0),
            msgspec.structs.replace(prior, robust=False),
        ):
            solution = self._known.get(nearest)
            if solution is not None:
                columns = self._problem.columns(nearest).columns
                latent = dict(zip(columns, solution.latent.tolist(), strict=True))
                wanted = self._problem.columns(prior).columns
                return np.array([latent.get(column, 0.0) for column in wanted])
        return None


def chosen_priors(validation: CrossValidation) -> list[CandidateScore]:
    """The best Gaussian prior, the best heavy-tailed one if its ratio is lower, and the best of
    those with factors that all qubits share, which keep the spread of the calibration; each with
    the further unknowns that lower its loss (`_extended`)."""
    pooled = not any(each.qubits for each in validation.problem.components)
    shift = POOLED_SHIFT if validation.is_dated else None
    results = [validation.judge(prior, shift) for prior in CANDIDATES if not (pooled and prior.own)]
    best = min((each for each in results if not each.score.prior.heavy), key=_ratio)
    heavy = [each for each in results if each.score.prior.heavy and _ratio(each) < _ratio(best)]
    common = [each for each in results if not each.score.prior.own]
    chosen = [best, *sorted(heavy, key=_ratio)[:1]]
    if not pooled and best.score.prior.own:
        chosen.append(min(common, key=_ratio))
    return [by_day(_extended(each, validation, shift), validation).score for each in chosen]


def _extended(judged: JudgedPrior, validation: CrossValidation, shift: Prior | None) -> JudgedPrior:
    """Prior with those further unknowns that each lower the mean loss beyond chance."""
    for name, width in _further_unknowns(validation.problem):
        prior = msgspec.structs.replace(judged.score.prior, **{name: width})
        more = validation.judge(prior, _with_added(shift, prior))
        if more.is_below(judged):
            judged = more
    return judged


def by_day(judged: JudgedPrior, validation: CrossValidation) -> JudgedPrior:
    """The same prior with values of each day for what drifts, if these lower the mean loss beyond
    chance; else with one value for all days."""
    if not validation.is_dated:
        return judged
    prior = judged.score.prior
    constant = validation.judge(prior, None)
    shift = day_prior(validation.day_tests(prior))
    if shift is None:
        return constant
    dated = validation.judge(prior, shift)
    return dated if dated.is_below(constant) else constant


def _likeliest(found: Evidence, validation: CrossValidation) -> tuple[CandidateScore, float]:
    """Score of the likeliest prior, with values of each day for what drifts, and the chance of so
    large a likelihood, of it or of the changes of days (Bonferroni)."""
    if not validation.is_dated:
        return validation.judge(found.prior, None).score, found.chance
    tests = validation.day_tests(found.prior)
    chance = len(tests) * min((each.probability for each in tests), default=1.0)
    score = validation.judge(found.prior, day_prior(tests)).score
    return score, min(2.0 * min(found.chance, chance), 1.0)


def _with_added(shift: Prior | None, prior: Prior) -> Prior | None:
    """Prior of a date window, in which what is added to readout errors differs as well."""
    return shift and msgspec.structs.replace(shift, added=prior.added)


def _further_unknowns(problem: FitProblem) -> list[tuple[str, float]]:
    """Fields of `Prior` with the widths that are tried with the best of the others: of the ZZ
    rates; of detunings; for at least LEAST_BODIES bodies of what is added to readout errors, of
    their asymmetry, and of joint flips; of angles."""
    kinds = {each.kind for each in problem.components}
    bodies = {each.body for each in problem.observations}
    results = [("zz", ZZ_WIDTH)] if fit_parts.ZZ in kinds else []
    if fit_parts.QUASISTATIC in kinds:
        results.append(("quasistatic", QUASISTATIC_WIDTH))
    if fit_parts.ASYMMETRY in kinds and len(bodies) >= LEAST_BODIES:
        results += [("added", ADDED_WIDTH), ("asymmetry", ASYMMETRY_WIDTH)]
    if fit_parts.JOINT in kinds and len(bodies) >= LEAST_BODIES:
        results += [("joint", JOINT_WIDTH), ("joint_own", JOINT_WIDTH)]
    if problem.distributions.device.coherent:
        turned = (each for each in problem.components if each.is_angle)
        pairs = {each.qubits for each in turned if len(each.qubits) == 2}
        results += [("angle_common", angle) for angle in ANGLES if len(pairs) > 1]
        if len(bodies) >= MANY_BODIES or len(pairs) == 1:
            results += [("angle", angle) for angle in ANGLES]
    return results


def _ratio(judged: JudgedPrior) -> float:
    return judged.score.ratio


_REFIT_STEPS = 4  # for a fold, from the fit of all observations
_WINDOW_STEPS = 6  # for a window


class FittedWindow(msgspec.Struct, frozen=True, eq=False):
    """Values of one date window; it begins at `begin_s` and ends where the next one begins."""

    begin_s: float
    latent: NDArray[np.float64]
    values: NDArray[np.float64]


class FitAttempt(msgspec.Struct, frozen=True, eq=False):
    """A fit on one base with one prior, and the losses of all candidates on folds that were left
    out."""

    base: FitBase
    folds: NDArray[np.int64]
    score: CandidateScore
    scores: tuple[CandidateScore, ...]
    day_tests: tuple[DayTest, ...] = ()  # of a series of several days
    # Probability of so large a likelihood of any prior if the calibration is right.
    chance: float = math.nan
    # Only with the prior of the largest likelihood: bodies that alone identify values.
    alone: frozenset[str] | None = None

    @property
    def num_folds(self) -> int:
        """Number of folds; 1: too few circuit bodies for more."""
        return int(self.folds.max()) + 1

    @property
    def fold_of_body(self) -> dict[str, int]:
        """Fold of each body; folds never share a body."""
        observations = self.base.problem.observations
        return {each.body: fold for each, fold in zip(observations, self.folds, strict=True)}

    @property
    def columns(self) -> PriorMatrix:
        """Unknowns of the fit."""
        return self.base.problem.columns(self.score.prior)

    @property
    def names(self) -> tuple[str, ...]:
        """Kind and qubits of each unknown."""
        return tuple(" ".join((kind, *map(str, qubits))) for kind, qubits in self.columns.columns)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Logarithm of a factor, or radians, of each unknown at latent 1."""
        return np.asarray(np.abs(self.columns.matrix).max(axis=0))

    def fit(self) -> Solution:
        """Fit to all observations."""
        return solve.fit(self.base.problem, self.score.prior)

    def without(
        self, fold: int, start: Solution, seen: frozenset[str] = frozenset()
    ) -> FittedSnapshots:
        """Fit to the other folds and to the bodies `seen`, started from the fit to all."""
        bodies = np.array([each.body in seen for each in self.base.problem.observations])
        places = np.flatnonzero((self.folds != fold) | bodies)
        result = solve.solve(
            self.base.problem.part(places.tolist()),
            self.columns,
            start.weights[places],
            start.latent,
            max_steps=_REFIT_STEPS,
        )
        return FittedSnapshots.of(self, result, self.windows(result, places))

    def windows(
        self, solution: Solution, places: NDArray[np.int64] | None = None
    ) -> tuple[FittedWindow, ...]:
        """Fit of each window around the common fit; `places`: its observations, None: all."""
        if self.score.windows is None:
            return ()
        problem = self.base.problem
        shift, observations = problem.columns(self.score.windows), problem.observations
        included = list(range(len(observations))) if places is None else places.tolist()
        weights = dict(zip(included, solution.weights.tolist(), strict=True))
        results = []
        for number, begin_s in enumerate(self.base.starts):
            own = [k for k in included if observations[k].window == number]
            if own:
                start = np.array([weights[k] for k in own])
                built = self._window(problem.part(own), shift, start, solution.values)
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
        first = solve.solve(part, shift, weights, offset=offset, max_steps=_WINDOW_STEPS)
        weights = solve.weights_of(part.observations, first.blocks, robust=self.score.prior.robust)
        return solve.solve(
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
        """Snapshots of a solution. Where the qubits of all circuits are known, those and the pairs
        that none of them uses keep their calibration; where the compiler chose some, the fit is one
        of all qubits and gates of the device."""
        device, problem, columns = attempt.base.device, attempt.base.problem, attempt.columns
        every = fit_parts.all_components(device)
        every += tuple(each for each in problem.components if each.kind == fit_parts.JOINT)
        values = columns.extended(every) @ solution.latent
        values += columns.carried_over(every, problem.components, solution.latent)
        shift = problem.columns(attempt.score.windows or attempt.score.prior).extended(every)
        is_whole = any(each.was_placed for each in problem.observations)
        pairwise = fit_parts.JOINT, fit_parts.ZZ  # also of pairs without a gate
        used = {each.qubits for each in problem.components if each.kind not in pairwise}
        if not is_whole:
            fitted = set(problem.components)
            is_used = np.array([each in fitted or each.qubits in used for each in every])
            values, shift = values * is_used, shift * is_used[:, None]
        known = set(problem.components)  # no other pair says how much a gate rotates
        is_known = np.array([not each.is_angle or each in known for each in every])
        values, shift = values * is_known, shift * is_known[:, None]

        def built(values: NDArray[np.float64]) -> CalibrationSnapshot:
            result, before = fit_parts.fitted_snapshot(device, every, values), device.snapshot
            if is_whole:
                return result
            qubits = tuple(
                after if (k,) in used else each
                for k, (each, after) in enumerate(zip(before.qubits, result.qubits, strict=True))
            )
            gates = tuple(
                after if tuple(sorted(each.qubits)) in used else each
                for each, after in zip(before.gates, result.gates, strict=True)
            )
            return msgspec.structs.replace(result, qubits=qubits, gates=gates)

        def dated(window: FittedWindow) -> CalibrationSnapshot:
            result = built(values + shift @ window.latent)
            begin = datetime.fromtimestamp(window.begin_s, UTC).isoformat()
            return msgspec.structs.replace(result, calibrated=begin)

        return FittedSnapshots(built(values), tuple(map(dated, windows)))


def attempts_on(
    base: FitBase,
    reference: Mapping[object, float],
    note: Callable[[str], None],
    null: NullGains | None = None,
) -> list[FitAttempt]:
    """Attempts with each of the chosen priors, and with the likeliest one (`null`). `reference`:
    losses of the unchanged calibration, by circuit and window."""
    problem, folds = base.problem, base.folds()
    note(
        f"{base.name}: {len(problem.observations)} circuits, {len(problem.components)} components,"
        f" {int(folds.max()) + 1} folds"
    )
    if not folds.any():
        losses = np.zeros(len(folds))
        return [FitAttempt(base, folds, score_of(UNCHECKED, losses, losses + 1.0), ())]
    validation = CrossValidation(problem, folds, reference)
    chosen, chance = chosen_priors(validation), math.nan
    if null is not None:
        likeliest, chance = _likeliest(null.likeliest(LIKELIEST), validation)
        chosen.append(likeliest)
    for score in chosen:
        shift = "none" if score.windows is None else score.windows.text
        note(f"{base.name}: prior {score.prior.text}; windows: {shift}; ratio {score.ratio:.3f}")
    return [
        FitAttempt(
            base, folds, score, tuple(validation.scores),
            validation.day_tests(score.prior) if validation.is_dated else (),
            chance, null.alone(score.prior) if null and score is chosen[-1] else None,
        )
        for score in chosen
    ]  # fmt: skip
