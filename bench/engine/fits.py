"""Fits of devices whose noise is known: do they tell the truth, and do their intervals?"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

import msgspec
import numpy as np

from bench.harness import SEED, Report, benchmark
from bench.harness.kernels import load_kernels
from simenv.calibration import accept
from simenv.calibration.fit.calibrate import FitRefusedError, calibrate
from simenv.calibration.fit.components import with_gates_of_each_set
from simenv.calibration.fit.identify import LikelihoodFit, ParameterEstimate, identify
from simenv.calibration.fit.likelihood import LEVEL, minimum
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.guards import LEAST_SHOTS
from testbed import drawn_devices as drawn

SHOTS, CIRCUITS = (30, 100, 300, 1000), (2, 3, 5, 7, 10, 12, 16, 24, 40)
REFUSED = "the counts are not fitted", "the fit is not stored"  # of errors: they look wrong
JUDGED = 24  # circuits that no fit sees
PLAIN = 0.4  # of the truths have no term of TERMS


class Outcome(msgspec.Struct, frozen=True):
    is_refused: bool = False
    is_worse: bool = False  # than the calibration
    is_below_aer: bool = False  # on folds, beyond the 99 % interval
    is_used: bool = False


@benchmark(false=50, truths=50, wrong=1, seed=SEED)
def fit_truths(report: Report, options: Namespace) -> None:
    """Fits of devices whose noise is known: does a fit tell the truth?

    A device of 3 to 7 qubits is drawn at random, with its calibration. The truth is the calibration
    (`--false`: every fit that is used is then wrong), or it differs in all values (`--truths`),
    some also by coherent errors of cz, joint flips, detunings (T2*), leakage, or errors of layers.
    Counts are drawn from the exact distributions of random, GHZ, or deep circuits, whose qubits are
    given or chosen by the compiler. The loss of a model is its mean squared Hellinger distance to
    the truth on circuits that were drawn anew. `--wrong` spoils counts in 38 ways, each of which
    must be refused, and the right counts must not.
    """
    load_kernels()
    random = np.random.default_rng(options.seed)
    refused = _wrong_data(report, options.wrong, random) if options.wrong else 0
    below = 0
    for is_true, count in ((True, options.false), (False, options.truths)):
        found = [_trial(k, random, is_true=is_true) for k in range(count)]
        refused += sum(each.is_refused for each in found)
        below += sum(each.is_below_aer for each in found)
        print(f"{sum(each.is_used for each in found)} of {count} fits are used")
        if count:
            worse = sum(each.is_worse for each in found)
            report.at_most("false_fits" if is_true else "worse_fits", worse)
    report.at_most("right_refused", refused)
    report.at_most("below_aer", below)


def _wrong_data(report: Report, count: int, random: drawn.Random) -> int:
    """Return how many right counts are refused."""
    stored, refused, total = 0, 0, 0
    for _ in range(count):
        n = int(random.integers(4, 7))
        calibration = drawn.device(random, n)
        truth = drawn.changed(calibration, random)
        data = drawn.counts_of(truth, drawn.circuits(random, n, 30), 2_000, random)
        old = drawn.counts_of(
            drawn.aged(calibration, random), drawn.circuits(random, n, 30), 2_000, random
        )
        right = (("right", data), ("right, of an old calibration", old))
        mixed = drawn.two_devices(truth, drawn.circuits(random, n, 30), 2_000, random)
        for name, counts in (*right, *mixed, *drawn.spoiled(data, n, random)):
            try:
                calibrate(counts, calibration, "fitted")
                text = "STORED"
            except FitRefusedError as error:
                text = error.message
            is_right = name.startswith("right")
            total += not is_right
            stored += text == "STORED" and not is_right
            refused += is_right and text.startswith(REFUSED)
            print(f"{n} qubits, {name}: {text}", flush=True)
    print(f"{total} kinds of wrong counts")
    report.at_most("wrong_stored", stored)
    return refused


def _trial(number: int, random: drawn.Random, *, is_true: bool) -> Outcome:
    n = int(random.integers(3, 8))
    calibration = drawn.device(random, n)
    truth, terms = calibration, "true"
    if not is_true:
        truth, terms = drawn.changed(calibration, random), "changed"
        if random.random() > PLAIN:
            terms = str(random.choice(list(drawn.TERMS)))
            truth = drawn.TERMS[terms](truth, random)
            if terms == "T2*" and random.random() < 0.5:
                calibration = drawn.detuned(calibration, random)
    kind, bodies = str(random.choice(drawn.KINDS)), int(random.choice(CIRCUITS))
    shots = max(int(random.choice(SHOTS)), -(-LEAST_SHOTS // bodies))
    compiler = DeviceCompiler(calibration) if kind == "without layout" else None
    data = drawn.counts_of(
        truth, drawn.circuits(random, n, bodies, kind), shots, random, compiler=compiler
    )
    anew = drawn.circuits(random, n, JUDGED, kind)
    judged = drawn.counts_of(truth, anew, 1, random, compiler=compiler)
    label = f"{number}: {n} qubits, {kind}, {bodies} x {shots}, {terms}"
    try:
        fitted = calibrate(data, calibration, "fitted")
    except FitRefusedError as error:
        print(f"{label}: {error.message}", flush=True)
        return Outcome(is_refused=error.message.startswith(REFUSED))
    before, after = (drawn.loss(each, truth, judged) for each in (calibration, fitted.snapshot))
    held = fitted.held_out
    print(f"{label}: share {fitted.share:g}, loss {before:.6f} -> {after:.6f}; {fitted.prior.text};"
          f" {'' if held is None else held.text}; {fitted.reason}", flush=True)  # fmt: skip
    return Outcome(
        is_worse=after > before * (1.0 + 1e-9) + 1e-12,
        is_below_aer=bool(fitted.share) and held is not None and held.is_below_aer,
        is_used=bool(fitted.share),
    )


SETS = ("preparations and one body", "preparations and few bodies", "shallow", "dead qubit")
_DEEP = 3  # times the layers of the circuits of a shallow set


@benchmark(sets=60, seed=SEED)
def fit_scopes(report: Report, options: Namespace) -> None:
    """Fits of data that say little: is a stored fit below its calibration on other circuits?

    Devices of 4 qubits with their calibrations, and truths that differ in all values, every second
    one also by rotations of its cz. The data are preparations of all basis states with one body of
    gates in nine bases, or with three; random circuits of at most two layers; or circuits on three
    qubits beside a fourth one with T2 far above 2 T1. Counts of 24 other circuits, of up to six
    layers, are predicted by the fitted device, which acts within its scope, and by its calibration:
    a fit is below if the 99 % interval of the mean difference of fidelities is below 0. `acting`
    counts predictions of circuits of more than twice the gates of shallow sets by the fit.
    """
    load_kernels()
    random = np.random.default_rng(options.seed)
    below = refused = acting = used = 0
    for number in range(options.sets):
        kind = SETS[number % len(SETS)]
        calibration = drawn.device(random, 4)
        if kind == "dead qubit":
            calibration = drawn.with_dead_qubit(calibration, 3)
        truth = drawn.changed(calibration, random)
        if number // len(SETS) % 2:
            truth = drawn.coherent(truth, random)
        size = 3 if kind == "dead qubit" else 4
        sources = drawn.preparations(size) if kind.startswith("preparations") else []
        for body in range({SETS[0]: 1, SETS[1]: 3}.get(kind, 0)):
            sources += drawn.in_bases(random, size, 9, body)
        if not sources:
            layers = (1, 2) if kind == "shallow" else (1, 8)
            sources = drawn.circuits(random, size, 24, layers=layers)
        anew = drawn.circuits(random, size, JUDGED, layers=(1, 2 * _DEEP))
        data = drawn.counts_of(truth, sources, 4_000, random)
        judged = drawn.counts_of(truth, anew, 4_000, random)
        try:
            fitted = calibrate(data, calibration, "fitted")
        except FitRefusedError as error:
            refused += kind == "dead qubit"
            print(f"{number}: {kind}: {error.message}", flush=True)
            continue
        device, before = fitted.snapshot, calibration
        change = drawn.fidelities(device, judged) - drawn.fidelities(before, judged)
        found = accept.interval(change, np.ones(len(change), np.int64), [str(k) for k in anew])
        twice = 2 * fitted.scope.two_qubit_gates
        used += bool(fitted.share)
        below += found.is_below
        acting += drawn.acting_beyond(device, judged, twice) if fitted.share else 0
        print(f"{number}: {kind}, {'rotated' if truth.gates[-1].rotations else 'changed'}: share"
              f" {fitted.share:g}, {found.text}{' BELOW' if found.is_below else ''}",
              flush=True)  # fmt: skip
    print(f"{used} of {options.sets} fits are used")
    report.at_most("below_calibration", below)
    report.at_most("acting_beyond_twice", acting)
    report.at_most("dead_refused", refused)


@benchmark(truths=50, qubits=7, profiles=4, seed=SEED)
def fit_intervals(report: Report, options: Namespace) -> None:
    """Intervals of fitted values: do they contain the truth, are values without information marked?

    Devices of 3 to `--qubits` qubits with their calibrations, and truths that differ in all values,
    some also by rotations of their pairs, by joint flips, and by their T2*; counts of random
    circuits, some also of sequences of gates and delays. Values that are not marked "not
    identified" count: the share of their intervals of 95 % that contain the truth. `--profiles`
    values of each device are held at half and at twice the most likely one while all others are
    fitted again: where neither is less likely by more than the level of an interval, the profile is
    flat, and the value has to be marked.
    """
    load_kernels()
    random = np.random.default_rng(options.seed)
    inside, total = Counter[str](), Counter[str]()
    marked = flat = refused = 0
    for trial in range(options.truths):
        n = int(random.integers(3, options.qubits + 1))
        calibration = drawn.device(random, n)
        truth = drawn.changed(calibration, random)
        if random.random() < 0.3:
            share = float(random.uniform(0.2, 0.8))
            truth = drawn.with_t2_star(truth, share)
            calibration = drawn.with_t2_star(
                calibration, min(share * float(random.uniform(0.6, 1.5)), 1)
            )
        if random.random() < 0.3:
            truth = drawn.rotated(truth, random)
        if random.random() < 0.3:
            truth = drawn.with_joint_flips(truth, random)
        number = int(random.choice((5, 12, 24, 40)))
        shots = int(random.choice((100, 300, 1_000, 4_000, 20_000)))
        sources = drawn.circuits(random, n, number)
        sources += drawn.sequences(random, n) if random.random() < 0.5 else []
        data, label = (
            drawn.counts_of(truth, sources, shots, random),
            f"{trial}: {n} qubits, {number} x {shots}",
        )
        try:
            fitted = calibrate(data, calibration, "fitted", force=True)
        except FitRefusedError as error:
            refused += 1
            print(f"{label}: {error.message}", flush=True)
            continue
        fit = fitted.likelihood
        # Values of the fit with those of the true device as fitted ones.
        found = identify(fit, *map(with_gates_of_each_set, (calibration, truth))).parameters
        known = [each for each in found if each.identified]
        total.update(each.kind for each in known)
        inside.update(each.kind for each in known if _covers(each))
        missed = [f"{each.name} {each.low} to {each.high}, truth {each.fitted}" for each in known
                  if not _covers(each)]  # fmt: skip
        signed = ("angle", "ZZ", "joint flip")
        rates = [k for k, each in enumerate(fit.quantities) if each.kind not in signed]
        for place in random.permutation(rates)[: options.profiles].tolist():
            if fit.values[place] > 0.0 and _is_flat(fit, place):
                flat += 1
                marked += not found[place].identified
        print(f"{label}: {len(known)} of {len(found)} values identified; without the truth"
              f" {'; '.join(missed) or 0}", flush=True)  # fmt: skip
    print(", ".join(f"{kind} {inside[kind]} of {count}" for kind, count in sorted(total.items())))
    count = total.total()
    print(f"{count} intervals, {flat} flat profiles, {refused} fits refused")
    report.at_least("coverage", inside.total() / max(count, 1))
    report.at_least("flat_marked", marked / max(flat, 1))


def _covers(each: ParameterEstimate) -> bool:
    value = each.fitted or 0.0
    low = -np.inf if each.low is None else each.low
    return bool(low <= value) and (each.high is None or value <= each.high)


def _held_deviance(fit: LikelihoodFit, place: int, value: float) -> float:
    """Return the least deviance of all values with one quantity held, by a penalty of its
    difference."""
    likelihood, quantity = fit.likelihood, fit.quantities[place]
    x = fit.best.x
    for weight in (1e2, 1e4, 1e4, 1e4):
        point = likelihood.at(x)
        now, gradient = fit.device.gradient(quantity, likelihood, x)
        scale = weight / max(abs(value), 1e-9) ** 2
        matrix = point.fisher + scale * np.outer(gradient, gradient) + 0.25 * np.eye(len(x))
        slope = point.score + scale * (value - now) * gradient
        x = minimum(matrix, matrix @ x + slope, likelihood.lower)
    now, _ = fit.device.gradient(quantity, likelihood, x)
    return likelihood.at(x).deviance if abs(now - value) < 0.02 * abs(value) else float(np.inf)


def _is_flat(fit: LikelihoodFit, place: int) -> bool:
    """Return whether half and twice the most likely value are as likely within the level."""
    value = float(fit.values[place])
    level = fit.best.deviance + LEVEL * fit.likelihood.dispersion
    return all(_held_deviance(fit, place, factor * value) < level for factor in (0.5, 2.0))
