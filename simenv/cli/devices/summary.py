"""Figures of a calibration snapshot: medians, extremes, and errors by pair and qubit."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from simenv.model.devices import UNKNOWN

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

_QUBIT_FIGURES = {  # field -> unit
    "t1_us": "us",
    "t2_us": "us",
    "frequency_ghz": "GHz",
    "readout_error": "",
    "p01": "",
    "p10": "",
    "readout_ns": "ns",
    "excited": "",
    "reset_error": "",
    "reset_ns": "ns",
    "preparation_error": "",
}


class SpreadFigure(msgspec.Struct, frozen=True):
    """Median and extremes of one measured quantity over a device."""

    figure: str
    unit: str
    median: float
    min: float
    max: float
    count: int


def figures(snapshot: CalibrationSnapshot) -> list[SpreadFigure]:
    """Return the figures of the qubits, then error and duration of each gate, then ZZ rates.

    Errors of gates that do not work are left out; `broken` lists them.
    """
    results = [
        _figure(name.removesuffix(f"_{unit.lower()}") if unit else name, unit, values)
        for name, unit in _QUBIT_FIGURES.items()
        if (values := [v for q in snapshot.qubits if (v := getattr(q, name)) is not None])
    ]
    for gate in dict.fromkeys(each.name for each in snapshot.gates):
        same = [each for each in snapshot.gates if each.name == gate]
        for key, unit in (("error", ""), ("duration_ns", "ns")):
            values = [v for each in same if (v := getattr(each, key)) is not None]
            if key == "error":
                values = working(values)
            if values:
                results.append(_figure(f"{gate} {key.removesuffix('_ns')}", unit, values))
    if snapshot.zz:
        results.append(_figure("zz rate", "kHz", [abs(each.rate_khz) for each in snapshot.zz]))
    return results


def _figure(name: str, unit: str, values: list[float]) -> SpreadFigure:
    return SpreadFigure(
        name, unit, statistics.median(values), min(values), max(values), len(values)
    )


def broken(snapshot: CalibrationSnapshot) -> list[str]:
    """Return the native gates whose error is 1, such as `cz 3-4`."""
    native = {gate.name for gate in snapshot.native_gates}
    return [
        f"{gate.name} {'-'.join(map(str, gate.qubits))}"
        for gate in snapshot.gates
        if gate.error == 1.0 and gate.name in native
    ]


def pair_errors(snapshot: CalibrationSnapshot) -> dict[tuple[int, int], float]:
    """Return the smallest error of a native two-qubit gate of each pair (a < b), in either
    direction."""
    native = {gate.name for gate in snapshot.native_gates}
    entries: dict[tuple[int, int], float] = {}
    for gate in snapshot.gates:
        if len(gate.qubits) == 2 and gate.error is not None and gate.name in native:
            pair = (min(gate.qubits), max(gate.qubits))
            entries[pair] = min(entries.get(pair, 1.0), gate.error)
    return entries


def readout_errors(snapshot: CalibrationSnapshot) -> dict[int, float]:
    """Return the mean readout error of each qubit that has one."""
    return {
        index: sum(pair) / 2
        for index, qubit in enumerate(snapshot.qubits)
        if (pair := qubit.confusion) is not None
    }


def working(errors: Iterable[float]) -> list[float]:
    """Return the errors below 1, which marks a gate that does not work; all if none is below."""
    measured = list(errors)
    return [error for error in measured if error < 1.0] or measured


def median(values: Iterable[float]) -> float:
    """Return the median of the known values; NaN if none is known."""
    measured = [value for value in values if value == value]
    return statistics.median(measured) if measured else UNKNOWN
