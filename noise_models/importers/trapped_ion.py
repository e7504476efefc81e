"""Importer of trapped-ion emulator parameters: a few probabilities for a device of equal ions.

Names are those of Quantinuum's emulators (`p1`, `p2`, `p_meas`, `p_init`, crosstalk and dephasing
rates) and of its machine descriptions (`noise_specs`). This importer defines additional names for
times: `t1_s`, `t2_s`, `duration_1q_s`, `duration_2q_s`, `measure_s`, `reset_s`.
"""

from __future__ import annotations

from typing import Any

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import reading
from noise_models.importers.builder import SnapshotBuilder
from noise_models.importers.reading import ImportReport, Source, key_text
from noise_models.strict_json import SnapshotError, short_repr

NAME = "trapped-ion"

DEFAULT_QUBITS = 32
_DEFAULT_TIMES_NS = {"duration_1q_s": 10_000.0, "duration_2q_s": 200_000.0}
_SECTIONS = ("error-params", "error_params", "noise_specs", "user_error_params")
_COUNTS = ("n_qubits", "num_qubits", "qubits")
_QUBIT_TIMES = {
    "t1_s": ("t1_us", 1e6),
    "t2_s": ("t2_us", 1e6),
    "measure_s": ("readout_ns", 1e9),
    "reset_s": ("reset_ns", 1e9),
}
_IGNORED = {
    "p1_emission_ratio": "spontaneous emission is part of p1",
    "p2_emission_ratio": "spontaneous emission is part of p2",
    "p_crosstalk_meas": "no model of measurement crosstalk",
    "p_crosstalk_init": "no model of initialization crosstalk",
    "quadratic_dephasing_rate": "coherent dephasing is not an exponential decay",
    "memory_error": "an error for a round of gates, without its duration",
}


def recognizes(source: Source) -> bool:
    """Return whether a document, or one of its sections of parameters, has p1 or p2."""
    return any({"p1", "p2"} & _flat(value).keys() for _, value in source.objects())


