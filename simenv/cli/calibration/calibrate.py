"""`simenv calibrate`: fit the noise of a device to measured counts."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config, files
from simenv.cli import options
from simenv.cli.devices import stored
from simenv.cli.output import terminal
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.calibration.data.records import CountsData
    from simenv.calibration.fit.calibrate import FittedDevice

DataFile = Annotated[Path, typer.Argument(help="Measured counts, as JSON lines.", dir_okay=False)]


def calibrate(
    context: typer.Context,
    data: DataFile,
    device: Annotated[str, typer.Option(help="The device that was measured.")],
    out: Annotated[str, typer.Option(help="Name of the fitted device.")],
    narrow: Annotated[
        bool,
        typer.Option("--narrow", help="Use a fit to fewer than 10 different circuits as well."),
    ] = False,
) -> None:
    """Fit a device's noise to measured counts, and store it as a device.

    Rows with "split": "test" are not used. On circuits that a fit did not see, the gain must be
    significant: else the device's own calibration is kept, and a fit that is worse is refused. No
    fit is used that is below Aer's recipe for the calibration on these circuits, with p01 = p10
    (aer) or as calibrated (aer-properties). A fit to fewer than 10 different circuits is used with
    --narrow only.
    """
    config.check_name(out, "device")
    if out == device:
        raise OptionError(f"--out {out}: the name of the device itself", hint="choose another name")
    prepare()
    from simenv.calibration.data.reader import read
    from simenv.calibration.data.records import dates_before
    from simenv.calibration.fit.calibrate import calibrate as fit

    snapshot, _ = stored.load(device)
    counts = read(data)
    early = dates_before(counts, snapshot.calibrated)
    counts = counts.warned(f"rows are older than the calibration of {device}", early)
    if counts.device not in ("", device):
        other = f"rows are of device {counts.device}, by their header, and not of {device}"
        counts = counts.warned(other, len(counts.records))
    warn(counts)
    note = terminal.note if sys.stderr.isatty() else (lambda _: None)
    fitted = fit(counts, snapshot, out, note, narrow=narrow)
    path, replaced = _saved(out, fitted)
    if options.settings_of(context).as_json:
        terminal.json_line(_as_object(out, path, fitted))
        return
    _show_broken_rules(fitted, device)
    terminal.line(f"{'replaced' if replaced else 'made'} {out}, from the calibration of {device}")
    _show(fitted)
    terminal.line(f"file {path}")


def _saved(name: str, fitted: FittedDevice) -> tuple[Path, bool]:
    """Write the device, its fit and the dated snapshots of its windows; return the device's file,
    and whether it replaced another one. All are complete before the first gets its name."""
    from noise_models import snapshot as snapshots
    from simenv.calibration.fit import store

    path = stored.path_of(name)
    files.private_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as staged:
        store.save(Path(staged, path.with_suffix(".h5").name), fitted)
        series = Path(staged, name)
        for each in fitted.series:
            series.mkdir(mode=0o700, exist_ok=True)
            files.write_atomic(series / f"{each.calibrated[:10]}.json", snapshots.dump(each))
        result = stored.save(name, snapshots.dump(fitted.snapshot))
        for part in Path(staged).iterdir():
            part.rename(path.parent / part.name)
    return result


def warn(counts: CountsData) -> None:
    """Print the warnings about a file of counts, with the numbers of rows."""
    from simenv.calibration.data.records import dates_after

    counts = counts.warned("rows are dated in the future", dates_after(counts, time.time()))
    for text, rows in counts.warnings:
        terminal.note(f"warning: {text} ({terminal.counted(rows, 'row')})")


def prepare() -> None:
    """Make compiled kernels loadable; called before a module with kernels is imported."""
    from simulators.compiler import warmup

    warmup.prepare(config.kernel_folder())


def _as_object(name: str, path: Path, fitted: FittedDevice) -> dict[str, object]:
    held = fitted.held_out
    return {
        "name": name,
        "file": str(path),
        "digest": fitted.snapshot.digest.hex(),
        "base": fitted.base,
        "prior": fitted.prior,
        "share": fitted.share,
        "reason": fitted.reason,
        "calibration_below_aer": held is not None and held.is_snapshot_below_aer,
        "implausible": fitted.implausible,
        "scope": fitted.scope,
        "held_out": held,
        "circuits": len(fitted.observed.observations),
        "left_out": dict(fitted.observed.left_out),
        "unknowns": [
            {"name": name, "value": value, "low": low, "high": high}
            for name, value, low, high in zip(
                fitted.columns,
                fitted.latent.tolist(),
                *(side.tolist() for side in fitted.interval),
                strict=True,
            )
        ],
        "windows": len(fitted.windows),
    }


def _show_broken_rules(fitted: FittedDevice, device: str) -> None:
    """Print lines that come before all others: what is below Aer's recipe, and what is not
    plausible."""
    held = fitted.held_out
    if held is not None and held.is_snapshot_below_aer:
        terminal.line(
            f"the calibration of {device} is below Aer's recipe for it on these circuits: median"
            f" fidelity {held.snapshot_median:.4f} (aer {held.aer_median:.4f}, aer-properties"
            f" {held.aer_properties_median:.4f}), 10th percentile {held.snapshot_p10:.4f}"
            f" ({held.aer_p10:.4f}, {held.aer_properties_p10:.4f})"
        )
    for text in fitted.implausible:
        terminal.note(f"warning: not plausible: {text}; check the circuits of these qubits")


def _show(fitted: FittedDevice) -> None:
    from simenv.calibration.accept.scope import is_narrow
    from simenv.calibration.fit.components import CHANGES

    circuits = terminal.counted(len(fitted.observed.observations), "circuit")
    terminal.line(f"base {fitted.base}; prior {fitted.prior.text}; fitted to {circuits}")
    for text, rows in fitted.observed.left_out:
        terminal.line(f"{terminal.counted(rows, 'row')}: {text}")
    if fitted.windows:
        terminal.line(f"date windows: {len(fitted.windows)}, each with a calibration of its own")
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
                f" mean fidelity {held.mean:+.5f}, at least {held.low:+.5f}"
            )
        if is_narrow(fitted.scope) and (held is None or held.is_significant):
            terminal.line("measure other kinds of circuits, or give --narrow for such circuits")
        return
    if held is not None:
        terminal.line(
            f"{fitted.share:.0%} of the way from the calibration to the fit; gain of mean fidelity"
            f" {held.mean:+.5f}, at least {held.low:+.5f}"
        )
        terminal.line(
            f"on {terminal.counted(held.circuits, 'circuit')} left out of a fit: median fidelity"
            f" {held.fitted_median:.4f} (calibration {held.snapshot_median:.4f}, aer"
            f" {held.aer_median:.4f}, aer-properties {held.aer_properties_median:.4f}), 10th"
            f" percentile {held.fitted_p10:.4f} ({held.snapshot_p10:.4f}, {held.aer_p10:.4f},"
            f" {held.aer_properties_p10:.4f}), mean {held.fitted_mean:.4f}"
            f" ({held.snapshot_mean:.4f}, {held.aer_mean:.4f}, {held.aer_properties_mean:.4f})"
        )
    table = []
    for (value, low, high), name in zip(fitted.factors, fitted.columns, strict=True):
        sign, same = ("+", 0.0) if name.partition(" ")[0] in CHANGES else ("x", 1.0)
        line = f"  {name:24} {sign} {value:.3f}  ({low:.3f} to {high:.3f})"
        table.append((-abs(value - same), line))
    for _, line in sorted(table)[:8]:
        terminal.line(line)
