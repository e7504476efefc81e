"""`simenv devices new`: a device of a few numbers and a lattice; and the text of import reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Numbers:
    """Options of `devices new`. A value is a number for all qubits, or one for each: 120,110,90."""

    qubits: Annotated[int, typer.Option(min=0, help="Number of qubits.")] = 0
    lattice: Annotated[
        str,
        typer.Option(
            help="line, ring, grid, heavy-hex or all-to-all; with a size: grid:3x4,"
            " heavy-hex:8x16. By default line."
        ),
    ] = ""
    couplings: Annotated[str, typer.Option(help="Pairs in place of a lattice: 0-1,1-2,1-3.")] = ""
    gates: Annotated[str, typer.Option(help="Native gates, by Qiskit's names.")] = "rz,sx,x,cz"
    t1_us: Annotated[str, typer.Option(metavar="NUMBERS", help="T1 in microseconds.")] = ""
    t2_us: Annotated[str, typer.Option(metavar="NUMBERS", help="T2 in microseconds.")] = ""
    t2_star_us: Annotated[
        str, typer.Option(metavar="NUMBERS", help="T2* (Ramsey) in microseconds, beside T2 (echo).")
    ] = ""
    memory_error: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="Average infidelity of a qubit by each layer of gates on two qubits.",
        ),
    ] = ""
    readout_error: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Probability that a qubit is read wrongly.")
    ] = ""
    p01: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Probability that 0 is read as 1.")
    ] = ""
    p10: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Probability that 1 is read as 0.")
    ] = ""
    readout_ns: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Duration of a measurement in nanoseconds.")
    ] = ""
    error_1q: Annotated[
        str,
        typer.Option(
            "--error-1q",
            metavar="NUMBERS",
            help="Average gate infidelity of gates on one qubit, but rz.",
        ),
    ] = ""
    error_2q: Annotated[
        str,
        typer.Option(
            "--error-2q",
            metavar="NUMBERS",
            help="The same of gates on two qubits; of each pair in the order of --couplings.",
        ),
    ] = ""
    zz_angle_rad: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="Angle of a rotation about ZZ after gates on two qubits, in radians.",
        ),
    ] = ""
    iz_angle_rad: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="The same about Z of the second qubit of the gate, in radians."
        ),
    ] = ""
    duration_1q_ns: Annotated[
        str,
        typer.Option("--duration-1q-ns", metavar="NUMBERS", help="Duration in nanoseconds."),
    ] = ""
    duration_2q_ns: Annotated[
        str,
        typer.Option("--duration-2q-ns", metavar="NUMBERS", help="Duration in nanoseconds."),
    ] = ""
    dt_ns: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Resolution of the clock in nanoseconds, which delays in dt and Qiskit's passes"
            " for delays need.",
        ),
    ] = ""


@app.with_options(Numbers)
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new device.")],
    asked: Numbers,
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
        numbers: dict[str, Any] = {
            field: _numbers(field, getattr(asked, field))
            for field in Numbers.__dataclass_fields__
            if field not in ("qubits", "lattice", "couplings", "gates")
        }
        gates = tuple(filter(None, (each.strip() for each in asked.gates.split(","))))
        plain = design.DeviceDesign(
            name, layout.num_qubits, layout.couplings, layout.all_to_all, layout.coordinates, gates
        )
        if template:
            filled: dict[str, Any] = {field: (value,) for field, value in design.TEMPLATE.items()}
            skipped = design.unused(replace(plain, **filled))
            read = numbers["readout_error"]
            for field, value in design.TEMPLATE.items():
                if field in skipped and not numbers[field]:
                    continue
                if not numbers[field] and not (read and field in ("p01", "p10")):
                    numbers[field] = (value,)
        result, report = design.snapshot_of(replace(plain, **numbers))
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


def _layout(asked: Numbers) -> Layout:
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
