"""Fit of a device to measured counts, its comparison with the snapshot, and the files of fits.

A fit is judged on circuits of folds that it did not see, each predicted as a submit to the fitted
device would be. Among devices between the snapshot and each fit, the result is the one with the
largest gain of fidelity of those whose gain is significant (`accept.gain`). If none is, the
snapshot is kept; if the fits are worse than it, they are refused. No fit is used that is below
Aer's recipe for the snapshot in either of its forms, with equal or with own readout errors of 0
and 1. A fit is in force for circuits like those that it was judged on, the snapshot for others.
Where the snapshot itself
is below one of them, what is kept is the snapshot, its values as Aer reads them from a Target, or a
part of the way to these: the best of those that gain beyond chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, FitScope
from noise_models.device_model import reduced
from noise_models.options import NoiseOptions
from noise_models.snapshot import MAX_REASON
from simenv import result_files
from simenv.calibration import accept, guards, interpolation, judge, mixtures, plausibility
from simenv.calibration.data import CountsData, CountsRecord, DataError
from simenv.calibration.fit import attempt as fit_attempt, components as fit_components, solve
from simenv.calibration.fit.day_values import DayTest
from simenv.calibration.fit.identify import Identification, LikelihoodFit, identify
from simenv.calibration.fit.observations import DeviceCompiler, ObservedCircuits
from simenv.calibration.fit.scope import scope_of
from simenv.calibration.fit.significance import NullGains
from simenv.calibration.fit.solve import Prior, Solution
from simenv.calibration.score import Predictor, SeriesPredictor
from simenv.errors import SimenvError
from simulators.circuit.analysis import fit_scope

MOST_CHECK_WORK = 2**26  # limit of 4^qubits times steps of a circuit on which a fit is judged
SNAPSHOT, HOMOGENEOUS = "snapshot", "homogeneous"  # bases of fits
AER = "aer"  # base of a result between the snapshot as Aer reads it and the snapshot
AER_RECIPES = "aer", "aer-properties"  # a result is to be below neither
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from the snapshot to a fit, in logarithms of values


class FitRefusedError(SimenvError):
    """The fitted device is worse than its snapshot on circuits that it did not see."""

    code = "fit_refused"
    remedy = "use the device as it is calibrated, or measure more circuit bodies on the same qubits"
    exit_code = 1


class FittedDevice(msgspec.Struct, frozen=True, eq=False):
    """Fitted snapshot with the details of its fit."""

    snapshot: CalibrationSnapshot
    base: str  # SNAPSHOT, HOMOGENEOUS: the medians of its values, or AER
    prior: Prior
    scores: tuple[fit_attempt.CandidateScore, ...]
    share: float  # of the way from the snapshot to the fit; 0.0: the snapshot is kept
    components: tuple[fit_components.Component, ...]
    values: NDArray[np.float64]  # of the fit, as is `latent`: at share 1
    columns: tuple[str, ...]
    latent: NDArray[np.float64]
    widths: NDArray[np.float64]  # [columns]: logarithm of a factor, or radians, for latent 1
    held_out: accept.HeldOutGain | None  # None: fewer than two circuit bodies
    observed: ObservedCircuits
    windows: tuple[fit_attempt.FittedWindow, ...]  # (): one calibration for all dates
    series: tuple[CalibrationSnapshot, ...]  # of the windows
    scope: FitScope  # circuits of the fit, also where it is not used
    likelihood: LikelihoodFit
    identification: Identification  # of the values of the resulting device
    reason: str = ""  # for which no fit is used
    day_tests: tuple[DayTest, ...] = ()  # of each parameter, where the counts are of several days
    # Values of the device that uses the fit, far from the calibrated ones (`plausibility`).
    implausible: tuple[str, ...] = ()


class _Choice(msgspec.Struct, frozen=True, eq=False):
    """Share of the way to one fit, with its gain on circuits that were left out."""

    attempt: fit_attempt.FitAttempt
    solution: Solution
    share: float
    undated_share: float  # for the calibration of all dates; 0.0 if that is worse
    gain: accept.HeldOutGain | None
    circuits: Sequence[accept.HeldOutCircuit] = ()  # left out
    after: NDArray[np.float64] | None = None  # fidelity of each of them
    reason: str = ""  # for which the fit is not used
    implausible: tuple[str, ...] = ()  # values of the fit, at share 1


def calibrate(
    data: CountsData,
    snapshot: CalibrationSnapshot,
    name: str,
    note: Callable[[str], None] = lambda _: None,
    *,
    force: bool = False,
) -> FittedDevice:
    """Fit a snapshot to the training part of `data`; `name`: of the new device. The fit is in force
    for circuits of its scope (`scope_of`), the snapshot for others.
    `force`: use data that look wrong (`guards`), and a fit that is not plausible; its devices have
    the reason. Raises DataError
    if no circuit can be fitted, and FitRefusedError."""
    if snapshot.modules or any(gate.paulis for gate in snapshot.gates):
        what = "consists of modules" if snapshot.modules else "has Pauli errors of gates"
        raise FitRefusedError(
            f"device {snapshot.name} {what}, which no fit changes",
            hint="fit each module by itself, or a device whose gates have `error` alone",
        )
    training = data.part(test=False)
    snapshot = fit_components.with_each_qubit(fit_components.without_jumps(snapshot))
    if not training.records:
        raise DataError("every row of the data is a test row", hint='rows with "split": "train"')
    if not fit_components.all_components(fit_components.DeviceChannels(snapshot)):
        raise _nothing_to_fit(f"device {snapshot.name} has no calibrated value")
    found = guards.problem(training.records, snapshot, MOST_CHECK_WORK)
    if found and not force:
        raise FitRefusedError(
            f"the counts are not fitted: {found}",
            hint="correct the file; force=True fits the counts as they are",
        )
    base = fit_attempt.FitBase.of(SNAPSHOT, snapshot, training)
    if not fit_components.are_calibrated(base.problem.components):
        raise _nothing_to_fit(
            f"device {snapshot.name} has no calibrated value of the qubits and gates of the"
            " circuits"
        )
    reference = base.unchanged_losses()
    folds = base.folds()
    null = NullGains(base.problem, folds, SHARES) if folds.any() else None
    attempts = fit_attempt.attempts_on(base, reference, note, null)
    if any(each.was_placed for each in base.problem.observations):
        homogeneous = fit_components.homogeneous(snapshot)
        pooled = fit_attempt.FitBase.of(HOMOGENEOUS, homogeneous, training)
        attempts += fit_attempt.attempts_on(pooled, reference, note)
    unfitted = _Unfitted.of(snapshot, training, base.windows)
    choices = [
        choice
        for each in attempts
        for choice in _choices(
            each, snapshot, training, unfitted, null if each.base is base else None, note
        )
    ]
    scope = scope_of(training.records, base.problem, snapshot.name)
    best = _accepted(choices)
    result = _fitted_device(best, data, unfitted.kept, name, scope)
    doubt = _doubt(best, result.likelihood, training.records)
    if doubt and not force:
        raise FitRefusedError(
            f"the fit is not stored: {doubt}",
            hint="check that the counts are of these qubits and circuits, in one state of the"
            " device; force=True stores it",
        )
    return _forced(result, "; ".join(filter(None, (found, doubt))))


def _nothing_to_fit(message: str) -> FitRefusedError:
    return FitRefusedError(
        f"{message}: a fit changes T1, T2, readout errors, gate errors and ZZ rates that a"
        " calibration states",
        hint="state them in a device of your own, as with `simenv devices new --t1-us"
        " --readout-error --error-2q`, or import the machine's calibration, and fit that",
    )


def _forced(fitted: FittedDevice, refused: str) -> FittedDevice:
    """Fit whose devices have the reason for which it was refused."""
    if not refused:
        return fitted
    text = "".join(c if c.isprintable() else "?" for c in refused[:MAX_REASON])  # has file names
    scope = msgspec.structs.replace(fitted.scope, refused=text)

    def marked(device: CalibrationSnapshot) -> CalibrationSnapshot:
        known = None if device.fitted is None else scope  # the calibration itself has no mark
        return msgspec.structs.replace(device, fitted=known)

    return msgspec.structs.replace(
        fitted,
        snapshot=marked(fitted.snapshot),
        series=tuple(map(marked, fitted.series)),
        scope=scope,
    )


_NORMAL = 2.576  # standard errors of a 99 % interval
MOST_LACKING = 0.1  # of the mean fidelity of the fit to its own circuits, to its ceiling


def _doubt(best: _Choice, likelihood: LikelihoodFit, records: Sequence[CountsRecord]) -> str:
    """What makes a fit a wrong description of the counts, whichever share of it is used; "":
    nothing."""
    texts = fit_scope.listed(best.implausible)
    found = [f"the values that the counts ask for are not plausible: {texts}"] if texts else []
    if text := guards.uniform(likelihood):
        found.append(text)
    problem, solution = best.attempt.base.problem, best.solution
    windows = np.array(best.attempt.base.windows)
    if best.attempt.score.windows is None:  # all dates have one calibration
        windows[:] = 0
    for window in np.unique(windows).tolist():
        part = [each for each, of in zip(records, windows, strict=True) if of == window]
        if text := mixtures.mixed(part, problem, solution.values):
            found.append(text)
            break
    if text := guards.incomplete(problem, solution.values):
        found.append(text)
    blocks, observations = solution.blocks, problem.observations
    shots = np.array([each.shots for each in observations])
    if text := guards.smooth(blocks, shots, len(best.attempt.columns.columns)):
        found.append(text)
    reached = np.array([judge.fidelity(each.loss) for each in blocks])
    ceilings = np.array([
        judge.fidelity(0.25 * block.num_outcomes / each.shots)
        for block, each in zip(blocks, observations, strict=True)
    ])  # fmt: skip
    runs = np.ones(len(reached), np.int64)
    lacking = accept.interval(ceilings - reached, runs, [each.body for each in observations])
    if lacking.low > MOST_LACKING:
        found.append(
            f"no values of the model explain the counts: mean fidelity {reached.mean():.3f}, where"
            f" counts of the fitted device itself would have {ceilings.mean():.3f}; it lacks"
            f" {lacking.text}, more than {MOST_LACKING:g}"
        )
    return "; ".join(found)


def _implausible(attempt: fit_attempt.FitAttempt, solution: Solution) -> tuple[str, ...]:
    """Texts for values of a fit that are far from the calibrated ones, by the end of the 99 %
    interval of each component that is nearest to the calibration."""
    columns, device = attempt.columns, attempt.base.device
    size = len(columns.matrix)
    hessian, _ = solve.normal_equations(solution.blocks, solution.weights, size)
    precision = np.diag(columns.precision(solution.latent))
    inverse = np.linalg.inv(columns.matrix.T @ hessian @ columns.matrix + precision)
    components = attempt.base.problem.components
    values = columns.matrix @ solution.latent
    width = _NORMAL * np.sqrt(np.einsum("kc,cd,kd->k", columns.matrix, inverse, columns.matrix))
    nearest = np.sign(values) * np.maximum(np.abs(values) - width, 0.0)
    after = fit_components.fitted_snapshot(device, components, nearest)
    changes = zip((each.kind for each in components), nearest.tolist(), strict=True)
    return plausibility.implausible(device.snapshot, after, changes, attempt.base.qubits)


class _Kept(msgspec.Struct, frozen=True, eq=False):
    """Snapshot that is kept where no fit is used."""

    base: str
    original: CalibrationSnapshot
    snapshot: CalibrationSnapshot


class _Unfitted(msgspec.Struct, frozen=True, eq=False):
    """Fidelities of the training circuits by the snapshot, and by both forms of Aer's recipe."""

    snapshot: NDArray[np.float64]
    aer: tuple[NDArray[np.float64], ...]
    kept: _Kept

    @staticmethod
    def of(
        snapshot: CalibrationSnapshot, training: CountsData, windows: Sequence[int]
    ) -> _Unfitted:
        """Compute the fidelities; no circuit is in a fold. `windows`: date window of each
        record."""
        circuits = accept.held_out_circuits(training.records, windows, {})
        compiler = DeviceCompiler(snapshot)

        def predicted(device: CalibrationSnapshot, recipe: str = "simenv") -> NDArray[np.float64]:
            options = NoiseOptions(recipe=recipe)
            predictor = Predictor(device, options, compiler, MOST_CHECK_WORK)
            return accept.fidelities(circuits, [predictor])

        before = predicted(snapshot)
        aer = tuple(predicted(snapshot, recipe) for recipe in AER_RECIPES)
        kept = _Kept(SNAPSHOT, snapshot, snapshot)
        if not np.isfinite(before + sum(aer)).any():
            return _Unfitted(before, aer, kept)
        gained = _gain(circuits, before, before, aer)
        if not gained.is_below_aer:
            return _Unfitted(before, aer, kept)
        candidates = [(gained.fitted.mean, kept)]
        for share in SHARES:
            device = interpolation.blended(snapshot, reduced(snapshot, symmetric=True), share)
            gained = _gain(circuits, predicted(device), before, aer)
            if gained.gain.is_above:
                candidates.append((gained.fitted.mean, _Kept(AER, snapshot, device)))
        return _Unfitted(before, aer, max(candidates, key=lambda pair: pair[0])[1])


