"""Importer of CUNQA's noise properties JSON: times in seconds, fidelities of gates and readout."""

import re
from typing import Any

from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "cunqa"

_QUBIT = re.compile(r"q\[(\d{1,6})\]", re.ASCII)
_PAIR = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)
# Keys without spaces, in lower case: files write "Readout fidelity (RB)" with and without one.
_QUBIT_FIELDS: convert.FieldTable = {
    "t1(s)": ("t1_us", convert.times(1e6)),
    "t2(s)": ("t2_us", convert.times(1e6)),
    "drivefrequency(hz)": ("frequency_ghz", convert.times(1e-9)),
    "readoutduration(s)": ("readout_ns", convert.times(1e9)),
    "readoutfidelity(rb)": ("readout_error", convert.infidelity),
}
_GATE_FIELDS: convert.FieldTable = {
    "gateduration(s)": ("duration_ns", convert.times(1e9)),
    "duration(s)": ("duration_ns", convert.times(1e9)),
    "fidelity(rb)": ("error", convert.infidelity),
}


def recognizes(source: Source) -> bool:
    """Return whether a document has Qubits named q[0], q[1], ..."""
    return any(
        isinstance(value.get("Qubits"), dict) and "Q1Gates" in value
        for _, value in source.objects()
    )


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the noise properties to a snapshot. Raises SnapshotError."""
    document = source.only_object("noise properties are one JSON file")
    qubits = convert.mapping(document.get("Qubits"), "Qubits")
    index_of = {key: _number(key, f"Qubits.{convert.key_text(key)}") for key in qubits}
    builder = SnapshotBuilder(NAME, max(index_of.values(), default=-1) + 1, "Qubits")
    for qubit in set(range(builder.num_qubits)) - set(index_of.values()):
        builder.disable_qubit(qubit, "Qubits does not list it")
    builder.values["technology"] = "superconducting"
    builder.recorder.defaulted("technology", "superconducting")
    for key, entry in qubits.items():
        place = f"Qubits.q[{index_of[key]}]"
        for target, value, at in builder.fields(entry, place, _QUBIT_FIELDS, (), _plain):
            builder.set_qubit(index_of[key], target, value, at)
    for key, entry in convert.mapping(document.get("Q1Gates"), "Q1Gates").items():
        qubit = _number(key, f"Q1Gates.{convert.key_text(key)}")
        at = f"Q1Gates.q[{qubit}]"
        for gate, result in convert.mapping(entry, at).items():
            _gate(builder, gate, (qubit,), f"{at}.{convert.key_text(gate)}", result)
    _pairs(builder, document)
    builder.ignore_others(document, {"Qubits", "Q1Gates", "Q2Gates(RB)", "Q2Gates (RB)"})
    return builder.finish(name, source)


def _pairs(builder: SnapshotBuilder, document: dict[str, Any]) -> None:
    section = "Q2Gates(RB)" if "Q2Gates(RB)" in document else "Q2Gates (RB)"
    for key, entry in convert.mapping(document.get(section, {}), section).items():
        result = _PAIR.fullmatch(key)
        if result is None:
            raise SnapshotError(f"{section}.{convert.key_text(key)}", "not a pair", hint="as 0-1")
        place = f"{section}.{key}"
        for gate, inputs in convert.mapping(entry, place).items():
            at = f"{place}.{convert.key_text(gate)}"
            ends = convert.mapping(inputs, at)
            first = convert.qubit_index(ends.get("Control", int(result[1])), f"{at}.Control")
            second = convert.qubit_index(ends.get("Target", int(result[2])), f"{at}.Target")
            if {first, second} != {int(result[1]), int(result[2])}:
                raise SnapshotError(f"{at}.Control", f"qubits {first} and {second} in {key}")
            _gate(builder, gate, (first, second), at, inputs)
            builder.couple((first, second), at)


def _number(key: str, field: str) -> int:
    result = _QUBIT.fullmatch(key)
    if result is None:
        raise SnapshotError(field, f"{short_repr(key)} is not a qubit", hint="as q[3]")
    return int(result[1])


def _plain(key: str) -> str:
    """Return a key without spaces, in lower case."""
    return "".join(key.split()).lower()


def _gate(
    builder: SnapshotBuilder, gate: str, qubits: tuple[int, ...], place: str, entry: Any
) -> None:
    name = gate_names.qiskit_name(gate)
    builder.add_gate(name, qubits, place)
    known = ("control", "target")
    for key, value, at in builder.fields(entry, place, _GATE_FIELDS, known, _plain):
        builder.set_gate(name, qubits, key, value, at)
