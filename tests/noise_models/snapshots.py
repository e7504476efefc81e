"""Calibration snapshots for tests."""

from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    Link,
    Module,
    NativeGate,
    PauliError,
    QubitCalibration,
    ZZCoupling,
)


def transmons() -> CalibrationSnapshot:
    """Three qubits in a row with every property that a snapshot can have."""
    qubits = tuple(
        QubitCalibration(
            t1_us=t1_us, t2_us=t2_us, p01=0.01, p10=0.03, readout_error=0.02, readout_ns=800.0,
            excited=0.02, reset_error=0.005, reset_ns=900.0, preparation_error=0.004,
        )
        for t1_us, t2_us in ((100.0, 120.0), (80.0, 170.0), (60.0, 30.0))
    )  # fmt: skip
    gates = (
        *(GateCalibration("rz", (q,), 0.0, 0.0) for q in range(3)),
        *(GateCalibration("sx", (q,), 8e-4, 40.0, 0.01) for q in range(3)),
        GateCalibration("cz", (0, 1), 9e-3, 300.0, 0.02),
        GateCalibration("cz", (1, 2), 1e-3, 300.0),  # less than relaxation alone
        GateCalibration("cx", (0, 1), 2e-2, 400.0, 0.05),
    )
    together = ((0.96, 0.02, 0.03, 0.0), (0.02, 0.95, 0.0, 0.03))
    together += ((0.01, 0.01, 0.95, 0.05), (0.01, 0.02, 0.02, 0.92))
    return CalibrationSnapshot(
        name="transmons",
        num_qubits=3,
        technology="superconducting",
        dt_ns=0.5,
        native_gates=(NativeGate("rz", 1, 1), NativeGate("sx", 1), NativeGate("cz", 2)),
        coupling=((0, 1), (1, 2)),
        qubits=qubits,
        gates=gates,
        zz=(ZZCoupling((1, 0), 40.0),),
        correlated_readout=(CorrelatedReadout((0, 1), together),),
    )


def linked() -> CalibrationSnapshot:
    """Two modules of three qubits in a row, with a link between two communication qubits."""
    biased = (PauliError("ZI", 0.006), PauliError("ZZ", 0.004))
    gates = [GateCalibration("sx", (), 1e-3, 40.0), GateCalibration("rz", (), 0.0, 0.0)]
    gates += [
        GateCalibration("cz", pair, duration_ns=300.0, paulis=biased)
        for pair in ((0, 1), (1, 2), (3, 4), (4, 5))
    ]
    gates.append(GateCalibration("rxx", (1, 3), 0.05, 0.0))
    return CalibrationSnapshot(
        name="duo",
        num_qubits=6,
        dynamic=True,
        feed_forward_ns=500.0,
        native_gates=(
            NativeGate("rz", 1, 1),
            NativeGate("sx", 1),
            NativeGate("cz", 2),
            NativeGate("rxx", 2, 1),
        ),
        coupling=((0, 1), (1, 2), (3, 4), (4, 5), (1, 3)),
        qubits=(QubitCalibration(t1_us=2e3, t2_us=1e3, readout_ns=800.0),) * 6,
        gates=tuple(gates),
        modules=(
            Module("a", (0, 1, 2), (1,), "0a" * 32),
            Module("b", (3, 4, 5), (3,), "0b" * 32),
        ),
        links=(
            Link(
                (1, 3),
                fidelity=0.95,
                rate_hz=1e4,
                herald_ns=1e3,
                latency_ns=5e3,
                attempts_max=10**6,
            ),
        ),
    )
