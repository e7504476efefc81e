"""Options of a noise model that do not act as their numbers say: factors of noise components that
are too large for a physical channel, or of components that a device lacks, and replaced values
beyond what others allow."""

import math
from collections.abc import Iterable

from noise_models.calibration import MOST_MEMORY_ERROR, GateCalibration, leaked_infidelity
from noise_models.device_model import DeviceModel
from noise_models.gate_errors import largest_parameter
from noise_models.model import NoiseModel

_Values = Iterable[tuple[str, float]]  # (place, value / limit), without the factor
_NOT_UNITARY = ("measure", "reset", "delay")


def limited(model: NoiseModel) -> tuple[str, ...]:
    """Return one text for each component whose factor scales a value above its physical limit, one
    for each named component or group that the calibration lacks, one for replaced values that act
    over time on a device without durations, one for replaced times with T2 > 2 T1 or T2* >= T2, one
    for each replaced gate error that is below the infidelity of the gate's other parts, and one for
    each other replaced value that others leave without effect, or limit.

    The model uses the limit for such a value. All qubits and gates of the device count, not only
    those that a circuit uses.
    """
    if not isinstance(model, DeviceModel):
        return ()  # a custom model has no such factors
    results = [
        _text(component, model.options.factor(component), values)
        for component, values in _components(model)
        if model.options.factor(component) > 1.0
    ]
    if model.snapshot.correlated_readout:
        factor = model.options.factor("qubit.correlated_readout")
        if factor > 1.0:
            results.append(f"qubit.correlated_readout * {factor:g} acts as 1: as it was measured")
    results += _absent(model)
    results.append(_without_durations(model))
    results.append(_dephasing_limit(model))
    results.append(_detuning_limit(model))
    results += [_error_limit(model, name, size) for size, name in enumerate(_ERRORS, 1)]
    results += [*_without_effect(model), *_above_dephasing(model), *_below_relaxation(model)]
    results.append(_decision_limit(model))
    results += [_leakage_limit(model, name, size) for size, name in enumerate(_LEAKAGES, 1)]
    return tuple(text for text in results if text)


# Components that a calibration may lack: the values that give a device such noise.
_GIVEN_BY = {
    "gate.depolarizing": "gate.error_1q and gate.error_2q",
    **dict.fromkeys(("qubit.relaxation", "qubit.idle"), "qubit.t1_us and qubit.t2_us"),
    "gate.coherent": "gate.over_rotation_rad, gate.zz_angle_rad and gate.iz_angle_rad",
    "gate.crosstalk": "gate.zz_khz, or gate.zz_strength where ZZ rates were measured,",
    "gate.leakage": "gate.leakage_1q and gate.leakage_2q",
    **dict.fromkeys(("link.pair", "link.wait"), "links of the device's modules"),
    "qubit.t1_jumps": "t1_jumps of a qubit or of a pool's drift",
    "qubit.quasistatic": "qubit.t2_star_us",
    "qubit.memory": "qubit.memory_error",
    "qubit.measurement": "qubit.measure_decay and qubit.measure_excitation",
    "qubit.measurement_crosstalk": "qubit.measurement_crosstalk_error",
    "qubit.thermal": "qubit.excited",
    "qubit.preparation": "qubit.preparation_error",
    "qubit.reset": "qubit.reset_error",
    "qubit.readout": "qubit.p01 and qubit.p10",
}


