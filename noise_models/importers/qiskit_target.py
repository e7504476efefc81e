"""Importer of a Qiskit Target written as JSON by `simenv.client.target_document`.

Qiskit is not imported here: the document holds the Target's plain values in seconds and hertz.
"""

from typing import Any

from noise_models.calibration import is_named_measurement
from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "qiskit-target"

_CONTROL_FLOW = frozenset(("if_else", "while_loop", "for_loop", "switch_case", "reset"))
_QUBIT_FIELDS: convert.FieldTable = {
    "t1_s": ("t1_us", convert.times(1e6)),
    "t2_s": ("t2_us", convert.times(1e6)),
    "frequency_hz": ("frequency_ghz", convert.times(1e-9)),
}
_FIELDS: convert.FieldTable = {
    "error": ("error", convert.probability),
    "duration_s": ("duration_ns", convert.times(1e9)),
}
_TEXTS = ("provider", "version", "technology", "calibrated")


def recognizes(source: Source) -> bool:
    """Return whether a document has the kind "qiskit-target"."""
    return any(value.get("kind") == "qiskit-target" for _, value in source.objects())


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the Target to a snapshot. Raises SnapshotError."""
    document = source.only_object("a Target is one JSON file", "give that file alone")
    count = convert.integer(document.get("num_qubits"), "num_qubits")
    builder = SnapshotBuilder(NAME, count, "num_qubits")
    for key in _TEXTS:
        builder.copy(document.get(key), key, key)
    builder.copy(document.get("dt_s"), "dt_ns", "dt_s", convert.times(1e9))
    builder.copy(document.get("max_shots") or None, "max_shots", "max_shots", convert.integer)
    for index, (place, entry) in enumerate(convert.items(document.get("qubits", []), "qubits")):
        for target, value, at in builder.fields(entry, place, _QUBIT_FIELDS):
            builder.set_qubit(index, target, value, at)
    everywhere = _operations(builder, document)
    if everywhere or count == 1 or (count > 1 and len(builder.coupling) == count * (count - 1)):
        builder.values["all_to_all"] = True
    builder.ignore_others(document, _KNOWN)
    inputs = convert.text(document.get("name", ""), "name")
    return builder.finish(name or inputs, source)


_KNOWN = {
    *("kind", "format", "name", "num_qubits", "dt_s", "max_shots", "qubits", "operations"),
    *_TEXTS,
}


def _operations(builder: SnapshotBuilder, document: dict[str, Any]) -> bool:
    """Read all operations; returns True if a two-qubit gate acts on every pair."""
    everywhere = False
    dynamic = False
    for place, entry in convert.items(document.get("operations"), "operations"):
        result = convert.mapping(entry, place)
        gate = convert.text(result.get("name"), f"{place}.name")
        inputs = result.get("qubits")
        qubits = () if inputs is None else convert.qubit_tuple(inputs, f"{place}.qubits")
        builder.check_qubits(qubits, f"{place}.qubits")
        dynamic = dynamic or gate in _CONTROL_FLOW
        arity = convert.integer(result.get("num_qubits", len(qubits)), f"{place}.num_qubits")
        figures = list(builder.fields(result, place, _FIELDS, result))
        is_gate = result.get("gate")
        if not isinstance(is_gate, bool):
            raise SnapshotError(f"{place}.gate", f"{short_repr(is_gate)} is neither true nor false")
        params = convert.integer(result.get("num_params", 0), f"{place}.num_params")
        if not is_gate:
            is_measurement = gate == "measure" or is_named_measurement(gate)
            if is_measurement:
                builder.list_measurement(qubits, f"{place}.qubits", gate)
            for key, value, at in figures:
                if is_measurement or gate == "reset":
                    builder.set_operation(gate, qubits, key, value, at)
                else:
                    text = f"of {short_repr(gate)[1:-1]}: not a gate"
                    builder.recorder.ignored(f"operations[0].{at.rpartition('.')[2]}", text)
            continue
        if gate not in gate_names.SHAPES or result.get("fixed") is True:
            is_fixed = gate in gate_names.SHAPES
            text = "its angles are fixed" if is_fixed else "Qiskit has no gate of this name"
            builder.leave_out(gate, text)
            continue
        if gate not in builder.natives:
            builder.add_native(gate, arity, params, f"{place}.name")
            builder.bound_angles(gate, result.get("angle_bounds"), f"{place}.angle_bounds")
            builder.recorder.used(f"{place}.name", "native_gates[*]")
        builder.add_gate(gate, qubits, f"{place}.qubits")
        if arity == 2:
            everywhere = everywhere or not qubits
            if len(qubits) == 2:
                builder.couple((qubits[0], qubits[1]), f"{place}.qubits")
        for key, value, at in figures:
            builder.set_gate(gate, qubits, key, value, at)
    builder.values["dynamic"] = dynamic
    builder.recorder.used("operations", "dynamic")
    return everywhere
