"""Places of circuits of stim on emulated devices.

A place is the device's qubit of each qubit of the circuit: given, found by the coordinates of both,
or none, where values of qubits and pairs are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simenv.client.submission import options as submission_options
from simenv.client.submission.calls import NO_DEVICE
from simenv.client.submission.devices import SubmitDevices
from simenv.errors import InfeasibleError, OptionError, ProgramError
from simenv.model import MAX_QUBITS, calls as model_calls
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.model.options import SubmitOptions
from simenv.model.task_rules import checked_integer, checked_list

AUTO, DRAW = "auto", "draw"  # in place of a mapping of qubits
# Time from the end of a layer's measurements to the decoder's answer, by its place. real-time: in
# the control system, the round trip that NVIDIA states for NVQLink, below 4 us. near-time: a host
# beside it, the mean of Google's decoder in a workstation (arXiv 2408.13687, distance 5).
# scale-out: another node of the cluster: our assumption.
INTERCONNECTS_US = {"real-time": 4.0, "near-time": 63.0, "scale-out": 1000.0}
_DIGITS = 6  # of coordinates that are compared
_NO_GATES = frozenset({"DETECTOR", "OBSERVABLE_INCLUDE", "MPP", "SPP", "SPP_DAG", "MPAD"})
_JOINT = frozenset({"MPP", "SPP", "SPP_DAG"})
_Pairs = frozenset[tuple[int, int]]


def placement(
    circuit: Any, options: SubmitOptions, devices: SubmitDevices
) -> tuple[model_calls.DevicePlacement | None, Mapping[str, Any]]:
    """Return the place of a circuit on the device of its options, and the options that are sent
    with it; None without a device. Raises OptionError, NotFoundError, InfeasibleError."""
    device, noise = options.get("device"), options.get("noise", "auto")
    if device is not None and not isinstance(device, str):
        device = devices.named(device)
    checked = submission_options.checked_options(
        {"device": device, "noise": noise, "pool": options.get("pool")}
    )
    late_ns, latency_ns = _lateness(options)
    info = devices.of_options(checked.task)
    if info is None:
        for name in ("noise", "qubit_mapping", "interconnect", "late_us"):
            value: Any = options.get(name, submission_options.DEFAULTS[name])
            if not submission_options.is_default(name, value):
                raise OptionError(
                    f"{name}= of a circuit of stim without a device: {value!r:.60}",
                    hint="its noise is in it; device= with qubit_mapping= gives it a device's",
                )
        return None, NO_DEVICE
    if checked.document:
        hint = "factors of components, or device=None and channels in the circuit"
        raise OptionError("a noise model of your own for a circuit of stim", hint=hint)
    _check_operations(circuit)
    mapping = options.get("qubit_mapping")
    qubits, number, places = model_calls.qubits_of(circuit), -1, tuple[int, ...]()
    if isinstance(mapping, str) and mapping != AUTO:
        number = _draw_number(mapping)
    else:
        pairs = _pairs_of(circuit)
        if isinstance(mapping, str):
            places = _by_coordinates(circuit, qubits, pairs, info)
        else:
            places = _places(mapping, qubits, info)
            _check_pairs(pairs, dict(zip(qubits, places, strict=True)), info)
    place = model_calls.DevicePlacement(qubits, places, number, late_ns, latency_ns)
    return place, {"device": info.name if device else None, "noise": noise}


def _lateness(options: SubmitOptions) -> tuple[float, float]:
    """Return the idle time of each layer, and the time of the decoder for a layer, in ns. Raises
    OptionError."""
    level: Any = options.get("interconnect")
    late_us = options.get("late_us")
    if level is not None and late_us is not None:
        hint = "one of them: late_us is the idle time itself"
        raise OptionError("interconnect= and late_us= together", hint=hint)
    if level is not None and not (isinstance(level, str) and level in INTERCONNECTS_US):
        levels = ", ".join(f"{name} ({us:g} us)" for name, us in INTERCONNECTS_US.items())
        raise OptionError(option="interconnect", value=level, expected=f"one of: {levels}")
    late: Any = 0.0 if late_us is None else late_us
    most_us = 1e-3 * model_calls.MAX_LATE_NS
    is_number = isinstance(late, int | float) and not isinstance(late, bool)
    if not (is_number and 0.0 <= late <= most_us):
        expected = f"microseconds, 0 to {most_us:g}"
        raise OptionError(option="late_us", value=late, expected=expected)
    return 1e3 * late, 0.0 if level is None else 1e3 * INTERCONNECTS_US[level]


def _draw_number(mapping: str) -> int:
    """Return the number of `draw` or `draw:NUMBER`. Raises OptionError."""
    kind, _, number = mapping.partition(":")
    digits = number.isascii() and number.isdigit() and len(number) <= 10
    if kind != DRAW or not (digits or mapping == DRAW):
        hint = f"the device's qubit of each qubit, {AUTO!r}, {DRAW!r}, or '{DRAW}:3': draw number 3"
        raise OptionError(f"qubit_mapping={mapping!r:.60}", hint=hint, option="qubit_mapping")
    return int(number or 0)


def _places(mapping: Any, qubits: tuple[int, ...], info: DeviceInfo) -> tuple[int, ...]:
    """Return the device's qubit of each qubit that the circuit uses. Raises OptionError."""
    if mapping is None:
        raise OptionError(
            f"a circuit of stim on device {info.name} without a place",
            hint=f"qubit_mapping=[...], {AUTO!r}: by its QUBIT_COORDS and the device's coordinates,"
            f" or {DRAW!r}: values drawn from the device's qubits",
            option="qubit_mapping",
        )
    if isinstance(mapping, Mapping):
        missing = [qubit for qubit in qubits if qubit not in mapping]
        if missing:
            hint = "the device's qubit of each qubit that the circuit uses"
            text = f"qubit_mapping has no place for qubit {missing[0]}"
            raise OptionError(text, hint=hint, option="qubit_mapping")
        mapping = [mapping[qubit] for qubit in qubits]
    expected = "a list with the device's qubit of each qubit of the circuit, such as [5, 4, 3]"
    values = checked_list("qubit_mapping", mapping, expected)
    if len(values) != len(qubits):
        if not qubits or len(values) != qubits[-1] + 1:
            raise OptionError(
                f"qubit_mapping has {len(values)} entries; the circuit uses {len(qubits)} qubits",
                hint="one for each of them, in ascending order; or one for each number from 0",
                option="qubit_mapping",
            )
        values = tuple(values[qubit] for qubit in qubits)
    results = tuple(checked_integer("qubit_mapping", each, 0, MAX_QUBITS) for each in values)
    if len(set(results)) < len(results):
        hint = "each qubit of the device once"
        raise OptionError(option="qubit_mapping", value=results, expected=hint)
    beyond = [each for each in results if each >= info.num_qubits]
    if beyond:
        text = f"qubit_mapping names qubit {beyond[0]}; device {info.name} has {info.num_qubits}"
        hint = f"0 to {info.num_qubits - 1}"
        raise OptionError(text, hint=hint, option="qubit_mapping")
    return results