def _choices(
    attempt: fit_attempt.FitAttempt,
    snapshot: CalibrationSnapshot,
    training: CountsData,
    unfitted: _Unfitted,
    null: NullGains | None,
    note: Callable[[str], None],
) -> list[_Choice]:
    """All shares of one fit, judged on the folds. `null`: of the base, for the chance of gains."""
    solution = attempt.fit()
    implausible = _implausible(attempt, solution)
    if attempt.num_folds < 2:
        return [_Choice(attempt, solution, 1.0, 1.0, None, implausible=implausible)]
    fold_of_body = attempt.fold_of_body
    circuits = accept.held_out_circuits(training.records, attempt.base.windows, fold_of_body)
    folds = [attempt.without(fold, solution) for fold in range(attempt.num_folds)]
    results = []
    for share in SHARES:
        devices = _devices(snapshot, folds, share)
        after = [accept.fidelities(circuits, each) for each in devices]
        if not np.isfinite(sum(after) + unfitted.snapshot + sum(unfitted.aer)).any():
            return [_Choice(attempt, solution, 1.0, 1.0, None, implausible=implausible)]
        undated, *dated = (_gain(circuits, each, unfitted.snapshot, unfitted.aer) for each in after)
        gained = dated[0] if dated else undated
        if null is not None:
            family = [each.prior for each in attempt.scores]
            chance = null.chance(attempt.score.prior, share, family)
            gained = msgspec.structs.replace(gained, chance=chance, by_likelihood=attempt.chance)
            if attempt.alone is not None and share == 1.0:
                whole = fit_attempt.FittedSnapshots.of(attempt, solution, attempt.windows(solution))
                seen = accept.fidelities(circuits, _devices(snapshot, [whole], share)[-1])
                left_out = after[-1]
                if attempt.alone:  # of the other bodies alone
                    known = [
                        attempt.without(fold, solution, attempt.alone)
                        for fold in range(attempt.num_folds)
                    ]
                    left_out = accept.fidelities(circuits, _devices(snapshot, known, share)[-1])
                gained = gained.with_likeliest(
                    _others(
                        circuits,
                        attempt.alone,
                        left_out - unfitted.snapshot,
                        seen - unfitted.snapshot,
                    )
                )
        kept = 0.0 if dated and undated.gain.mean < 0.0 else share
        results.append(
            _Choice(
                attempt, solution, share, kept, gained, circuits, after[-1],
                implausible=implausible,
            )
        )  # fmt: skip
        note(
            f"{attempt.base.name}, share {share:g}: mean gain {gained.text}; above Aer's"
            f" recipe {', '.join(each.text for each in gained.above_aer)}"
        )
    return results


