"""Operations of a circuit in the order of their start times.

The static interaction of two qubits depends on what both do at a time. A circuit may list the
operations of one qubit before those of another that act at the same times: passes for dynamical
decoupling do so. Noise that acts on both between their operations needs the order of the times.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit

_SCALE = (
    1e6  # of times in ns that are rounded, so that operations that start together stay as listed
)


def time_order(start_ns: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Order of the operations of a circuit without blocks by their start times, those of one time
    as they are listed; None: all are listed so. Operations on a common qubit keep their order."""
    times = np.rint(start_ns * _SCALE)
    if (times[1:] >= times[:-1]).all():
        return None
    return np.argsort(times, kind="stable")


def after_writers(circuit: Circuit, start_ns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Start times of a circuit without blocks, such that each operation begins no earlier than
    those listed before it on a common qubit, or that write a common clbit: the last one listed
    gives the clbit's value, whenever it acts."""
    if np.unique(circuit.clbits).size == circuit.clbits.size:
        return start_ns
    rows = circuit.table.rows[circuit.ops]
    qubit_ends, clbit_ends = np.cumsum(rows[:, 1]).tolist(), np.cumsum(rows[:, 2]).tolist()
    qubits, clbits = circuit.qubits.tolist(), circuit.clbits.tolist()
    latest: dict[tuple[str, int], float] = {}
    results = start_ns.tolist()
    qubit_at = clbit_at = 0
    for k, (qubit_end, clbit_end) in enumerate(zip(qubit_ends, clbit_ends, strict=True)):
        touched = [("qubit", wire) for wire in qubits[qubit_at:qubit_end]]
        touched += [("clbit", bit) for bit in clbits[clbit_at:clbit_end]]
        results[k] = max(results[k], *(latest.get(each, 0.0) for each in touched), 0.0)
        latest.update(dict.fromkeys(touched, results[k]))
        qubit_at, clbit_at = qubit_end, clbit_end
    return np.array(results)


class OrderedCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit whose operations are listed in another order."""

    circuit: Circuit
    params: NDArray[np.int64]  # [parameters]: those of the circuit that it was made of

    def of(self, circuit: Circuit) -> Circuit:
        """The ordered form of another circuit with the same structure."""
        params = circuit.params[self.params].tobytes()
        return msgspec.structs.replace(self.circuit, params_data=params)

    @property
    def memory_bytes(self) -> int:
        own = self.circuit
        data = (own.ops_data, own.qubits_data, own.clbits_data, own.params_data, own.slots_data)
        return sum(map(len, data)) + self.params.nbytes


def reordered(circuit: Circuit, order: NDArray[np.int64]) -> OrderedCircuit:
    """The circuit without blocks whose operation k is operation `order[k]` of another."""
    rows = circuit.table.rows[circuit.ops]
    qubits, clbits, params = (_places(rows[:, column], order) for column in (1, 2, 3))
    slots = circuit.slots.reshape(-1, 2)
    if slots.size:
        moved = np.empty(params.size, np.int64)
        moved[params] = np.arange(params.size)
        slots = np.column_stack((moved[slots[:, 0]], slots[:, 1]))
        slots = slots[np.argsort(slots[:, 0], kind="stable")].astype(np.int32)
    built = msgspec.structs.replace(
        circuit,
        ops_data=circuit.ops[order].tobytes(),
        qubits_data=circuit.qubits[qubits].tobytes(),
        clbits_data=circuit.clbits[clbits].tobytes(),
        params_data=circuit.params[params].tobytes(),
        slots_data=slots.tobytes(),
    )
    return OrderedCircuit(built, params)


def _places(counts: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the operands of operations in another order; `counts`: operands of each."""
    first = np.cumsum(counts) - counts
    taken = counts[order]
    begins = np.cumsum(taken) - taken
    places: NDArray[np.int64] = np.arange(taken.sum()) - np.repeat(begins - first[order], taken)
    return places
