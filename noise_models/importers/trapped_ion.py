"""Importer of trapped-ion emulator parameters: a few probabilities for a device of equal ions.

Names are those of Quantinuum's emulators (`p1`, `p2`, `p_meas`, `p_init`, crosstalk and dephasing
rates, ratios of emission; classes UserErrorParams and HeliosErrorParams of quantinuum-schemas) and
of its machine descriptions (`noise_specs`). This importer defines additional names for times:
`t1_s`, `t2_s`, `duration_1q_s`, `duration_2q_s`, `measure_s`, `reset_s`.
"""

import math
from typing import Any

from noise_models.calibration import (
    GateCalibration,
    MeasurementCrosstalk,
    QubitCalibration,
    leaked_infidelity,
)
from noise_models.importers import convert
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import Source
from noise_models.strict_json import STAR_US, US, SnapshotError, short_repr

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
_QUADRATIC = "quadratic_dephasing_rate"
# Names of the memory error: average infidelity of a qubit in a circuit of depth 1, which has a gate
# on two qubits on each pair of a random pairing (Moses et al., arXiv 2305.03828).
_MEMORY = ("memory_error", "dephasing_error")
_IGNORED = {
    "p_crosstalk_init": "no model of initialization crosstalk",
    "p_prep_crosstalk_scale": "no model of initialization crosstalk",
    "crosstalk_per_gate": "crosstalk of each measurement",
    "coherent_to_incoherent_factor": "of stabilizer simulations, which have no quadratic dephasing",
    "transport_dephasing": "circuits have no transport",
    **dict.fromkeys(
        ("przz_a", "przz_b", "przz_c", "przz_d", "przz_power"), "p2 holds for every angle"
    ),
}
_RATES = ("linear_dephasing_rate", _QUADRATIC)
_EMISSIONS = ("p1_emission_ratio", "p2_emission_ratio")
_NONE = "none of this noise"
# Names of HeliosErrorParams, and those of UserErrorParams.
_ALIASES = {
    "p_prep": "p_init", "prep_scale": "init_scale", "p_meas_crosstalk": "p_crosstalk_meas",
    "p_prep_crosstalk": "p_crosstalk_init", "p_meas_crosstalk_scale": "crosstalk_scale",
    "p_idle_linear_rate": "linear_dephasing_rate",
    "p_idle_quadratic_rate": "quadratic_dephasing_rate",
}  # fmt: skip
# Factors of each parameter. Those of a dephasing multiply the probability of Z, which is quadratic
# in the second rate.
_SCALES = {
    "p1": ("scale", "p1_scale"),
    "p2": ("scale", "p2_scale"),
    **dict.fromkeys(("p_meas", "p_meas_0", "p_meas_1"), ("scale", "meas_scale")),
    "p_init": ("scale", "init_scale"),
    "p_crosstalk_meas": ("scale", "crosstalk_scale"),
    **dict.fromkeys((*_RATES, *_MEMORY), ("scale", "memory_scale")),
    **dict.fromkeys(_EMISSIONS, ("emission_scale",)),
}
# Half of the emissions of Quantinuum's ions leak, where no distribution says it (UserErrorParams,
# leakage_scale).
_LEAKS = 0.5
# Noise that no component has, with the value that stands for none of it.
_WITHOUT_COMPONENT: dict[str, tuple[object, str]] = {
    "p1_pauli_model": ({}, "gates have depolarizing errors"),
    "p2_pauli_model": ({}, "gates have depolarizing errors"),
    "p_idle_linear_model": ({}, "waiting qubits have Z errors"),
    "p_prep_leak_ratio": (0, "qubits begin in |0> or |1>"),
    "noiseless_gates": ([], "p1 and p2 hold for every gate"),
    "p2_idle": (0, "memory_error is that of a layer"),
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
    for key in _ALIASES.keys() & inputs.keys():
        if _ALIASES[key] in inputs:
            raise SnapshotError(inputs[key][0], f"beside {_ALIASES[key]}", hint="give one of both")
        inputs[_ALIASES[key]] = inputs.pop(key)
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
    _scale(builder, inputs)
    emits = not inputs.keys().isdisjoint(_EMISSIONS)
    leaks = 0.0 if _switch(builder, inputs, "leak2depolar", default=False, acts=emits) else _LEAKS
    if "leakage_scale" in inputs:
        at, value = inputs.pop("leakage_scale")
        factor = _factor(value, at)
        if leaks and emits:
            builder.recorder.used(at, "gates[*].leakage")
        else:
            builder.recorder.ignored(at, "nothing that it scales")
        leaks *= factor
    for names in (("p1", "r", 1), ("p2", "rzz", 2)):
        if names[0] in inputs:
            _gate(builder, inputs, names, leaks, sheet=sheet)
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
    for key, (place, value) in sorted(inputs.items()):
        if key in _IGNORED:
            builder.recorder.ignored(place, _IGNORED[key])
        elif key in _WITHOUT_COMPONENT:
            none, note = _WITHOUT_COMPONENT[key]
            if value == none:
                builder.recorder.ignored(place, _NONE)
            else:
                builder.recorder.unknown(place, is_noise=True, note=note)
        else:
            builder.recorder.unknown(place)
    return builder.finish(name or convert.text(label, "name"), source)


def _scale(builder: SnapshotBuilder, inputs: dict[str, tuple[str, Any]]) -> None:
    """Multiply the parameters by their factors; a factor of none of them is ignored."""
    names = sorted({each for scales in _SCALES.values() for each in scales} & inputs.keys())
    factors = {}
    scales = {each for key in _SCALES.keys() & inputs.keys() for each in _SCALES[key]}
    for each in names:
        at, value = inputs.pop(each)
        factors[each] = _factor(value, at)
        if each in scales:
            builder.recorder.used(at, "factor of the values that it scales")
        else:
            builder.recorder.ignored(at, "nothing that it scales")
    for key in _SCALES.keys() & inputs.keys():
        factor = math.prod(factors.get(each, 1.0) for each in _SCALES[key])
        at, value = inputs[key]
        if factor != 1.0:
            factor = math.sqrt(factor) if key == _QUADRATIC else factor
            listed = value if isinstance(value, list) else [value]
            scaled = [convert.number(each, at) * factor for each in listed]
            inputs[key] = (at, scaled if isinstance(value, list) else scaled[0])


def _factor(value: Any, at: str) -> float:
    factor = convert.number(value, at)
    if factor < 0.0:
        raise SnapshotError(at, f"{factor:g}", hint="a factor, 0 or above")
    return factor


def _switch(
    builder: SnapshotBuilder,
    inputs: dict[str, tuple[str, Any]],
    key: str,
    *,
    default: bool,
    acts: bool,
) -> bool:
    """Take a parameter that is true or false; `acts`: there is noise that it switches."""
    if key not in inputs:
        return default
    at, value = inputs.pop(key)
    if not isinstance(value, bool):
        raise SnapshotError(at, f"{short_repr(value)} is not true or false")
    if acts:
        builder.recorder.used(at, "which noise acts")
    else:
        builder.recorder.ignored(at, "nothing that it switches")
    return value


def _gate(
    builder: SnapshotBuilder,
    inputs: dict[str, tuple[str, Any]],
    gate: tuple[str, str, int],
    leaks: float,
    *,
    sheet: bool,
) -> None:
    """Set the error of a gate (parameter, name, number of qubits), its leakage and its seepage: of
    the faults, `emission_ratio` are emissions, of which `leaks` leak, or what their distribution
    says, times 2 `leaks`; an emission of a qubit that has leaked brings it back with probability
    `seepage_prob`. What leaks has no other error."""
    key, name, num_qubits = gate
    at, value = inputs.pop(key)
    fault, side = convert.probability(value, at), 1 << num_qubits
    ratio_at, ratio = inputs.pop(f"{key}_emission_ratio", ("", 0.0))
    emission = fault * convert.probability(ratio, ratio_at)
    model_at, model = inputs.pop(f"{key}_emission_model", ("", {}))
    model = convert.mapping(model, model_at)
    weights = {
        each: convert.probability(weight, f"{model_at}.{convert.key_text(each)}")
        for each, weight in model.items()
    }
    if weights:
        leaks *= sum(weight for each, weight in weights.items() if "L" in each) / _LEAKS
    if weights and emission:
        builder.recorder.used(model_at, "gates[*].leakage")
    elif model_at:
        builder.recorder.ignored(model_at, "no emissions" if weights else "no distribution")
    leakage = emission * min(leaks, 1.0)
    error = _infidelity(value, at, side, sheet=sheet)
    if leakage:
        lost = leaked_infidelity(GateCalibration(name, leakage=leakage), num_qubits)
        if not _of_sheet(at, sheet=sheet):
            error = _infidelity(fault - leakage, at, side, sheet=sheet) + lost
        builder.set_gate(name, (), "leakage", leakage, ratio_at)
        builder.recorder.defaulted("qubits[0].leaked_t1_us", "no decay of ions that have leaked")
    elif ratio_at:
        builder.recorder.ignored(ratio_at, f"emissions that do not leak are part of {key}")
    builder.set_gate(name, (), "error", error, at)
    seep_at, seepage = inputs.pop(f"{key}_seepage_prob", ("", 0.0))
    seepage = emission * convert.probability(seepage, seep_at)
    if leakage and seep_at:
        builder.set_gate(name, (), "seepage", seepage, seep_at)
    elif seep_at:
        builder.recorder.ignored(seep_at, "no qubit leaks")


def _of_sheet(at: str, *, sheet: bool) -> bool:
    """Return whether a value is an average infidelity."""
    return sheet or not set(_INFIDELITIES).isdisjoint(at.split("."))


def _infidelity(value: Any, at: str, side: int, *, sheet: bool) -> float:
    """Return the average infidelity of an error on qubits of `side` states; `sheet`: it stands in
    a data sheet."""
    result = convert.probability(value, at)
    if _of_sheet(at, sheet=sheet):
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
    _dephasing(builder, entries, shared)
    for target, (at, value) in shared.items():
        for qubit in range(builder.num_qubits):
            builder.set_qubit(qubit, target, value, at)


def _dephasing(
    builder: SnapshotBuilder,
    entries: dict[str, tuple[str, Any]],
    shared: dict[str, tuple[str, float]],
) -> None:
    """Set T2 and T2* from the rates of dephasing while a qubit waits. The linear one: Z after a
    time t with probability r t, where dephasing has (1 - exp(-t / T2)) / 2. The quadratic one: a
    rotation about Z by f t, in rad; a detuning that is constant during a shot and has the standard
    deviation f has the same mean probability of Z, f^2 t^2 / 4 to second order."""
    rates = {}
    own = "memory_error" not in shared
    acts = own and not entries.keys().isdisjoint(_RATES)
    idle = _switch(builder, entries, "idle_dephasing", default=True, acts=acts)
    acts = own and idle and _QUADRATIC in entries
    coherent = _switch(builder, entries, "coherent_dephasing", default=True, acts=acts)
    for key in _RATES:
        if key not in entries:
            continue
        at, value = entries.pop(key)
        rate = convert.number(value, at)
        if rate < 0.0:
            raise SnapshotError(at, f"{rate:g}", hint="a rate in 1/s, 0 or above")
        if "memory_error" in shared:
            builder.recorder.ignored(at, "part of the memory error")
        elif not idle:
            builder.recorder.ignored(at, "idle_dephasing is false")
        elif rate and key == _QUADRATIC and not coherent:
            note = (
                "with coherent_dephasing false, Z errors with a probability quadratic in the time"
            )
            builder.recorder.unknown(at, is_noise=True, note=note)
        elif rate:
            rates[key] = (at, rate)
        else:
            builder.recorder.ignored(at, _NONE)
    if "linear_dephasing_rate" in rates:
        at, rate = rates["linear_dephasing_rate"]
        if "t2_us" in shared:
            builder.recorder.ignored(at, "T2 is given")
        elif (echo_us := 1e6 / (2.0 * rate)) > US[1]:
            builder.recorder.ignored(at, _NONE)
        else:
            shared["t2_us"] = (at, echo_us)
    if _QUADRATIC in rates:
        at, rate = rates[_QUADRATIC]
        t1_us, t2_us = (shared[key][1] if key in shared else None for key in ("t1_us", "t2_us"))
        star_us = QubitCalibration(t1_us, t2_us).with_detuning(1e-6 * rate).t2_star_us
        if star_us is None or star_us > STAR_US[1]:
            builder.recorder.ignored(at, _NONE)
        else:
            shared["t2_star_us"] = (at, star_us)