def _others(
    circuits: Sequence[accept.HeldOutCircuit],
    alone: frozenset[str],
    held_out: NDArray[np.float64],
    seen: NDArray[np.float64],
) -> accept.LikeliestGain:
    """Gains of circuits by fits that did not see them, and by the one that did. `alone`: bodies
    that alone identify values, which the fits without others have seen as well: what those say of
    the others is not known to a fit without them."""
    runs = np.array([each.runs for each in circuits]) * np.isfinite(held_out + seen)
    is_alone = np.array([each.record.body in alone for each in circuits])
    gains = np.where(runs, seen, 0.0) * runs
    total, others = float(gains.sum()), np.flatnonzero(~is_alone & (runs > 0))
    return accept.LikeliestGain(
        mean=total / float(runs.sum()),
        alone=float(gains[is_alone].sum()) / total if total else 0.0,
        bodies=len(alone),
        others=accept.interval(
            held_out[others], runs[others],
            [circuits[k].record.body for k in others.tolist()], accept.LIKELY,
        ) if others.size else None,
    )  # fmt: skip


def _devices(
    snapshot: CalibrationSnapshot, folds: Sequence[fit_attempt.FittedSnapshots], share: float
) -> list[list[Predictor]]:
    """Devices of the folds: by their common calibration, which tasks use, and, if there are date
    windows, by those of the windows, which scores use."""
    before = fit_components.with_gates_of_each_set(snapshot)

    def device(
        each: fit_attempt.FittedSnapshots, series: Sequence[CalibrationSnapshot]
    ) -> Predictor:
        dated = [interpolation.blended(before, calibration, share) for calibration in series]
        return SeriesPredictor(
            interpolation.blended(before, each.snapshot, share), dated, MOST_CHECK_WORK
        )

    results = [[device(each, ()) for each in folds]]
    if any(each.series for each in folds):
        results.append([device(each, each.series) for each in folds])
    return results


