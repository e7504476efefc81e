"""Claims of a calibration snapshot, as the experiments see them."""

from __future__ import annotations

from noise_models.calibration import CalibrationSnapshot, GateCalibration, QubitCalibration
from simenv.calibration.experiments.estimators.estimates import Estimate

_TIMES = {"t1_us": "t1_us", "t2_us": "t2_limited_us", "t2_ramsey_us": "t2_limited_us"}
_ERRORS = ("error_1q", "error_half", "error_1q_simultaneous", "error_2q")


class Claims:
    """Values of one snapshot by quantity and qubits."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self.snapshot = snapshot
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self._qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self._gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}
        self._zz = {tuple(sorted(zz.qubits)): zz.rate_khz for zz in snapshot.zz}

    def value(self, estimate: Estimate) -> float | None:
        """Claimed value of what was estimated; None: the snapshot has none.

        Readout probabilities contain the claimed preparation error, which counts of one measurement
        cannot tell from it.
        """
        quantity, qubit = estimate.quantity, self._qubits[estimate.qubits[0]]
        if quantity in _TIMES:
            found = getattr(qubit, _TIMES[quantity])
            return None if found is None else float(found)
        if quantity in ("p01", "p10"):
            return _read(qubit, quantity)
        if quantity in _ERRORS:
            places = estimate.qubits if quantity == "error_2q" else estimate.qubits[:1]
            gate = self.gate(estimate.gate, places)
            return None if gate is None else gate.error
        if quantity == "zz_khz":
            return self._zz.get(tuple(sorted(estimate.qubits)), 0.0)
        return None

    def gate(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Calibration of a gate on these qubits, in either order, or on all."""
        gates = self._gates
        return gates.get((name, qubits)) or gates.get((name, qubits[::-1])) or gates.get((name, ()))


def _read(qubit: QubitCalibration, quantity: str) -> float | None:
    confusion = qubit.confusion
    if confusion is None:
        return None
    p01, p10 = confusion
    flip = qubit.preparation_error
    if flip is None:
        flip = qubit.excited or 0.0
    return (p01 if quantity == "p01" else p10) + flip * (1.0 - p01 - p10)
