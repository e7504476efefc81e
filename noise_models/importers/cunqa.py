"""Importer of CUNQA's noise properties JSON: times in seconds, fidelities of gates and readout."""

from __future__ import annotations

import re
from typing import Any

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import reading
from noise_models.importers.builder import SnapshotBuilder
from noise_models.importers.reading import ImportReport, Source, key_text, qiskit_name
from noise_models.strict_json import SnapshotError, short_repr

NAME = "cunqa"

_QUBIT = re.compile(r"q\[(\d{1,6})\]", re.ASCII)
_PAIR = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)
# Keys without spaces, in lower case: files write "Readout fidelity (RB)" with and without one.
_QUBIT_VALUES = {
    "t1(s)": ("t1_us", 1e6),
    "t2(s)": ("t2_us", 1e6),
    "drivefrequency(hz)": ("frequency_ghz", 1e-9),
    "readoutduration(s)": ("readout_ns", 1e9),
}
_DURATIONS = ("gateduration(s)", "duration(s)")


def recognizes(source: Source) -> bool:
    """Return whether a document has Qubits named q[0], q[1], ..."""
    return any(
        isinstance(value.get("Qubits"), dict) and "Q1Gates" in value
        for _, value in source.objects()
    )


def read(source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Convert the noise properties to a snapshot. Raises SnapshotError."""
    document = source.only_object("noise properties are one JSON file")
    qubits = reading.mapping(document.get("Qubits"), "Qubits")
    index_of = {key: _number(key, f"Qubits.{key_text(key)}") for key in qubits}
    builder = SnapshotBuilder(NAME, max(index_of.values(), default=-1) + 1, "Qubits")
    if len(index_of) < builder.num_qubits:
        builder.recorder.defaulted("qubits", "a qubit that is not listed has no calibration data")
    builder.values["technology"] = "superconducting"
    builder.recorder.defaulted("technology", "superconducting")
    for key, entry in qubits.items():
        _qubit(builder, index_of[key], f"Qubits.q[{index_of[key]}]", entry)
    for key, entry in reading.mapping(document.get("Q1Gates"), "Q1Gates").items():
        qubit = _number(key, f"Q1Gates.{key_text(key)}")
        at = f"Q1Gates.q[{qubit}]"
        for gate, result in reading.mapping(entry, at).items():
            _gate(builder, gate, (qubit,), f"{at}.{key_text(gate)}", result)
    _pairs(builder, document)
    builder.ignore_others(document, {"Qubits", "Q1Gates", "Q2Gates(RB)", "Q2Gates (RB)"})
    return builder.finish(name, source.digest)


def _pairs(builder: SnapshotBuilder, document: dict[str, Any]) -> None:
    section = "Q2Gates(RB)" if "Q2Gates(RB)" in document else "Q2Gates (RB)"
    for key, entry in reading.mapping(document.get(section, {}), section).items():
        result = _PAIR.fullmatch(key)
        if result is None:
            raise SnapshotError(f"{section}.{key_text(key)}", "not a pair", hint="as 0-1")
        place = f"{section}.{key}"
        for gate, inputs in reading.mapping(entry, place).items():
            at = f"{place}.{key_text(gate)}"
            ends = reading.mapping(inputs, at)
            first = reading.qubit_index(ends.get("Control", int(result[1])), f"{at}.Control")
            second = reading.qubit_index(ends.get("Target", int(result[2])), f"{at}.Target")
            if {first, second} != {int(result[1]), int(result[2])}:
                raise SnapshotError(f"{at}.Control", f"qubits {first} and {second} in {key}")
            _gate(builder, gate, (first, second), at, inputs)
            builder.couple((first, second), at)


def _number(key: str, field: str) -> int:
    result = _QUBIT.fullmatch(key)
    if result is None:
        raise SnapshotError(field, f"{short_repr(key)} is not a qubit", hint="as q[3]")
    return int(result[1])


def _qubit(builder: SnapshotBuilder, qubit: int, place: str, entry: Any) -> None:
    for key, value in reading.mapping(entry, place).items():
        plain = "".join(key.split()).lower()
        at = f"{place}.{key_text(key)}"
        if plain in _QUBIT_VALUES:
            target, factor = _QUBIT_VALUES[plain]
            builder.set_qubit(qubit, target, reading.number(value, at) * factor, at)
        elif plain == "readoutfidelity(rb)":
            builder.set_qubit(qubit, "readout_error", reading.infidelity(value, at), at)
        else:
            builder.recorder.ignored(at, "not used by the noise model")


def _gate(
    builder: SnapshotBuilder, gate: str, qubits: tuple[int, ...], place: str, entry: Any
) -> None:
    name = qiskit_name(gate)
    builder.add_gate(name, qubits, place)
    for key, value in reading.mapping(entry, place).items():
        plain = "".join(key.split()).lower()
        at = f"{place}.{key_text(key)}"
        if plain in _DURATIONS:
            duration_ns = reading.number(value, at) * 1e9
            builder.set_gate(name, qubits, "duration_ns", duration_ns, at)
        elif plain == "fidelity(rb)":
            builder.set_gate(name, qubits, "error", reading.infidelity(value, at), at)
        elif key not in ("Control", "Target"):
            builder.recorder.ignored(at, "not used by the noise model")
