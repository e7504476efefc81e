"""Order of a circuit's qubits in a chain of tensors: few gates across any cut.

Reverse Cuthill-McKee on the graph of the qubits, whose edges are the gates: it makes the bandwidth
of the graph small, so gates reach over few neighbours and few gates cross a cut (Cuthill and McKee,
1969; George, 1971). Only for circuits that `admission.validation_error` admitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit

ORDERED_QUBITS = 32  # circuits of more qubits are reordered: below, counts are those of all engines
_MOST_EDGES = 1 << 16  # pairs of qubits that gates connect; beyond, no order is much better


def gate_pairs(circuit: Circuit) -> NDArray[np.int64]:
    """Pairs of qubits that some gate connects: int64 [pairs, 2], each once, the lower one first."""
    rows = circuit.table.rows[circuit.ops]
    counts = rows[:, 1]
    begins = np.cumsum(counts) - counts
    qubits = circuit.qubits.astype(np.int64)
    results = []
    for count in np.unique(counts[(rows[:, 0] >= UNITARY) & (counts > 1)]).tolist():
        first = begins[(rows[:, 0] >= UNITARY) & (counts == count)]
        wires = qubits[first[:, None] + np.arange(count)]
        low, high = np.triu_indices(count, 1)
        results.append(wires[:, np.stack((low, high), 1)].reshape(-1, 2))
    if not results:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.sort(np.concatenate(results), axis=1), axis=0)


def chain_order(circuit: Circuit) -> tuple[int, ...] | None:
    """Site of each qubit in the better order; None where the circuit's own order is kept.

    Better is what has a shorter sum of distances between the qubits of the gates.
    """
    if circuit.num_qubits <= ORDERED_QUBITS:
        return None
    pairs = gate_pairs(circuit)
    if not len(pairs) or len(pairs) > _MOST_EDGES or (np.diff(pairs, axis=1) == 1).all():
        return None
    sites = np.empty(circuit.num_qubits, np.int64)
    sites[cuthill_mckee(pairs, circuit.num_qubits)[::-1]] = np.arange(circuit.num_qubits)
    if _length(sites[pairs]) >= _length(pairs):
        return None
    return tuple(sites.tolist())


def _length(pairs: NDArray[np.int64]) -> int:
    return int(np.abs(pairs[:, 0] - pairs[:, 1]).sum())


def cuthill_mckee(pairs: NDArray[np.int64], num_qubits: int) -> list[int]:
    """Qubits in the order of Cuthill and McKee, component by component: breadth first from an end
    of the component, neighbours by ascending degree."""
    neighbours: list[list[int]] = [[] for _ in range(num_qubits)]
    for one, two in pairs.tolist():
        neighbours[one].append(two)
        neighbours[two].append(one)
    degree = [len(each) for each in neighbours]
    for each in neighbours:
        each.sort(key=lambda qubit: (degree[qubit], qubit))
    order: list[int] = []
    seen = [False] * num_qubits
    for start in sorted(range(num_qubits), key=lambda qubit: (degree[qubit], qubit)):
        if seen[start]:
            continue
        far = start
        for _ in range(2):  # twice to the farthest one: nearly a longest way (Lewis, 1982)
            far = _breadth_first(neighbours, far)[-1]
        component = _breadth_first(neighbours, far)
        for qubit in component:
            seen[qubit] = True
        order += component
    return order


def _breadth_first(neighbours: list[list[int]], start: int) -> list[int]:
    """All qubits that can be reached, nearest first."""
    results = [start]
    reached = {start}
    for qubit in results:
        for each in neighbours[qubit]:
            if each not in reached:
                reached.add(each)
                results.append(each)
    return results
