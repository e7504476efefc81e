"""Importer of trapped-ion emulator parameters: a few probabilities for a device of equal ions.

Names are those of Quantinuum's emulators (`p1`, `p2`, `p_meas`, `p_init`, crosstalk and dephasing
rates) and of its machine descriptions (`noise_specs`). This importer defines additional names for
times: `t1_s`, `t2_s`, `duration_1q_s`, `duration_2q_s`, `measure_s`, `reset_s`.
"""

from typing import Any

from noise_models.calibration import MeasurementCrosstalk
from noise_models.importers import convert
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
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
_TEXTS = (
    *(("date", "calibrated"), ("calibrated", "calibrated"), ("provider", "provider")),
    *(("version", "version"), ("max_n_shots", "max_shots"), ("max_shots", "max_shots")),
)
# Groups of a machine description whose values are average infidelities, as randomized
# benchmarking gives them: those of the data sheets (github.com/CQCL/quantinuum-hardware-
# specifications), and so are those beside a memory error, which data sheets have and emulators do
# not. Those of emulators are probabilities of an error.
_INFIDELITIES = ("1q_gate_error", "2q_gate_error", "crosstalk_error")
# Names of the memory error: average infidelity of a qubit in a circuit of depth 1, which has a gate
# on two qubits on each pair of a random pairing (Moses et al., arXiv 2305.03828).
_MEMORY = ("memory_error", "dephasing_error")
_IGNORED = {
    "p1_emission_ratio": "spontaneous emission is part of p1",
    "p2_emission_ratio": "spontaneous emission is part of p2",
    "p_crosstalk_init": "no model of initialization crosstalk",
    "quadratic_dephasing_rate": "coherent dephasing is not an exponential decay",
    "coherent_to_incoherent_factor": "of quadratic_dephasing_rate",
}


def recognizes(source: Source) -> bool:
    """Return whether a document, or one of its sections of parameters, has p1 or p2."""
    return any({"p1", "p2"} & _flat(value).keys() for _, value in source.objects())


