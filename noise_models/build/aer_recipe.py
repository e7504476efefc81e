"""Noise model of Qiskit Aer's `NoiseModel.from_backend`, value by value (qiskit-aer 0.18).

The recipe has depolarizing noise and then relaxation after every gate, and readout errors. It has
no coherent errors, crosstalk, thermal population, preparation errors or reset errors. A reset
relaxes its qubit for its duration. A calibrated gate with its qubits in another order has no noise.
Idle noise is that of Aer's RelaxationNoisePass on the delays of a scheduled circuit.
"""

from __future__ import annotations

import msgspec

from noise_models.build.device_model import DeviceModel
from noise_models.channel import Channel
from noise_models.options import NoiseOptions
from noise_models.snapshot import CalibrationSnapshot, GateCalibration, QubitCalibration


class AerModel(DeviceModel):
    """Noise of a device by the recipes `aer` and `aer-properties`.

    Recipe `aer` reads 0 and 1 wrongly with the same probability `readout_error`, as `from_backend`
    does; `aer-properties` has p01 and p10, as `from_backend_properties` does.
    """

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        super().__init__(reduced(snapshot, symmetric=options.recipe == "aer"), options)

    def after_reset(self, qubit: int) -> Channel | None:
        """Relaxation over the duration of the reset."""
        duration = self.duration_ns("reset", (qubit,))
        return self._relax(qubit, duration * self.options.factor("qubit.relaxation"))

    def calibration(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Return the calibration of the gate on these qubits, or else of the gate on all qubits."""
        return self._gates.get((name, qubits)) or self._gates.get((name, ()))


def reduced(snapshot: CalibrationSnapshot, *, symmetric: bool) -> CalibrationSnapshot:
    """Remove the values that Aer does not read from a snapshot. `symmetric`: 0 and 1 are read
    wrongly with the same probability."""
    change = msgspec.structs.replace
    return change(
        snapshot,
        qubits=tuple(_qubit(qubit, symmetric) for qubit in snapshot.qubits),
        gates=tuple(
            change(gate, over_rotation_rad=None, rotations=())
            if gate.over_rotation_rad is not None or gate.rotations
            else gate
            for gate in snapshot.gates
        ),
        zz=(),
        correlated_readout=(),
    )


def _qubit(qubit: QubitCalibration, symmetric: bool) -> QubitCalibration:
    p01, p10, mean = qubit.p01, qubit.p10, qubit.readout_error
    if symmetric:
        if mean is None and qubit.confusion is not None:
            mean = sum(qubit.confusion) / 2.0
        p01 = p10 = mean
    return msgspec.structs.replace(
        qubit, p01=p01, p10=p10, excited=None, preparation_error=None, reset_error=None
    )
