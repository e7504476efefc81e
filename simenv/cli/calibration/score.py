"""`simenv score`: agreement of devices' predictions with measured counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.calibration.calibrate import DataFile, prepare, warn
from simenv.cli.devices import stored
from simenv.cli.output import pictures, terminal
from simenv.cli.tasks.circuit_input import noise_of
from simenv.errors import NotFoundError, OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.score.predict import Predictor
    from simenv.calibration.score.score import Score


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
        pictures.require_matplotlib("--plots and --report")
    prepare()
    from simenv.calibration.data.reader import read
    from simenv.calibration.report.tables import as_values, below
    from simenv.calibration.score.ideal import IdealDistributions
    from simenv.calibration.score.score import score as scored

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
    if options.settings_of(context).as_json:
        for row in values:
            terminal.json_line(row)
        return
    _show(result, values)


def _models(
    devices: Sequence[str], noises: Sequence[str]
) -> tuple[dict[str, Predictor], dict[str, list[str]]]:
    """Return the predictors by name, and the names of both forms of Aer's recipe for each device:
    of the calibration that it was fitted from, if that exists."""
    from noise_models.options import NoiseOptions
    from simenv.calibration.fit.calibrate import AER_RECIPES
    from simenv.calibration.fit.compile import DeviceCompiler
    from simenv.calibration.score.predict import Predictor

    models: dict[str, Predictor] = {}
    references: dict[str, list[str]] = {}
    for name in devices:
        snapshot, _ = stored.load(name)
        models[name] = _predictor(name, snapshot)
        base, compiler = snapshot, DeviceCompiler(snapshot)
        for text in noises:
            options = noise_of(text)
            if not isinstance(options, (str, Mapping)):
                raise OptionError(f"--noise {text[:80]!r}", hint="a recipe or COMPONENT=FACTOR")
            with stored.calibration_errors(f"--noise {text[:80]}"):
                parsed = NoiseOptions.parse(options)
                models[f"{name}, {text}"] = Predictor(snapshot, parsed, compiler)
        if snapshot.fitted is not None:
            with suppress(NotFoundError):
                base, _ = stored.load(snapshot.fitted.device)
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
    from simenv.calibration.score.series import SeriesPredictor

    folder = stored.folder() / name
    series = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with stored.calibration_errors(str(path)):
            series.append(snapshots.load(path.read_bytes()))
    return SeriesPredictor(default, [each for each in series if each.calibrated])


def _draw(title: str, scores: Score, folder: Path | None, report: Path | None) -> None:
    from simenv.calibration.report import page

    if folder is not None:
        with pictures.write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in page.draw(title, scores, folder):
                terminal.note(f"plot {path}")
    if report is not None:
        with pictures.write_errors(report):
            page.write(report, f"Scores of {title}", [page.Section(title, scores)])
        terminal.note(f"page {report}")


def _show(scores: Score, values: list[dict[str, object]]) -> None:
    from simenv.calibration.report.tables import HEADER, cells

    terminal.table([tuple(word.upper() for word in HEADER), *cells(values)])
    methods: dict[str, int] = {}
    for each in scores.rows:
        methods[each.how] = methods.get(each.how, 0) + 1
    settings = ", ".join(f"{count} {name}" for name, count in sorted(methods.items()))
    terminal.line(f"distributions: {settings or 'none'}")
    if scores.not_judged:
        terminal.line(f"not judged, too wide: {terminal.counted(scores.not_judged, 'run')}")
