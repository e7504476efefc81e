"""Emulated QPUs compared with measured counts: fitted models, snapshots, and Aer's models.

For each data set of real QPUs, the device's snapshot is fitted to the training part, and models
predict all circuits: Aer's model of the snapshot without idle noise; with it, in both of its forms:
with equal readout errors of 0 and 1, as `NoiseModel.from_backend` reads a Target, and with p01 and
p10, as `from_backend_properties` has; our model of the snapshot with several factors of its ZZ
rates, the fitted one. Their scores are compared with those of the ideal circuit, of the uniform
distribution, of the ceiling by shot noise, and of the hardware's own repeat. HF is the
fidelity of `judge` between exact distribution and counts. Test circuits (`splits.json` of the data)
are never fitted, not even where they run under another name in the training part. A goal is also
met where a model is within 0.003 of the ceiling. `--residual` divides the losses of the snapshot
and of the fitted models by cause (`_residual`). `--splits 3` divides each set anew three times,
half of its different circuits for the fit, by seeds drawn with `--seed`, the clock by default; the
medians over these splits are compared with those of the hardware's own repeat, over the runs that
have one. Models below a form of Aer's recipe with idle noise are named before the table of a set,
and first on its page. A snapshot whose ZZ factor is 0, as it is by default, is Aer's recipe with
p01 and p10: only devices with a fit are compared with that.

The data are not part of the project; without them nothing is measured.
"""

from __future__ import annotations

import itertools
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.harness import Report, installed, timed, timed_s
from bench.harness.kernels import load_kernels
from bench.harness.options import SEED as SPLIT_SEED, Option
from bench.measured_sets import DATA, halved, with_split, without_tests
from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from noise_models.model import NoiseOptions
from simenv.calibration import judge, report as page
from simenv.calibration.accept import (
    HEADER,
    LEAST_GAIN,
    PARTS,
    as_values,
    below,
    cells,
    interval,
)
from simenv.calibration.data import CountsData, read
from simenv.calibration.fit.calibrate import FitRefusedError, FittedDevice, calibrate
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import (
    CEILING,
    EXACT_QUBITS,
    REPEAT,
    IdealDistributions,
    Prediction,
    Predictor,
    SeriesPredictor,
    Summary,
    score,
)

AER, AER_IDLE, SNAPSHOT, FITTED = "Aer", "Aer with idle noise", "snapshot", "fitted"
AER_PROPERTIES = "Aer, idle, p01 and p10"
EQUAL_READOUT = (
    "Aer's recipe from a Target reads 0 and 1 wrongly with the same probability; an emulated device"
    " has the p01 and p10 that its calibration states."
)
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # factors of ZZ rates
NEAR_CEILING = 0.003
NARROW_BITS = 5  # measured: of wider circuits few outcomes are seen twice, and HF is no measure
SPEED_CIRCUITS, SPEED_QUBITS = 60, 4
OPTIONS = (
    Option("--data", type=Path, default=DATA, help="folder with splits.json"),
    Option("--page", type=Path, help="write an HTML page with tables and plots"),
    Option("--train-only", action="store_true", help="do not look at test circuits"),
    Option("--test-only", action="store_true", help="score no training circuits: less time"),
    Option("--residual", action="store_true", help="divide the losses of models by cause"),
    Option("--splits", default=0, help="new splits of each set, which are judged instead"),
    SPLIT_SEED,
    Option("--curve-only", action="store_true", help="the curve of ZZ factors, without fits"),
)
_GOALS = {
    "set_median": "test circuits of a set: median HF of the fitted device",
    "sets_median": "median over the sets of the median HF",
    "fez_median": "ibm_fez, up to 5 bits: median HF",
    "fez_p10": "ibm_fez, up to 5 bits: 10th percentile of HF",
    "above_aer": "a set: mean HF above Aer's recipe from a Target, idle, end of the 99 % interval",
    "above_aer_properties": "the same, above Aer's recipe from properties, idle",
    "above_snapshot": "test circuits of a set: mean and median HF above the snapshot's, least",
}
_SPLIT_GOALS = {
    "repeat_median": "a set, new splits: median HF above the hardware's own repeat's, median",
    "repeat_p10": "a set, new splits: 10th percentile of HF above the repeat's, median",
    "splits_above_snapshot": "a set, new splits: median HF above the snapshot's, median",
    "splits_fez_p10": "ibm_fez, new splits: 10th percentile of HF, median",
}
_SPLITS_MEDIAN = "new splits: median over the sets of the median HF, median"


