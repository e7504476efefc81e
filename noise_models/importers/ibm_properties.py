"""Importer of IBM BackendProperties JSON with the backend's configuration.

The files are one or two documents in any order: properties (`qubits`, `gates`) and, optionally,
configuration (`coupling_map`, `basis_gates`, `dt`).
"""

import math
from collections.abc import Callable
from typing import Any

from noise_models.calibration import IBM_PROPERTIES, IBM_ZZ_STRENGTH, is_named_measurement
from noise_models.importers import convert, gate_names
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import SnapshotError, short_repr

NAME = IBM_PROPERTIES
# Largest ZZ rate that is kept: 99 % of the rates in the files of qiskit-ibm-runtime are below; the
# others, up to 1.4 MHz, would turn a neighbour by pi in the time of one or two gates.
_MAX_ZZ_KHZ = 300.0

# Name of a value -> (field of the snapshot, factor of its unit); a probability has no unit.
_Unit = tuple[str, Callable[[object, str], float] | None]
_QUBIT_FIELDS: dict[str, _Unit] = {
    "T1": ("t1_us", lambda unit, at: convert.time_factor(unit, at) / 1e3),
    "T2": ("t2_us", lambda unit, at: convert.time_factor(unit, at) / 1e3),
    "readout_length": ("readout_ns", convert.time_factor),
    "frequency": ("frequency_ghz", convert.frequency_factor),
    "readout_error": ("readout_error", None),
    "prob_meas0_prep1": ("p10", None),
    "prob_meas1_prep0": ("p01", None),
}
_GATE_FIELDS: dict[str, _Unit] = {
    "gate_length": ("duration_ns", convert.time_factor),
    "gate_error": ("error", None),
}
# Supported instructions that imply measurements inside a circuit.
_DYNAMIC = frozenset(("if_else", "while_loop", "for_loop", "switch_case", "reset"))
_LEAST_DT_NS = 1e-6  # a smaller dt is in seconds; configurations have it in ns


def recognizes(source: Source) -> bool:
    """Return whether the `qubits` of a document are lists of named values with units."""
    return any(_is_properties(value) for _, value in source.objects())