def _gain(
    circuits: Sequence[accept.HeldOutCircuit],
    after: NDArray[np.float64],
    before: NDArray[np.float64],
    aer: Sequence[NDArray[np.float64]],
) -> accept.HeldOutGain:
    finite = np.flatnonzero(np.isfinite(after + before + sum(aer))).tolist()
    runs = np.array([circuits[k].runs for k in finite])
    bodies = [circuits[k].record.body for k in finite]
    return accept.gain(
        after[finite], before[finite], runs, bodies, [each[finite] for each in aer],
        [circuits[k].has_gates for k in finite],
    )  # fmt: skip


def _accepted(choices: Sequence[_Choice]) -> _Choice:
    """Choice with the largest mean gain among the significant ones that are not below Aer's recipe,
    provided that a fit of the snapshot itself is one of them: few circuits that ran on unknown
    qubits gain by a homogeneous device by chance more often. A fit that keeps the spread of the
    calibration is preferred unless a homogeneous device gains more beyond chance.

    Else, or where bodies alone identify values, the likeliest fit for alike circuits, if it is
    one (`accept.HeldOutGain.is_narrow`). Else the snapshot, at share 0. Raises FitRefusedError if
    all choices are worse than the snapshot, and that is not below Aer's recipe.
    """
    judged = [(each, each.gain) for each in choices if each.gain is not None]
    own = [pair for pair in judged if pair[0].attempt.base.name == SNAPSHOT]
    if not judged:
        return _kept(
            choices[0],
            "no circuits were left out to judge a fit by: measure circuits of at least two bodies,"
            " at least one of them narrow enough for an exact distribution",
        )
    usable = [pair for pair in judged if pair[1].is_used and not pair[1].is_below_aer]
    # With another prior a fit can be plausible; if none is, the fit is refused (`_doubt`).
    usable = [pair for pair in usable if not pair[0].implausible] or usable
    certain = [pair for pair in usable if pair[0].attempt.base.name == SNAPSHOT]
    likeliest = next((pair for pair in own if pair[1].likeliest and not pair[0].implausible), None)
    # Folds judge no fit where bodies alone identify values, whatever they show of others.
    is_narrow = likeliest and likeliest[1].is_narrow and not likeliest[1].is_below_aer
    if likeliest and is_narrow and (not certain or likeliest[1].is_judged_by_own_counts):
        return likeliest[0]
    if certain:
        best, gained = max(certain, key=_mean)
        other, more = max(usable, key=_mean)
        return other if more.gain.mean > gained.gain.mean and _is_better(other, best) else best
    is_certain = judged[0][1].bodies >= accept.LEAST_FLIPPED
    is_worse = is_certain and all(pair[1].gain.is_below for pair in judged)
    if is_worse and not judged[0][1].is_snapshot_below_aer:
        _, result = max(judged, key=_low)
        raise FitRefusedError(
            f"the fitted device is worse than its snapshot on {result.circuits} circuits that it"
            f" did not see: mean fidelity {result.fitted.mean:.4f} against"
            f" {result.snapshot.mean:.4f}, difference {result.gain.text}",
            hint="use the device itself, which is the better model, or measure more different"
            " circuits, some of them later, on the same qubits; simenv score compares models",
        )
    best, gained = max(own, key=_low)
    if likeliest and likeliest[1].refutes_snapshot and not gained.is_used:
        best, gained = likeliest
    if gained.is_used or gained.is_narrow:
        return _kept(best, "the fit is below Aer's recipe for the calibration")
    return _kept(best, gained.lack)