def _flat(document: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return (place, value) of each parameter; sections and groups are flattened."""
    entries: dict[str, tuple[str, Any]] = {}

    def add(name: str, place: str, value: Any) -> None:
        if name in entries:
            text = f"{short_repr(name)} a second time"
            raise SnapshotError(place, text, hint="remove one of the two")
        entries[name] = (place, value)

    for key, value in document.items():
        section = value if key in _SECTIONS and isinstance(value, dict) else {key: value}
        prefix = f"{key}." if section is value else ""
        for name, each in section.items():
            place = prefix + convert.key_text(name)
            if section is value and isinstance(each, dict):
                for inner, entry in each.items():
                    add(inner, f"{place}.{convert.key_text(inner)}", entry)
            else:
                add(name, place, each)
    return entries


def read(source: Source, name: str) -> ImportedSnapshot:
    """Build the snapshot of an all-to-all device with equal qubits. Raises SnapshotError. p1 and p2
    are probabilities of an error, whose average gate infidelity is p d / (d + 1) with d = 2 and 4,
    but in the groups `_INFIDELITIES` and beside a memory error."""
    inputs = _flat(source.only_object("emulator parameters are one JSON file"))
    counts = [key for key in _COUNTS if key in inputs and not isinstance(inputs[key][1], list)]
    given = [inputs.pop(key) for key in counts]  # what is read is taken out
    at, value = given[0] if given else ("num_qubits", DEFAULT_QUBITS)
    builder = SnapshotBuilder(NAME, convert.integer(value, at), at)
    if given:
        builder.recorder.used(at, "num_qubits")
    else:
        builder.recorder.defaulted("num_qubits", str(DEFAULT_QUBITS))
    for key in [key for key, (_, value) in inputs.items() if value is None]:
        builder.recorder.ignored(inputs.pop(key)[0], "null: not measured")
    builder.values.update(technology="trapped-ion", all_to_all=True, dynamic=True)
    builder.recorder.defaulted("native_gates", "rz, r, rzz on all qubits")
    sheet = not inputs.keys().isdisjoint(_MEMORY)
    for gate in ("rz", "r", "rzz"):
        builder.add_native(gate, 2 if gate == "rzz" else 1, None, gate)
    builder.set_gate("rz", (), "error", 0.0, "(rz is a frame change)")
    builder.set_gate("rz", (), "duration_ns", 0.0, "(rz is a frame change)")
    for key, gate, side in (("p1", "r", 2), ("p2", "rzz", 4)):
        if key in inputs:
            at, value = inputs.pop(key)
            error = _infidelity(value, at, side, sheet=sheet)
            builder.set_gate(gate, (), "error", error, at)
    for key, gate in (("duration_1q_s", "r"), ("duration_2q_s", "rzz")):
        if key in inputs:
            at, value = inputs.pop(key)
            builder.set_gate(gate, (), "duration_ns", convert.number(value, at) * 1e9, at)
        else:
            builder.set_gate(gate, (), "duration_ns", _DEFAULT_TIMES_NS[key], f"({key})")
            builder.recorder.defaulted(key, f"{_DEFAULT_TIMES_NS[key] / 1e9:g}")
    _qubits(builder, inputs)
    if "p_crosstalk_meas" in inputs:
        at, value = inputs.pop("p_crosstalk_meas")
        term = MeasurementCrosstalk((), _infidelity(value, at, 2, sheet=sheet))
        builder.values["measurement_crosstalk"] = (term,)
        builder.recorder.used(at, "measurement_crosstalk")
    for key, target in _TEXTS:
        at, value = inputs.pop(key, ("", None))
        if at and target not in builder.values:
            read = convert.integer if target == "max_shots" else convert.text
            builder.values[target] = read(value, at)
            builder.recorder.used(at, target)
    label = inputs.pop("name", ("", ""))[1]
    for key, (place, _) in sorted(inputs.items()):
        if key in _IGNORED:
            builder.recorder.ignored(place, _IGNORED[key])
        else:
            builder.recorder.unknown(place)
    return builder.finish(name or convert.text(label, "name"), source)


def _infidelity(value: Any, at: str, side: int, *, sheet: bool) -> float:
    """Return the average infidelity of an error on qubits of `side` states; `sheet`: it stands in
    a data sheet."""
    result = convert.probability(value, at)
    if sheet or not set(_INFIDELITIES).isdisjoint(at.split(".")):
        return result
    return result * side / (side + 1)


def _qubits(builder: SnapshotBuilder, entries: dict[str, tuple[str, Any]]) -> None:
    """Set the values that all qubits share."""
    shared: dict[str, tuple[str, float]] = {}
    if "p_meas" in entries:
        at, value = entries.pop("p_meas")
        if isinstance(value, list):
            pair = [convert.probability(each, place) for place, each in convert.items(value, at)]
            if len(pair) != 2:
                raise SnapshotError(at, f"{len(pair)} values", hint="one, or one for 0 and for 1")
        else:
            pair = [convert.probability(value, at)] * 2
        shared["p01"], shared["p10"] = (at, pair[0]), (at, pair[1])
    for key, target in (("p_meas_0", "p01"), ("p_meas_1", "p10"), ("p_init", "preparation_error")):
        if key in entries:
            at, value = entries.pop(key)
            if target in shared:
                raise SnapshotError(at, f"{key} beside p_meas", hint="give one of the two")
            shared[target] = (at, convert.probability(value, at))
    if "preparation_error" in shared:
        shared["reset_error"] = shared["preparation_error"]
    for key, (target, factor) in _QUBIT_TIMES.items():
        if key in entries:
            at, value = entries.pop(key)
            shared[target] = (at, convert.number(value, at) * factor)
    for key in _MEMORY:
        if key in entries:
            at, value = entries.pop(key)
            if "memory_error" in shared:
                text = f"{key} beside {_MEMORY[0]}"
                raise SnapshotError(at, text, hint="give one of the two")
            shared["memory_error"] = (at, convert.number(value, at))
    if "memory_error" in shared and "linear_dephasing_rate" in entries:
        at, _ = entries.pop("linear_dephasing_rate")
        builder.recorder.ignored(at, "part of the memory error")
    if "linear_dephasing_rate" in entries:
        # Probability of Z after a time t: rate t here; (1 - exp(-t / T2)) / 2 for dephasing.
        at, value = entries.pop("linear_dephasing_rate")
        rate = convert.number(value, at)
        if rate < 0.0:
            raise SnapshotError(at, f"{rate:g}", hint="a rate in 1/s, 0 or above")
        if rate > 0.0 and "t2_us" not in shared:
            shared["t2_us"] = (at, 1e6 / (2.0 * rate))
    for target, (at, value) in shared.items():
        for qubit in range(builder.num_qubits):
            builder.set_qubit(qubit, target, value, at)
