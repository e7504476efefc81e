"""`simenv devices new`: a device of a few numbers and a lattice; and the text of import reports."""

from __future__ import annotations

from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from simenv import config, files
from simenv.cli import app, terminal
from simenv.cli.devices import overview
from simenv.errors import OptionError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from noise_models.design import Layout
    from noise_models.importers import ImportReport, ReportLine

_LINES_SHOWN = 12  # lines of one part of a report


# Names and help of `noise_models.terms.VALUES`, which the start of a command does not load.
_VALUES = (
    ("t1_us", "T1, in us."),
    ("t2_us", "T2 (echo), in us."),
    ("t2_star_us", "T2* (Ramsey), in us."),
    ("frequency_ghz", "Frequency, in GHz."),
    ("readout_error", "Readout error, the mean of p01 and p10."),
    ("p01", "Probability that 0 is read as 1."),
    ("p10", "Probability that 1 is read as 0."),
    ("readout_ns", "Duration of a measurement, in ns."),
    ("excited", "Population of 1 in thermal equilibrium."),
    ("reset_error", "Probability of 1 after a reset."),
    ("reset_ns", "Duration of a reset, in ns."),
    ("preparation_error", "Probability of 1 at the start."),
    ("memory_error", "Average infidelity of a qubit by a layer of two-qubit gates."),
    ("measure_decay", "Probability that a measurement leaves 1 in 0."),
    ("measure_excitation", "Probability that a measurement leaves 0 in 1."),
    ("leaked_readout", "Probability that a leaked qubit is read as 1."),
    ("leaked_t1_us", "T1 of the third level, in us."),
    ("readout_decided", "Part of a readout after which its outcome is decided."),
    ("jumps_per_hour", "Jumps of T1 to its low value, in 1/h."),
    ("jump_dwell_s", "Mean time at the low T1, in s."),
    ("jump_factor", "Low T1 relative to T1."),
    ("error_1q", "Average infidelity (gates on one qubit but rz)."),
    ("error_2q", "Average infidelity (gates on two qubits)."),
    ("duration_1q_ns", "Duration (gates on one qubit but rz), in ns."),
    ("duration_2q_ns", "Duration (gates on two qubits), in ns."),
    ("over_rotation_1q_rad", "Over-rotation (gates on one qubit but rz), in rad."),
    ("over_rotation_2q_rad", "Over-rotation (gates on two qubits), in rad."),
    ("leakage_1q", "Mean probability of leakage (gates on one qubit but rz)."),
    ("leakage_2q", "Mean probability of leakage (gates on two qubits)."),
    ("seepage_1q", "Probability that a leaked qubit comes back (gates on one qubit but rz)."),
    ("seepage_2q", "Probability that a leaked qubit comes back (gates on two qubits)."),
    ("zz_angle_rad", "Rotation about ZZ (gates on two qubits), in rad."),
    ("iz_angle_rad", "Rotation about Z of the second qubit (gates on two qubits), in rad."),
    ("zz_khz", "ZZ interaction, in kHz."),
    ("joint_flip", "Probability that both records of a pair are flipped together."),
    (
        "measurement_crosstalk_error",
        "Average infidelity of a qubit by a measurement of another one.",
    ),
    ("measurement_crosstalk_rad", "Rotation of a qubit by a measurement of another one, in rad."),
    ("dt_ns", "Resolution of the clock, in ns."),
)


def _options() -> type:
    """Class with an option for each value of a device, after those of its qubits and gates."""
    texts = (
        ("lattice", "line, ring, grid, heavy-hex or all-to-all; with a size: grid:3x4,"
         " heavy-hex:8x16. By default line."),
        ("couplings", "Pairs in place of a lattice: 0-1,1-2,1-3."),
        ("gates", "Native gates, by Qiskit's names."),
    )  # fmt: skip
    count = Annotated[int, typer.Option(min=0, help="Number of qubits.")]
    defaults = {"gates": "rz,sx,x,cz"}
    taken: list[tuple[str, Any, str]] = [
        (name, Annotated[str, typer.Option(help=text)], defaults.get(name, ""))
        for name, text in texts
    ]
    for name, text in _VALUES:
        metavar = "NUMBER" if name == "dt_ns" else "NUMBERS"
        option = typer.Option("--" + name.replace("_", "-"), metavar=metavar, help=text)
        taken.append((name, Annotated[str, option], ""))
    fields: list[Any] = [("qubits", count, 0), *taken]
    result = make_dataclass("Numbers", fields, frozen=True)
    result.__module__ = __name__
    return result


Numbers = _options()


