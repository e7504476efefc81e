"""Calibration snapshots for tests."""

from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
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
