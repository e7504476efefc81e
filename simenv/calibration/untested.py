"""Claimed terms of a device's noise that no experiment has measured, each with the reason.

`QUANTITIES` names the quantities by which each component of the noise model is measured. A term
that a snapshot claims for qubits and pairs under test has estimates of these, or is in `untested`:
none is left out without a word.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import msgspec

from noise_models.calibration import CalibrationSnapshot, GateCalibration, QubitCalibration
from noise_models.gate_errors import coherent_error
from simenv.calibration.experiments import amplification, layers
from simenv.calibration.experiments.clifford import NativeSet
from simenv.calibration.experiments.estimators import (
    POPULATIONS,
    RELAXATIONS,
    Estimate,
    Place,
    subsets,
)

QUANTITIES = {
    "gate.depolarizing": ("error_1q", "error_half", "error_2q"),
    "gate.coherent": ("zz_angle_rad", "z_angle_rad", "turn_angle_rad", "axis_angle_rad"),
    "gate.layer": (layers.QUANTITY,),
    "gate.crosstalk": ("zz_khz",),
    "gate.leakage": ("leakage", "seepage", "leakage_2q", "seepage_2q"),
    "link.pair": ("pair_error",),
    "link.wait": ("link_wait_ns",),
    "qubit.relaxation": ("t1_us", "t2_us"),
    "qubit.t1_jumps": ("t1_us", "t1_jumps"),
    "qubit.idle": ("t1_us", "t2_us"),
    "qubit.quasistatic": ("t2_ramsey_us",),
    "qubit.memory": ("memory_error",),
    "qubit.measurement": ("measure_decay", "measure_excitation", "readout_decided"),
    "qubit.measurement_crosstalk": ("measurement_crosstalk", "measurement_angle_rad"),
    "qubit.thermal": ("excited",),
    "qubit.preparation": ("preparation_error",),
    "qubit.reset": ("reset_error",),
    "qubit.readout": ("p01", "p10"),
    "qubit.correlated_readout": ("joint_flip",),
}
WIDEST_GROUP = 6  # qubits that are read together: a circuit for each basis state
NO_EQUILIBRIUM = (
    "no delay is as long as five times T1, so that no circuit comes near the equilibrium"
)
_SMALL_PART = 0.1  # of a gate's error
_STATIC = "the device has no measurements inside circuits"


class UntestedTerm(msgspec.Struct, frozen=True):
    """A claimed value that was not measured. `by_parts`: it acts nowhere, or measured quantities
    contain it."""

    component: str  # of the noise model
    quantity: str
    qubits: Place  # (): of the device
    claimed: float
    reason: str
    by_parts: bool = False
    gate: str = ""


def untested(
    snapshot: CalibrationSnapshot,
    gates: NativeSet,
    estimates: Collection[Estimate],
    tested: tuple[Collection[int], Collection[Place]],
    longest_us: float,
) -> list[UntestedTerm]:
    """Claimed terms of qubits and pairs under test (`tested`) without an estimate. `longest_us`:
    the longest delay of the experiments."""
    found = {(each.quantity, each.qubits) for each in estimates}
    qubits, pairs = set(tested[0]), {tuple(sorted(pair)) for pair in tested[1]}
    terms = [
        *(
            term
            for number, qubit in enumerate(snapshot.qubits)
            if number in qubits
            for term in _of_qubit(number, qubit, longest_us)
        ),
        *_of_gates(snapshot, gates, qubits, pairs),
        *_together(snapshot, qubits, pairs),
    ]
    left = [each for each in terms if (each.quantity, each.qubits) not in found]
    return [*left, *_of_layers(snapshot, estimates, qubits)]


def blind(gates: NativeSet, untimed: Collection[Place], *, dynamic: bool) -> tuple[str, ...]:
    """Return what no circuit of the experiments shows, whatever a snapshot claims. `untimed`: gates
    whose durations no waiting qubit shows."""
    results = []
    if gates.half is not None:
        results.append(f"phases of {gates.half.name}: its rotations about Y and Z")
    if gates.entangler is not None:
        name = gates.entangler.name
        if amplification.sequences(gates.entangler):
            results.append(
                f"rotations of {name} about other axes than Z and ZZ, but as part of its error"
            )
        else:
            results.append(f"rotations of {name}, but as part of its error")
    if untimed:
        places = ", ".join("-".join(map(str, place)) for place in sorted(untimed))
        results.append(f"durations of gates on {places}: no qubit that relaxes waits for them")
    if not dynamic:
        results.append("resets and what measurements do to a qubit: none inside circuits")
    results += [
        "errors of gates of other qubits at the same time, but by the ZZ rates and layers claimed",
        "drift during the experiments, and errors that depend on earlier shots",
    ]
    return tuple(results)


def _of_qubit(number: int, qubit: QubitCalibration, longest_us: float) -> Iterator[UntestedTerm]:
    place = (number,)
    if qubit.memory_error:
        small = qubit.memory_error < 1e-4
        text = "it is below what the experiment resolves" if small else "no other pair has gates"
        yield UntestedTerm("qubit.memory", "memory_error", place, qubit.memory_error, text, small)
    for name in ("measure_decay", "measure_excitation"):
        if value := getattr(qubit, name):
            yield UntestedTerm("qubit.measurement", name, place, value, _STATIC, by_parts=True)
    if qubit.readout_decided:
        text = "no experiment tells when a readout is decided"
        value = qubit.readout_decided
        yield UntestedTerm("qubit.measurement", "readout_decided", place, value, text)
    contained = f"{_STATIC}, and readout of 0 as 1 contains it"
    for name, component in zip(
        POPULATIONS, ("qubit.preparation", "qubit.reset", "qubit.thermal"), strict=True
    ):
        value = getattr(qubit, name)
        if not value:
            continue
        text, by_parts = contained, True
        if name == "reset_error":
            text = f"{_STATIC}, and no resets"
        elif name == "excited" and RELAXATIONS * (qubit.t1_us or math.inf) > longest_us:
            text = NO_EQUILIBRIUM
        elif name == "excited" and qubit.preparation_error is not None:
            text, by_parts = f"{_STATIC}, which tell it from errors of readout", False
        yield UntestedTerm(component, name, place, value, text, by_parts)
    if qubit.t1_jumps is not None:
        text = "times of jumps take hours to measure; the T1 in force is measured"
        value = qubit.t1_jumps.per_hour
        yield UntestedTerm("qubit.t1_jumps", "t1_jumps", place, value, text, by_parts=True)


def _of_gates(
    snapshot: CalibrationSnapshot,
    gates: NativeSet,
    qubits: Collection[int],
    pairs: Collection[Place],
) -> Iterator[UntestedTerm]:
    """Errors of gates that the experiments do not use, and rotations that they do not measure."""
    operations = [each for each in (gates.quarter, gates.half, gates.entangler) if each is not None]
    used = {each.name for each in operations}
    sizes = {each.name: each.num_qubits for each in snapshot.all_gates}
    others: dict[str, float] = {}
    for gate in snapshot.gates:
        size = len(gate.qubits) or sizes.get(gate.name, 0)
        place = tuple(sorted(gate.qubits))
        if place and not ((len(place) == 1 and place[0] in qubits) or place in pairs):
            continue
        if gate.name not in used:
            if gate.name in sizes and gate.error and gate.error < 1.0:
                others[gate.name] = max(gate.error, others.get(gate.name, 0.0))
            continue
        angle = max((abs(each) for each in _unmeasured_angles(gate, gates, size)), default=0.0)
        coherent = coherent_error(gate, size)
        if angle and coherent is not None:
            small = size == 1 or coherent.infidelity <= _SMALL_PART * (gate.error or 0.0)
            text = "no experiment measures this angle"
            if small:
                text += "; the measured error of the gate contains it"
            yield UntestedTerm(
                "gate.coherent", "over_rotation_rad", place, angle, text, small, gate.name,
            )  # fmt: skip
    for name, error in sorted(others.items()):
        text = f"the experiments use {', '.join(sorted(used))}"
        yield UntestedTerm(
            "gate.depolarizing", "error_other", (), error, text, by_parts=True, gate=name
        )


def _unmeasured_angles(gate: GateCalibration, gates: NativeSet, size: int) -> Iterator[float]:
    """Angles of a gate about axes of which no experiment sees the sum."""
    summed = (
        size == 2
        and gates.entangler is not None
        and gate.name == gates.entangler.name
        and bool(amplification.sequences(gates.entangler))
    )
    turned = size == 1 and gate.name in {
        each.name for each in (gates.quarter, gates.half) if each is not None
    }
    seen = set("XYZ") if turned and gate.name == gates.quarter.name else set("X" * turned)
    is_seen = turned or (summed and gate.name in amplification.DIAGONAL)
    if gate.over_rotation_rad and not is_seen:
        yield gate.over_rotation_rad
    for each in gate.rotations:
        if not (each.pauli in seen or (summed and set(each.pauli) <= set("IZ"))):
            yield each.angle_rad


def _together(
    snapshot: CalibrationSnapshot, qubits: Collection[int], pairs: Collection[Place]
) -> Iterator[UntestedTerm]:
    """Terms of several qubits: crosstalk, links and correlated readout."""
    for pair, rate in snapshot.acting_zz_khz.items():
        if set(pair) <= set(qubits) and pair not in pairs:
            yield UntestedTerm(
                "gate.crosstalk", "zz_khz", pair, rate, "no gate of the experiments is on the pair"
            )
    for link in snapshot.links:
        if set(link.pair) <= set(qubits):
            place = tuple(sorted(link.pair))
            text = "the pair was not measured"
            if link.infidelity:
                yield UntestedTerm("link.pair", "pair_error", place, link.infidelity, text)
            if link.rate_hz:
                text = "no experiment sees when a pair is heralded"
                yield UntestedTerm("link.wait", "link_wait_ns", place, link.mean_wait_ns, text)
    for group in snapshot.correlated_readout:
        if set(group.qubits) <= set(qubits) and len(group.qubits) > 1:
            text = f"groups of more than {WIDEST_GROUP} qubits have too many basis states"
            for place in list(subsets(group.qubits).values())[-1:]:
                yield UntestedTerm("qubit.correlated_readout", "joint_flip", place, 0.0, text)
    for term in snapshot.measurement_crosstalk:
        if not set(term.qubits) <= set(qubits) or not (term.error or term.angle_rad):
            continue
        text, by_parts = "it is below what the experiment resolves", True
        if not snapshot.dynamic:
            text = _STATIC
        elif not term.qubits:
            continue  # each qubit under test is measured beside another
        value = term.error or abs(term.angle_rad or 0.0)
        yield UntestedTerm(
            "qubit.measurement_crosstalk", "measurement_crosstalk", term.qubits, value, text,
            by_parts,
        )  # fmt: skip


def _of_layers(
    snapshot: CalibrationSnapshot, estimates: Collection[Estimate], qubits: Collection[int]
) -> Iterator[UntestedTerm]:
    measured = {
        each.gate.partition(" in ")[2] for each in estimates if each.quantity == layers.QUANTITY
    }
    for layer in snapshot.layers:
        name = layers.title(layer)
        if name not in measured and layer.generators and set(layer.qubits) <= set(qubits):
            text = "its gates are not all the entangling gate under test, or not their own inverse"
            place = tuple(sorted(layer.qubits))
            yield UntestedTerm("gate.layer", layers.QUANTITY, place, layer.error, text, gate=name)
