"""`simenv devices show`: the figures of a device, or of one qubit, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.cli.devices import summary
from simenv.cli.output import terminal

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot, GateCalibration

_MAX_BROKEN = 8
_HEADERS = ("FIGURE", "UNIT", "MEDIAN", "MIN", "MAX", "VALUES")


def as_object(
    name: str, snapshot: CalibrationSnapshot, source: str, qubit: int | None
) -> dict[str, Any]:
    """Return the whole snapshot with its figures, or the values of one qubit, as a JSON object."""
    if qubit is not None:
        return {
            "name": name,
            "qubit": qubit,
            "values": msgspec.to_builtins(snapshot.qubits[qubit]) if snapshot.qubits else {},
            "gates": [msgspec.to_builtins(gate) for gate in _gates(snapshot, qubit)],
            "dates": _dates(snapshot, qubit),
        }
    return {
        "name": name,
        "source": source,
        "digest": snapshot.digest.hex(),
        "figures": summary.figures(snapshot),
        "broken": summary.broken(snapshot),
        "snapshot": snapshot,
    }


def show(name: str, snapshot: CalibrationSnapshot, source: str) -> None:
    """Print the description of the device, and the median of each figure."""
    gates = ", ".join(gate.name for gate in snapshot.native_gates)
    pairs = len({frozenset(pair) for pair in snapshot.coupling})
    facts = [
        ("device", f"{name} ({source})"),
        ("model", " ".join(filter(None, (snapshot.provider, snapshot.name, snapshot.version)))),
        ("technology", snapshot.technology),
        ("qubits", str(snapshot.num_qubits)),
        ("coupling", "all to all" if snapshot.all_to_all else f"{pairs} pairs"),
        ("gates", gates),
        ("calibrated", snapshot.calibrated),
        ("snapshot", snapshot.digest.hex()[:12]),
        ("clock", f"dt = {snapshot.dt_ns:g} ns" if snapshot.dt_ns else ""),
        ("shots", f"<= {snapshot.max_shots}" if snapshot.max_shots else ""),
        ("dynamic", "yes" if snapshot.dynamic else "no: measurements stand at the end"),
    ]
    for key, value in facts:
        if value:
            terminal.fitted(f"{key:<11} {terminal.clean(value)}", 12)
    if broken := summary.broken(snapshot):
        more = f" and {len(broken) - _MAX_BROKEN} more" if len(broken) > _MAX_BROKEN else ""
        terminal.fitted(f"{'broken':<11} {', '.join(broken[:_MAX_BROKEN])}{more}", 12)
    rows = [
        (each.figure, each.unit, *map(_short, (each.median, each.min, each.max)), str(each.count))
        for each in summary.figures(snapshot)
    ]
    if rows:
        terminal.line()
        _table([_HEADERS, *rows])


def show_qubit(snapshot: CalibrationSnapshot, qubit: int) -> None:
    """Print the values of one qubit and of the gates on it."""
    values = msgspec.to_builtins(snapshot.qubits[qubit]) if snapshot.qubits else {}
    dates = _dates(snapshot, qubit)
    rows = [("FIGURE", "VALUE", "MEASURED")]
    rows += [
        (key, f"{value:g}", dates.get(f"qubits[{qubit}].{key}", snapshot.calibrated or "-"))
        for key, value in values.items()
    ]
    _table(rows)
    gates = _gates(snapshot, qubit)
    if gates:
        terminal.line()
        table = [("GATE", "QUBITS", "ERROR", "NS")]
        table += [
            (
                gate.name,
                "-".join(map(str, gate.qubits)) or "all",
                "-" if gate.error is None else _short(gate.error),
                "-" if gate.duration_ns is None else f"{gate.duration_ns:g}",
            )
            for gate in gates
        ]
        _table(table)


def _gates(snapshot: CalibrationSnapshot, qubit: int) -> list[GateCalibration]:
    return [gate for gate in snapshot.gates if not gate.qubits or qubit in gate.qubits]


def _dates(snapshot: CalibrationSnapshot, qubit: int) -> dict[str, str]:
    prefix = f"qubits[{qubit}]."
    return {key: when for key, when in snapshot.dates.items() if key.startswith(prefix)}


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns; numbers (all but the first column) to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        terminal.line("  ".join(cells).rstrip())


def _short(value: float) -> str:
    return f"{value:.3g}" if 0.0 < abs(value) < 1000.0 else f"{value:g}"
