"""Noise models from calibration snapshots."""

from __future__ import annotations

import itertools

import msgspec

from noise_models.build.aer_recipe import AerModel
from noise_models.build.device_model import DeviceModel
from noise_models.errors import NoiseError
from noise_models.options import NoiseOptions
from noise_models.snapshot import CalibrationSnapshot, GateCalibration, QubitCalibration, ZZCoupling

_DEFAULT = NoiseOptions()
# Components and values that Aer's recipe lacks.
NOT_AER = (
    "gate.coherent",
    "gate.crosstalk",
    "gate.over_rotation_rad",
    "gate.zz_khz",
    "gate.zz_strength",
    "qubit.correlated_readout",
    "qubit.excited",
    "qubit.preparation",
    "qubit.preparation_error",
    "qubit.reset",
    "qubit.reset_error",
    "qubit.thermal",
)


def build(snapshot: CalibrationSnapshot, options: NoiseOptions = _DEFAULT) -> DeviceModel:
    """Build the noise model of a snapshot. Raises NoiseError for options that the recipe cannot
    apply.

    Recipe `simenv` uses every component that the snapshot has. Recipes `aer` and `aer-properties`
    follow Qiskit Aer's device model.
    """
    if options.values:
        snapshot = _replaced(snapshot, dict(options.values))
    if options.recipe == "simenv":
        return DeviceModel(snapshot, options)
    for name, _ in (*options.factors, *options.values):
        if name in NOT_AER:
            raise NoiseError(
                f"noise option {name} with the recipe {options.recipe}",
                hint="Aer's device model has no such component; use the recipe simenv",
            )
    return AerModel(snapshot, options)


def _replaced(snapshot: CalibrationSnapshot, values: dict[str, float]) -> CalibrationSnapshot:
    """Return the snapshot with the given values set for all qubits, gates or pairs."""
    change = msgspec.structs.replace
    of_qubits = {
        name.removeprefix("qubit."): value
        for name, value in values.items()
        if name.startswith("qubit.")
    }
    qubits = snapshot.qubits or (QubitCalibration(),) * snapshot.num_qubits
    result = change(snapshot, qubits=tuple(change(qubit, **of_qubits) for qubit in qubits))
    if "gate.zz_khz" in values:
        result = change(result, zz=_coupled(snapshot, values["gate.zz_khz"]), zz_strength=1.0)
    if "gate.zz_strength" in values:
        result = change(result, zz_strength=values["gate.zz_strength"])
    of_gates = {name: value for name, value in values.items() if name in _OF_GATES}
    if of_gates:
        sizes = {gate.name: gate.num_qubits for gate in snapshot.native_gates}
        gates = tuple(_replaced_gate(gate, sizes, of_gates) for gate in snapshot.gates)
        if all(new is old for new, old in zip(gates, snapshot.gates, strict=True)):
            raise NoiseError(
                f"noise option {min(of_gates)}: device {snapshot.name} has no such gate with noise",
                hint="leave it out, or use a custom noise model",
            )
        result = change(result, gates=gates)
    return result


_OF_GATES = ("gate.error_1q", "gate.error_2q", "gate.over_rotation_rad")


def _coupled(snapshot: CalibrationSnapshot, rate_khz: float) -> tuple[ZZCoupling, ...]:
    """Return the same ZZ interaction for every coupled pair."""
    pairs = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if snapshot.all_to_all:
        pairs |= set(itertools.combinations(range(snapshot.num_qubits), 2))
    return tuple(ZZCoupling(pair, rate_khz) for pair in sorted(pairs))


def _replaced_gate(
    gate: GateCalibration, sizes: dict[str, int], values: dict[str, float]
) -> GateCalibration:
    if not gate.error and not gate.duration_ns:
        return gate  # a virtual gate (change of frame): no noise
    size = len(gate.qubits) or sizes.get(gate.name, 0)
    changes = {
        field: values[name]
        for field, name in (
            ("error", f"gate.error_{size}q"),
            ("over_rotation_rad", "gate.over_rotation_rad"),
        )
        if name in values
    }
    return msgspec.structs.replace(gate, **changes) if changes else gate
