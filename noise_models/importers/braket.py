"""Importer of Amazon Braket's standardized gate-model properties.

The document is the device's properties with a section `standardized`, or that section alone: values
of qubits "0", "1", ... and of pairs "0-1", or of the whole device.
"""

import re
from collections.abc import Collection
from typing import Any

from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError

NAME = "braket"

_PAIR = re.compile(r"(\d{1,6})-(\d{1,6})", re.ASCII)
_RANK = {  # of one-qubit gate fidelities: simultaneous benchmarking is closer to a circuit
    "SIMULTANEOUS_RANDOMIZED_BENCHMARKING": 0,
    "RANDOMIZED_BENCHMARKING": 1,
}
_READOUT = {"READOUT_ERROR_0_TO_1": "p01", "READOUT_ERROR_1_TO_0": "p10"}


def recognizes(source: Source) -> bool:
    """Return whether a document, or its section `standardized`, has oneQubitProperties."""
    return any(_section(value) is not None for _, value in source.objects())


def _section(document: dict[str, Any]) -> dict[str, Any] | None:
    nested = document.get("standardized")
    for each in (document, nested):
        if isinstance(each, dict) and "oneQubitProperties" in each:
            return each
    return None


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the properties to a snapshot. Raises SnapshotError. Qubit numbers are kept: a number
    that is not listed is no qubit."""
    document = source.only_object("device properties are one JSON file")
    section = _section(document)
    if section is None:
        raise SnapshotError("oneQubitProperties", "missing")
    ones = convert.mapping(section["oneQubitProperties"], "oneQubitProperties")
    index_of = {
        key: convert.qubit_index(key, f"oneQubitProperties.{convert.key_text(key)}") for key in ones
    }
    paradigm = convert.mapping(document.get("paradigm", {}), "paradigm")
    count = max(index_of.values(), default=-1) + 1
    if paradigm.get("qubitCount") is not None and not index_of:
        count = convert.integer(paradigm["qubitCount"], "paradigm.qubitCount")
    builder = SnapshotBuilder(NAME, count, "oneQubitProperties")
    for qubit in set(range(count)) - set(index_of.values()) if index_of else ():
        builder.disable_qubit(qubit, "oneQubitProperties does not list it")
    builder.copy(section.get("updatedAt"), "calibrated", "updatedAt")
    listed = convert.items(paradigm.get("nativeGateSet") or [], "paradigm.nativeGateSet")
    named = [gate_names.qiskit_name(convert.text(each, at)) for at, each in listed]
    natives = list(dict.fromkeys(named))
    single = [gate for gate in natives if gate_names.SHAPES.get(gate, (0,))[0] == 1]
    for key, entry in ones.items():
        at = f"oneQubitProperties.{convert.key_text(key)}"
        _qubit(builder, index_of[key], at, convert.mapping(entry, at), single)
    _pairs(builder, section)
    _apply_device_values(builder, section, index_of.values())
    _paradigm(builder, paradigm, natives)
    service = convert.mapping(document.get("service", {}), "service")
    shots = service.get("shotsRange")
    if isinstance(shots, list) and len(shots) == 2:
        builder.copy(shots[1], "max_shots", "service.shotsRange[1]", convert.integer)
    builder.ignore_others(section, _KNOWN)
    header = convert.mapping(document.get("braketSchemaHeader", {}), "braketSchemaHeader")
    vendor = str(header.get("name", "")).split(".")
    inputs = vendor[2] if len(vendor) > 3 and vendor[2].isidentifier() else ""
    builder.copy(inputs, "provider", "braketSchemaHeader.name")
    return builder.finish(name, source)


_DURATION_1Q, _DURATION_2Q = "singleQubitGateDuration", "twoQubitGateDuration"
_KNOWN = {
    *("braketSchemaHeader", "oneQubitProperties", "twoQubitProperties", "updatedAt", "T1", "T2"),
    *("readoutFidelity", "readoutDuration", _DURATION_1Q, _DURATION_2Q, "twoQubitGateFidelity"),
}


def _time_ns(entry: Any, at: str) -> float:
    result = convert.mapping(entry, at)
    factor = convert.time_factor(result.get("unit"), f"{at}.unit")
    return convert.scaled(convert.number(result.get("value"), f"{at}.value"), factor)


def _fidelities(entries: Any, at: str) -> list[tuple[str, str, dict[str, Any], float]]:
    """Return (place, type, entry, value) of each fidelity in a list."""
    results = []
    for place, entry in convert.items(entries, at):
        each = convert.mapping(entry, place)
        kind = each.get("fidelityType") or {}
        name = convert.mapping(kind, f"{place}.fidelityType").get("name", "")
        number = convert.probability(each.get("fidelity"), f"{place}.fidelity")
        results.append(
            (place, convert.text(name, f"{place}.fidelityType.name").upper(), each, number)
        )
    return results


def _qubit(
    builder: SnapshotBuilder, qubit: int, at: str, entry: dict[str, Any], single: list[str]
) -> None:
    for key in ("T1", "T2"):
        if entry.get(key) is not None:
            value = convert.scaled(_time_ns(entry[key], f"{at}.{key}"), 1e-3)
            builder.set_qubit(qubit, f"{key.lower()}_us", value, f"{at}.{key}")
    best: tuple[int, str, float] | None = None
    for place, kind, _, value in _fidelities(
        entry.get("oneQubitFidelity", []), f"{at}.oneQubitFidelity"
    ):
        if kind == "READOUT":
            builder.set_qubit(qubit, "readout_error", convert.infidelity(value, place), place)
        elif kind in _READOUT:
            builder.set_qubit(qubit, _READOUT[kind], value, place)
        elif kind in _RANK:
            if best is None or _RANK[kind] < best[0]:
                best = (_RANK[kind], place, value)
            else:
                builder.recorder.ignored(place, "another measurement of the same figure")
        else:
            builder.recorder.ignored(place, "a fidelity of another kind")
    if best is not None:
        for gate in [gate for gate in single if gate != "rz"] or ["r"]:
            builder.set_gate(gate, (qubit,), "error", convert.infidelity(best[2], best[1]), best[1])


def _pairs(builder: SnapshotBuilder, section: dict[str, Any]) -> None:
    pairs = convert.mapping(section.get("twoQubitProperties") or {}, "twoQubitProperties")
    for key, entry in pairs.items():
        named = _PAIR.fullmatch(key)
        at = f"twoQubitProperties.{convert.key_text(key)}"
        if named is None:
            raise SnapshotError(at, "not a pair", hint="as 0-1")
        result = convert.mapping(entry, at)
        for place, _, each, value in _fidelities(
            result.get("twoQubitGateFidelity", []), f"{at}.twoQubitGateFidelity"
        ):
            inputs = convert.text(each.get("gateName", "cz"), f"{place}.gateName")
            gate = gate_names.qiskit_name(inputs)
            if gate not in gate_names.SHAPES:
                builder.recorder.ignored(place, "the fidelity of no single gate")
                continue
            ends = (int(named[1]), int(named[2]))
            direction = each.get("direction")
            if direction is not None:
                ends = _direction(direction, f"{place}.direction", ends)
            error = convert.infidelity(value, place)
            for pair in (ends,) if direction is not None else (ends, ends[::-1]):
                builder.set_gate(gate, pair, "error", error, place)
                builder.couple(pair, place)


def _direction(direction: Any, at: str, ends: tuple[int, int]) -> tuple[int, int]:
    result = convert.mapping(direction, at)
    control = convert.qubit_index(result.get("control"), f"{at}.control")
    target = convert.qubit_index(result.get("target"), f"{at}.target")
    if {control, target} != set(ends):
        raise SnapshotError(at, f"qubits {control} and {target} in {ends[0]}-{ends[1]}")
    return control, target


def _apply_device_values(
    builder: SnapshotBuilder, section: dict[str, Any], index_of: Collection[int]
) -> None:
    """Apply values of the whole device to each listed qubit that has none of its own."""
    times = {"T1": "t1_us", "T2": "t2_us", "readoutDuration": "readout_ns"}
    common: list[tuple[str, str, float]] = []
    for key, target in times.items():
        if section.get(key) is not None:
            value = _time_ns(section[key], key)
            scale = 1e-3 if target.endswith("_us") else 1.0
            common.append((key, target, convert.scaled(value, scale)))
    readout = _fidelities(section.get("readoutFidelity") or [], "readoutFidelity")
    if readout:
        error = convert.infidelity(readout[0][3], readout[0][0])
        common.append((readout[0][0], "readout_error", error))
    for at, target, value in common:
        for qubit in index_of or range(builder.num_qubits):
            if not builder.has_qubit(qubit, target):
                builder.set_qubit(qubit, target, value, at)
    for gate, qubits in builder.gate_keys:
        _set_duration(builder, section, gate, qubits)
    full = _fidelities(section.get("twoQubitGateFidelity") or [], "twoQubitGateFidelity")
    if full:
        at, value = full[0][0], full[0][3]
        builder.set_gate("rzz", (), "error", convert.infidelity(value, at), at)
        _set_duration(builder, section, "rzz", ())


def _set_duration(
    builder: SnapshotBuilder, section: dict[str, Any], gate: str, qubits: tuple[int, ...]
) -> None:
    key = _DURATION_1Q if len(qubits) == 1 else _DURATION_2Q
    if section.get(key) is not None:
        builder.set_gate(gate, qubits, "duration_ns", _time_ns(section[key], key), key)


def _paradigm(builder: SnapshotBuilder, paradigm: dict[str, Any], natives: list[str]) -> None:
    measured = {gate: len(qubits) for gate, qubits in builder.gate_keys}
    for gate in natives:
        if gate in gate_names.SHAPES:
            builder.add_native(gate, gate_names.SHAPES[gate][0], None, "paradigm.nativeGateSet")
            builder.recorder.used("paradigm.nativeGateSet", "native_gates[*]")
        else:
            at = f"paradigm.nativeGateSet.{convert.key_text(gate)}"
            builder.recorder.ignored(at, "Qiskit has no gate of this name")
    for gate, arity in measured.items():
        if gate not in builder.natives:
            builder.add_native(gate, arity or gate_names.SHAPES[gate][0], None, gate)
            builder.recorder.defaulted("native_gates[0]", f"{gate}: it has calibration data")
    if natives and "rz" not in builder.natives and "r" in builder.natives:
        builder.add_native("rz", 1, 1, "rz")
    if "rz" in builder.natives:
        builder.add_frame_change_of_all("rz")
        builder.recorder.defaulted("native_gates[0]", "rz: a frame change without error and time")
    connectivity = convert.mapping(paradigm.get("connectivity", {}), "paradigm.connectivity")
    if connectivity.get("fullyConnected") is True or builder.gate_value("rzz", (), "error"):
        builder.values["all_to_all"] = True
        builder.recorder.used("paradigm.connectivity", "all_to_all")
        return
    graph = convert.mapping(
        connectivity.get("connectivityGraph", {}), "paradigm.connectivity.connectivityGraph"
    )
    for key, others in graph.items():
        at = f"paradigm.connectivity.connectivityGraph.{convert.key_text(key)}"
        first = convert.qubit_index(key, at)
        for place, other in convert.items(others, at):
            builder.couple((first, convert.qubit_index(other, place)), place)
            builder.recorder.used(place, "coupling[*]")