def _is_properties(document: dict[str, Any]) -> bool:
    qubits = document.get("qubits")
    return isinstance(qubits, list) and bool(qubits) and isinstance(qubits[0], list)


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the properties to a snapshot, with fields from the configuration. Raises
    SnapshotError."""
    properties, configuration = _documents(source)
    qubits = list(convert.items(properties.get("qubits"), "qubits"))
    builder = SnapshotBuilder(NAME, len(qubits), "qubits")
    builder.values.update(provider="IBM", technology="superconducting")
    builder.copy(properties.get("last_update_date"), "calibrated", "last_update_date")
    builder.copy(properties.get("backend_version"), "version", "backend_version")
    for index, (field, entries) in enumerate(qubits):
        _qubit(builder, index, field, entries)
    for field, entry in convert.items(properties.get("gates", []), "gates"):
        _gate(builder, field, convert.mapping(entry, field))
    if configuration:
        _configure(builder, configuration)
    builder.set_fractional(gate_names.FRACTIONAL)
    if not configuration:
        builder.recorder.defaulted("coupling", "the pairs of two-qubit gates: no configuration")
        builder.couple_gates()
    general = properties.get("general")
    if general is not None:
        _general(builder, general)
    builder.ignore_others(properties, _KNOWN)
    inputs = properties.get("backend_name") or configuration.get("backend_name") or ""
    return builder.finish(name or convert.text(inputs, "backend_name"), source)


_KNOWN = {"backend_name", "backend_version", "last_update_date", "qubits", "gates", "general"}


def _documents(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    properties = [value for _, value in source.objects() if _is_properties(value)]
    others = [(file, value) for file, value in source.objects() if not _is_properties(value)]
    if len(properties) != 1:
        text = f"{len(properties)} files with the properties of qubits"
        hint = "give one properties file, and the configuration of the same device"
        raise SnapshotError("qubits", text, hint=hint)
    if len(others) > 1 or source.tables or len(source.documents) > 1 + len(others):
        raise SnapshotError("files", "more files than properties and configuration")
    for file, value in others:
        if "coupling_map" not in value and "basis_gates" not in value:
            hint = "conf_*.json has coupling_map"
            raise SnapshotError(file, "not the configuration of a backend", hint=hint)
    return properties[0], others[0][1] if others else {}


def _named(entry: object, field: str) -> tuple[str, dict[str, Any]]:
    result = convert.mapping(entry, field)
    return convert.text(result.get("name"), f"{field}.name"), result


def _qubit(builder: SnapshotBuilder, index: int, field: str, entries: object) -> None:
    for place, entry in convert.items(entries, field):
        name, result = _named(entry, place)
        at = f"{field}.{name}"
        if name not in _QUBIT_FIELDS:
            _other_of_qubit(builder, index, name, result, at)
            continue
        target, value = _measured(_QUBIT_FIELDS[name], result, at)
        if value is None:
            builder.recorder.ignored(at, "null or not finite: not measured")
            continue
        builder.set_qubit(index, target, value, at)
        if result.get("date") is not None:
            builder.date_qubit(index, target, convert.text(result["date"], f"{at}.date"))


def _other_of_qubit(
    builder: SnapshotBuilder, index: int, name: str, entry: dict[str, Any], at: str
) -> None:
    """Report a value that no field stores: clamped for a qubit that is not operational, else
    ignored."""
    if name == "operational" and not convert.number(entry.get("value"), at):
        builder.disable_qubit(index, "not operational")
    else:
        at = at if name.isascii() and name.isprintable() else "qubits[0].(other)"
        builder.recorder.unknown(at)


def _gate(builder: SnapshotBuilder, field: str, entry: dict[str, Any]) -> None:
    name = convert.text(entry.get("gate"), f"{field}.gate")
    qubits = convert.qubit_tuple(entry.get("qubits"), f"{field}.qubits")
    if not qubits:
        raise SnapshotError(f"{field}.qubits", "empty", hint="name the qubits of the gate")
    builder.check_qubits(qubits, f"{field}.qubits")
    instruction = name in ("measure", "reset", "reset_2") or is_named_measurement(name)
    if not instruction:
        builder.add_gate(name, qubits, f"{field}.qubits")
    elif is_named_measurement(name):
        builder.list_measurement(qubits, f"{field}.qubits", name)
    for place, each in convert.items(entry.get("parameters", []), f"{field}.parameters"):
        key, result = _named(each, place)
        at = f"{field}.{key}"
        if key in _GATE_FIELDS:
            target, value = _measured(_GATE_FIELDS[key], result, at)
        elif key == "operational" and not instruction:
            if not convert.number(result.get("value"), at):
                builder.replace_error(name, qubits, 1.0)
                builder.recorder.clamped(at, "the gate does not work: its error is 1")
            continue
        else:
            at = at if key.isascii() and key.isprintable() else "gates[0].(other)"
            builder.recorder.unknown(at)
            continue
        if value is None:
            builder.recorder.ignored(at, "null or not finite: not measured")
            continue
        if instruction:
            _instruction(builder, name, qubits, target, value, at)
            continue
        builder.set_gate(name, qubits, target, value, at)
        if result.get("date") is not None:
            builder.date_gate(name, qubits, target, convert.text(result["date"], f"{at}.date"))


def _instruction(
    builder: SnapshotBuilder, name: str, qubits: tuple[int, ...], target: str, value: float, at: str
) -> None:
    """Set a value of a measurement or reset. The error of `measure` is a value of its qubit."""
    if is_named_measurement(name):
        builder.set_operation(name, qubits, target, value, at)
        return
    fields = {"reset": "reset_ns", "measure": "readout_ns"}
    if target == "duration_ns" and name in fields and len(qubits) == 1:
        if not builder.has_qubit(qubits[0], fields[name]):
            builder.set_qubit(qubits[0], fields[name], value, at)
        else:
            builder.recorder.ignored(at, f"{fields[name]} of the qubit is used")
    else:
        builder.recorder.ignored(at, f"of {name}: readout errors of the qubits are used")


def _measured(field: _Unit, entry: dict[str, Any], at: str) -> tuple[str, float | None]:
    """Return the snapshot's field of an entry, and its value in the field's unit; None: the value
    is null, NaN or infinite, which tools write for what was not measured."""
    target, factor = field
    value = entry.get("value")
    if (value is None and "value" in entry) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        return target, None
    if factor is not None:
        scale = factor(entry.get("unit"), f"{at}.unit")
        return target, convert.scaled(convert.number(entry.get("value"), at), scale)
    if entry.get("unit") not in ("", None):
        raise SnapshotError(f"{at}.unit", f"{short_repr(entry['unit'])} of a probability")
    return target, convert.probability(entry.get("value"), at)


def _configure(builder: SnapshotBuilder, configuration: dict[str, Any]) -> None:
    count = configuration.get("n_qubits")
    if count is not None and convert.integer(count, "n_qubits") != builder.num_qubits:
        text = f"{count} qubits in the configuration, {builder.num_qubits} in the properties"
        hint = "give both files of one device"
        raise SnapshotError("n_qubits", text, hint=hint)
    used = builder.recorder.used
    if configuration.get("coupling_map") is not None:
        builder.couple_pairs(configuration["coupling_map"], "coupling_map")
    params = {
        gate.get("name"): gate.get("parameters")
        for _, gate in convert.items(configuration.get("gates", []), "conf.gates")
        if isinstance(gate, dict) and isinstance(gate.get("name"), str)
    }
    arity = {gate: len(qubits) for gate, qubits in builder.gate_keys}
    for place, each in convert.items(configuration.get("basis_gates", []), "basis_gates"):
        gate = convert.text(each, place)
        if gate == "reset":
            builder.values["dynamic"] = True
            used(place, "dynamic")
            continue
        if gate in ("measure", "delay") or is_named_measurement(gate):
            builder.recorder.ignored(place, f"{gate} is an instruction, not a gate")
            continue
        inputs = params.get(gate)
        count = len(inputs) if isinstance(inputs, list) else None
        guess = gate_names.SHAPES.get(gate, (2 if gate[:1] == "c" else 1, 0))[0]
        builder.add_native(gate, arity.get(gate, guess), count, place)
        used(place, "native_gates[*]")
    if configuration.get("dt") is not None:
        dt_ns = convert.number(configuration["dt"], "dt")
        if 0.0 < dt_ns < _LEAST_DT_NS:
            builder.recorder.clamped("dt", f"{dt_ns:g} is taken as seconds")
            dt_ns *= 1e9
        builder.values["dt_ns"] = dt_ns
        used("dt", "dt_ns")
    delay_us, in_ns = configuration.get("default_rep_delay"), convert.units(1e3)
    builder.copy(delay_us, "rep_delay_ns", "default_rep_delay", in_ns)
    builder.copy(configuration.get("max_shots"), "max_shots", "max_shots", convert.integer)
    if configuration.get("coords") is not None:
        builder.values["coordinates"] = tuple(
            _place(pair, place) for place, pair in convert.items(configuration["coords"], "coords")
        )
        used("coords", "coordinates")
    instructions = configuration.get("supported_instructions")
    if instructions is not None:
        named = {
            each
            for _, each in convert.items(instructions, "supported_instructions")
            if isinstance(each, str)
        }
        builder.values["dynamic"] = builder.values.get("dynamic", False) or bool(named & _DYNAMIC)
        used("supported_instructions", "dynamic")
    signatures = configuration.get("instruction_signatures")
    for place, entry in convert.items(signatures or [], "instruction_signatures"):
        _signature(builder, *_named(entry, place), place)
    builder.ignore_others(configuration, _CONFIGURED, "conf.")


_CONFIGURED = {
    *("backend_name", "n_qubits", "coupling_map", "gates", "basis_gates", "dt", "max_shots"),
    *("supported_instructions", "coords", "default_rep_delay", "instruction_signatures"),
}


def _signature(builder: SnapshotBuilder, name: str, entry: dict[str, Any], place: str) -> None:
    """Read an instruction that is no gate: a measurement with a name of its own, or one that the
    snapshot does not have."""
    shape = entry.get("num_qubits"), entry.get("num_clbits"), entry.get("parameters")
    if not is_named_measurement(name) or shape != (1, 1, []):
        builder.leave_out(name, "an instruction that is neither a gate nor a measurement")
        return
    builder.recorder.used(place, "measurements[*]")
    if not builder.has_measurement(name):
        builder.list_measurement((), place, name)


def _place(pair: object, place: str) -> tuple[float, float]:
    results = [convert.number(each, at) for at, each in convert.items(pair, place)]
    if len(results) != 2:
        raise SnapshotError(place, f"{len(results)} numbers", hint="x and y")
    return results[0], results[1]


def _general(builder: SnapshotBuilder, general: object) -> None:
    """Read static ZZ rates `zz_<i><j>`; the digits are split so that the pair is coupled."""
    entries = [(at, *_named(each, at)) for at, each in convert.items(general, "general")]
    rates = [(at, name, result) for at, name, result in entries if name.startswith("zz_")]
    for _, name, _ in entries:
        if not name.startswith("zz_"):
            kind = name.split("_")[0] if name.isascii() and name.isprintable() else "(other)"
            builder.recorder.unknown(f"general.{kind}_*")
    for at, name, result in rates:
        factor = convert.frequency_factor(result.get("unit"), f"{at}.unit")
        value = convert.number(result.get("value"), at)
        if value == 0.0:
            builder.recorder.ignored("general.zz_*", "0: not measured")
            continue
        pair = _pair(builder, name[3:])
        if pair is None:
            builder.recorder.ignored("general.zz_*", "the digits name no coupled pair, or several")
            continue
        rate_khz = convert.scaled(value, factor) * 1e6
        if abs(rate_khz) > _MAX_ZZ_KHZ:
            limited = math.copysign(_MAX_ZZ_KHZ, rate_khz)
            builder.recorder.clamped(
                at, f"{rate_khz:.0f} kHz of {list(pair)} is implausible; used: {limited:g} kHz"
            )
            rate_khz = limited
        builder.set_zz(pair, rate_khz, at)
        builder.recorder.defaulted(
            "zz_strength", f"{IBM_ZZ_STRENGTH:g} of the ZZ rates acts where no fit says more"
        )


def _pair(builder: SnapshotBuilder, digits: str) -> tuple[int, int] | None:
    """Return the coupled pair whose two numbers, concatenated, are these digits."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return None
    results = {
        (int(digits[:cut]), int(digits[cut:]))
        for cut in range(1, len(digits))
        if (digits[cut] != "0" or cut == len(digits) - 1) and (digits[0] != "0" or cut == 1)
    }
    coupled = [
        pair for pair in results if pair in builder.coupling or pair[::-1] in builder.coupling
    ]
    return coupled[0] if len(coupled) == 1 else None