def _low(pair: tuple[_Choice, accept.HeldOutGain]) -> float:
    return pair[1].gain.low


def _mean(pair: tuple[_Choice, accept.HeldOutGain]) -> float:
    return pair[1].gain.mean


def _kept(choice: _Choice, reason: str) -> _Choice:
    """The calibration in place of a fit."""
    return msgspec.structs.replace(choice, share=0.0, undated_share=0.0, reason=reason)


def _is_better(first: _Choice, second: _Choice) -> bool:
    """Return whether the first choice gains on the second one beyond chance."""
    if first.after is None or second.after is None:
        return True
    found = _gain(first.circuits, first.after, second.after, ())
    return found.gain.low > 0.0


def _fitted_device(
    best: _Choice, data: CountsData, kept: _Kept, name: str, scope: FitScope
) -> FittedDevice:
    built, solution, share = best.attempt, best.solution, best.share
    problem, prior = built.base.problem, built.score.prior
    windows = built.windows(solution) if share else ()
    snapshot, base = kept.original, built.base.name if share else kept.base
    before = fit_components.with_gates_of_each_set(snapshot)
    snapshots = fit_attempt.FittedSnapshots.of(built, solution, windows)
    times = [each.time_s for each in data.records if each.time_s == each.time_s]
    latest = datetime.fromtimestamp(max(times), UTC).isoformat() if times else ""

    def named(fitted: CalibrationSnapshot, calibrated: str, share: float) -> CalibrationSnapshot:
        return msgspec.structs.replace(
            interpolation.blended(before, fitted, share)
            if share
            else msgspec.structs.replace(
                kept.snapshot, zz_strength=kept.snapshot.zz_factor if snapshot.zz else None
            ),
            name=name,
            fitted=scope if share else None,
            outside=(snapshot.outside or snapshot) if share else None,
            version=data.digest[:12],
            source_format="counts",
            source_digest=data.digest,
            calibrated=calibrated or snapshot.calibrated,
        )

    result = named(snapshots.snapshot, latest, best.undated_share)
    of_base = fit_components.with_gates_of_each_set(built.base.device.snapshot)
    used = interpolation.blended(of_base, snapshots.snapshot, share) if share else of_base
    changes = zip(built.names, (share * built.widths * solution.latent).tolist(), strict=True)
    likelihood = LikelihoodFit.of(problem, solution.values, prior)
    after = fit_components.with_gates_of_each_set(result)
    return FittedDevice(
        snapshot=result,
        base=base,
        prior=prior,
        scores=built.scores,
        share=share,
        components=problem.components,
        values=solution.values,
        columns=built.names,
        latent=solution.latent,
        widths=built.widths,
        held_out=best.gain,
        observed=built.base.observed,
        windows=windows,
        series=tuple(named(each, each.calibrated, share) for each in snapshots.series),
        scope=scope,
        likelihood=likelihood,
        identification=identify(likelihood, before, after, is_kept=not share),
        reason=best.reason,
        day_tests=built.day_tests,
        implausible=plausibility.implausible(of_base, used, changes, built.base.qubits),
    )


