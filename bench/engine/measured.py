"""Emulated machines beside counts of the real ones: calibrations, fits, other emulators."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bench.harness import SEED, Report, benchmark, installed, timed, timed_s
from bench.harness.kernels import load_kernels
from bench.measured_sets import DATA, MeasuredSet, halved, sets, with_split, without_tests
from bench.peers.emulators import EMULATORS, MOST_QUBITS
from noise_models import library
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import import_snapshot
from noise_models.options import NoiseOptions
from simenv.calibration import accept, data as counts_data, judge, report as page
from simenv.calibration.data import CountsData, CountsRecord, read
from simenv.calibration.fit.calibrate import FitRefusedError, FittedDevice, calibrate
from simenv.calibration.fit.observations import DeviceCompiler
from simenv.calibration.score import (
    CEILING,
    EXACT_QUBITS,
    REPEAT,
    IdealDistributions,
    Model,
    Prediction,
    Predictor,
    Score,
    SeriesPredictor,
    Summary,
    score,
    two_qubit_gates,
)  # fmt: skip
from simulators.circuit.gates import BARRIER, DELAY, MEASURE
from simulators.circuit.ir import Circuit, operations
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.errors import Unsupported
from simulators.simulate import counts_of, simulate
from testbed.drawn_devices import random_counts

Array = NDArray[np.float64]


def _note(text: str) -> None:
    print(f"  {text}")


def _fitted(
    data: CountsData, snapshot: CalibrationSnapshot, name: str, notes: list[str]
) -> FittedDevice | None:
    """Fit a set, and add sentences about it; None: refused, and the calibration stands."""
    try:
        seconds, fitted = timed(lambda: calibrate(data, snapshot, name, _note))
    except FitRefusedError as error:
        notes.append(f"The fit was refused: {error.message}. The calibration stands in its place.")
        return None
    notes += [f"No fit is used: {fitted.reason}."] if fitted.reason else []
    notes += [f"Not plausible: {text}." for text in fitted.implausible]
    notes.append(
        f"Base: {fitted.base}. Prior: {fitted.prior.text}. Share of the way from the snapshot:"
        f" {fitted.share:g}. {len(fitted.observed.observations)} circuits were fitted in"
        f" {seconds:.1f} s, with {len(fitted.columns)} unknowns and"
        f" {max(len(fitted.windows), 1)} date windows."
    )
    notes += [f"{rows} training runs: {text}." for text, rows in fitted.observed.left_out]
    if fitted.held_out is not None:
        gain = fitted.held_out.gain.text
        notes.append(f"Cross-validation inside the training part: gain of mean HF {gain}.")
    return fitted


def _above(result: Score, model: str, reference: str) -> accept.Interval | None:
    """Return what a model's HF is above another's over the circuits that both ran; None: none."""
    rows = [row for row in result.rows if model in row.hf and reference in row.hf]
    if not rows:
        return None
    change: Array = np.array([row.hf[model] - row.hf[reference] for row in rows])
    return accept.interval(change, np.ones(len(rows), np.int64), [row.body for row in rows])


# --- the noise model beside measured counts -------------------------------------------------------

AER, AER_IDLE, SNAPSHOT, FITTED = "Aer", "Aer with idle noise", "snapshot", "fitted"
AER_PROPERTIES = "Aer, idle, p01 and p10"
EQUAL_READOUT = (
    "Aer's recipe from a Target reads 0 and 1 wrongly with the same probability; an emulated device"
    " has the p01 and p10 that its calibration states."
)
STRENGTHS = {f"ZZ x {each:g}": each for each in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)}  # of ZZ rates
NEAR_CEILING = 0.003
NARROW_BITS = 5  # measured: of wider circuits few outcomes are seen twice, and HF is no measure
SPLIT_KEYS = ("repeat_median", "repeat_p10", "splits_above_snapshot", "splits_fez_p10")
KEYS = ("set_median", "sets_median", "fez_median", "fez_p10")
KEYS += ("above_aer", "above_aer_properties", "above_snapshot")


@benchmark(data=DATA, page=Path, train_only=False, test_only=False, residual=False, splits=0,
           curve_only=False, seed=SEED)  # fmt: skip
def noise_calibration(report: Report, options: Namespace) -> None:
    """Emulated QPUs compared with measured counts: fitted models, snapshots, and Aer's models.

    For each set of `--data` (a folder with splits.json), the device's snapshot is fitted to the
    training part, and models predict all circuits: Aer's model of the snapshot without idle noise;
    with it, with equal readout errors of 0 and 1, as `NoiseModel.from_backend` reads a Target, and
    with p01 and p10; our model of the snapshot with several factors of its ZZ rates, and the fitted
    one. Their scores are compared with those of the ideal circuit, of the uniform distribution, of
    the ceiling by shot noise, and of the hardware's own repeat. Test circuits are never fitted. A
    goal is also met where a model is within 0.003 of the ceiling.

    `--page`: write an HTML page with tables and plots. `--residual`: divide the losses of models by
    cause. `--splits 3`: divide each set anew three times, by seeds drawn with `--seed`, and judge
    the medians over these splits, beside those of the hardware's own repeat. `--train-only`: do not
    look at test circuits; `--test-only`: score no training circuits. `--curve-only`: the curve of
    ZZ factors, without fits. The data are not part of the project; without them nothing is
    measured.
    """
    load_kernels()
    counts, snapshot = random_counts(60, 4)
    report.seconds("fit_s", timed_s(lambda: calibrate(counts, snapshot, "speed")))
    if not (options.data / "splits.json").is_file():
        keys = (*SPLIT_KEYS, "splits_sets_median") if options.splits else KEYS
        return report.none_measured(f"no data in {options.data}", *keys)
    found = {}
    splits = msgspec.json.decode((options.data / "splits.json").read_bytes())["files"]
    for name, split in splits.items():
        if (options.data / name).is_file():
            found[name] = with_split(read(options.data / name), split)
        else:
            key = "splits_sets_median" if options.splits else "set_median"
            report.not_measured(key, f"not in {options.data}", name)
    if options.splits:
        medians = [_new_splits(report, data, options) for data in found.values()]
        median = float(np.median(np.median(medians, axis=0)))  # of each split, over the sets
        return report.at_least("splits_sets_median", median)
    sections, middle, gains = list[page.Section](), list[float](), dict[str, float]()
    for name, data in found.items():
        section, fit = _section(options, Path(name).stem, without_tests(data))
        sections.append(section)
        for model in (SNAPSHOT, FITTED):
            if (least := _least_gain(section, model, AER_IDLE)) is not None:
                report.at_least("above_aer", least, f"{section.title}, {model}")
        if fit and (least := _least_gain(section, fit, AER_PROPERTIES)) is not None:
            gains[f"{section.title}, {fit}"] = least
        if not options.curve_only:
            middle.append(_judge_set(report, section, test=not options.train_only))
    if middle:
        report.at_least("sets_median", float(np.median(middle)))
        if gains:
            worst = min(gains, key=gains.__getitem__)
            case = f"worst of {len(gains)} sets with a fit, {worst}"
            report.at_least("above_aer_properties", gains[worst], case)
        else:
            report.not_measured("above_aer_properties", "no set has a fit that is used")
    _show_curve(sections)
    if options.page is not None and installed("matplotlib"):
        goals = [(report.text(each.key, each.label), f"{each.value:.4f}", f"{each.goal:g}",
                  each.met) for each in report.figures if each.value is not None]  # fmt: skip
        title, about = "Noise models compared with measured counts", (__doc__ or "",)
        page.write(options.page, title, sections, about, goals)
        print(f"page {options.page}")


def _section(options: Namespace, name: str, data: CountsData) -> tuple[page.Section, str]:
    """Judge a set. Return its section, and the model that has a fit; "" if none is used."""
    data = data.part(test=False) if options.train_only else data
    snapshot = library.load(data.device)
    title, notes, compiler = f"{name} ({snapshot.name})", list[str](), DeviceCompiler(snapshot)
    print(f"\n{title}: {len(data.records)} runs")
    recipes: dict[str, Any] = {AER: {"recipe": "aer", "idle": False}, AER_IDLE: "aer",
                               AER_PROPERTIES: "aer-properties", SNAPSHOT: {}}  # fmt: skip
    if snapshot.zz:
        recipes |= {model: {"gate.zz_strength": each} for model, each in STRENGTHS.items()}
    models: dict[str, Predictor] = {
        model: Predictor(snapshot, NoiseOptions.parse(recipe), compiler)
        for model, recipe in recipes.items()
    }
    fit = ""
    if not options.curve_only:
        fitted = _fitted(data, snapshot, f"{data.device}-fitted", notes)
        fit = FITTED if fitted is not None and not fitted.reason else ""
        models[FITTED] = models[SNAPSHOT]
        if fitted is not None:
            models[FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
    judged = data.part(test=True) if options.test_only else data
    own = [model for model in (SNAPSHOT, FITTED) if model in models]
    for model, (part, is_test) in itertools.product(own if options.residual else (), accept.PARTS):
        causes = _residual(judged.part(test=is_test), models[model])
        text = ", ".join(f"{cause} {loss:.4f}" for cause, loss in causes.items())
        print(f"  {model}, {part}: mean loss {sum(causes.values()):.4f}: {text}")
    result = score(judged, models, IdealDistributions(), _note)
    broken = [f"Below Aer's recipe: {text}." for model in own for to in (AER_IDLE, AER_PROPERTIES)
              for text in accept.below(result, model, to)]  # fmt: skip
    if any(accept.below(result, SNAPSHOT, AER_IDLE)) and not accept.below(
        result, SNAPSHOT, AER_PROPERTIES
    ):
        notes.append(EQUAL_READOUT)
    if result.not_judged:
        notes.append(f"{result.not_judged} runs are too wide for every engine and were not judged.")
    for text in (*notes, *broken):
        _note(text)
    for row in [accept.HEADER, *accept.cells(accept.as_values(result))]:
        _note("  ".join(cell.ljust(24) for cell in row))
    return page.Section(title, result, (*broken, *notes)), fit


def _new_splits(report: Report, data: CountsData, options: Namespace) -> list[float]:
    """Fit and judge one set on splits that nobody chose, and add the medians of their figures.
    Return the median HF of each split; where a fit is refused, the snapshot's."""
    snapshot, nothing = library.load(data.device), float("nan")
    figures: dict[str, list[float]] = {key: [] for key in SPLIT_KEYS}
    medians: list[float] = []
    for number in range(options.splits):
        split, notes = halved(data, [options.seed, number]), list[str]()
        fitted = _fitted(split, snapshot, f"{data.device}-fitted", notes)
        models = dict.fromkeys((SNAPSHOT, FITTED), Predictor(snapshot))
        if fitted is not None:
            models[FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
        print(*(f"  {note}" for note in notes), sep="\n")
        scores = score(split.part(test=True), models, IdealDistributions(), _note)
        # Model and hardware are compared over the same runs: those with a repeat.
        rows = tuple(row for row in scores.rows if REPEAT in row.hf)
        both = msgspec.structs.replace(scores, rows=rows)

        def of(which: Score, name: str) -> Array:
            found = which.summary(name)
            return np.array(
                [nothing] * 2 if found is None else [found.median.value, found.p10.value]
            )

        values = {name: of(scores, name) for name in (SNAPSHOT, FITTED, REPEAT, CEILING)}
        print(f"{data.device}, split {number} of seed {options.seed}: {values}")
        medians.append(float(values[FITTED][0]))
        used = 1.0 if fitted is not None else nothing
        beyond = used * (of(both, FITTED) - of(both, REPEAT))
        gain = used * (values[FITTED][0] - values[SNAPSHOT][0])
        each = (*beyond.tolist(), float(gain), float(used * values[FITTED][1]))
        for key, value in zip(SPLIT_KEYS, each, strict=True):
            figures[key].append(value)
    for key, found in figures.items():
        middle = float(np.median(found))
        if "fez" in key and "fez" not in data.device:
            continue
        if np.isnan(middle):
            why = "a fit was refused, or no circuit ran twice"
            report.not_measured(key, why, data.device)
        else:
            report.at_least(key, middle, data.device)
    return medians


def _least_gain(section: page.Section, model: str, reference: str) -> float | None:
    """Return the upper end of the 99 % interval of what a model's mean HF is above another's, the
    least of both parts; below 0: the model is worse beyond chance. None without it."""
    found = (
        _above(section.score.part(test=is_test), model, reference) for _, is_test in accept.PARTS
    )
    least = min((each.high for each in found if each is not None), default=None)
    return 0.0 if least is not None and abs(least) <= accept.LEAST_GAIN else least


def _show_curve(sections: Sequence[page.Section]) -> None:
    print("\nfactor of the ZZ rates, unfitted: median HF, 10th percentile, mean")
    for section in sections:
        factors = [*STRENGTHS] if "ZZ x 0" in section.score.models else [SNAPSHOT]
        for (part, is_test), model in itertools.product(accept.PARTS, (AER_IDLE, *factors)):
            found = section.score.part(test=is_test).summary(model)
            if found is not None:
                fields = (found.median, found.p10, found.mean)
                values = " ".join(f"{each.value:.4f}" for each in fields)
                print(f"  {section.title:26} {part:6} {model:20} {values}")


CAUSES = ("shots", "between runs", "gates", "readout", "correlated readout", "rest")
MOST_BITS, SMALLEST = 8, 1e-9  # of circuits whose systematic loss is divided


def _residual(data: CountsData, model: Predictor) -> dict[str, float]:
    """Mean loss 1 - HF of a run by cause; runs of one circuit with one prediction are a group.

    `shots`: by shot noise. `between runs`: of a run relative to the mean of its group, beyond shot
    noise. Then, in this order, what the mean would gain by terms that are fitted to each group
    itself, so at most: `gates`, a mixture with the uniform distribution; `readout`, own p01 and p10
    of each bit; `correlated readout`, simultaneous flips of each two neighbouring bits. `rest`:
    coherent errors, other qubits or gates than those that ran, circuits of more than MOST_BITS.
    """
    groups: dict[int, tuple[Prediction, list[Array], list[int]]] = {}
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
        if predicted.num_bits <= MOST_BITS:
            levels = [_fidelity(changed, mean, sum(shots)) for changed in _explained(p, mean)]
            gains = np.maximum(np.diff(levels), 0.0)
        parts = (by_shots, between, *gains.tolist())
        for cause, value in zip(CAUSES, (*parts, float(np.mean(losses)) - sum(parts)), strict=True):
            sums[cause] += value * count
    total = sum(len(runs) for _, runs, _ in groups.values())
    return {cause: value / max(total, 1) for cause, value in sums.items()}


def _fidelity(p: Array, q: Array, shots: int) -> float:
    return judge.fidelity(judge.loss(p, q, shots))


def _explained(p: Array, q: Array) -> list[Array]:
    """Return the prediction, and it with one term more in each, fitted to the frequencies."""
    bits, size = len(p).bit_length() - 1, len(p)
    number = np.arange(size)

    def applied(values: Array) -> Array:
        mixture, flips, pairs = values[0], values[1 : 2 * bits + 1], values[2 * bits + 1 :]
        result = (1.0 - mixture) * p + mixture / size
        for k in range(bits):
            up, down = flips[2 * k : 2 * k + 2]
            is_one, other = number >> k & 1, result[number ^ 1 << k]
            left, came = np.where(is_one, down, up), np.where(is_one, up, down)
            result = result * (1.0 - left) + other * came
        for k in range(bits - 1):
            result = (1.0 - pairs[k]) * result + pairs[k] * result[number ^ 3 << k]
        return np.asarray(np.maximum(result, SMALLEST))

    results, values = [p], np.zeros(3 * bits)
    for free in (1, 2 * bits + 1, 3 * bits):

        def rest(x: Array, free: int = free) -> Array:
            return np.sqrt(applied(np.concatenate((x, values[free:])))) - np.sqrt(q)

        values[:free] = least_squares(rest, values[:free], bounds=(-0.1, 0.9)).x
        results.append(applied(values) / applied(values).sum())
    return results


def _judge_set(report: Report, section: page.Section, *, test: bool) -> float:
    """Add the goals of one set; return the set's median HF of the fitted model."""
    part = section.score.part(test=test)
    fitted, limit, before = (part.summary(model) for model in (FITTED, CEILING, SNAPSHOT))
    if fitted is None or limit is None or before is None:
        report.not_measured("set_median", "no circuit could be judged", section.title)
        return float("nan")

    def add(key: str, field: str, case: str, of: Summary, beside: Summary) -> None:
        """Add a figure; a value within NEAR_CEILING of the ceiling meets its goal."""
        value, ceiling = getattr(of, field).value, getattr(beside, field).value
        near, goal = value >= ceiling - NEAR_CEILING, report.goal(key)
        case += f" ({value:.4f}, ceiling {ceiling:.4f})" if near and value < goal else ""
        report.at_least(key, max(value, goal) if near else value, case)

    add("set_median", "median", section.title, fitted, limit)
    gain = min(fitted.mean.value - before.mean.value, fitted.median.value - before.median.value)
    report.at_least("above_snapshot", gain, section.title)
    rows = tuple(row for row in part.rows if row.bits <= NARROW_BITS)
    narrow = msgspec.structs.replace(part, rows=rows)
    of, beside = narrow.summary(FITTED), narrow.summary(CEILING)
    if "fez" in section.title and of is not None and beside is not None:
        for field in ("median", "p10"):
            add(f"fez_{field}", field, "", of, beside)
    return fitted.median.value


# --- other emulators ------------------------------------------------------------------------------

CALIBRATED, SIMENV_FITTED = "simenv", "simenv, fitted"
PEER = Path(__file__).parents[1] / "peers" / "emulators.py"


@benchmark(data=DATA, only=[""], python=[""], table=Path, seed=SEED)
def emulators(report: Report, options: Namespace) -> None:
    """Emulators of real machines, each judged by the counts that the machines returned.

    For each machine, the test circuits of its measured counts (`bench.measured_sets`, folder
    `--data`; `--only`: names of sets) are predicted by simenv with the machine's calibration, by
    simenv after a fit of the training circuits, and by emulators of other projects, with the same
    calibration: Aer's `NoiseModel.from_backend`, with idle times and without, iqm-client's
    IQMFakeBackend, and Amazon Braket's LocalEmulator. All run the same native circuits on the same
    qubits; all distributions are exact; wider circuits are not judged. Differences of mean HF have
    99 % intervals over circuit bodies. An emulator that needs another Python environment runs in
    that of `--python`; one that is not installed, or does not know a machine, has no row. No other
    emulator has a fit. `--table`: write the tables as Markdown.
    """
    load_kernels()
    results: dict[str, Score] = {}
    lines: list[str] = []
    for each in sets(options.data, options.seed) if options.data.is_dir() else ():
        if not any(options.only) or each.name.rpartition("/")[2] in options.only:
            result, notes = _judged(each, [*filter(None, options.python)])
            results[each.name] = result
            lines += ["", f"### {each.name} ({each.snapshot.name})", "", *_markdown(result), *notes]
    for key, model in (("above_peers", CALIBRATED), ("fitted_above_peers", SIMENV_FITTED)):
        if not results:
            report.not_measured(key, f"no measured sets in {options.data}")
        for name, result in results.items():
            others = (peer for peer in result.models if peer in EMULATORS)
            found = [(above, peer) for peer in others if (above := _above(result, model, peer))]
            if found:
                above, peer = min(found, key=lambda each: each[0].high)
                report.at_least(key, above.high, f"{name}; {peer}: {above.text}")
            else:
                report.not_measured(key, "no other emulator knows the machine", name)
    summary = _all_machines(results)
    print("\n".join(["", "all machines", *summary]))
    if options.table is not None and results:
        options.table.write_text("\n".join(["### All machines", "", *summary, *lines, ""]))
        print(f"table {options.table}")


def _judged(each: MeasuredSet, pythons: list[str]) -> tuple[Score, list[str]]:
    """Return the scores of the test circuits by every emulator, and notes."""
    print(f"\n{each.name} ({each.snapshot.name}): {len(each.data.records)} runs")
    notes, compiler = list[str](), DeviceCompiler(each.snapshot)
    fitted = _fitted(each.data, each.snapshot, f"{each.name}-fitted", notes)
    calibrated = Predictor(each.snapshot, compiler=compiler)
    models: dict[str, Model] = dict.fromkeys((CALIBRATED, SIMENV_FITTED), calibrated)
    if fitted is not None:
        models[SIMENV_FITTED] = SeriesPredictor(fitted.snapshot, fitted.series)
    peers = {name: EmulatorPeer.of(name, each, compiler, pythons) for name in EMULATORS}
    models |= {name: peer for name, peer in peers.items() if peer is not None}
    try:
        tests = [record for record in each.data.records if record.is_test]
        widths = (np.unique(compiler.run_of(record).circuit.qubits).size for record in tests)
        judged = [record for record, n in zip(tests, widths, strict=True) if n <= MOST_QUBITS]
        data = msgspec.structs.replace(each.data, records=tuple(judged))
        result = score(data, models, IdealDistributions(), print)
    finally:
        for peer in filter(None, peers.values()):
            peer.close()
    if wide := len(tests) - len(judged):
        notes.append(f"{wide} runs of more than {MOST_QUBITS} qubits are not judged.")
    notes.append(f"Calibration: {each.snapshot.calibrated or 'without a date'}.")
    notes += [peer.text for peer in peers.values() if peer is not None]
    for line in (*_markdown(result), *notes):
        _note(line)
    return result, [f"\n{note}" for note in notes]


class EmulatorPeer:
    """An emulator of `bench.peers.emulators` in a process of its own."""

    def __init__(self, name: str, compiler: DeviceCompiler, process: Any, version: str) -> None:
        self._name, self._compiler, self._process = name, compiler, process
        self._version = version
        self._known: dict[int, Prediction | None] = {}
        self._seconds: list[float] = []
        self._problems: list[str] = []

    @classmethod
    def of(
        cls, name: str, each: MeasuredSet, compiler: DeviceCompiler, pythons: list[str]
    ) -> EmulatorPeer | None:
        """Start the emulator in the first environment that has it; None: it is not installed, or
        does not know the machine."""
        snapshot, fields = each.snapshot, ("name", "qubits", "error", "duration_ns")
        machine = {
            "name": each.data.device or snapshot.name, "calibration": each.text,
            "from_library": each.from_library, "num_qubits": snapshot.num_qubits,
            "dt_ns": snapshot.dt_ns,
            "qubits": [{"t1_us": qubit.t1_us, "t2_us": qubit.t2_us, "readout_ns": qubit.readout_ns,
                        "flips": qubit.confusion or (0.0, 0.0)} for qubit in snapshot.qubits],
            "gates": [{field: getattr(gate, field) for field in fields} for gate in snapshot.gates],
        }  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        for python in (sys.executable, *pythons):
            peer = cls(name, compiler, subprocess.Popen([python, str(PEER), name], **pipes), "")
            answer = peer._asked(machine)
            if "version" in answer:
                peer._version = answer["version"]
                return peer
            print(f"  {name}: {answer['problem']}")
            peer.close()
        return None

    @property
    def text(self) -> str:
        seconds = statistics.median(self._seconds) if self._seconds else 0.0
        result = f"{self._name}: {self._version}; {seconds:.2g} s a circuit (median)"
        if self._problems:
            result += f"; {len(self._problems)} circuits not run: {self._problems[0]}"
        return result

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Return the exact distribution of a record's native circuit; None: not run."""
        compiled = self._compiler.run_of(record)
        if id(compiled) not in self._known:
            self._known[id(compiled)] = self._predicted(compiled.circuit)
        return self._known[id(compiled)]

    def _predicted(self, circuit: Circuit) -> Prediction | None:
        try:
            seconds, answer = timed(lambda: self._asked(_listed(circuit)))
            self._seconds.append(seconds)
        except Unsupported as error:
            answer = {"problem": error.message}
        if "problem" in answer:
            self._problems.append(answer["problem"])
            return None
        values = {int(outcome): value for outcome, value in answer["probabilities"].items()}
        return Prediction(
            np.array(list(values), object), np.array(list(values.values())),
            int(np.unique(circuit.clbits).size), int(np.unique(circuit.qubits).size),
            *two_qubit_gates(circuit), 0, self._name,
        )  # fmt: skip

    def _asked(self, question: Any) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            return answer
        return {"problem": "the process of the emulator has ended"}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _listed(circuit: Circuit) -> list[tuple[str, list[int], list[float], int]]:
    """Return a circuit's operations as an emulator reads them. Raises Unsupported."""
    results = []
    for each in operations(circuit, np.frombuffer(circuit.params, np.float64)):
        if not (each.is_gate or each.code in (MEASURE, BARRIER, DELAY)):
            raise Unsupported(f"operation {each.name}")
        if each.qubits:
            clbit = each.clbits[0] if each.code == MEASURE else -1
            params = [float(value) for value in each.params]
            results.append((each.name, [int(q) for q in each.qubits], params, int(clbit)))
    return results


def _markdown(result: Score) -> list[str]:
    rows = [row[1:] for row in accept.cells(accept.as_values(result))]
    lines = ["| " + " | ".join(row) + " |" for row in (accept.HEADER[1:], *rows)]
    return [lines[0], "|" + "---|" * (len(accept.HEADER) - 1), *lines[1:]]


def _all_machines(results: Mapping[str, Score]) -> list[str]:
    """Return the lines of the table of all machines: over the circuits that every emulator of a
    machine ran, the mean over the machines of mean HF and mean TVD."""
    values: dict[str, list[tuple[float, float]]] = {}
    for result in results.values():
        rows = [row for row in result.rows if all(each in row.hf for each in result.models)]
        for model in (*result.models, CEILING) if rows else ():
            hf = float(np.mean([row.hf[model] for row in rows]))
            tvd = float(np.mean([row.tvd.get(model, np.nan) for row in rows]))
            values.setdefault(model, []).append((hf, tvd))
    lines = ["| emulator | machines | mean HF | mean TVD |", "|---|---|---|---|"]
    order = sorted(values, key=lambda each: (-len(values[each]), -np.mean(values[each], 0)[0]))
    for model in order:
        hf, tvd = np.mean(values[model], 0)
        distance = "" if np.isnan(tvd) else f"{tvd:.4f}"
        lines.append(f"| {model} | {len(values[model])} | {hf:.4f} | {distance} |")
    return lines


# --- mirror circuits of ions ----------------------------------------------------------------------

# H2-1 on 2023-03-10, github.com/CQCL/quantinuum-hardware-specifications.
SHEET = {
    "name": "H2-1", "n_qubits": 32,
    "noise_specs": {
        "1q_gate_error": {"p1": 2.7e-5}, "2q_gate_error": {"p2": 1.93e-3},
        "memory_error": {"memory_error": 2.2e-4},
        "spam_error": {"p_meas_0": 9e-4, "p_meas_1": 2.2e-3},
    },
}  # fmt: skip
Z_99 = 2.576


class Mirrors(msgspec.Struct):
    """A file of the data: circuits in OpenQASM 2 by "(layers, number)", and outcomes."""

    qasm: dict[str, str]
    results: dict[str, dict[str, list[str]]]


class Survival(msgspec.Struct, frozen=True):
    """Survival of one circuit: on the machine, emulated, and emulated without its memory error."""

    qubits: int
    layers: int
    measured: float
    emulated: float
    without_memory: float


@benchmark(data=DATA.parent / "ion_mirrors", shots=(2_000, 200), seed=SEED)
def ion_mirrors(report: Report, options: Namespace) -> None:
    """Mirror circuits of trapped ions: survival on an emulated machine beside that on the machine.

    A mirror circuit ends in a known outcome; its survival is the probability of that. The emulated
    machine has the values of a data sheet alone. Quantinuum's H2-1: circuits of 20, 26 and 32
    qubits with the outcome of each shot, as published beside Moses et al., arXiv 2305.03828
    (`--data`: the folder mirror_benchmarking/data of
    github.com/CQCL/quantinuum-hardware-h2-benchmark). For each width the mean survival is compared;
    for each width and number of layers, what is beyond an interval of 99 %. The data are not part
    of the project; without them nothing is measured.
    """
    files = sorted(options.data.glob("MB_N*.json"))
    if not files:
        return report.none_measured(f"no MB_N*.json in {options.data}")
    load_kernels()
    found = [each for path in files for each in survivals(path, options.shots, options.seed)]
    beyond = 0.0
    for group in grouped(found, "qubits", "layers"):
        mean, half = differences(group)
        beyond = max(beyond, abs(mean) - half)
        means = np.mean([msgspec.structs.astuple(each) for each in group], axis=0)
        texts = [f"{name} {value:.4g}" for name, value in zip(Survival.__struct_fields__, means,
                                                              strict=True)]  # fmt: skip
        print(f"{', '.join(texts)}: {mean:+.3f} +- {half:.3f}")
    widths = [abs(differences(group)[0]) for group in grouped(found, "qubits")]
    report.at_most("survival", max(widths))
    report.at_most("beyond_chance", beyond)


def survivals(path: Path, shots: int, seed: int) -> Iterator[Survival]:
    """Yield the survival of each circuit of a file. `shots`: of an emulated circuit."""
    mirrors = msgspec.json.decode(path.read_bytes(), type=Mirrors)
    rows = [
        counts_data.row(
            text.replace("ZZ ", "rzz(pi/2) "), Counter(mirrors.results[name]["c"]), name=name
        )
        for name, text in mirrors.qasm.items()
    ]
    snapshot, _ = import_snapshot({"sheet.json": msgspec.json.encode(SHEET)})
    options = (NoiseOptions(), NoiseOptions.parse({"qubit.memory": 0}))
    compiler, models = DeviceCompiler(snapshot), [build(snapshot, each) for each in options]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mirrors.jsonl"
        counts_data.write(file, rows)
        records = read(file).records

    def counts(circuit: Circuit, shots: int, **how: Any) -> dict[int, int]:
        return counts_of(simulate(circuit, engine="stabilizer", shots=shots, **how).row(0))

    for number, record in enumerate(records):
        circuit = compiler.run_of(record).circuit
        (outcome,) = counts(circuit, 1)
        noises = (attach_noise(circuit, model) for model in models)
        emulated = [counts(circuit, shots, seed=seed + number, noise=noise) for noise in noises]
        layers = int(record.name.strip("(").split(",")[0])
        measured = record.counts.get(outcome, 0) / record.shots
        shares = (each.get(outcome, 0) / shots for each in emulated)
        yield Survival(record.source.num_clbits, layers, measured, *shares)


def differences(group: Sequence[Survival]) -> tuple[float, float]:
    """Return the mean of emulated minus measured survival, and half its interval of 99 %."""
    values = np.array([each.emulated - each.measured for each in group])
    return float(values.mean()), Z_99 * float(values.std(ddof=1)) / math.sqrt(len(values))


def grouped(found: Iterable[Survival], *fields: str) -> list[list[Survival]]:
    groups: dict[tuple[int, ...], list[Survival]] = {}
    for each in found:
        groups.setdefault(tuple(getattr(each, name) for name in fields), []).append(each)
    return [groups[key] for key in sorted(groups)]
