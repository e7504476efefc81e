"""`simenv score`: agreement of devices' predictions with measured counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.calibration.calibrate import DataFile, prepare, warn
from simenv.cli.devices import stored
from simenv.cli.output import pictures, terminal
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.calibration.score.predict import Predictor
    from simenv.calibration.score.score import Score


def score(
    context: typer.Context,
    data: DataFile,
    device: Annotated[list[str], typer.Option(help="A device to score; may be repeated.")],
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

    The table also has the uniform distribution, the ideal circuit, the hardware against its own
    repeat, and the ceiling that the number of shots allows. Intervals are 95 %.
    """
    if len(set(device)) < len(device):
        raise OptionError("--device: one device is named twice")
    if plots or report:
        pictures.require_matplotlib("--plots and --report")
    prepare()
    from simenv.calibration.data.reader import read
    from simenv.calibration.report.tables import as_values
    from simenv.calibration.score.ideal import IdealDistributions
    from simenv.calibration.score.score import score as scored

    models = {name: _predictor(name) for name in device}
    counts = read(data)
    warn(counts)
    note = terminal.note if sys.stderr.isatty() else (lambda _: None)
    result = scored(counts, models, IdealDistributions(), note)
    if plots is not None or report is not None:
        _draw(data.stem, result, plots, report)
    values = as_values(result)
    if options.settings_of(context).as_json:
        for row in values:
            terminal.json_line(row)
        return
    _show(result, values)


def _predictor(name: str) -> Predictor:
    """Return the predictor of a device, with dated calibrations if its folder holds some."""
    from noise_models import snapshot as snapshots
    from simenv.calibration.score.series import SeriesPredictor

    default, _ = stored.load(name)
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