@app.with_options(Numbers)
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new device.")],
    asked: Any,
    template: Annotated[
        bool,
        typer.Option(
            "--template", help="Complete what is not given with values of superconducting qubits."
        ),
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Write this file, to edit and import it, in place of the device."),
    ] = None,
) -> None:
    """Make a device of a few numbers and a lattice.

    What is not given is not measured: it acts without noise, and the report says so. A value is a
    number for all qubits, or one for each, separated by commas.
    """
    from noise_models import design, snapshot as snapshots

    config.check_name(name, "device")
    with overview.calibration_errors():
        layout = _layout(asked)
        numbers = {
            name: values for name, _ in _VALUES if (values := _numbers(name, getattr(asked, name)))
        }
        gates = tuple(filter(None, (each.strip() for each in asked.gates.split(","))))
        plain = design.DeviceDesign(
            name, layout.num_qubits, layout.couplings, layout.all_to_all, layout.coordinates, gates
        )
        if template:
            filled = {name: (value,) for name, value in design.TEMPLATE.items()}
            skipped = set(design.unused(replace(plain, values=filled)))
            if "readout_error" in numbers:
                skipped.update(("p01", "p10"))
            numbers = {name: v for name, v in filled.items() if name not in skipped} | numbers
        result, report = design.snapshot_of(replace(plain, values=numbers))
        data = snapshots.dump(result)
    replaced = False
    if file is None:
        path, replaced = overview.save(name, data)
    else:
        path = file
        try:
            files.write_atomic(file, msgspec.json.format(data, indent=1) + b"\n")
        except OSError as error:
            raise OptionError(f"cannot write {file}: {error.strerror}") from error
    verb = "wrote" if file is not None else "replaced" if replaced else "made"
    count = len({frozenset(pair) for pair in result.coupling})
    coupling = "all to all" if result.all_to_all else terminal.counted(count, "pair")
    done = f"{verb} {name}: {terminal.counted(result.num_qubits, 'qubit')}, {coupling}"
    answer(context, name, path, result, report, replaced=replaced, done=done)


def _layout(asked: Any) -> Layout:
    from noise_models import design

    if not asked.couplings:
        return design.lattice(asked.lattice or "line", asked.qubits)
    if asked.lattice:
        raise OptionError("--couplings and --lattice", hint="give one of the two")
    pairs = []
    for text in asked.couplings.split(","):
        ends = [each.strip() for each in text.split("-")]
        if len(ends) != 2 or not all(each.isascii() and each.isdigit() for each in ends):
            raise OptionError(f"--couplings: {text[:40]!r} is not a pair", hint="as 0-1,1-2")
        pairs.append((int(ends[0][:9]), int(ends[1][:9])))
    count = asked.qubits or 1 + max(qubit for pair in pairs for qubit in pair)
    return design.Layout(count, tuple(pairs))


def _numbers(field: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(",")) if text.strip() else ()
    except ValueError:
        option = "--" + field.replace("_", "-")
        hint = "a number, or one for each: 120,110,90"
        raise OptionError(f"{option}: {text[:40]!r} is not a number", hint=hint) from None


def answer(
    context: typer.Context,
    name: str,
    path: Path,
    snapshot: CalibrationSnapshot,
    report: ImportReport,
    *,
    replaced: bool,
    done: str,
) -> None:
    """Print which device a command has written, and the report. `done`: the first line."""
    if app.settings_of(context).as_json:
        terminal.json_line(
            {
                "name": name, "file": str(path), "replaced": replaced,
                "digest": snapshot.digest.hex(), "num_qubits": snapshot.num_qubits,
                "report": report,
            }
        )  # fmt: skip
        return
    terminal.line(done)
    terminal.line(f"file {path}")
    _report_lines(report)


def _report_lines(report: ImportReport) -> None:
    """Print what a device does not have, then the fields in the parts of a report."""
    for title, lines in (
        ("the device does not have", report.missing),
        ("noise that was left out", report.unread),
    ):
        if lines:
            terminal.line()
            terminal.line(title)
            _lines(lines)
    for title, lines in (
        ("used", report.used),
        ("ignored", report.ignored),
        ("defaulted", report.defaulted),
        ("clamped when a noise model is built", report.clamped),
    ):
        if lines:
            total = sum(line.count for line in lines)
            terminal.line()
            terminal.line(f"{title} ({terminal.counted(total, 'value')})")
            _lines(lines)


def _lines(lines: tuple[ReportLine, ...]) -> None:
    shown = lines[:_LINES_SHOWN]
    width = max(len(line.field) for line in shown)
    for line in shown:
        count = f"  ({line.count})" if line.count > 1 else ""
        terminal.fitted(
            f"  {terminal.clean(line.field.ljust(width))}  {line.note}{count}", width + 4
        )
    if len(lines) > len(shown):
        terminal.line(f"  and {len(lines) - len(shown)} more; --json prints all")