def run(options: Namespace) -> Report:
    report = Report("noise_calibration", "noise models beside measured counts")
    load_kernels()
    report.at_most("fit_s", speed_s(), "fit of 16 parameters to 60 circuits of 4 qubits, s")
    if not (options.data / "splits.json").is_file():
        split_goals = _SPLIT_GOALS | {"splits_sets_median": _SPLITS_MEDIAN}
        for key, label in (split_goals if options.splits else _GOALS).items():
            report.not_measured(key, label, f"no data in {options.data}")
        return report
    begin = time.perf_counter()
    sections: list[page.Section] = []
    medians: list[float] = []
    gains: dict[str, float] = {}  # of the sets with a fit, above AER_PROPERTIES
    splits = msgspec.json.decode((options.data / "splits.json").read_bytes())["files"]
    for name in [name for name in splits if not (options.data / name).is_file()]:
        key = "splits_sets_median" if options.splits else "set_median"
        report.not_measured(key, name, f"not in {options.data}")
        del splits[name]
    if options.splits:
        values = [
            _new_splits(
                report, with_split(read(options.data / name), split), options.splits, options.seed
            )
            for name, split in splits.items()
        ]
        label = f"{len(values)} sets, {options.splits} {_SPLITS_MEDIAN}"
        median = float(np.median(np.median(values, axis=0)))  # of each split, over the sets
        report.at_least("splits_sets_median", median, label)
        return report
    for name, split in splits.items():
        section, fit = _section(options, name, split)
        sections.append(section)
        _rule(report, section)
        if fit and (gain := _least_gain(section, fit, AER_PROPERTIES)) is not None:
            gains[f"{section.title}, {fit}"] = gain
        if not options.curve_only:
            medians.append(_goals(report, section, test=not options.train_only))
    if medians:
        report.at_least("sets_median", float(np.median(medians)), _GOALS["sets_median"])
        _rule_of_fits(report, gains)
    _show_curve(sections)
    print(f"\n{len(sections)} sets in {time.perf_counter() - begin:.0f} s")
    if options.page is not None and installed("matplotlib"):
        goals = [
            (each.label, f"{each.value:.4f}", f"{each.goal:g}", each.met)
            for each in report.figures
            if each.value is not None
        ]
        title, about = "Noise models compared with measured counts", (__doc__ or "").split("\n\n")
        page.write(options.page, title, sections, about[1:2], goals)
        print(f"page {options.page}")
    return report


