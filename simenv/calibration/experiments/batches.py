"""Sets of qubits and pairs that are measured at the same time without interaction.

Coupled qubits interact, so qubits of a set have no coupling, and neither have qubits of different
pairs of a set. Sets are found by greedy coloring, the vertices with the most conflicts first (Welsh
and Powell, Comput. J. 10, 85).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Pair = tuple[int, int]
_Vertex = TypeVar("_Vertex", bound=Hashable)


def qubit_sets(qubits: Sequence[int], couplings: Sequence[Pair]) -> list[list[int]]:
    """Partition of the qubits into sets without couplings."""
    near = _neighbours(couplings)
    conflicts = {q: near.get(q, set()) & set(qubits) for q in qubits}
    return _colored(conflicts)


def pair_sets(pairs: Sequence[Pair], couplings: Sequence[Pair]) -> list[list[Pair]]:
    """Partition of the pairs into sets without a common qubit and without a coupling between
    pairs."""
    near = _neighbours(couplings)
    reach = {pair: set(pair).union(*(near.get(q, ()) for q in pair)) for pair in pairs}
    conflicts = {
        pair: {other for other in pairs if other != pair and reach[pair] & set(other)}
        for pair in pairs
    }
    return _colored(conflicts)


def _neighbours(couplings: Sequence[Pair]) -> dict[int, set[int]]:
    entries: dict[int, set[int]] = {}
    for a, b in couplings:
        entries.setdefault(a, set()).add(b)
        entries.setdefault(b, set()).add(a)
    return entries


def _colored(conflicts: dict[_Vertex, set[_Vertex]]) -> list[list[_Vertex]]:
    """Classes of vertices without conflicts, each in the order of `conflicts`."""
    order = sorted(conflicts, key=lambda vertex: -len(conflicts[vertex]))
    classes: list[set[_Vertex]] = []
    for vertex in order:
        free = next((each for each in classes if not each & conflicts[vertex]), None)
        if free is None:
            classes.append({vertex})
        else:
            free.add(vertex)
    return [[vertex for vertex in conflicts if vertex in each] for each in classes]
