"""Durations of a circuit's operations on a device, and the time that its shots take there.

A shot takes the reset of its qubits and then the duration of its schedule, in which readout and
feed-forward latency are counted; a circuit takes its shots and, once, the overhead of the device:

    time = overhead + shots (reset + schedule)

The duration of a schedule does not depend on the noise options. Of a `while` loop it has one pass,
of branches the longest.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from simulators.circuit.arrays import Operands
from simulators.circuit.gates import DELAY, DELAY_DT, MEASURE
from simulators.circuit.ir import Circuit, used_qubits
from simulators.circuit.schedule import schedule
from simulators.errors import BadCircuit, Unsupported

LONGEST_DELAY_NS = 1e12  # 17 minutes, the limit of a calibrated duration too


class Durations(Protocol):
    """The part of a NoiseModel that a schedule needs."""

    @property
    def dt_ns(self) -> float: ...
    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float: ...


def delays_ns(
    circuit: Circuit, model: Durations, values: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Duration of each delay, in the order of the circuit. `values` [slots]: of free parameters.
    Raises Unsupported for a delay of unknown duration, BadCircuit for one that is too long."""
    codes = circuit.table.rows[circuit.ops, 0]
    places = np.flatnonzero((codes == DELAY) | (codes == DELAY_DT))
    counts = circuit.table.rows[circuit.ops, 3]
    params = (np.cumsum(counts) - counts)[places]
    bound = circuit.params
    if np.isin(params, circuit.slots[0::2]).any():
        if values is None:
            hint = "bind the delay's duration"
            raise Unsupported("a delay by a free parameter, with idle noise", hint=hint)
        bound = bound.copy()
        bound[circuit.slots[0::2]] = values[circuit.slots[1::2]]
    durations: NDArray[np.float64] = bound[params].copy()
    ticks = codes[places] == DELAY_DT
    if ticks.any():
        if not model.dt_ns > 0.0:
            text = "a delay in units of dt, which the device's calibration does not state"
            raise Unsupported(text, hint="give the delay in seconds")
        durations[ticks] *= model.dt_ns
    longest_ns = durations.max(initial=0.0)
    if longest_ns > LONGEST_DELAY_NS:
        hint = f"at most {1e-9 * LONGEST_DELAY_NS:g} s"
        raise BadCircuit(f"a delay of {1e-9 * longest_ns:.6g} s on a device", hint=hint)
    return durations


def has_free_delays(circuit: Circuit) -> bool:
    """Return whether the duration of a delay is a free parameter."""
    return bool(_of_delays(circuit).any())


def _of_delays(circuit: Circuit) -> NDArray[np.bool_]:
    """Which rows of `slots` [n, 2] are durations of delays."""
    rows = circuit.table.rows[circuit.ops]
    delays = (rows[:, 0] == DELAY) | (rows[:, 0] == DELAY_DT)
    params = (np.cumsum(rows[:, 3]) - rows[:, 3])[delays]
    return np.isin(circuit.slots[0::2], params)


def with_bound_delays(circuit: Circuit, values: NDArray[np.float64]) -> Circuit:
    """The circuit with numbers for the durations that are free parameters; others stay free.
    `values` [slots]. Raises BadCircuit for a negative duration."""
    delays, pairs = _of_delays(circuit), circuit.slots.reshape(-1, 2)
    if not delays.any():
        return circuit
    places, slots = pairs[delays].T
    chosen = values[slots]
    if not (chosen >= 0.0).all():  # NaN is not
        shortest = float(chosen.min())
        raise BadCircuit(f"a delay of {shortest:g} by a parameter", hint="give a duration >= 0")
    params = circuit.params.copy()
    params[places] = chosen
    return msgspec.structs.replace(
        circuit, params_data=params.tobytes(), slots_data=pairs[~delays].tobytes()
    )


def durations_ns(
    circuit: Circuit, operands: Operands, model: Durations, delays: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Duration of each operation. `delays`: result of `delays_ns`; [0]: all are 0."""
    codes, counts = operands.codes, operands.counts
    first, wires = operands.first, operands.wires
    durations = np.zeros(circuit.ops.size)
    timed = np.flatnonzero((codes >= MEASURE) & (counts > 0))
    if timed.size:
        begins, sizes = first[timed], counts[timed]
        size = circuit.num_qubits + 1
        second = np.where(sizes > 1, wires[np.minimum(begins + 1, wires.size - 1)], -1)
        key = (circuit.ops[timed].astype(np.int64) * size + wires[begins]) * size + second + 1
        _, where, inverse = np.unique(key, return_index=True, return_inverse=True)
        each = []
        for k in timed[where].tolist():
            name = circuit.table.names[circuit.ops[k]]
            each.append(model.duration_ns(name, operands.qubits(k)))
        durations[timed] = np.array(each)[inverse]
    if delays.size:
        durations[(codes == DELAY) | (codes == DELAY_DT)] = delays
    return durations


class ShotTimes:
    """Times of circuits on the device of a snapshot, in nanoseconds."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        self._snapshot = snapshot
        self._model = build(snapshot)

    @property
    def overhead_ns(self) -> float:
        """Time of a circuit without its shots."""
        return self._snapshot.overhead_ns

    def shot_ns(
        self, circuit: Circuit, values: NDArray[np.float64] | None = None, duration_ns: float = -1.0
    ) -> float:
        """Time of one shot of an admissible circuit. `values` [slots]: of its free parameters;
        `duration_ns`: of its schedule, if known. A delay of unknown duration counts as 0."""
        if duration_ns < 0.0:
            duration_ns = self._scheduled_ns(circuit, values)
        used = () if self._snapshot.rep_delay_ns else used_qubits(circuit).tolist()
        return self._snapshot.reset_ns(used) + duration_ns

    def _scheduled_ns(self, circuit: Circuit, values: NDArray[np.float64] | None) -> float:
        if values is None:
            values = np.zeros(circuit.num_slots)
        try:
            delays = delays_ns(circuit, self._model, values)
        except Unsupported:
            delays = np.zeros(0)
        operands = Operands.of(circuit)
        return schedule(
            circuit,
            durations_ns(circuit, operands, self._model, delays),
            feed_forward_ns=self._model.feed_forward_ns,
            network=self._model.network,
            operands=operands,
        ).duration_ns
