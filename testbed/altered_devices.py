"""Devices that differ from a calibration in one kind of value each: what certificates must name.

Each alteration takes the calibration, and qubits (a, b, c) of two coupled pairs a-b and b-c; it
returns the device, with the quantities and qubits of which one must be named.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from noise_models import calibration as cal

Line = tuple[int, int, int]
Named = set[tuple[str, tuple[int, ...]]]
Altered = tuple[cal.CalibrationSnapshot, Named]
Alteration = Callable[[cal.CalibrationSnapshot, Line], Altered]
_replace = msgspec.structs.replace


def _qubit(
    claims: cal.CalibrationSnapshot, qubit: int, **values: object
) -> cal.CalibrationSnapshot:
    qubits = list(claims.qubits)
    qubits[qubit] = _replace(qubits[qubit], **values)
    return _replace(claims, qubits=tuple(qubits))


def _gate(
    claims: cal.CalibrationSnapshot,
    name: str,
    qubits: tuple[int, ...],
    change: Callable[[cal.GateCalibration], cal.GateCalibration],
) -> cal.CalibrationSnapshot:
    gates = tuple(
        change(gate) if gate.name == name and set(gate.qubits) == set(qubits) else gate
        for gate in claims.gates
    )
    assert gates != claims.gates
    return _replace(claims, gates=gates)


def _pair_gate(claims: cal.CalibrationSnapshot) -> str:
    return next(gate.name for gate in claims.native_gates if gate.num_qubits == 2)


def _coherent(
    name: str, qubits: tuple[int, ...], pauli: str, angle: float, named: Named
) -> Alteration:
    def altered(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
        gate = name or _pair_gate(claims)
        places = tuple(line[k] for k in qubits)
        turn = cal.PauliRotation(pauli, angle)
        found = {(quantity, tuple(line[k] for k in place)) for quantity, place in named}
        changed = _gate(
            claims, gate, places, lambda each: _replace(each, rotations=(*each.rotations, turn))
        )
        return changed, found

    return altered


def _of_qubit(quantity: str, **factors: float) -> Alteration:
    """Alter values of the first qubit: `x_` factors, others absolute."""

    def altered(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
        qubit, values = claims.qubits[line[0]], dict[str, object]()
        for name, value in factors.items():
            if name.startswith("x_"):
                values[name[2:]] = value * (getattr(qubit, name[2:]) or 0.0)
            elif name.startswith("add_"):
                values[name[4:]] = value + (getattr(qubit, name[4:]) or 0.0)
            else:
                values[name] = value
        if "p01" in values or "p10" in values:
            values["readout_error"] = None
        return _qubit(claims, line[0], **values), {(quantity, (line[0],))}

    return altered


def _of_gate(quantity: str, name: str, places: tuple[int, ...], **factors: float) -> Alteration:
    def altered(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
        qubits = tuple(line[k] for k in places)

        def change(gate: cal.GateCalibration) -> cal.GateCalibration:
            values = {field: factor * (getattr(gate, field) or 0.0)
                      for field, factor in factors.items()}  # fmt: skip
            return _replace(gate, **values)

        changed = _gate(claims, name or _pair_gate(claims), qubits, change)
        return changed, {(quantity, qubits)}

    return altered


def _zz(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
    pair = (min(line[:2]), max(line[:2]))
    others = tuple(each for each in claims.zz if tuple(sorted(each.qubits)) != pair)
    rate = claims.acting_zz_khz.get(pair, 0.0) + 25.0
    return _replace(claims, zz=(*others, cal.ZZCoupling(pair, rate)), zz_strength=1.0), {
        ("zz_khz", pair), ("zz_khz", pair[::-1])
    }  # fmt: skip


def _populated(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
    changed = _qubit(claims, line[0], preparation_error=0.05)
    return changed, {("preparation_error", (line[0],)), ("p01", (line[0],))}


def _exchanged(claims: cal.CalibrationSnapshot, line: Line) -> Altered:
    """Qubits a and c with their values exchanged."""
    qubits = list(claims.qubits)
    qubits[line[0]], qubits[line[2]] = qubits[line[2]], qubits[line[0]]
    return _replace(claims, qubits=tuple(qubits)), {
        (quantity, (line[k],)) for quantity in ("t1_us", "t2_us", "p01", "p10") for k in (0, 2)
    }


_ZZ_ANGLE: Named = {("zz_angle_rad", (0, 1))}
_Z_ANGLE: Named = {("z_angle_rad", (0, 1)), ("z_angle_rad", (1, 0))}
KINDS: dict[str, Alteration] = {
    "a pair 25 % worse": _of_gate("error_2q", "", (0, 1), error=1.25),
    "a pair at half its error": _of_gate("error_2q", "", (0, 1), error=0.5),
    "T1 15 % shorter": _of_qubit("t1_us", x_t1_us=0.85),
    "T1 40 % longer": _of_qubit("t1_us", x_t1_us=1.4),
    "T2 20 % shorter": _of_qubit("t2_us", x_t2_us=0.8),
    "T2* a third of T2": _of_qubit("t2_ramsey_us", t2_star_us=15.0),
    "p10 3 points more": _of_qubit("p10", add_p10=0.03),
    "p01 3 points more": _of_qubit("p01", add_p01=0.03),
    "sx twice the error": _of_gate("error_1q", "sx", (0,), error=2.0),
    "x three times the error": _of_gate("error_half", "x", (0,), error=3.0),
    "25 kHz more ZZ": _zz,
    "preparation 5 % in 1": _populated,
    "two qubits exchanged": _exchanged,
    "cz turns about ZZ": _coherent("", (0, 1), "ZZ", 0.06, _ZZ_ANGLE),
    "cz turns about ZI": _coherent("", (0, 1), "ZI", 0.06, _Z_ANGLE),
    "sx turns too far": _coherent("sx", (0,), "X", 0.05, {("turn_angle_rad", (0,))}),
    "reset leaves 5 % in 1": _of_qubit("reset_error", reset_error=0.05),
    "cz three times as long": _of_gate("gate_time_ns", "", (0, 1), duration_ns=3.0),
}
