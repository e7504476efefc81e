"""`simenv calibrate` and `simenv score`.

The first fits the noise of a device to measured counts, the second prints the agreement of devices'
predictions with measured counts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config, files
from simenv.calibration import device_files
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.cli.tasks.circuit_input import noise_of
from simenv.errors import NotFoundError, OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, FitScope
    from simenv.calibration.data import CountsData
    from simenv.calibration.fit.calibrate import FittedDevice
    from simenv.calibration.fit.day_values import DayTest
    from simenv.calibration.probes import Suggestion
    from simenv.calibration.score import Predictor, Score

DataFile = Annotated[Path, typer.Argument(help="Measured counts, as JSON lines.", dir_okay=False)]


def calibrate(
    context: typer.Context,
    data: DataFile,
    device: Annotated[str, typer.Option(help="The device that was measured.")],
    out: Annotated[str, typer.Option(help="Name of the fitted device.")],
    force: Annotated[
        bool,
        typer.Option("--force", help="Fit counts that look wrong, and store a doubtful fit."),
    ] = False,
    suggest: Annotated[
        Path | None,
        typer.Option(
            help="Write circuits that would identify the other values: NAME.py, a program that"
            " measures them with Qiskit; else rows without counts.",
            dir_okay=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page with the values of the fit (needs matplotlib).", dir_okay=False
        ),
    ] = None,
) -> None:
    """Fit a device's noise to measured counts, and store it as a device.

    Rows with "split": "test" are not used. On circuits that a fit did not see, the gain must be
    significant (99 %; of fewer than 10 different circuits, above 0 with probability 0.9): else the
    device's own calibration is kept, and a fit that is worse is refused. No fit is used that is
    below Aer's recipe for the calibration on these circuits, with p01 = p10 (aer) or as calibrated
    (aer-properties). A fit to fewer than 10 different circuits acts on alike circuits alone. Counts
    that cannot be those of the circuits on this device are refused: bits in another order, rows of
    other circuits, other qubits, values that are not plausible.

    The table has the values of the circuits' qubits and gates, with the intervals of 95 % that the
    counts alone give, and marks those that they do not identify.
    """
    config.check_name(out, "device")
    if out == device:
        raise OptionError(f"--out {out}: the name of the device itself", hint="choose another name")
    if report is not None:
        terminal.require_matplotlib("--report")
    terminal.require_folders({"--suggest": suggest, "--report": report})
    prepare()
    from simenv.calibration.data import dates_before, read
    from simenv.calibration.fit.calibrate import calibrate as fit

    snapshot, _ = overview.load(device)
    counts = read(data)
    early = dates_before(counts, snapshot.calibrated)
    counts = counts.warned(f"rows are older than the calibration of {device}", early)
    if counts.device not in ("", device):
        other = f"rows are of device {counts.device}, by their header, and not of {device}"
        counts = counts.warned(other, len(counts.records))
    warn(counts)
    note = terminal.note if sys.stderr.isatty() else (lambda _: None)
    fitted = fit(counts, snapshot, out, note, force=force)
    path, replaced = _saved(out, fitted)
    if report is not None:
        _write_report(report, out, fitted)
    suggestion = None if suggest is None else _suggested(suggest, fitted)
    if app.settings_of(context).as_json:
        terminal.json_line(_as_object(out, path, fitted) | _suggestion_object(suggest, suggestion))
        return
    _show_broken_rules(fitted, device)
    terminal.line(f"{'replaced' if replaced else 'made'} {out}, from the calibration of {device}")
    _show(fitted)
    _show_values(fitted)
    if suggestion is not None:
        _show_suggestion(suggest, suggestion)
    terminal.line(f"file {path}")


def _saved(name: str, fitted: FittedDevice) -> tuple[Path, bool]:
    """Write the device, its fit and the dated snapshots of its windows; return the device's file,
    and whether it replaced another one. All are complete before the first gets its name."""
    from noise_models import snapshot as snapshots
    from noise_models.drift import moment_s
    from simenv.calibration.fit import calibrate
    from simenv.model.devices import date_name

    path = device_files.path_of(name)
    files.private_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as staged:
        calibrate.save(Path(staged, path.with_suffix(".h5").name), fitted)
        series = Path(staged, name)
        for each in fitted.series:
            series.mkdir(mode=0o700, exist_ok=True)
            name_of_date = date_name(moment_s(each.calibrated))
            files.write_atomic(series / f"{name_of_date}.json", snapshots.dump(each))
        result = overview.save(name, snapshots.dump(fitted.snapshot))
        for part in Path(staged).iterdir():
            part.rename(path.parent / part.name)
    return result


def warn(counts: CountsData) -> None:
    """Print the warnings about a file of counts, with the numbers of rows."""
    from simenv.calibration.data import dates_after

    counts = counts.warned("rows are dated in the future", dates_after(counts, time.time()))
    for text, rows in counts.warnings:
        terminal.note(f"warning: {text} ({terminal.counted(rows, 'row')})")


def prepare() -> None:
    """Make compiled kernels loadable; called before a module with kernels is imported."""
    from simulators.compiler import warmup

    warmup.prepare(config.kernel_folder())


def _as_object(name: str, path: Path, fitted: FittedDevice) -> dict[str, object]:
    from simenv.calibration.fit.identify import EFFECTIVE

    held = fitted.held_out
    found = fitted.identification
    return {
        "name": name, "file": str(path), "digest": fitted.snapshot.digest.hex(),
        "base": fitted.base, "prior": fitted.prior, "share": fitted.share, "reason": fitted.reason,
        "calibration_below_aer": held is not None and held.is_snapshot_below_aer,
        "implausible": fitted.implausible, "scope": fitted.scope, "held_out": held,
        "circuits": len(fitted.observed.observations),
        "left_out": dict(fitted.observed.left_out),
        "unknowns": [
            {"name": name, "value": value}
            for name, value in zip(fitted.columns, fitted.latent.tolist(), strict=True)
        ],
        "parameters": found.parameters, "correlations": found.correlations,
        "dispersion": found.dispersion, "note": EFFECTIVE,
        "windows": len(fitted.windows),
        "days": [each.calibrated for each in fitted.series],
        "day_tests": fitted.day_tests,
    }  # fmt: skip


def _show_broken_rules(fitted: FittedDevice, device: str) -> None:
    """Print lines that come before all others: what is below Aer's recipe, and what is not
    plausible."""
    from simenv.calibration.fit.calibrate import AER_RECIPES

    held = fitted.held_out
    if held is not None and held.is_snapshot_below_aer:
        recipes = ", ".join(
            f"{name} {level.mean:.4f}, difference {change.text}"
            for name, level, change in zip(
                AER_RECIPES, held.aer, held.snapshot_above_aer, strict=True
            )
        )
        terminal.line(
            f"the calibration of {device} is below Aer's recipe for it on these circuits: mean"
            f" fidelity {held.snapshot.mean:.4f} ({recipes})"
        )
    if fitted.scope.refused and fitted.share:
        terminal.note(f"warning: stored by force: {fitted.scope.refused}")
    for text in fitted.implausible:
        terminal.note(f"warning: not plausible: {text}; check the circuits of these qubits")


def _show(fitted: FittedDevice) -> None:
    from simenv.calibration.fit.calibrate import AER_RECIPES

    circuits = terminal.counted(len(fitted.observed.observations), "circuit")
    terminal.line(f"base {fitted.base}; prior {fitted.prior.text}; fitted to {circuits}")
    for text, rows in fitted.observed.left_out:
        terminal.line(f"{terminal.counted(rows, 'row')}: {text}")
    if fitted.windows:
        terminal.line(
            f"date windows: {len(fitted.windows)}, each with a calibration of its own, which"
            f" drift=replay replays"
        )
    _show_days(fitted.day_tests)
    held = fitted.held_out
    if held is None:
        terminal.line("all circuits have one body: the fit was not checked on circuits left out")
    if not fitted.share:
        values = "it is"
        if fitted.base == "aer":
            values = "its values as Aer reads them (p01 = p10), or a part of the way to them, are"
        terminal.line(f"no fit of the calibration is used, {values} kept: {fitted.reason}")
        if held is not None:
            terminal.line(
                f"on {terminal.counted(held.circuits, 'circuit')} left out of the best fit: gain of"
                f" mean fidelity {held.text}"
            )
        return
    if held is not None:
        terminal.line(
            f"{fitted.share:.0%} of the way from the calibration to the fit; gain of mean fidelity"
            f" {held.text}"
        )
        terminal.line(
            f"fidelity on {terminal.counted(held.circuits, 'circuit')} left out of a fit:"
        )
        levels = (held.fitted, held.snapshot, *held.aer)
        terminal.table(
            [
                ("MODEL", "MEDIAN", "P10", "MEAN"),
                *(
                    (name, *(f"{value:.4f}" for value in (each.median, each.p10, each.mean)))
                    for name, each in zip(
                        ("fitted", "calibration", *AER_RECIPES), levels, strict=True
                    )
                ),
            ]
        )
    if fitted.snapshot.outside is not None:
        if held is not None and not held.is_used:
            terminal.line(
                "circuits left out show no gain: each may identify a value that no other one does."
                " Shots alone do not explain how much likelier the counts are with the fit"
            )
        terminal.line(
            f"fitted to {_bodies(fitted.scope)}: in force for circuits like these, of depth"
            f" {_most(fitted.scope.depth)} and {_most(fitted.scope.duration_ns)} ns; others have"
            " the calibration's noise, and their results say so"
        )


def _bodies(scope: FitScope) -> str:
    """Return the number of different circuits, of all and of each pair."""
    from simulators.circuit.analysis.fit_scope import listed

    text = terminal.counted(scope.bodies, "different circuit")
    pairs = zip(scope.pairs, scope.pair_bodies, strict=True)
    each = [f"{a}-{b} {count}" for (a, b), count in pairs]
    return f"{text} (with gates on {listed(each)})" if each and not scope.placed else text


def _most(value: float | None) -> str:
    """Return the most of a circuit to which a fit is in force."""
    from simulators.circuit.analysis.fit_scope import DEEPER

    return "any" if value is None else f"up to {DEEPER * value:.4g}"


_MOST_VALUES = 30  # rows of the table of values


def _show_values(fitted: FittedDevice) -> None:
    """Print the values of the device with the intervals that the counts give."""
    from simenv.calibration.fit import identify

    found = fitted.identification
    chosen = identify.chosen(found.parameters, _MOST_VALUES)
    header = tuple(word.upper() for word in identify.HEADER)
    terminal.table([header, *identify.cells(chosen)])
    if len(chosen) < len(found.parameters):
        terminal.line(f"{len(found.parameters) - len(chosen)} more values: --json or --report FILE")
    for text in identify.summary(found):
        for part in terminal.wrap(text, min(terminal.width() or 80, 80), 2):
            terminal.line(part)


def _suggested(path: Path, fitted: FittedDevice) -> Suggestion:
    """Choose circuits and write them: a program (.py), or rows of measured counts."""
    from simenv.calibration import probes
    from simenv.calibration.data import write

    result = probes.suggested(fitted.likelihood, fitted.identification)
    with terminal.write_errors(path):
        if path.suffix == ".py":
            files.write_atomic(path, probes.program(result, fitted.scope.device).encode())
        else:
            write(path, probes.rows(result), fitted.scope.device)
    return result


def _suggestion_object(path: Path | None, suggestion: Suggestion | None) -> dict[str, object]:
    if suggestion is None:
        return {}
    return {
        "suggested": {
            "file": str(path), "circuits": len(suggestion.probes),
            "identified": suggestion.identified, "open": suggestion.open,
        }
    }  # fmt: skip


def _show_suggestion(path: Path | None, suggestion: Suggestion) -> None:
    from simenv.calibration.probes import SHOTS

    count = len(suggestion.identified) + len(suggestion.open)
    if not count:
        terminal.line(f"{path}: no circuits, all values are identified")
        return
    terminal.line(
        f"{path}: {terminal.counted(len(suggestion.probes), 'circuit')} to measure, {SHOTS:,} shots"
        f" each; expected to identify {len(suggestion.identified)} of {count} values"
    )
    if suggestion.open:
        terminal.line(f"not by such circuits: {', '.join(suggestion.open[:6])}")


def _write_report(path: Path, name: str, fitted: FittedDevice) -> None:
    from simenv.calibration import report as page
    from simenv.calibration.fit import identify

    found = fitted.identification
    device = fitted.scope.device
    with terminal.write_errors(path):
        page.write(
            path, f"{name}, fitted from {device}", (), identify.summary(found),
            tables=[("Values", identify.HEADER, identify.cells(found.parameters))],
        )  # fmt: skip
    terminal.note(f"page {path}")


def _show_days(tests: Sequence[DayTest]) -> None:
    """Print which parameters drift over a series of days, and by how much from day to day."""
    from simenv.calibration.fit.day_values import LEVEL

    if not tests:
        return
    drifting = [each for each in tests if each.drifts]
    others = terminal.counted(len(tests) - len(drifting), "parameter")
    terminal.line(
        f"likelihood-ratio test of one value a day against one for all, {LEVEL:.0%} over"
        f" {len(tests)}: {others} constant, {len(drifting)} not"
    )
    if drifting:
        rows = [
            (each.name, each.text, str(each.days), f"{each.probability:.1g}") for each in drifting
        ]
        terminal.table([("DRIFTS", "FROM DAY TO DAY", "DAYS", "P"), *rows])


def score(
    context: typer.Context,
    data: DataFile,
    device: Annotated[list[str], typer.Option(help="A device to score; may be repeated.")],
    noise: Annotated[
        list[str] | None,
        typer.Option(
            help="Score each device with this noise as well: a recipe (aer), or"
            " COMPONENT=FACTOR with commas; may be repeated."
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(help="Draw PNG plots into this folder (needs matplotlib).", file_okay=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with the plots (needs matplotlib).", dir_okay=False),
    ] = None,
) -> None:
    """Score devices on measured counts: Hellinger fidelity and total variation distance.

    The table also has Aer's recipe with idle noise for each calibration, with p01 = p10 (aer) and
    as calibrated (aer-properties), the uniform distribution, the ideal circuit, the hardware
    against its own repeat, and the ceiling that the number of shots allows. Intervals are 95 %. A
    device that is below Aer's recipe is named in the first lines.
    """
    if len(set(device)) < len(device):
        raise OptionError("--device: one device is named twice")
    if plots or report:
        terminal.require_matplotlib("--plots and --report")
    terminal.require_folders({"--report": report})
    prepare()
    from simenv.calibration.accept import as_values, below
    from simenv.calibration.data import read
    from simenv.calibration.score import IdealDistributions, score as scored

    models, references = _models(device, noise or [])
    counts = read(data)
    warn(counts)
    note = terminal.note if sys.stderr.isatty() else (lambda _: None)
    result = scored(counts, models, IdealDistributions(), note)
    if plots is not None or report is not None:
        _draw(data.stem, result, plots, report)
    values = as_values(result)
    for name, each in references.items():
        for text in (text for reference in each for text in below(result, name, reference)):
            terminal.note(f"warning: {text}")
    if app.settings_of(context).as_json:
        for row in values:
            terminal.json_line(row)
        return
    _show_scores(result, values)


def _models(
    devices: Sequence[str], noises: Sequence[str]
) -> tuple[dict[str, Predictor], dict[str, list[str]]]:
    """Return the predictors by name, and the names of both forms of Aer's recipe for each device:
    of the calibration that it was fitted from, if that exists."""
    from noise_models.options import NoiseOptions
    from simenv.calibration.fit.calibrate import AER_RECIPES
    from simenv.calibration.fit.observations import DeviceCompiler
    from simenv.calibration.score import Predictor

    models: dict[str, Predictor] = {}
    references: dict[str, list[str]] = {}
    for name in devices:
        snapshot, _ = overview.load(name)
        models[name] = _predictor(name, snapshot)
        base, compiler = snapshot, DeviceCompiler(snapshot)
        for text in noises:
            options = noise_of(text)
            if not isinstance(options, (str, Mapping)):
                raise OptionError(f"--noise {text[:80]!r}", hint="a recipe or COMPONENT=FACTOR")
            with overview.calibration_errors(f"--noise {text[:80]}"):
                parsed = NoiseOptions.parse(options)
                models[f"{name}, {text}"] = Predictor(snapshot, parsed, compiler)
        if snapshot.fitted is not None:
            with suppress(NotFoundError):
                base, _ = overview.load(snapshot.fitted.device)
                compiler = DeviceCompiler(base)
        own = base is snapshot
        origin = name if own else snapshot.fitted.device  # type: ignore[union-attr]
        references[name] = [f"{origin}, {recipe}" for recipe in AER_RECIPES]
        for recipe, reference in zip(AER_RECIPES, references[name], strict=True):
            if reference not in models:
                models[reference] = Predictor(base, NoiseOptions(recipe=recipe), compiler)
    return models, references


def _predictor(name: str, default: CalibrationSnapshot) -> Predictor:
    """Return the predictor of a device, with dated calibrations if its folder holds some."""
    from noise_models import snapshot as snapshots
    from simenv.calibration.score import SeriesPredictor

    folder = device_files.folder() / name
    series = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with overview.calibration_errors(str(path)):
            series.append(snapshots.load(path.read_bytes()))
    return SeriesPredictor(default, [each for each in series if each.calibrated])


def _draw(title: str, scores: Score, folder: Path | None, report: Path | None) -> None:
    from simenv.calibration import report as page

    if folder is not None:
        with terminal.write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in page.draw(title, scores, folder):
                terminal.note(f"plot {path}")
    if report is not None:
        with terminal.write_errors(report):
            page.write(report, f"Scores of {title}", [page.Section(title, scores)])
        terminal.note(f"page {report}")


def _show_scores(scores: Score, values: list[dict[str, object]]) -> None:
    from simenv.calibration.accept import HEADER, cells

    terminal.table_in_parts([tuple(word.upper() for word in HEADER), *cells(values)], 3)
    methods: dict[str, int] = {}
    for each in scores.rows:
        methods[each.how] = methods.get(each.how, 0) + 1
    settings = ", ".join(f"{count} {name}" for name, count in sorted(methods.items()))
    terminal.line(f"distributions: {settings or 'none'}")
    if scores.not_judged:
        terminal.line(f"not judged, too wide: {terminal.counted(scores.not_judged, 'run')}")
