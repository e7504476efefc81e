"""Importer of qhw records: `qhw-calibration-v1`, with the device and coupling records.

An extension of the calibration record holds the measured values: `qubit_metrics`, `gate_metrics`
and their units. `qhw-device-v1` adds native gates, `qhw-coupling-v1` the coupled pairs.
"""

from typing import Any

from noise_models.calibration import is_named_measurement
from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = "qhw"

_SCHEMAS = ("qhw-calibration-v1", "qhw-device-v1", "qhw-coupling-v1")


def recognizes(source: Source) -> bool:
    """Return whether a record has one of the three schemas."""
    return any(value.get("schema") in _SCHEMAS for _, value in source.objects())


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the records of one device to a snapshot. Raises SnapshotError."""
    records: dict[str, dict[str, Any]] = {}
    for file, value in source.objects():
        schema = value.get("schema")
        if schema not in _SCHEMAS:
            raise SnapshotError(f"{file}: schema", f"{short_repr(schema)} is not read")
        if schema in records:
            raise SnapshotError(f"{file}: schema", f"{schema} a second time")
        records[schema] = value
    if source.tables or not records or len(records) < len(source.documents):
        raise SnapshotError("files", "qhw records are JSON files")
    main = records.get(_SCHEMAS[0]) or records.get(_SCHEMAS[1]) or records[_SCHEMAS[2]]
    head = convert.mapping(main.get("device", {}), "device")
    extensions = convert.mapping(main.get("extensions", {}), "extensions")
    metrics = [each for each in extensions.values() if isinstance(each, dict)]
    builder = SnapshotBuilder(NAME, _num_qubits(head, metrics), "device.num_qubits")
    builder.copy(main.get("provider"), "provider", "provider")
    for key in ("version", "technology"):
        builder.copy(head.get(key), key, f"device.{key}")
    calibration = convert.mapping(main.get("calibration", {}), "calibration")
    builder.copy(calibration.get("timestamp"), "calibrated", "calibration.timestamp")
    for key in sorted(calibration.keys() - {"timestamp"}):
        builder.recorder.ignored(f"calibration.{short_repr(key)[1:-1]}", "a summary")
    for extension, each in extensions.items():
        _metrics(builder, f"extensions.{short_repr(extension)[1:-1]}", each)
    _device(builder, records.get("qhw-device-v1", {}))
    _coupling(builder, records.get("qhw-coupling-v1", {}))
    inputs = head.get("name") or head.get("id") or ""
    return builder.finish(name or convert.text(inputs, "device.name"), source)


def _num_qubits(head: dict[str, Any], metrics: list[dict[str, Any]]) -> int:
    if head.get("num_qubits") is not None:
        return convert.integer(head["num_qubits"], "device.num_qubits")
    indices = [-1]
    for each in metrics:
        for place, entry in convert.items(each.get("qubit_metrics", []), "qubit_metrics"):
            result = convert.mapping(entry, place)
            indices.append(convert.qubit_index(result.get("qubit"), f"{place}.qubit"))
    return max(indices) + 1


def _metrics(builder: SnapshotBuilder, extension: str, metrics: Any) -> None:
    if not isinstance(metrics, dict):
        builder.recorder.ignored(extension, "not a set of metrics")
        return
    unit = metrics.get("duration_unit", "s")
    factor = convert.time_factor(unit, f"{extension}.duration_unit")
    frequency = convert.frequency_factor(
        metrics.get("frequency_unit", "Hz"), f"{extension}.frequency_unit"
    )
    if "duration_unit" not in metrics:
        builder.recorder.defaulted(f"{extension}.duration_unit", "s")
    times = convert.units(factor)
    fields: convert.FieldTable = {
        **{key: (f"{key}_us", convert.units(factor / 1e3)) for key in ("t1", "t2")},
        "readout_duration": ("readout_ns", times),
        "frequency": ("frequency_ghz", convert.units(frequency)),
        **{key: (key, convert.probability) for key in ("readout_error", "p01", "p10")},
        "readout_fidelity": ("readout_error", convert.infidelity),
    }
    for place, entry in convert.items(metrics.get("qubit_metrics", []), "qubit_metrics"):
        each = _one_error(convert.mapping(entry, place), "readout_error", "readout_fidelity")
        qubit = convert.qubit_index(each.get("qubit"), f"{place}.qubit")
        for target, value, at in builder.fields(each, place, fields, ("qubit",)):
            builder.set_qubit(qubit, target, value, at)
    for place, entry in convert.items(metrics.get("gate_metrics", []), "gate_metrics"):
        each = _one_error(convert.mapping(entry, place), "error", "fidelity")
        name = convert.text(each.get("operation"), f"{place}.operation")
        locus = convert.qubit_tuple(each.get("locus", []), f"{place}.locus")
        is_gate = name not in ("measure", "reset") and not is_named_measurement(name)
        if is_gate:
            builder.add_gate(name, locus, f"{place}.locus")
        fields = {**_ERRORS, "duration": ("duration_ns", times)}
        for key, value, at in builder.fields(each, place, fields, ("operation", "locus")):
            if locus or is_gate:
                builder.set_operation(name, locus, key, value, at)
    builder.ignore_others(metrics, _KNOWN, f"{extension}.")


_KNOWN = {"qubit_metrics", "gate_metrics", "duration_unit", "frequency_unit"}
_ERRORS: convert.FieldTable = {
    "error": ("error", convert.probability),
    "fidelity": ("error", convert.infidelity),
}


def _one_error(entry: dict[str, Any], error: str, fidelity: str) -> dict[str, Any]:
    """Return an object without its fidelity where it has an error too."""
    if entry.get(error) is None:
        return entry
    return {key: value for key, value in entry.items() if key != fidelity}


def _device(builder: SnapshotBuilder, record: dict[str, Any]) -> None:
    metadata = convert.mapping(record.get("metadata", {}), "metadata")
    arity = {gate: len(qubits) for gate, qubits in builder.gate_keys if qubits}
    for place, each in convert.items(metadata.get("basis_gates", []), "metadata.basis_gates"):
        gate = convert.text(each, place)
        shape = gate_names.SHAPES.get(gate)
        builder.add_native(gate, arity.get(gate, shape[0] if shape else 1), None, place)
        builder.recorder.used(place, "native_gates[*]")
    builder.copy(metadata.get("max_shots"), "max_shots", "metadata.max_shots", convert.integer)
    if metadata.get("dynamic_circuits") is True:
        builder.values["dynamic"] = True
        builder.recorder.used("metadata.dynamic_circuits", "dynamic")


def _coupling(builder: SnapshotBuilder, record: dict[str, Any]) -> None:
    coupling = convert.mapping(record.get("coupling", {}), "coupling")
    if not coupling:
        builder.recorder.defaulted("coupling", "the pairs of two-qubit gates: no coupling record")
        builder.couple_gates()
        return
    directed = coupling.get("directed") is True
    builder.couple_pairs(coupling.get("edges", []), "coupling.edges", directed=directed)
    count = builder.num_qubits
    if len(builder.coupling) == count * (count - 1) and count > 1:
        builder.values["all_to_all"] = True
