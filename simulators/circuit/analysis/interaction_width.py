"""Bound of the width of a circuit's tensor network: log2 of the largest tensor of a contraction.

The network of one amplitude has an index for each stretch of a qubit's line on which no gate moves
amplitude; gates that are diagonal on a qubit keep its index. Elimination of indices by least degree
gives a contraction; its largest tensor has one index more than the largest number of neighbours of
an eliminated index (Boixo et al., arXiv:1712.05384; Markov and Shi, SIAM J. Comput. 38, 963, 2008).
It is an upper bound of the best contraction, like the result of a greedy search.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulators.circuit.gates import GATES, UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.light_cone import GATE_KINDS

MOST_WIDTH = 30  # larger widths count as unknown: such networks are not contracted
_MOST_INDICES = 4_096  # no bound is computed for a longer circuit
_SWAP = GATES["swap"].code


def moved_qubits(code: int, count: int) -> tuple[bool, ...]:
    """True for each qubit along which a gate moves amplitude; it is diagonal on the others."""
    moves = int(GATE_KINDS[code, 0])
    return tuple(
        moves < 0 or (count - 1 - j < 62 and bool(moves >> (count - 1 - j) & 1))
        for j in range(count)
    )


def contraction_width(circuit: Circuit) -> int:
    """Bound of the width; -1 if the circuit is too long, or the bound is above `MOST_WIDTH`."""
    neighbours = _interactions(circuit)
    return -1 if neighbours is None else _eliminated(neighbours)


def _gates(circuit: Circuit) -> Iterator[tuple[int, list[int]]]:
    """Code and qubits of each gate."""
    rows, qubits, at = circuit.table.rows.tolist(), circuit.qubits.tolist(), 0
    for row in circuit.ops.tolist():
        code, count = rows[row][:2]
        if code >= UNITARY and count:
            yield code, qubits[at : at + count]
        at += count


def _interactions(circuit: Circuit) -> dict[int, set[int]] | None:
    """Neighbours of each free index; the first and the last index of a qubit are not free."""
    line = list(range(circuit.num_qubits))  # the index of each qubit now
    cliques: list[list[int]] = []
    fresh = circuit.num_qubits
    for code, qubits in _gates(circuit):
        if code == _SWAP:
            a, b = qubits
            line[a], line[b] = line[b], line[a]
            continue
        moved = moved_qubits(code, len(qubits))
        clique = [line[q] for q in qubits]
        for q, moves in zip(qubits, moved, strict=True):
            if moves:
                line[q] = fresh
                clique.append(fresh)
                fresh += 1
        if fresh > _MOST_INDICES:
            return None
        cliques.append(clique)
    fixed = {*range(circuit.num_qubits), *line}
    entries: dict[int, set[int]] = {index: set() for index in range(fresh) if index not in fixed}
    for clique in cliques:
        free = [index for index in clique if index not in fixed]
        for index in free:
            entries[index].update(free)
    for index, near in entries.items():
        near.discard(index)
    return entries


def _eliminated(neighbours: dict[int, set[int]]) -> int:
    """One more than the largest number of neighbours of an eliminated index."""
    by_degree: list[set[int]] = [set() for _ in range(MOST_WIDTH + 1)]
    for index, near in neighbours.items():
        if len(near) <= MOST_WIDTH:
            by_degree[len(near)].add(index)
    width = 0
    for _ in range(len(neighbours)):
        degree = next((k for k, each in enumerate(by_degree) if each), -1)
        if degree < 0 or degree >= MOST_WIDTH:
            return -1
        index = min(by_degree[degree])
        by_degree[degree].discard(index)
        near = neighbours.pop(index)
        width = max(width, degree + 1)
        for other in near:
            others = neighbours[other]
            if len(others) <= MOST_WIDTH:
                by_degree[len(others)].discard(other)
            others |= near
            others.discard(index)
            others.discard(other)
            if len(others) <= MOST_WIDTH:
                by_degree[len(others)].add(other)
    return width