def _flat(document: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return (place, value) of each parameter; sections and groups are flattened."""
    entries: dict[str, tuple[str, Any]] = {}
    for key, value in document.items():
        if key in _SECTIONS and isinstance(value, dict):
            for name, each in value.items():
                if isinstance(each, dict):
                    for inner, entry in each.items():
                        _put(
                            entries,
                            inner,
                            f"{key}.{key_text(name)}.{key_text(inner)}",
                            entry,
                        )
                else:
                    _put(entries, name, f"{key}.{key_text(name)}", each)
        else:
            _put(entries, key, key_text(key), value)
    return entries


def _put(entries: dict[str, tuple[str, Any]], name: str, place: str, value: Any) -> None:
    if name in entries:
        raise SnapshotError(
            place, f"{short_repr(name)} a second time", hint="remove one of the two"
        )
    entries[name] = (place, value)


def read(source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Build the snapshot of an all-to-all device with equal qubits. Raises SnapshotError.

    p1 and p2 are probabilities of an error; the average gate infidelity is p d / (d + 1) with d = 2
    and 4.
    """
    inputs = _flat(source.only_object("emulator parameters are one JSON file"))
    count = [key for key in _COUNTS if key in inputs and not isinstance(inputs[key][1], list)]
    num_qubits = DEFAULT_QUBITS
    if count:
        num_qubits = reading.integer(inputs[count[0]][1], inputs[count[0]][0])
    builder = SnapshotBuilder(NAME, num_qubits, inputs[count[0]][0] if count else "num_qubits")
    if count:
        builder.recorder.used(inputs[count[0]][0], "num_qubits")
    else:
        builder.recorder.defaulted("num_qubits", str(DEFAULT_QUBITS))
    builder.values.update(technology="trapped-ion", all_to_all=True, dynamic=True)
    builder.recorder.defaulted("native_gates", "rz, r, rzz on all qubits")
    for gate in ("rz", "r", "rzz"):
        builder.add_native(gate, 2 if gate == "rzz" else 1, None, gate)
    builder.set_gate("rz", (), "error", 0.0, "(rz is a frame change)")
    builder.set_gate("rz", (), "duration_ns", 0.0, "(rz is a frame change)")
    used = {*count}
    for key, gate, side in (("p1", "r", 2), ("p2", "rzz", 4)):
        used.add(key)
        if key in inputs:
            at, value = inputs[key]
            error = reading.probability(value, at) * side / (side + 1)
            builder.set_gate(gate, (), "error", error, at)
    for key, gate in (("duration_1q_s", "r"), ("duration_2q_s", "rzz")):
        used.add(key)
        if key in inputs:
            at, value = inputs[key]
            builder.set_gate(gate, (), "duration_ns", reading.number(value, at) * 1e9, at)
        else:
            builder.set_gate(gate, (), "duration_ns", _DEFAULT_TIMES_NS[key], f"({key})")
            builder.recorder.defaulted(key, f"{_DEFAULT_TIMES_NS[key] / 1e9:g}")
    used |= _qubits(builder, inputs)
    _texts(builder, inputs, used)
    for key in sorted(inputs.keys() - used):
        place, value = inputs[key]
        builder.recorder.ignored(place, _IGNORED.get(key, "not used by the noise model"))
    label = inputs.get("name", ("", ""))[1]
    return builder.finish(name or reading.text(label, "name"), source.digest)


def _qubits(builder: SnapshotBuilder, entries: dict[str, tuple[str, Any]]) -> set[str]:
    """Set the values that all qubits share; returns the keys that were read."""
    shared: dict[str, tuple[str, float]] = {}
    if "p_meas" in entries:
        at, value = entries["p_meas"]
        if isinstance(value, list):
            pair = [reading.probability(each, place) for place, each in reading.items(value, at)]
            if len(pair) != 2:
                raise SnapshotError(at, f"{len(pair)} values", hint="one, or one for 0 and for 1")
        else:
            pair = [reading.probability(value, at)] * 2
        shared["p01"], shared["p10"] = (at, pair[0]), (at, pair[1])
    for key, target in (("p_meas_0", "p01"), ("p_meas_1", "p10"), ("p_init", "preparation_error")):
        if key in entries:
            at, value = entries[key]
            if target in shared:
                raise SnapshotError(at, f"{key} beside p_meas", hint="give one of the two")
            shared[target] = (at, reading.probability(value, at))
    if "preparation_error" in shared:
        shared["reset_error"] = shared["preparation_error"]
    for key, (target, factor) in _QUBIT_TIMES.items():
        if key in entries:
            shared[target] = (
                entries[key][0],
                reading.number(entries[key][1], entries[key][0]) * factor,
            )
    if "linear_dephasing_rate" in entries:
        # Probability of Z after a time t: rate t here; (1 - exp(-t / T2)) / 2 for dephasing.
        at, value = entries["linear_dephasing_rate"]
        rate = reading.number(value, at)
        if rate < 0.0:
            raise SnapshotError(at, f"{rate:g}", hint="a rate in 1/s, 0 or above")
        if rate > 0.0 and "t2_us" not in shared:
            shared["t2_us"] = (at, 1e6 / (2.0 * rate))
    for target, (at, value) in shared.items():
        for qubit in range(builder.num_qubits):
            builder.set_qubit(qubit, target, value, at)
    return {
        *("p_meas", "p_meas_0", "p_meas_1", "p_init", "linear_dephasing_rate"),
        *_QUBIT_TIMES,
    }


def _texts(builder: SnapshotBuilder, entries: dict[str, tuple[str, Any]], used: set[str]) -> None:
    used.add("name")
    for key, target in (
        ("date", "calibrated"),
        ("calibrated", "calibrated"),
        ("provider", "provider"),
        ("version", "version"),
    ):
        used.add(key)
        if key in entries and target not in builder.values:
            builder.values[target] = reading.text(entries[key][1], entries[key][0])
            builder.recorder.used(entries[key][0], target)
    for key in ("max_n_shots", "max_shots"):
        used.add(key)
        if key in entries and "max_shots" not in builder.values:
            builder.values["max_shots"] = reading.integer(entries[key][1], entries[key][0])
            builder.recorder.used(entries[key][0], "max_shots")
