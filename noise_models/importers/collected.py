"""Values that an importer has collected for a snapshot, and what follows from all of them: qubits
without data, symmetric gates, defaults, dates, places in the source."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from typing import Any

from noise_models import calibration
from noise_models.importers import report

GateKey = tuple[str, tuple[int, ...]]  # name and qubits
_ENTRY = re.compile(r"(\w+)\[(\d+)\]\.(\w+)")  # of a list of the snapshot


@dataclasses.dataclass(slots=True, eq=False)
class CollectedValues:
    """Values by list of the snapshot. `qubits`: one table for each qubit of the device."""

    qubits: list[dict[str, float]]
    values: dict[str, Any] = dataclasses.field(default_factory=dict)  # other fields of the snapshot
    natives: dict[str, calibration.NativeGate] = dataclasses.field(default_factory=dict)
    fractional: dict[str, calibration.NativeGate] = dataclasses.field(default_factory=dict)
    coupling: dict[tuple[int, int], None] = dataclasses.field(default_factory=dict)
    gates: dict[GateKey, dict[str, float]] = dataclasses.field(default_factory=dict)
    unusable: dict[int, str] = dataclasses.field(
        default_factory=dict
    )  # reason why a qubit does not work
    bounds: dict[str, calibration.AngleBounds] = dataclasses.field(default_factory=dict)
    measurable: set[int] | None = None  # None: qubits with a value of their measurement
    # Measurements with names of their own.
    named: dict[tuple[str, int], dict[str, float]] = dataclasses.field(default_factory=dict)
    zz: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)
    dates: dict[str, str] = dataclasses.field(default_factory=dict)
    gate_dates: dict[GateKey, dict[str, str]] = dataclasses.field(default_factory=dict)
    # Places in the source by list of the snapshot, entry and field.
    places: dict[tuple[str, object, str], str] = dataclasses.field(default_factory=dict)
    recorder: report.Recorder = dataclasses.field(default_factory=report.Recorder)

    def place(self, field: str) -> str:
        """Return the place in the source of a field of the snapshot; "": it is in none."""
        at = _ENTRY.fullmatch(field)
        if at is None:
            return self.recorder.place(field)
        entries: dict[str, Iterable[object]] = {
            "qubits": range(len(self.qubits)),
            "angle_bounds": self.bounds,
            "gates": self.gates,
            "measurements": self.named,
            "zz": self.zz,
        }
        entry = next(itertools.islice(entries.get(at[1], ()), int(at[2]), None), None)
        return self.places.get((at[1], entry, at[3]), "")

    def absent_qubits(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the unusable qubits, and the usable ones without a measurement. A number is no
        qubit if the source has values or gates of others and none of it."""
        named = {qubit for _, qubits in self.gates for qubit in qubits}
        named |= {qubit for qubit, values in enumerate(self.qubits) if values}
        named |= {qubit for _, qubit in self.named}
        named |= self.measurable or set()
        everywhere = any(not qubits and gate != "rz" for gate, qubits in self.gates)
        for qubit in range(len(self.qubits)):
            if named and qubit not in named and not everywhere:
                self.unusable.setdefault(qubit, "the source has no data of it")
        measurable = self.measurable
        if measurable is None:
            measurable = {
                qubit
                for qubit, values in enumerate(self.qubits)
                if not values.keys().isdisjoint(_MEASURED)
            }
        unmeasured = set(range(len(self.qubits))) - measurable - self.unusable.keys()
        return tuple(sorted(self.unusable)), tuple(sorted(unmeasured)) if measurable else ()

    def mirror(self) -> None:
        """Copy each symmetric gate that has one order of its qubits to the other order."""
        for gate, qubits in tuple(self.gates):
            is_pair = gate in calibration.SYMMETRIC and len(qubits) == 2
            if is_pair and (gate, qubits[::-1]) not in self.gates:
                self.gates[gate, qubits[::-1]] = dict(self.gates[gate, qubits])
                if gate in self.natives and (qubits[0], qubits[1]) in self.coupling:
                    self.coupling[qubits[1], qubits[0]] = None
                self.recorder.defaulted(
                    "gates[0]", f"{gate} with its qubits exchanged: the same values"
                )

    def report_defaults(self) -> None:
        """Report each field that the source lacks, with the default that replaces it."""
        said = self.recorder.defaulted
        for field, note in _UNKNOWN.items():
            if not self.values.get(field):
                said(field, note)
        if not any(self.qubits):
            said("qubits", "nothing was measured: no relaxation and no readout error")
            return
        for name, note in _QUBIT_UNKNOWN.items():
            for values in self.qubits:
                if name not in values and not (name in _READOUT and "readout_error" in values):
                    said(f"qubits[0].{name}", note)
                elif name in _READOUT and name not in values:
                    other = _READOUT[name == "p01"]
                    note = "p01 = p10" if other not in values else f"twice it, less {other}"
                    said(f"qubits[0].{name}", f"readout_error: {note}")
        for gate in (*self.natives, *self.fractional):
            for (other, _), values in self.gates.items():
                if other == gate:
                    for key in ("error", "duration_ns"):
                        if key not in values:
                            said(f"gates[0].{key}", f"0 for {gate}: not measured")
            if not any(other == gate for other, _ in self.gates):
                said("gates", f"{gate} has neither error nor duration")

    def all_dates(self) -> dict[str, str]:
        """Return the dates that differ from the snapshot's; one for a gate if all its values
        agree."""
        calibrated = self.values.get("calibrated", "")
        entries = {field: when for field, when in self.dates.items() if when != calibrated}
        for index, key in enumerate(self.gates):
            dates = self.gate_dates.get(key, {})
            if len(set(dates.values())) == 1:
                dates = {"": next(iter(dates.values()))}
            for name, when in dates.items():
                if when != calibrated:
                    entries[f"gates[{index}]" + (f".{name}" if name else "")] = when
        return entries


_READOUT = ("p01", "p10")
_MEASURED = ("p01", "p10", "readout_error", "readout_ns")  # values of a qubit with a measurement
_UNKNOWN = {
    "calibrated": "not known",
    "dt_ns": "0: delays in dt are refused",
    "max_shots": "0: no limit of shots",
    "technology": "not known",
    "dynamic": "false: measurements stand at the end of a circuit",
    "feed_forward_ns": "0",
    "rep_delay_ns": "the reset of the qubits, or a value of the technology",
    "overhead_ns": "0",
}
_QUBIT_UNKNOWN = {
    "t1_us": "no relaxation", "t2_us": "no dephasing",
    **dict.fromkeys(_READOUT, "0: no readout error"),
    "readout_ns": "0", "excited": "0: ground state in equilibrium",
    **dict.fromkeys(("reset_error", "reset_ns", "preparation_error"), "0"),
}  # fmt: skip
