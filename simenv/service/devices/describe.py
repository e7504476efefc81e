"""Conversion of a calibration snapshot to a DeviceInfo, for compilation and for hosts. Pure."""

from __future__ import annotations

from noise_models.calibration import CalibrationSnapshot, QubitCalibration
from simenv.model import MAX_SHOTS, GateInfo
from simenv.model.devices import (
    UNKNOWN,
    DeviceInfo,
    DeviceKind,
    OperationInfo,
    QubitInfo,
    wall_clock_s,
)

PROVIDER = "simenv"


def device_info(name: str, snapshot: CalibrationSnapshot, digest: str) -> DeviceInfo:
    """Return the device `name` with the figures of a snapshot; `digest`: that of the snapshot, in
    hexadecimal.

    An operation without qubits applies to every set of qubits without an operation of its own.
    """
    operations = [
        OperationInfo(
            gate.name,
            gate.qubits,
            _value_or_unknown(gate.error),
            _value_or_unknown(gate.duration_ns),
        )
        for gate in snapshot.gates
    ]
    measured = {each.name for each in operations}
    for number, qubit in enumerate(snapshot.qubits):
        if "measure" not in measured:
            error = _readout_error(qubit)
            operations.append(
                OperationInfo("measure", (number,), error, _value_or_unknown(qubit.readout_ns))
            )
        if snapshot.dynamic and "reset" not in measured:
            operations.append(
                OperationInfo(
                    "reset",
                    (number,),
                    _value_or_unknown(qubit.reset_error),
                    _value_or_unknown(qubit.reset_ns),
                )
            )
    return DeviceInfo(
        name=name,
        kind=DeviceKind.EMULATED,
        provider=snapshot.provider or PROVIDER,
        model=snapshot.name or name,
        version=snapshot.version,
        technology=snapshot.technology or "simulator",
        num_qubits=snapshot.num_qubits,
        max_shots=snapshot.max_shots or MAX_SHOTS,
        gates=tuple(
            GateInfo(gate.name, gate.num_qubits, gate.num_params) for gate in snapshot.native_gates
        ),
        all_to_all=snapshot.all_to_all,
        directed=bool(snapshot.coupling)
        and not {(b, a) for a, b in snapshot.coupling} <= set(snapshot.coupling),
        coupling=snapshot.coupling,
        operations=tuple(operations),
        qubits=tuple(map(_qubit_info, snapshot.qubits)),
        dynamic=snapshot.dynamic,
        calibration_id=digest,
        calibrated_s=wall_clock_s(snapshot.calibrated),
        dt_ns=snapshot.dt_ns or UNKNOWN,
    )


def _qubit_info(qubit: QubitCalibration) -> QubitInfo:
    return QubitInfo(
        t1_us=_value_or_unknown(qubit.t1_us),
        t2_us=_value_or_unknown(qubit.t2_us),
        frequency_ghz=_value_or_unknown(qubit.frequency_ghz),
        readout_error=_readout_error(qubit),
        readout_ns=_value_or_unknown(qubit.readout_ns),
    )


def _readout_error(qubit: QubitCalibration) -> float:
    """Return the readout error, or the mean of p01 and p10 if only these were measured."""
    if qubit.readout_error is not None or qubit.p01 is None or qubit.p10 is None:
        return _value_or_unknown(qubit.readout_error)
    return (qubit.p01 + qubit.p10) / 2.0


def _value_or_unknown(value: float | None) -> float:
    return UNKNOWN if value is None else value