FORMAT = 1


def save(path: Path, fitted: FittedDevice) -> None:
    """Write a fit by rename: an HDF5 file with components, their values by date window, intervals
    and scores.

    Datasets: `values` [components] (logarithms of factors, radians), `unknowns` [columns] (standard
    normal by the prior); with windows, `window_begin_s` [windows] and `window_unknowns` [windows,
    columns]. All belong to the fit; the device is `share` of the way to it. `parameters`
    [parameters, 4]: calibrated value, that of the device, and the ends of the interval of 95 % by
    the likelihood, nan for none. Names and marks are JSON in the attributes.

    Raises StoreError.
    """
    parameters = fitted.identification.parameters
    arrays: dict[str, NDArray[np.float64]] = {
        "values": fitted.values,
        "unknowns": fitted.latent,
        "parameters": np.array(
            [[math.nan if value is None else value for value in each.values] for each in parameters]
        ).reshape(-1, 4),
    }
    if fitted.windows:
        arrays["window_begin_s"] = np.array([window.begin_s for window in fitted.windows])
        arrays["window_unknowns"] = np.array([window.latent for window in fitted.windows])
    attributes: dict[str, str | int | float] = {
        "format": FORMAT,
        "kind": "simenv-fit",
        "device": fitted.snapshot.name,
        "base": fitted.base,
        "prior": fitted.prior.text,
        "share": fitted.share,
        "snapshot": fitted.snapshot.digest.hex(),
        "source": fitted.snapshot.source_digest,
        "components": msgspec.json.encode(fitted.components).decode(),
        "columns": msgspec.json.encode(fitted.columns).decode(),
        "parameter_names": msgspec.json.encode([each.name for each in parameters]).decode(),
        "parameter_marks": msgspec.json.encode([each.mark for each in parameters]).decode(),
        "scores": msgspec.json.encode(fitted.scores).decode(),
        "held_out": msgspec.json.encode(fitted.held_out).decode(),
        "scope": msgspec.json.encode(fitted.scope).decode(),
        "left_out": msgspec.json.encode(fitted.observed.left_out).decode(),
        "day_tests": msgspec.json.encode(fitted.day_tests).decode(),
    }
    entries = {name: np.ascontiguousarray(array, "<f8") for name, array in arrays.items()}
    result_files.write(path, entries, attributes)
