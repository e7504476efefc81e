"""A device of two qubits with round durations."""

from qiskit import QuantumCircuit

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    QubitCalibration,
)

QUBIT = QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.02, readout_ns=1_000.0)
CHIP = CalibrationSnapshot(
    name="chip", num_qubits=2, calibrated="2026-01-01T00:00:00Z", dynamic=True,
    feed_forward_ns=700.0,
    native_gates=(NativeGate("x", 1), NativeGate("sx", 1), NativeGate("rz", 1, 1)), all_to_all=True,
    qubits=(QUBIT, QUBIT),
    gates=(GateCalibration("x", (), 0.001, 40.0), GateCalibration("sx", (), 0.001, 30.0)),
    rep_delay_ns=4_000.0, overhead_ns=50_000.0,
)  # fmt: skip


def flip() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    return circuit
