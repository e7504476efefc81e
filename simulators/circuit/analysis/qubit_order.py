"""Order of a circuit's qubits in a chain of tensors, with few gates across any cut.

Reverse Cuthill-McKee on the graph of the qubits, whose edges are the gates: it makes the bandwidth
of the graph small, so gates span few neighbours and few gates cross a cut (Cuthill and McKee, 1969;
George, 1971). Only for circuits that `admission.validation_error` admitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit

ORDERED_QUBITS = (
    32  # only wider circuits are reordered: narrow ones keep equal counts on all engines
)
_MOST_EDGES = 1 << 16  # connected pairs of qubits; with more, no order is much better
_FIRST_TWO = np.triu_indices(2, 1)


def gate_pairs(circuit: Circuit) -> NDArray[np.int64]:
    """Pairs of qubits that a gate connects: int64 [pairs, 2], each once, the lower one first."""
    counts = circuit.table.rows[:, 1][circuit.ops]
    joining = (circuit.table.rows[:, 0] >= UNITARY) & (circuit.table.rows[:, 1] > 1)
    joins = np.flatnonzero(joining[circuit.ops])
    widths = counts[joins]
    first = (counts.cumsum() - counts)[joins]
    qubits, size = circuit.qubits.astype(np.int64), circuit.num_qubits
    codes = []
    for width in sorted(set(widths.tolist())):
        wires = qubits[first[widths == width, None] + np.arange(width)]
        low, high = _FIRST_TWO if width == 2 else np.triu_indices(width, 1)
        a, b = wires[:, low], wires[:, high]
        codes.append((np.minimum(a, b) * size + np.maximum(a, b)).ravel())
    if not codes:
        return np.zeros((0, 2), np.int64)
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), size), axis=1)


def chain_order(circuit: Circuit) -> tuple[int, ...] | None:
    """Site of each qubit in a better order; None if the circuit's own order is kept.

    An order is better if the sum of distances between the qubits of the gates is smaller.
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
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    degree = [len(each) for each in neighbours]
    for each in neighbours:
        each.sort(key=lambda qubit: (degree[qubit], qubit))
    order: list[int] = []
    seen = [False] * num_qubits
    for start in sorted(range(num_qubits), key=lambda qubit: (degree[qubit], qubit)):
        if seen[start]:
            continue
        far = start
        for _ in range(2):  # twice to the farthest qubit: nearly a longest path (Lewis, 1982)
            far = _breadth_first(neighbours, far)[-1]
        component = _breadth_first(neighbours, far)
        for qubit in component:
            seen[qubit] = True
        order += component
    return order


def _breadth_first(neighbours: list[list[int]], start: int) -> list[int]:
    """Qubits that can be reached from `start`, nearest first."""
    results = [start]
    reached = {start}
    for qubit in results:
        for each in neighbours[qubit]:
            if each not in reached:
                reached.add(each)
                results.append(each)
    return results