def _absent(model: DeviceModel) -> Iterable[str]:
    """Iterate over texts for the components and groups that the options scale by a factor above 0
    under their own name, and of which the calibration has no value above 0."""
    snapshot = model.snapshot
    if model.options.replaced("gate.zz_strength") and not snapshot.zz:
        yield "gate.zz_strength changes nothing: the calibration has no ZZ rates"
    scaled = [(name, each) for name, each in model.options.factors if each]
    if not scaled:
        return
    relaxes = any(qubit.t1_us or qubit.t2_us for qubit in snapshot.qubits)
    present = {
        **{name: any(value for _, value in values) for name, values in _components(model)},
        "gate.depolarizing": any(
            gate.error for gate in snapshot.gates if frozenset(gate.qubits) not in snapshot.linked
        ),
        "link.pair": any(link.infidelity for link in snapshot.links),
        "link.wait": relaxes and any(link.rate_hz for link in snapshot.links),
        "gate.coherent": any(gate.over_rotation_rad or gate.rotations for gate in snapshot.gates),
        "gate.layer": any(each.generators for each in snapshot.layers),
        "gate.crosstalk": bool(snapshot.acting_zz_khz),
        "qubit.measurement_crosstalk": any(
            each.error or each.angle_rad for each in snapshot.measurement_crosstalk
        ),
        "qubit.relaxation": relaxes,
        "qubit.idle": relaxes,
        "qubit.t1_jumps": model.has_jumps,
        "qubit.quasistatic": any(qubit.detuning_rad_us for qubit in snapshot.qubits),
        "qubit.correlated_readout": bool(snapshot.correlated_readout),
    }
    for name, factor in scaled:
        if any(
            value
            for each, value in present.items()
            if name in (each, each.partition(".")[0], "all")
        ):
            continue
        given = _GIVEN_BY.get(name, "")
        usable = given and (
            snapshot.gates or not given.startswith(("gate.error", "gate.over", "gate.leak"))
        )
        given = f"; {given} gives the device such noise" if usable else ""
        yield f"{name} * {factor:g} changes nothing: the calibration has no such noise{given}"


_OF_IDLE = (
    *("gate.crosstalk", "gate.zz_khz", "gate.zz_strength"),
    *("link.wait", "qubit.idle", "qubit.memory", "qubit.memory_error"),
)


def _without_effect(model: DeviceModel) -> Iterable[str]:
    """Iterate over texts for the values of leaked qubits where no gate leaks, and for what acts as
    idle noise alone where that is off."""
    given = [name for name, _ in model.options.values]
    for name in ("gate.seepage", "qubit.leaked_readout", "qubit.leaked_t1_us"):
        if name in given and not model.leaks:
            more = "; gate.leakage_1q and gate.leakage_2q give the device leakage"
            yield f"{name} changes nothing: no gate leaks{more}"
    given += [name for name, factor in model.options.factors if factor]
    for name in () if model.options.idle else _OF_IDLE:
        if name in given:
            yield f"{name} changes nothing: the option idle is False, and it is noise of idle time"


def _above_dephasing(model: DeviceModel) -> Iterable[str]:
    """Iterate over texts for replaced average infidelities above that of complete dephasing."""
    for name, component in (
        ("qubit.memory_error", "qubit.memory"),
        ("qubit.measurement_crosstalk_error", "qubit.measurement_crosstalk"),
    ):
        error = model.options.replaced(name) or 0.0
        acts = model.options.factor(component) > 0.0
        if acts and error > MOST_MEMORY_ERROR * (1.0 + 1e-12):
            yield f"{name} = {error:g} is above 1/3; complete dephasing, which has 1/3, acts"


def _below_relaxation(model: DeviceModel) -> Iterable[str]:
    """Iterate over texts for replaced transitions by a measurement, of which relaxation during the
    readout alone has more."""
    given = ("qubit.measure_excitation", "qubit.measure_decay")
    replaced = [model.options.replaced(name) for name in given]
    if replaced == [None, None] or not model.options.factor("qubit.measurement"):
        return
    found = [model.measurements.transitions("measure", k) for k in range(model.num_qubits)]
    for number, (name, value) in enumerate(zip(given, replaced, strict=True)):
        below = [k for k, each in enumerate(found) if each is None or each[number] < -1e-12]
        if value is not None and below:
            qubits = _first(f"qubit {below[0]}", len(below))
            yield (
                f"{name} = {value:g} is below what relaxation during the readout does, for"
                f" {qubits}; relaxation alone acts there"
            )


def _decision_limit(model: DeviceModel) -> str:
    """Return the text for a replaced part of a readout before its decision that no relaxation acts
    in, or that leaves no confusion because relaxation alone has more; "" if there is none."""
    part = model.options.replaced("qubit.readout_decided")
    if not part:
        return ""
    name = f"qubit.readout_decided = {part:g}"
    if not model.decides:
        return f"{name} changes nothing: no qubit relaxes during a readout"
    found = [
        model.measurements.confusion_at_decision("measure", k) for k in range(model.num_qubits)
    ]
    below = [k for k, each in enumerate(found) if each is not None and min(each) < -1e-12]
    if not below:
        return ""
    qubits = _first(f"qubit {below[0]}", len(below))
    return (
        f"{name}: relaxation before the decision has more errors than p01 or p10 of {qubits};"
        " relaxation alone acts there"
    )


