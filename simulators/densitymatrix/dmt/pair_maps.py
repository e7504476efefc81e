"""Evolution of a circuit with noise as maps on pairs of qubits, and the graph of these pairs."""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.densitymatrix.fusion import Blocks
from simulators.densitymatrix.program import Program, Segment

Matrix = NDArray[np.float64]
_RANK = 1e-9  # relative size of terms of a map that are rounding


class PairMap(msgspec.Struct, frozen=True, eq=False):
    """A map on two qubits in the Pauli basis, a sum of products: terms `first` [k, 4, 4] on the
    lower qubit and `second` [k, 4, 4] on the other one, and their sum [4, 4, 4, 4]: outputs of
    both, then inputs."""

    low: int
    high: int
    first: Matrix
    second: Matrix

    @property
    def full(self) -> Matrix:
        result: Matrix = np.einsum("kac,kbd->abcd", self.first, self.second)
        return result


class Maps(msgspec.Struct, frozen=True, eq=False):
    """Maps of a circuit in order, then a map on each qubit: `last` [qubits, 4, 4]."""

    pairs: tuple[PairMap, ...]
    last: Matrix

    @classmethod
    def of(cls, program: Program, params: NDArray[np.float64]) -> Maps:
        """Maps of a program without measurements and wide gates. A block that is a product joins
        the next ones on its qubits."""
        width = program.num_qubits
        waiting = np.tile(np.eye(4), (width, 1, 1))
        pairs: list[PairMap] = []
        blocks = Blocks(width, program.longest)
        for step in program.steps:
            if not isinstance(step, Segment):
                raise TypeError(f"a {type(step).__name__} is no map of pairs")
            blocks.fill(step.items, params, program.gates, program.channels)
            fused, count = blocks.fused, blocks.count
            for low, high, block in zip(
                fused.low[:count].tolist(), fused.high[:count].tolist(),
                fused.mats.reshape(-1, 4, 4, 4, 4)[:count], strict=True,
            ):  # fmt: skip
                first, second = _terms(block)
                if len(first) == 1:
                    waiting[low] = first[0] @ waiting[low]
                    waiting[high] = second[0] @ waiting[high]
                    continue
                pairs.append(PairMap(low, high, first @ waiting[low], second @ waiting[high]))
                waiting[low] = waiting[high] = np.eye(4)
        return cls(tuple(pairs), waiting)


def _terms(block: Matrix) -> tuple[Matrix, Matrix]:
    """Terms of a block [4, 4, 4, 4]: outputs of its higher and its lower qubit, then inputs."""
    u, s, v = np.linalg.svd(block.transpose(1, 3, 0, 2).reshape(16, 16))
    kept = max(1, int(np.count_nonzero(s > _RANK * s[0])))
    root = np.sqrt(s[:kept])
    return (u[:, :kept] * root).T.reshape(-1, 4, 4), (root[:, None] * v[:kept]).reshape(-1, 4, 4)


class PairComponent(msgspec.Struct, frozen=True, eq=False):
    """Qubits that maps connect. `order`: along the line if they are on one, else ascending."""

    order: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    is_line: bool


def components(num_qubits: int, maps: Maps) -> tuple[PairComponent, ...]:
    """Components of the graph of the pairs, in the order of their first qubits."""
    edges = sorted({(pair.low, pair.high) for pair in maps.pairs})
    near = neighbours(num_qubits, edges)
    found: list[PairComponent] = []
    seen = [False] * num_qubits
    for start in range(num_qubits):
        if seen[start]:
            continue
        members = breadth_first(near, start)
        for q in members:
            seen[q] = True
        inside = set(members)
        own = tuple(edge for edge in edges if edge[0] in inside)
        ends = [q for q in sorted(members) if len(near[q]) < 2]
        is_line = len(own) == len(members) - 1 and all(len(near[q]) <= 2 for q in members)
        order = breadth_first(near, ends[0]) if is_line else sorted(members)
        found.append(PairComponent(tuple(order), own, is_line))
    return tuple(found)


def neighbours(num_qubits: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    """Neighbours of each qubit, ascending."""
    near: list[list[int]] = [[] for _ in range(num_qubits)]
    for one, two in edges:
        near[one].append(two)
        near[two].append(one)
    return [sorted(each) for each in near]


def breadth_first(near: list[list[int]], start: int) -> list[int]:
    """Qubits that are connected with one, in the order of their distance."""
    order, seen, waiting = [start], {start}, deque([start])
    while waiting:
        for q in near[waiting.popleft()]:
            if q not in seen:
                seen.add(q)
                order.append(q)
                waiting.append(q)
    return order