def _section(options: Namespace, name: str, split: dict[str, Any]) -> tuple[page.Section, str]:
    """Judge a set. Return its section, and the model that has a fit; "" if none is used."""
    data = without_tests(with_split(read(options.data / name), split))
    if options.train_only:
        data = data.part(test=False)
    snapshot = library.load(data.device)
    title = f"{Path(name).stem} ({snapshot.name})"
    print(f"\n{title}: {len(data.records)} runs")
    notes: list[str] = []
    compiler = DeviceCompiler(snapshot)
    recipes: dict[str, Any] = {
        AER: {"recipe": "aer", "idle": False},
        AER_IDLE: "aer",
        AER_PROPERTIES: "aer-properties",
        SNAPSHOT: {},
    }
    if snapshot.zz:
        recipes |= {_zz_model(each): {"gate.zz_strength": each} for each in STRENGTHS}
    models: dict[str, Predictor] = {
        model: Predictor(snapshot, NoiseOptions.parse(recipe), compiler)
        for model, recipe in recipes.items()
    }
    fit = ""
    if not options.curve_only:
        fitted = _fitted(data, snapshot, notes)
        fit = FITTED if fitted is not None and not fitted.reason else ""
        models[FITTED] = models[SNAPSHOT]
        if fitted is not None:
            models[FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
    print(*(f"  {note}" for note in notes), sep="\n")
    judged = data.part(test=True) if options.test_only else data
    for model in (SNAPSHOT, FITTED) if options.residual else ():
        for part, is_test in PARTS if model in models else ():
            causes = _residual(judged.part(test=is_test), models[model])
            text = ", ".join(f"{cause} {loss:.4f}" for cause, loss in causes.items())
            print(f"  {model}, {part}: mean loss {sum(causes.values()):.4f}: {text}")
    result = score(judged, models, IdealDistributions(), _note)
    broken = [
        f"Below Aer's recipe: {text}."
        for model in (SNAPSHOT, FITTED)
        if model in models
        for reference in (AER_IDLE, AER_PROPERTIES)
        for text in below(result, model, reference)
    ]
    if any(below(result, SNAPSHOT, AER_IDLE)) and not below(result, SNAPSHOT, AER_PROPERTIES):
        notes.append(EQUAL_READOUT)
        print(f"  {EQUAL_READOUT}")
    print(*(f"  {text}" for text in broken), sep="\n", end="\n" if broken else "")
    for row in [HEADER, *cells(as_values(result))]:
        print("  " + "  ".join(cell.ljust(24) for cell in row))
    if result.not_judged:
        notes.append(f"{result.not_judged} runs are too wide for every engine and were not judged.")
    return page.Section(title, result, (*broken, *notes)), fit


def _new_splits(report: Report, data: CountsData, number: int, seed: int) -> list[float]:
    """Fit and judge one set on splits that nobody chose, and add the medians of their figures.
    Return the median HF of each split; where a fit is refused, the snapshot's."""
    snapshot = library.load(data.device)
    figures: dict[str, list[float]] = {}
    medians: list[float] = []
    for split_number in range(number):
        split = halved(data, [seed, split_number])
        notes: list[str] = []
        fitted = _fitted(split, snapshot, notes)
        model: Predictor = Predictor(snapshot)
        models = {SNAPSHOT: model, FITTED: model}
        if fitted is not None:
            models[FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
        print(*(f"  {note}" for note in notes), sep="\n")
        scores = score(split.part(test=True), models, IdealDistributions(), _note)
        # Model and hardware are compared over the same runs: those with a repeat.
        rows = tuple(row for row in scores.rows if REPEAT in row.hf)
        with_repeat = msgspec.structs.replace(scores, rows=rows)
        values = {}
        for name in (SNAPSHOT, FITTED, REPEAT, CEILING):
            summary = scores.summary(name)
            values[name] = (
                (summary.median.value, summary.p10.value) if summary else (float("nan"),) * 2
            )
        print(
            f"{data.device}, split {split_number} of seed {seed}: "
            + ", ".join(f"{name} {median:.4f} {p10:.4f}" for name, (median, p10) in values.items())
        )
        medians.append(values[FITTED][0])
        nothing = float("nan"), float("nan")
        mine = values[FITTED] if fitted is not None else nothing
        same, repeat = (with_repeat.summary(name) for name in (FITTED, REPEAT))
        beyond = nothing
        if fitted is not None and same is not None and repeat is not None:
            beyond = same.median.value - repeat.median.value, same.p10.value - repeat.p10.value
        each = (*beyond, mine[0] - values[SNAPSHOT][0], mine[1])
        for key, value in zip(_SPLIT_GOALS, each, strict=True):
            figures.setdefault(key, []).append(value)
    for key, label in _SPLIT_GOALS.items():
        middle = float(np.median(figures[key]))
        if "fez" not in label or "fez" in data.device:
            if np.isnan(middle):
                why = "a fit was refused, or no circuit ran twice"
                report.not_measured(key, f"{data.device}: {label}", why)
            else:
                splits = f"{number} splits"
                report.at_least(key, middle, f"{data.device}, {splits}: {label}")
    return medians


def _zz_model(strength: float) -> str:
    return f"ZZ x {strength:g}"


def _fitted(
    data: CountsData, snapshot: CalibrationSnapshot, notes: list[str]
) -> FittedDevice | None:
    """Fit a set, and add sentences about it; None: refused."""
    name = f"{data.device}-fitted"
    try:
        seconds, result = timed(lambda: calibrate(data, snapshot, name, _note))
    except FitRefusedError as error:
        notes.append(f"The fit was refused: {error.message}. The snapshot stands in its place.")
        return None
    print(f"  fitted in {seconds:.1f} s")
    notes += _fit_notes(result)
    return result


def _rule(report: Report, section: page.Section) -> None:
    """Add the least difference between each used model and Aer's recipe from a Target."""
    for model in (SNAPSHOT, FITTED):
        least = _least_gain(section, model, AER_IDLE)
        if least is not None:
            label = f"{section.title}, {model}: mean HF above {AER_IDLE}, end of the interval"
            report.at_least("above_aer", least, label)


def _rule_of_fits(report: Report, gains: dict[str, float]) -> None:
    """Add the least difference between a fit and Aer's recipe from properties over the sets that
    have a fit. `gains`: of each of them, by set and model."""
    for name, gain in gains.items():
        print(f"{name}: above {AER_PROPERTIES} by {gain:+.4f}")
    label = _GOALS["above_aer_properties"]
    if gains:
        worst = min(gains, key=gains.__getitem__)
        label = f"worst of {len(gains)} sets with a fit, {worst}: {label}"
        report.at_least("above_aer_properties", gains[worst], label)
    else:
        report.not_measured("above_aer_properties", label, "no set has a fit that is used")


def _least_gain(section: page.Section, model: str, reference: str) -> float | None:
    """Return the upper end of the 99 % interval of what a model's mean HF is above another's, the
    least of both parts; below 0: the model is worse beyond chance. None without it."""
    ends = [
        interval(np.array([mine - other for mine, other, _ in rows]), ones, bodies).high
        for _, is_test in PARTS
        for rows in (
            [
                (row.hf[model], row.hf[reference], row.body)
                for row in section.score.part(test=is_test).rows
                if model in row.hf and reference in row.hf
            ],
        )
        if rows
        for ones, bodies in ((np.ones(len(rows), np.int64), [body for *_, body in rows]),)
    ]
    least = min(ends, default=None)
    return 0.0 if least is not None and abs(least) <= LEAST_GAIN else least


def _show_curve(sections: Sequence[page.Section]) -> None:
    """Print the fidelities of all snapshots by the factor of their ZZ rates."""
    print("\nfactor of the ZZ rates, unfitted: median HF, 10th percentile, mean")
    for section in sections:
        factors = {model: model for model in map(_zz_model, STRENGTHS)}
        if _zz_model(0.0) not in section.score.models:
            factors = {SNAPSHOT: "no ZZ rates"}
        models = {AER_IDLE: AER_IDLE, **factors}
        for (part, is_test), (model, text) in itertools.product(PARTS, models.items()):
            found = section.score.part(test=is_test).summary(model)
            if found is not None:
                fields = (found.median, found.p10, found.mean)
                values = " ".join(f"{each.value:.4f}" for each in fields)
                print(f"  {section.title:26} {part:6} {text:20} {values}")


def _note(text: str) -> None:
    print(f"  {text}")


def _fit_notes(fitted: FittedDevice) -> list[str]:
    """Return sentences that describe a fit."""
    held_out = fitted.held_out
    results = [f"No fit is used: {fitted.reason}."] if fitted.reason else []
    results += [f"Not plausible: {text}." for text in fitted.implausible]
    results += [
        f"Base: {fitted.base}. Prior: {fitted.prior.text}. Share of the way from the snapshot:"
        f" {fitted.share:g}."
        f" {len(fitted.observed.observations)} circuits were fitted,"
        f" with {len(fitted.columns)} unknowns and {max(len(fitted.windows), 1)} date windows."
    ]
    results += [f"{rows} training runs: {text}." for text, rows in fitted.observed.left_out]
    if held_out is not None:
        results.append(
            f"Cross-validation inside the training part: gain of mean HF {held_out.gain.text}."
        )
    return results


CAUSES = ("shots", "between runs", "gates", "readout", "correlated readout", "rest")
_MOST_BITS = 8  # of circuits whose systematic loss is divided
_SMALLEST = 1e-9


def _residual(data: CountsData, model: Predictor) -> dict[str, float]:
    """Mean loss 1 - HF of a run by cause; runs of one circuit with one prediction are a group.

    `shots`: by shot noise. `between runs`: of a run relative to the mean of its group, beyond shot
    noise. Then, in this order, what the mean would gain by terms that are fitted to each group
    itself, so at most: `gates`, a mixture with the uniform distribution; `readout`, own p01 and p10
    of each bit; `correlated readout`, simultaneous flips of each two neighbouring bits. `rest`:
    coherent errors, other qubits or gates than those that ran, circuits of more than _MOST_BITS.
    """
    groups: dict[int, tuple[Prediction, list[NDArray[np.float64]], list[int]]] = {}
    for record in data.records:
        found = model.prediction(record)
        if found is not None and not found.samples and found.num_bits <= EXACT_QUBITS:
            _, runs, shots = groups.setdefault(id(found), (found, [], []))
            counts = [record.counts.get(outcome, 0) for outcome in found.outcomes.tolist()]
            runs.append(np.array(counts, np.float64) / record.shots)
            shots.append(record.shots)
    sums = dict.fromkeys(CAUSES, 0.0)
    for predicted, runs, shots in groups.values():
        p, mean, count = predicted.probabilities, np.mean(runs, axis=0), len(runs)
        each = round(float(np.mean(shots)))
        losses = [1.0 - _fidelity(p, run, each) for run in runs]
        by_shots = 1.0 - judge.ceiling(p, each)
        spread = np.mean([1.0 - _fidelity(mean, run, each) for run in runs])
        between = max(float(spread) - by_shots * (count - 1) / count, 0.0)
        gains = np.zeros(3)
        if predicted.num_bits <= _MOST_BITS:
            levels = [_fidelity(changed, mean, sum(shots)) for changed in _changed(p, mean)]
            gains = np.maximum(np.diff(levels), 0.0)
        parts = (by_shots, between, *gains.tolist())
        for cause, value in zip(CAUSES, (*parts, float(np.mean(losses)) - sum(parts)), strict=True):
            sums[cause] += value * count
    total = sum(len(runs) for _, runs, _ in groups.values())
    return {cause: value / max(total, 1) for cause, value in sums.items()}


def _fidelity(p: NDArray[np.float64], q: NDArray[np.float64], shots: int) -> float:
    return judge.fidelity(judge.loss(p, q, shots))


def _changed(p: NDArray[np.float64], q: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The prediction, and it with one term more in each, fitted to the frequencies."""
    bits, size = len(p).bit_length() - 1, len(p)
    number = np.arange(size)

    def applied(values: NDArray[np.float64]) -> NDArray[np.float64]:
        mixture, flips, pairs = values[0], values[1 : 2 * bits + 1], values[2 * bits + 1 :]
        result = (1.0 - mixture) * p + mixture / size
        for k in range(bits):
            up, down = flips[2 * k : 2 * k + 2]
            is_one = number >> k & 1
            other = result[number ^ 1 << k]
            result = result * (1.0 - np.where(is_one, down, up)) + other * np.where(
                is_one, up, down
            )
        for k in range(bits - 1):
            result = (1.0 - pairs[k]) * result + pairs[k] * result[number ^ 3 << k]
        return np.asarray(np.maximum(result, _SMALLEST))

    results, values = [p], np.zeros(3 * bits)
    for free in (1, 2 * bits + 1, 3 * bits):

        def rest(x: NDArray[np.float64], free: int = free) -> NDArray[np.float64]:
            return np.sqrt(applied(np.concatenate((x, values[free:])))) - np.sqrt(q)

        values[:free] = least_squares(rest, values[:free], bounds=(-0.1, 0.9)).x
        results.append(applied(values) / applied(values).sum())
    return results


def _goals(report: Report, section: page.Section, *, test: bool) -> float:
    """Add the goals of one set; return the set's median HF of the fitted model."""
    part = section.score.part(test=test)
    fitted, limit = part.summary(FITTED), part.summary(CEILING)
    before = part.summary(SNAPSHOT)
    if fitted is None or limit is None or before is None:
        report.not_measured("set_median", section.title, "no circuit could be judged")
        return float("nan")

    def add(
        key: str, field: str, label: str, of: Summary = fitted, beside: Summary = limit
    ) -> None:
        """Add a figure; a value within NEAR_CEILING of the ceiling meets its goal."""
        value, ceiling = getattr(of, field).value, getattr(beside, field).value
        near, goal = value >= ceiling - NEAR_CEILING, report.goal(key)
        settings = f" ({value:.4f}, ceiling {ceiling:.4f})" if near and value < goal else ""
        report.at_least(key, max(value, goal) if near else value, f"{label}{settings}")

    what = f"{section.title}, {FITTED}"
    add("set_median", "median", what)
    gain = min(fitted.mean.value - before.mean.value, fitted.median.value - before.median.value)
    report.at_least("above_snapshot", gain, f"{what}: mean and median HF above the snapshot's")
    narrow = msgspec.structs.replace(
        part, rows=tuple(row for row in part.rows if row.bits <= NARROW_BITS)
    )
    of, beside = narrow.summary(FITTED), narrow.summary(CEILING)
    if "fez" in section.title and of is not None and beside is not None:
        add("fez_median", "median", f"ibm_fez, up to {NARROW_BITS} bits, median", of, beside)
        add("fez_p10", "p10", f"ibm_fez, up to {NARROW_BITS} bits, p10", of, beside)
    return fitted.median.value


def speed_s() -> float:
    """Return the seconds to fit 60 random circuits on 4 qubits, including the choice of the
    prior."""
    from bench.testbed.drawn_devices import random_counts

    data, snapshot = random_counts(SPEED_CIRCUITS, SPEED_QUBITS)
    return timed_s(lambda: calibrate(data, snapshot, "speed"))