_LEAKAGES = ("gate.leakage_1q", "gate.leakage_2q")


def _leakage_limit(model: DeviceModel, name: str, size: int) -> str:
    """Return the text for a replaced leakage whose infidelity is above the error of gates on `size`
    qubits; "" if it is not replaced, or nowhere above."""
    leakage = model.options.replaced(name)
    if not leakage or not model.leaks:
        return ""
    above = sorted(
        (gate.name, gate.qubits, leaked_infidelity(gate, size), gate.error)
        for gate, qubits in _gates(model)
        if len(qubits) == size
        and gate.leakage == leakage
        and gate.error is not None
        and leaked_infidelity(gate, size) > gate.error * (1.0 + 1e-9)
    )
    if not above:
        return ""
    gate, qubits, leaked, error = above[0]
    more = f", and for {len(above) - 1} more" if len(above) > 1 else ""
    return (
        f"{name} = {leakage:g} alone has an infidelity of {leaked:.3g}, above the error"
        f" {error:.3g} of {_place(gate, qubits)}{more}; no depolarizing error is added there"
    )


def _without_durations(model: DeviceModel) -> str:
    """Return the text for replaced values that act over time, on a device without durations; "" if
    there are none."""
    snapshot = model.snapshot
    acting = (
        *("qubit.t1_us", "qubit.t2_us", "qubit.t2_star_us"),
        *("gate.zz_khz", "gate.zz_strength", "qubit.leaked_t1_us"),
    )
    names = [name for name, _ in model.options.values if name in acting]
    timed = any(gate.duration_ns for gate in snapshot.gates)
    if not names or timed or any(each.readout_ns or each.reset_ns for each in snapshot.qubits):
        return ""
    return f"{names[0]} acts during delays of a circuit alone: the calibration has no durations"


def _dephasing_limit(model: DeviceModel) -> str:
    """Return the text for replaced times with T2 > 2 T1; "" if there are none."""
    names = [name for name, _ in model.options.values if name in ("qubit.t1_us", "qubit.t2_us")]
    above = [
        k
        for k, each in enumerate(model.snapshot.qubits)
        if each.t1_us and each.t2_us and each.t2_us > 2.0 * each.t1_us * (1.0 + 1e-12)
    ]
    if not names or not above:
        return ""
    qubits = _first(f"qubit {above[0]}", len(above))
    return f"{' and '.join(names)}: T2 is above 2 T1 for {qubits}; 2 T1 acts there"


def _detuning_limit(model: DeviceModel) -> str:
    """Return the text for replaced times with T2* of at least T2; "" if there are none."""
    times = ("qubit.t1_us", "qubit.t2_us", "qubit.t2_star_us")
    names = [name for name, _ in model.options.values if name in times]
    without = [
        k
        for k, each in enumerate(model.snapshot.qubits)
        if each.t2_star_us and not each.detuning_rad_us
    ]
    if not names or not without:
        return ""
    qubits = _first(f"qubit {without[0]}", len(without))
    return f"{' and '.join(names)}: T2* is not below T2 for {qubits}; there is no detuning there"


_ERRORS = ("gate.error_1q", "gate.error_2q")


def _error_limit(model: DeviceModel, name: str, size: int) -> str:
    """Return the text for a replaced error of gates on `size` qubits that is below the infidelity
    of their coherent error and relaxation; "" if it is not replaced, or nowhere below."""
    error = model.options.replaced(name)
    if error is None:
        return ""
    least = {
        (gate.name, gate.qubits): model.gates.infidelity(gate, qubits)
        for gate, qubits in _gates(model)
        if len(qubits) == size and gate.name not in _NOT_UNITARY and gate.error == error
    }
    above = sorted(key for key, infidelity in least.items() if infidelity > error * (1.0 + 1e-9))
    if not above:
        return ""
    largest = max(above, key=lambda key: least[key])
    more = f", and for {len(above) - 1} more" if len(above) > 1 else ""
    return (
        f"{name} = {error:g} is below {least[largest]:.3g}, the error by relaxation and coherent"
        f" error alone, for {_place(*largest)}{more}; no depolarizing error is added there"
    )


