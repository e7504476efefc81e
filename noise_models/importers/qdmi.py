"""Importer of QDMI device descriptions in JSON: sites with T1 and T2, operations with overrides.

The form is that of MQT Core's superconducting QDMI device, schema version 1.
"""

from typing import Any

from noise_models.calibration import is_named_measurement
from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "qdmi"

_KNOWN = {
    *("schema-version", "name", "numQubits", "durationUnit", "qubitProperties", "couplings"),
    "operations",
}


def recognizes(source: Source) -> bool:
    """Return whether a document has numQubits, and operations as a list."""
    return any(
        "numQubits" in value and isinstance(value.get("operations"), list)
        for _, value in source.objects()
    )


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the description to a snapshot. Raises SnapshotError."""
    document = source.only_object("a QDMI device description is one JSON file")
    version = document.get("schema-version", 1)
    if version != 1 or isinstance(version, bool):
        raise SnapshotError("schema-version", f"{short_repr(version)} is not supported", hint="1")
    count = convert.integer(document.get("numQubits"), "numQubits")
    builder = SnapshotBuilder(NAME, count, "numQubits")
    builder.values["technology"] = "superconducting"
    builder.recorder.defaulted("technology", "superconducting")
    factor = _duration_factor(builder, document)
    _sites(builder, document, factor)
    builder.couple_pairs(document.get("couplings", []), "couplings")
    for place, entry in convert.items(document.get("operations"), "operations"):
        _operation(builder, place, convert.mapping(entry, place), factor)
    builder.ignore_others(document, _KNOWN)
    inputs = convert.text(document.get("name", ""), "name")
    return builder.finish(name or inputs, source)


def _duration_factor(builder: SnapshotBuilder, document: dict[str, Any]) -> float:
    """Return the nanoseconds of one unit of duration in the description."""
    if document.get("durationUnit") is None:
        builder.recorder.defaulted("durationUnit", "ns")
        return 1.0
    unit = convert.mapping(document["durationUnit"], "durationUnit")
    scale = convert.number(unit.get("scaleFactor", 1.0), "durationUnit.scaleFactor")
    if scale <= 0.0:
        raise SnapshotError("durationUnit.scaleFactor", f"{scale:g}", hint="above 0")
    builder.recorder.used("durationUnit", "units of times")
    return convert.scaled(scale, convert.time_factor(unit.get("unit"), "durationUnit.unit"))


def _sites(builder: SnapshotBuilder, document: dict[str, Any], factor: float) -> None:
    section = convert.mapping(document.get("qubitProperties", {}), "qubitProperties")
    common = convert.mapping(section.get("defaults", {}), "qubitProperties.defaults")
    own: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, entry in convert.items(section.get("overrides", []), "qubitProperties.overrides"):
        result = convert.mapping(entry, place)
        qubit = convert.qubit_index(result.get("qubit"), f"{place}.qubit")
        builder.check_qubits((qubit,), f"{place}.qubit")
        if qubit in own:
            raise SnapshotError(f"{place}.qubit", f"qubit {qubit} a second time")
        own[qubit] = (place, result)
    for qubit in range(builder.num_qubits):
        place, result = own.get(qubit, ("", {}))
        for key in ("t1", "t2"):
            at = f"{place}.{key}" if key in result else f"qubitProperties.defaults.{key}"
            value = result[key] if key in result else common.get(key)
            if value is not None:
                number = convert.scaled(convert.number(value, at) * factor, 1e-3)
                builder.set_qubit(qubit, f"{key}_us", number, at)
        builder.ignore_others(result, {"qubit", "t1", "t2"}, f"{place}.")


def _operation(builder: SnapshotBuilder, place: str, record: dict[str, Any], factor: float) -> None:
    inputs = convert.text(record.get("name"), f"{place}.name")
    name = gate_names.qiskit_name(inputs)
    arity = convert.integer(
        record.get("numQubits", record.get("num_qubits", 1)), f"{place}.numQubits"
    )
    fields: convert.FieldTable = {
        "fidelity": ("error", convert.infidelity),
        "duration": ("duration_ns", convert.times(factor)),
    }
    sites: list[tuple[str, tuple[int, ...], dict[str, Any]]] = []
    for at, entry in convert.items(record.get("siteOverrides", []), f"{place}.siteOverrides"):
        each = convert.mapping(entry, at)
        qubits = convert.qubit_tuple(each.get("sites"), f"{at}.sites")
        if len(qubits) != arity:
            raise SnapshotError(f"{at}.sites", f"{len(qubits)} qubits of {short_repr(inputs)}")
        sites.append((at, qubits, each))
    is_gate = name not in ("measure", "reset") and not is_named_measurement(name)
    if is_gate:
        count = record.get("numParameters")
        params = None if count is None else convert.integer(count, f"{place}.numParameters")
        builder.add_native(name, arity, params, f"{place}.name")
        builder.recorder.used(f"{place}.name", "native_gates[*]")
    for at, qubits, each in [*sites, (place, (), record)]:
        entry = {**record, **each}
        figures = list(builder.fields(entry, at, fields, entry))
        if is_gate and (qubits or figures):
            builder.add_gate(name, qubits, at)
        for key, value, where in figures:
            builder.set_operation(name, qubits, key, value, where)
        if is_gate and len(qubits) == 2 and (qubits[0], qubits[1]) not in builder.coupling:
            builder.couple((qubits[0], qubits[1]), at)
