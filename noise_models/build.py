"""Noise models from calibration snapshots and options."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from noise_models import calibration
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCrosstalk,
    QubitCalibration,
)
from noise_models.device_model import JUMPS, AerModel, DeviceModel
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError

_DEFAULT = NoiseOptions()
# Components and values that Aer's recipe lacks.
NOT_AER = (
    *("gate.coherent", "gate.crosstalk", "gate.over_rotation_rad", "gate.zz_khz"),
    *("gate.zz_angle_rad", "gate.iz_angle_rad"),
    *("gate.leakage", "gate.leakage_1q", "gate.leakage_2q", "gate.seepage", "qubit.leaked_readout"),
    "qubit.leaked_t1_us",
    *("gate.zz_strength", "qubit.correlated_readout", "qubit.excited", "qubit.preparation"),
    *("qubit.memory", "qubit.memory_error", "qubit.measurement", "qubit.measure_decay"),
    *("qubit.measure_excitation", "qubit.measurement_crosstalk"),
    *("qubit.measurement_crosstalk_error", "qubit.readout_decided"),
    *("gate.layer", JUMPS),
    *("qubit.preparation_error", "qubit.quasistatic", "qubit.reset", "qubit.reset_error"),
    *("qubit.t2_star_us", "qubit.thermal"),
)


def build(snapshot: CalibrationSnapshot, options: NoiseOptions = _DEFAULT) -> DeviceModel:
    """Build the noise model of a snapshot. Raises NoiseError for options that the recipe cannot
    apply. Recipe `simenv` uses every component that the snapshot has. Recipes `aer` and
    `aer-properties` follow Qiskit Aer's device model; factor 0 of a component that it lacks changes
    nothing, and that of jumps changes T1."""
    if options.values:
        snapshot = _replaced(snapshot, dict(options.values))
    if options.recipe == "simenv":
        return DeviceModel(snapshot, options)
    scaled = (name for name, factor in options.factors if factor and name != JUMPS)
    for name in (*scaled, *dict(options.values)):
        if name in NOT_AER:
            hint = "Aer's device model has no such component; use the recipe simenv"
            raise NoiseError(f"noise option {name} with the recipe {options.recipe}", hint=hint)
    return AerModel(snapshot, options)


def _replaced(snapshot: CalibrationSnapshot, values: dict[str, float]) -> CalibrationSnapshot:
    """Return the snapshot with the given values set for all qubits, gates or pairs."""
    change = msgspec.structs.replace
    of_qubits = {
        name.removeprefix("qubit."): value
        for name, value in values.items()
        if name.startswith("qubit.") and name != _DISTURBED
    }
    qubits = snapshot.qubits or (QubitCalibration(),) * snapshot.num_qubits
    result = change(snapshot, qubits=tuple(change(qubit, **of_qubits) for qubit in qubits))
    if not of_qubits.keys().isdisjoint(("p01", "p10")):  # of every measurement
        same = tuple(change(each, error=None) for each in snapshot.measurements)
        result = change(result, measurements=same)
    if _DISTURBED in values:
        term = MeasurementCrosstalk((), values[_DISTURBED])
        result = change(result, measurement_crosstalk=(term,))
    if "gate.zz_khz" in values:
        result = change(result, zz=_coupled(snapshot, values["gate.zz_khz"]), zz_strength=1.0)
    if "gate.zz_strength" in values:
        result = change(result, zz_strength=values["gate.zz_strength"])
    of_gates = {name: value for name, value in values.items() if name in _OF_GATES}
    if of_gates:
        sizes = {gate.name: gate.num_qubits for gate in snapshot.all_gates}
        linked = snapshot.linked  # the gate that makes a link's pair is none of a device's gates
        gates = tuple(
            gate if frozenset(gate.qubits) in linked else _replaced_gate(gate, sizes, of_gates)
            for gate in snapshot.gates
        )
        if all(new is old for new, old in zip(gates, snapshot.gates, strict=True)):
            raise NoiseError(
                f"noise option {min(of_gates)}: device {snapshot.name} has no such gate with noise",
                hint="leave it out, or use a custom noise model",
            )
        result = change(result, gates=gates)
    if not _OF_LAYERS.isdisjoint(values):  # of every gate, whatever acts at the same time
        result = change(result, layers=())
    return result


_DISTURBED = "qubit.measurement_crosstalk_error"
_OF_GATES = (
    *("gate.error_1q", "gate.error_2q", "gate.over_rotation_rad"),
    *("gate.leakage_1q", "gate.leakage_2q", "gate.seepage"),
    *("gate.zz_angle_rad", "gate.iz_angle_rad"),
)
_OF_PAIRS = {"gate.zz_angle_rad": "ZZ", "gate.iz_angle_rad": "IZ"}
_OF_LAYERS = frozenset(("gate.error_2q", "gate.over_rotation_rad", *_OF_PAIRS))


def _coupled(snapshot: CalibrationSnapshot, rate_khz: float) -> tuple[calibration.ZZCoupling, ...]:
    """Return the same ZZ interaction for every coupled pair."""
    pairs = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if snapshot.all_to_all:
        pairs |= set(itertools.combinations(range(snapshot.num_qubits), 2))
    return tuple(calibration.ZZCoupling(pair, rate_khz) for pair in sorted(pairs))


def _replaced_gate(
    gate: GateCalibration, sizes: dict[str, int], values: dict[str, float]
) -> GateCalibration:
    if not gate.error and not gate.duration_ns:
        return gate  # a virtual gate (change of frame): no noise
    size = len(gate.qubits) or sizes.get(gate.name, 0)
    changes: dict[str, Any] = {
        field: values[name]
        for field, name in (
            ("error", f"gate.error_{size}q"),
            ("over_rotation_rad", "gate.over_rotation_rad"),
            ("leakage", f"gate.leakage_{size}q"),
            ("seepage", "gate.seepage"),
        )
        if name in values
    }
    if "error" in changes:
        changes["paulis"] = ()  # a depolarizing error in their place
    angles = {name: values[key] for key, name in _OF_PAIRS.items() if key in values}
    if size == 2 and angles:
        turns = [calibration.PauliRotation(*each) for each in angles.items() if each[1]]
        others = [each for each in gate.rotations if each.pauli not in angles]
        changes["rotations"] = (*others, *turns)
    return msgspec.structs.replace(gate, **changes) if changes else gate