def _check_operations(circuit: Any) -> None:
    """Raise ProgramError for what no device runs: noise of the circuit's own, gates under a
    condition, measurements of several qubits together. Workers refuse the same."""
    import stim

    blocks = [circuit]
    while blocks:
        for item in blocks.pop():
            if item.name == "REPEAT":
                blocks.append(item.body_copy())
                continue
            gate, text = stim.gate_data(item.name), str(item)[:80]
            if gate.is_noisy_gate and (item.gate_args_copy() or not gate.produces_measurements):
                hint = "circuit.without_noise() for the device's noise; device=None for its own"
                raise ProgramError(f"{text}: the circuit has noise of its own", hint=hint)
            if item.name in _JOINT or (gate.produces_measurements and gate.is_two_qubit_gate):
                hint = "an ancilla with gates on pairs, and M; measurements of single qubits"
                raise ProgramError(f"{text} on a device, which has no such operation", hint=hint)
            if gate.is_unitary and any(
                each.is_measurement_record_target or each.is_sweep_bit_target
                for each in item.targets_copy()
            ):
                hint = "correct by the decoder, or by parities in DETECTOR and OBSERVABLE_INCLUDE"
                raise ProgramError(f"{text}: a gate under a condition on a device", hint=hint)


def _pairs_of(circuit: Any) -> _Pairs:
    """Return the pairs of qubits that gates of a stim.Circuit act on."""
    found: set[tuple[int, int]] = set()
    blocks = [circuit]
    while blocks:
        for item in blocks.pop():
            if item.name == "REPEAT":
                blocks.append(item.body_copy())
            elif item.name not in _NO_GATES:
                found.update(
                    (group[0].value, group[1].value)
                    for group in item.target_groups()
                    if len(group) == 2 and all(map(model_calls.is_qubit, group))
                )
    return frozenset(found)


