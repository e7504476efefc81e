"""Importer of a Qiskit Target written as JSON by `simenv.client.target_document`.

Qiskit is not imported here: the document holds the Target's plain values in seconds and hertz.
"""

from __future__ import annotations

from typing import Any

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import reading
from noise_models.importers.builder import SnapshotBuilder
from noise_models.importers.reading import ImportReport, Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "qiskit-target"

_CONTROL_FLOW = frozenset(("if_else", "while_loop", "for_loop", "switch_case", "reset"))
_QUBIT_VALUES = {
    "t1_s": ("t1_us", 1e6),
    "t2_s": ("t2_us", 1e6),
    "frequency_hz": ("frequency_ghz", 1e-9),
}
_INSTRUCTION_VALUES = {
    ("measure", "error"): "readout_error",
    ("measure", "duration_s"): "readout_ns",
    ("reset", "error"): "reset_error",
    ("reset", "duration_s"): "reset_ns",
}
_TEXTS = ("provider", "version", "technology", "calibrated")


def recognizes(source: Source) -> bool:
    """Return whether a document has the kind "qiskit-target"."""
    return any(value.get("kind") == "qiskit-target" for _, value in source.objects())


def read(source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Convert the Target to a snapshot. Raises SnapshotError."""
    document = source.only_object("a Target is one JSON file", "give that file alone")
    count = reading.integer(document.get("num_qubits"), "num_qubits")
    builder = SnapshotBuilder(NAME, count, "num_qubits")
    for key in _TEXTS:
        builder.copy(document.get(key), key, key)
    if document.get("dt_s") is not None:
        builder.values["dt_ns"] = reading.number(document["dt_s"], "dt_s") * 1e9
        builder.recorder.used("dt_s", "dt_ns")
    builder.copy(document.get("max_shots") or None, "max_shots", "max_shots", reading.integer)
    for index, (place, entry) in enumerate(reading.items(document.get("qubits", []), "qubits")):
        for key, value in reading.mapping(entry, place).items():
            if value is None:
                continue
            if key not in _QUBIT_VALUES:
                builder.recorder.ignored("qubits[0].(other)", "not used by the noise model")
                continue
            target, factor = _QUBIT_VALUES[key]
            at = f"{place}.{key}"
            builder.set_qubit(index, target, reading.number(value, at) * factor, at)
    everywhere = _operations(builder, document)
    if everywhere or count == 1 or (count > 1 and len(builder.coupling) == count * (count - 1)):
        builder.values["all_to_all"] = True
    builder.ignore_others(document, _KNOWN)
    inputs = reading.text(document.get("name", ""), "name")
    return builder.finish(name or inputs, source.digest)


_KNOWN = {
    "kind",
    "format",
    "name",
    "num_qubits",
    "dt_s",
    "max_shots",
    "qubits",
    "operations",
    *_TEXTS,
}


def _operations(builder: SnapshotBuilder, document: dict[str, Any]) -> bool:
    """Read all operations; returns True if a two-qubit gate acts on every pair."""
    everywhere = False
    dynamic = False
    for place, entry in reading.items(document.get("operations"), "operations"):
        result = reading.mapping(entry, place)
        gate = reading.text(result.get("name"), f"{place}.name")
        inputs = result.get("qubits")
        qubits: tuple[int, ...] = ()
        if inputs is not None:
            qubits = tuple(
                reading.qubit_index(each, at)
                for at, each in reading.items(inputs, f"{place}.qubits")
            )
        builder.check_qubits(qubits, f"{place}.qubits")
        dynamic = dynamic or gate in _CONTROL_FLOW
        arity = reading.integer(result.get("num_qubits", len(qubits)), f"{place}.num_qubits")
        figures = [key for key in ("error", "duration_s") if result.get(key) is not None]
        is_gate = result.get("gate")
        if not isinstance(is_gate, bool):
            raise SnapshotError(f"{place}.gate", f"{short_repr(is_gate)} is neither true nor false")
        params = reading.integer(result.get("num_params", 0), f"{place}.num_params")
        if not is_gate:
            for key in figures:
                _instruction(builder, gate, qubits, key, result[key], f"{place}.{key}")
            continue
        if gate not in builder.natives:
            builder.add_native(gate, arity, params, f"{place}.name")
            builder.recorder.used(f"{place}.name", "native_gates[*]")
        builder.add_gate(gate, qubits, f"{place}.qubits")
        if arity == 2:
            everywhere = everywhere or not qubits
            if len(qubits) == 2:
                builder.couple((qubits[0], qubits[1]), f"{place}.qubits")
        for key in figures:
            at = f"{place}.{key}"
            if key == "error":
                builder.set_gate(gate, qubits, "error", reading.probability(result[key], at), at)
            else:
                duration = reading.number(result[key], at) * 1e9
                builder.set_gate(gate, qubits, "duration_ns", duration, at)
    builder.values["dynamic"] = dynamic
    builder.recorder.used("operations", "dynamic")
    return everywhere


def _instruction(
    builder: SnapshotBuilder, gate: str, qubits: tuple[int, ...], key: str, value: Any, at: str
) -> None:
    """Store error and duration of a measurement or reset as values of the qubits."""
    target = _INSTRUCTION_VALUES.get((gate, key))
    if target is None:
        builder.recorder.ignored(f"operations[0].{key}", f"of {short_repr(gate)[1:-1]}: not a gate")
        return
    number = reading.number(value, at) * (1e9 if key == "duration_s" else 1.0)
    for qubit in qubits or range(builder.num_qubits):
        builder.set_qubit(qubit, target, number, at)
