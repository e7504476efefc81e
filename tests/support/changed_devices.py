"""Calibrations with other values at some qubits or gates."""

from collections.abc import Callable

from msgspec.structs import replace

from noise_models.calibration import CalibrationSnapshot, GateCalibration


def changed_qubit(device: CalibrationSnapshot, number: int, **values: float) -> CalibrationSnapshot:
    qubits = list(device.qubits)
    qubits[number] = replace(qubits[number], **values)
    return replace(device, qubits=tuple(qubits))


def scaled_errors(
    device: CalibrationSnapshot,
    factor: float,
    which: Callable[[GateCalibration], object] = lambda gate: True,
) -> CalibrationSnapshot:
    """With errors of gates times the factor."""
    gates = (
        replace(gate, error=factor * gate.error) if gate.error and which(gate) else gate
        for gate in device.gates
    )
    return replace(device, gates=tuple(gates))