def _check_pairs(pairs: _Pairs, places: Mapping[int, int], info: DeviceInfo) -> None:
    """Raise InfeasibleError for a pair on which no gate of the device works."""
    working = _working(info)
    for pair in sorted(pairs):
        first, second = (places[qubit] for qubit in pair)
        if not (info.all_to_all or {(first, second), (second, first)} & working.keys()):
            raise InfeasibleError(
                f"a gate on qubits {pair[0]}, {pair[1]} of the circuit needs the pair {first},"
                f" {second}, on which device {info.name} has no gate",
                hint=f"another qubit_mapping: simenv devices show {info.name} lists its pairs;"
                f" {AUTO!r}, or {DRAW!r} for couplings that the device lacks",
            )


def _working(info: DeviceInfo) -> dict[tuple[int, int], float]:
    """Return the least error of a gate on two qubits of each pair that has one; 0.0: not known."""
    available = Availability(info)
    results = dict.fromkeys(available.pairs, math.inf)
    for gate in info.gates:
        for place, each in available.places(gate.name).items() if gate.qubits == 2 else ():
            error = 0.0 if each is None or math.isnan(each.error) else each.error
            results[place[0], place[1]] = min(error, results.get((place[0], place[1]), math.inf))
    return {pair: 0.0 if math.isinf(error) else error for pair, error in results.items()}


def _by_coordinates(
    circuit: Any, qubits: tuple[int, ...], pairs: _Pairs, info: DeviceInfo
) -> tuple[int, ...]:
    """Return the places whose coordinates on the device are those of the circuit, shifted alike: of
    all shifts with the pairs of the circuit, the one with the least sum of the errors of pairs and
    readouts. Raises InfeasibleError."""
    where = circuit.get_final_qubit_coordinates()
    if any(len(where.get(qubit, ())) != 2 for qubit in qubits) or not qubits:
        text = "a circuit whose qubits have no two QUBIT_COORDS each"
        raise InfeasibleError(f"qubit_mapping={AUTO!r} of {text}", hint="a list of qubits")
    if not info.coordinates:
        text = f"qubit_mapping={AUTO!r} on device {info.name}, which has no coordinates"
        raise InfeasibleError(text, hint="a list of qubits")
    usable = Availability(info).usable
    sites = {_rounded(info.coordinates[qubit]): qubit for qubit in usable}
    working, best = _working(info), (math.inf, tuple[int, ...]())
    x, y = where[qubits[0]]
    for at_x, at_y in sites:
        shifted = [(where[q][0] + at_x - x, where[q][1] + at_y - y) for q in qubits]
        found = [sites.get(_rounded(each), -1) for each in shifted]
        if min(found) < 0:
            continue
        place = dict(zip(qubits, found, strict=True))
        errors = [
            min(working.get(each, math.inf), working.get(each[::-1], math.inf))
            for each in ((place[first], place[second]) for first, second in pairs)
        ]
        total = sum(errors) + sum(_readout_error(info, qubit) for qubit in found)
        best = min(best, (total, tuple(found)))
    if math.isinf(best[0]):
        raise InfeasibleError(
            f"device {info.name} has no place with the coordinates and pairs of the circuit",
            hint=f"a smaller code, a list of qubits, or {DRAW!r}; superconducting-square has"
            " rotated surface codes up to distance 7",
        )
    return best[1]


def _rounded(point: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(each, _DIGITS) + 0.0 for each in point)


def _readout_error(info: DeviceInfo, qubit: int) -> float:
    error = info.qubits[qubit].readout_error if info.qubits else 0.0
    return 0.0 if math.isnan(error) else error
