"""Claims of a calibration snapshot, as the experiments measure them.

A gate cannot be better than the relaxation of its qubits over its duration. If a snapshot states a
smaller gate error than its own T1, T2 and durations allow, the claim is the limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, QubitCalibration
from noise_models.channel import from_unitary
from noise_models.options import NoiseOptions
from simenv.calibration.experiments.estimators.estimates import Estimate
from simenv.calibration.experiments.native import x_turn

_TIMES = {"t1_us": "t1_us", "t2_us": "t2_limited_us", "t2_ramsey_us": "t2_limited_us"}
_ROUNDING = 1e-6  # relative rounding error of a computed infidelity
_ERRORS = ("error_1q", "error_half", "error_2q")


class Claims:
    """Values of one snapshot by quantity and qubits."""

    def __init__(self, snapshot: CalibrationSnapshot, half_turn: tuple[str, ...] = ()) -> None:
        """Set up. `half_turn`: names of the gates that prepare |1>."""
        self._half_turn = half_turn
        self._model = build(snapshot, NoiseOptions())
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self._qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self._zz = snapshot.acting_zz_khz

    def value(self, estimate: Estimate) -> float | None:
        """Claimed value of the estimated quantity; None: the snapshot has none.

        Readout probabilities contain the claimed errors of preparation, those of the half turn
        included, because counts of one measurement cannot separate the two.
        """
        quantity, qubit = estimate.quantity, self._qubits[estimate.qubits[0]]
        if quantity in _TIMES:
            result = getattr(qubit, _TIMES[quantity])
            return None if result is None else float(result)
        if quantity in ("p01", "p10"):
            return self._read(estimate.qubits[0], quantity)
        if quantity in _ERRORS:
            places = estimate.qubits if quantity == "error_2q" else estimate.qubits[:1]
            return self._gate_error(estimate.gate, places)
        if quantity == "zz_khz":
            first, second = sorted(estimate.qubits)
            return self._zz.get((first, second), 0.0)
        return None

    def stated(self, estimate: Estimate) -> float | None:
        """Gate error as the snapshot states it, if it is below the limit; else None."""
        if estimate.quantity not in _ERRORS:
            return None
        places = estimate.qubits if estimate.quantity == "error_2q" else estimate.qubits[:1]
        gate, claimed = self._model.calibration(estimate.gate, places), self.value(estimate)
        if gate is None or gate.error is None or claimed is None:
            return None
        return gate.error if claimed > gate.error * (1.0 + _ROUNDING) else None

    def _gate_error(self, name: str, qubits: tuple[int, ...]) -> float | None:
        gate = self._model.calibration(name, qubits)
        if gate is None or gate.error is None:
            return None
        channels = self._model.after_gate(name, qubits)
        return max(gate.error, sum(each.channel.infidelity for each in channels))

    def _read(self, qubit: int, quantity: str) -> float | None:
        confusion = self._qubits[qubit].confusion
        if confusion is None:
            return None
        p01, p10 = confusion
        gates = self._half_turn if quantity == "p10" else ()
        ones = self._prepared(qubit, gates)
        read_ones = ones * (1.0 - p10) + (1.0 - ones) * p01
        return read_ones if quantity == "p01" else 1.0 - read_ones

    def _prepared(self, qubit: int, gates: tuple[str, ...]) -> float:
        """Probability of |1> at the end of a half turn that consists of these gates."""
        state: NDArray[np.float64] = np.array(
            [1.0, 0.0, 0.0, 1.0 - 2.0 * self._model.preparation_error(qubit)]
        )
        turn = from_unitary(x_turn(2 // max(1, len(gates)))).ptm
        for name in gates:
            state = turn @ state
            if self._model.calibration(name, (qubit,)) is not None:
                for located in self._model.after_gate(name, (qubit,)):
                    state = located.channel.ptm @ state
        return 0.5 * float(1.0 - state[3])
