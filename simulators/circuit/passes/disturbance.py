"""Places in a circuit where measurements act on other qubits than their own.

A measurement acts on each qubit that has a gate after it, whether its own qubit is used again or
not. The order is that of the start times, as for other noise between operations: a readout that
begins together with that of another qubit disturbs no gate of that qubit, wherever both are listed.
The channels are diagonal in the basis of Z, so that measurements and resets do not see them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.analysis.measurements import TERMINAL
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.schedule import Method, schedule

_LEAST_NS = 1e-3  # of operations without a duration, so that the times show their order
_SCALE = 1e5  # of times in ns that are rounded, so that equal ones compare so
_BLOCKS = (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH)
_ID = gates.GATES["id"].code
_Numbers = NDArray[np.int64]


def disturbed(
    circuit: Circuit,
    operands: Operands,
    roles: _Numbers,
    touched: NDArray[np.bool_],
    durations_ns: NDArray[np.float64],
    method: Method,
) -> list[tuple[int, int, _Numbers, _Numbers]]:
    """Measurement, its qubit, the other qubits on which it acts, and the operation after which it
    acts on each of them. Of a measurement inside the circuit these are also the qubits that are
    never measured at the end, whose state an output may show. `roles` [operations]: see `classify`;
    `touched` [qubits]: those that the circuit uses."""
    codes, size = operands.codes, circuit.ops.size
    measured = np.flatnonzero(codes == gates.MEASURE)
    if not measured.size:
        return []
    block = _block_of(codes)
    rank = _ranks(circuit, operands, durations_ns, method, block)
    acting = np.repeat((codes >= gates.UNITARY) & (codes != _ID), operands.counts)
    ops = np.repeat(np.arange(size), operands.counts)[acting]
    wires = operands.wires[acting]
    last = np.full(circuit.num_qubits, -1)
    np.maximum.at(last, wires, rank[ops])
    final = measured[roles[measured] == TERMINAL]
    ends = np.full(circuit.num_qubits, size)
    ends[operands.wires[operands.first[final]]] = final
    is_listed_by_time = bool((rank[1:] > rank[:-1]).all()) or bool(circuit.conditions_data)
    results = []
    for k in measured.tolist():
        qubit = int(operands.wires[operands.first[k]])
        if block[k] >= 0:  # in a loop, operations that are listed before it may follow
            chosen = touched & (ends > k)
        else:
            chosen = last > rank[k]
            if roles[k] != TERMINAL:
                chosen |= touched & (ends == size)
        chosen[qubit] = False
        others = np.flatnonzero(chosen)
        if not others.size:
            continue
        after = np.full(circuit.num_qubits, k)
        if not is_listed_by_time:  # right before the first gate that follows
            later = rank[ops] > rank[k]
            after[wires[later]] = size
            np.minimum.at(after, wires[later], ops[later] - 1)
        results.append((k, qubit, others, after[others]))
    return results


def _block_of(codes: _Numbers) -> _Numbers:
    """Head of the outermost block around each operation; -1: none."""
    opens = np.isin(codes, _BLOCKS)
    depth = np.cumsum(opens.astype(np.int64) - (codes == gates.END_BLOCK))
    heads = np.where(opens & (depth == 1), np.arange(codes.size), -1)
    result: _Numbers = np.where(depth > 0, np.maximum.accumulate(heads), -1)
    return result


def _ranks(
    circuit: Circuit,
    operands: Operands,
    durations_ns: NDArray[np.float64],
    method: Method,
    block: _Numbers,
) -> _Numbers:
    """Rank of each operation in the order of start times; a block begins as a whole."""
    durations = np.where(
        operands.codes >= gates.MEASURE, np.maximum(durations_ns, _LEAST_NS), durations_ns
    )
    start = schedule(circuit, durations, method, operands=operands).start_ns
    times = np.rint(_SCALE * np.where(block >= 0, start[block], start))
    result = np.empty(times.size, np.int64)
    result[np.argsort(times, kind="stable")] = np.arange(times.size)
    return result