def _components(model: DeviceModel) -> Iterable[tuple[str, _Values]]:
    """Iterate over the components with their values relative to the largest physical value."""
    qubits = list(enumerate(model.snapshot.qubits))
    yield "gate.depolarizing", _parameters(model, of_links=False)
    yield "link.pair", _parameters(model, of_links=True)
    yield (
        "gate.leakage",
        (
            (_place(gate.name, gate.qubits), gate.leaks_from_one(len(qubits)))
            for gate, qubits in _gates(model)
            if gate.leakage
        ),
    )
    yield (
        "qubit.memory",
        ((f"qubit {k}", (each.memory_error or 0.0) / MOST_MEMORY_ERROR) for k, each in qubits),
    )
    yield (
        "qubit.measurement",
        (
            (f"qubit {k}", max(each.measure_decay or 0.0, each.measure_excitation or 0.0))
            for k, each in qubits
        ),
    )
    terms = model.snapshot.measurement_crosstalk
    places = (f"qubit {each.qubits[1]}" if each.qubits else "qubit 0" for each in terms)
    errors = ((each.error or 0.0) / MOST_MEMORY_ERROR for each in terms)
    yield "qubit.measurement_crosstalk", zip(places, errors, strict=True)
    yield "qubit.thermal", ((f"qubit {k}", each.excited or 0.0) for k, each in qubits)
    yield "qubit.preparation", ((f"qubit {k}", model.preparation_error(k)) for k, _ in qubits)
    yield "qubit.reset", ((f"qubit {k}", each.reset_error or 0.0) for k, each in qubits)
    yield (
        "qubit.readout",
        ((f"qubit {k}", max(each.confusion or (0.0, 0.0))) for k, each in qubits),
    )


def _parameters(model: DeviceModel, *, of_links: bool) -> _Values:
    """Iterate over the depolarizing parameters of the gates, relative to the largest one, and the
    sums of their Pauli errors; `of_links`: of the gates that make the pairs of links, or of all
    others."""
    linked = model.snapshot.linked
    for gate, qubits in _gates(model):
        if (frozenset(qubits) in linked) is not of_links:
            continue
        size, factor = len(qubits), model.gates.error_factor(qubits)
        if gate.paulis:
            total = math.fsum(each.probability for each in gate.paulis)
            yield _place(gate.name, gate.qubits), total
            continue
        side, error = 1 << size, gate.error or 0.0
        if size not in (1, 2) or not 0.0 < error < side / (side + 1):
            continue  # no error, or a gate that does not work
        # Cheap upper bound: the parameter is at most error d / (d - 1).
        if error * side / (side - 1) * factor <= largest_parameter(size):
            continue
        place = _place(gate.name, gate.qubits)
        yield place, model.gates.rest(gate, qubits) / largest_parameter(size)


def _gates(model: DeviceModel) -> Iterable[tuple[GateCalibration, tuple[int, ...]]]:
    """Iterate over the calibrated gates with their qubits; for a gate on all qubits the first
    ones."""
    sizes = {gate.name: gate.num_qubits for gate in model.snapshot.all_gates}
    for gate in model.snapshot.gates:
        yield gate, gate.qubits or tuple(range(sizes.get(gate.name, 0)))


def _place(name: str, qubits: tuple[int, ...]) -> str:
    return f"{name} on {', '.join(map(str, qubits)) or 'all qubits'}"


def _first(place: str, count: int) -> str:
    """Return the first of several places, and the number of the others."""
    return place if count == 1 else f"{place} and {count - 1} more"


def _text(component: str, factor: float, values: _Values) -> str:
    """Return the text for a component; "" if all scaled values are within the limit."""
    above = [place for place, value in values if value * factor > 1.0 + 1e-12]
    if not above:
        return ""
    places = _first(above[0], len(above))
    return (
        f"{component} * {factor:g} is above the physical limit for {places}; the limit acts there"
    )
