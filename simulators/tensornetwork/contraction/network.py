"""Tensor network of a circuit's state, with hyperindices.

An index belongs to a stretch of a qubit's line on which no gate moves amplitude: gates that are
diagonal on a qubit share its index, so a network of phases has few indices. Qubits begin in |0>,
which is contracted into their first gates.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.profiler import moved_qubits
from simulators.circuit.ir import Circuit, with_matrices

# Factors of a circuit: gates, with one-qubit gates multiplied, and the qubits on which each is
# diagonal.

_SWAP = np.eye(4)[[0, 2, 1, 3]]

Matrix = NDArray[np.complexfloating]
Tensor = NDArray[np.complexfloating]


class Factor(msgspec.Struct, frozen=True, gc=False):
    """Gate [2**k, 2**k], its first qubit the lowest bit; it is diagonal on the qubits that it does
    not move."""

    place: int  # number of its last operation
    qubits: tuple[int, ...]
    matrix: Matrix
    moved: tuple[bool, ...]


def gate_factors(
    circuit: Circuit, params: NDArray[np.float64], dtype: str
) -> tuple[list[Factor | None], complex]:
    """Factor for each operation, None for operations that are no gates on qubits; and the global
    phase."""
    results: list[Factor | None] = []
    phase = 1.0 + 0.0j
    for operation, gate in with_matrices(circuit, params):
        if gate is None:
            results.append(None)
            continue
        gate, count = np.asarray(gate, dtype), len(operation.qubits)
        if not count:
            phase *= complex(gate[0, 0])
            results.append(None)
            continue
        moved = moved_qubits(operation.code, count)
        results.append(Factor(operation.place, operation.qubits, gate, moved))
    return results, phase


def fused(factors: Iterable[Factor | None]) -> list[Factor]:
    """Factors with one-qubit gates multiplied up to the next gate on several qubits."""
    results: list[Factor] = []
    waiting: dict[int, Factor] = {}
    for factor in factors:
        if factor is None:
            continue
        if len(factor.qubits) > 1:
            for qubit in factor.qubits:
                if qubit in waiting:
                    results.append(_single(waiting.pop(qubit)))
            results.append(factor)
            continue
        (qubit,) = factor.qubits
        before = waiting.get(qubit)
        if before is not None:
            product = factor.matrix @ before.matrix
            factor = Factor(factor.place, factor.qubits, product, (True,))
        waiting[qubit] = factor
    results += [_single(factor) for factor in waiting.values()]
    return results


def _single(factor: Factor) -> Factor:
    """Gate on one qubit, diagonal if its product is."""
    gate = factor.matrix
    moves = bool(gate[0, 1] != 0.0 or gate[1, 0] != 0.0)
    return Factor(factor.place, factor.qubits, gate, (moves,))


def permutation(factor: Factor) -> NDArray[np.int64] | None:
    """Image of each basis state of a gate's qubits, up to phases; None for a gate that splits basis
    states."""
    nonzero = factor.matrix != 0.0
    if (np.count_nonzero(nonzero, axis=0) != 1).any():
        return None
    result: NDArray[np.int64] = np.argmax(nonzero, axis=0)
    return result


def is_swap(factor: Factor) -> bool:
    """Whether a gate only exchanges two qubits."""
    return len(factor.qubits) == 2 and bool((factor.matrix == _SWAP).all())


def dense_state(factors: Iterable[Factor], qubits: tuple[int, ...], dtype: str) -> Tensor:
    """Amplitudes [2**len(qubits)] of these qubits after gates on them alone; the first qubit is the
    lowest bit."""
    count = len(qubits)
    axis = {qubit: count - 1 - k for k, qubit in enumerate(qubits)}
    state = np.zeros((2,) * count, dtype)
    state[(0,) * count] = 1.0
    for factor in factors:
        width = len(factor.qubits)
        axes = [axis[qubit] for qubit in reversed(factor.qubits)]
        if width == 1 and not factor.moved[0]:
            shape = [1] * count
            shape[axes[0]] = 2
            state *= factor.matrix.diagonal().reshape(shape)
            continue
        gate = factor.matrix.reshape((2,) * (2 * width))
        state = np.tensordot(gate, state, (tuple(range(width, 2 * width)), axes))
        state = np.moveaxis(state, tuple(range(width)), axes)
    return state.reshape(-1)


Indices = tuple[int, ...]


BATCH = -1  # index of rows that are contracted together


class NetworkTensor(msgspec.Struct, frozen=True, gc=False):
    """Tensor with an index for each axis, all of size 2."""

    array: Tensor
    indices: Indices


class StateNetwork:
    """Network of a state, grown gate by gate, with the nodes and indices of
    `elimination.gate_network`."""

    def __init__(self, num_qubits: int, factors: Iterable[Factor] = ()) -> None:
        self.nodes: list[NetworkTensor] = []
        self.line: list[int | None] = [None] * num_qubits  # index of each qubit; None: still |0>
        self.scalar = 1.0 + 0.0j
        self.num_indices = 0
        for factor in factors:
            self.add(factor)

    def add(self, factor: Factor) -> None:
        if is_swap(factor):
            a, b = factor.qubits
            self.line[a], self.line[b] = self.line[b], self.line[a]
            return
        count = len(factor.qubits)
        outs = list(range(count - 1, -1, -1))  # axes of the matrix: highest qubit first
        ins = [k + count if factor.moved[k] else k for k in outs]
        array = factor.matrix.reshape((2,) * (2 * count))
        labels = [*outs, *ins]
        kept: list[int] = []  # labels
        indices: list[int] = []
        for k, qubit in enumerate(factor.qubits):
            before = self.line[qubit]
            old = k + count if factor.moved[k] else k
            if factor.moved[k]:
                self.line[qubit] = self.num_indices
                kept.append(k)
                indices.append(self.num_indices)
                self.num_indices += 1
            if before is None:
                where = [slice(None) if each != old else 0 for each in labels]
                array = array[tuple(where)]
                labels = [each for each in labels if each != old]
            else:
                kept.append(old)
                indices.append(before)
        # Diagonals along axes with equal labels, the axes then in the order of `kept`.
        letters, axes = ("".join(chr(97 + k) for k in each) for each in (labels, kept))
        array = np.einsum(f"{letters}->{axes}", array)
        if not indices:
            self.scalar *= complex(array)
            return
        self.nodes.append(NetworkTensor(array, tuple(indices)))


def first_row(node: NetworkTensor) -> NetworkTensor:
    """Node of the first row of a batch, without the batch index."""
    if BATCH not in node.indices:
        return node
    return NetworkTensor(node.array[0], node.indices[1:])


def selected(
    nodes: list[NetworkTensor], fixed: dict[int, int], bits: NDArray[np.uint8]
) -> list[NetworkTensor]:
    """Nodes with the fixed indices set: fixed[index] is a column of `bits` [rows, columns]. Nodes
    that differ between rows have the index BATCH first."""
    results = []
    for node in nodes:
        cut = [k for k, index in enumerate(node.indices) if index in fixed]
        if not cut:
            results.append(node)
            continue
        free = [k for k in range(len(node.indices)) if k not in cut]
        columns = tuple(bits[:, fixed[node.indices[k]]] for k in cut)
        array = node.array.transpose(*cut, *free)[columns]
        results.append(NetworkTensor(array, (BATCH, *(node.indices[k] for k in free))))
    return results


def expectation_network(
    state: StateNetwork, x: int, z: int
) -> tuple[list[NetworkTensor], complex] | None:
    """Nodes whose contraction, times the factor, is the expectation value of a Pauli string; None
    if the value is 0. Indices of the conjugated state are shifted by the number of indices."""
    shift = state.num_indices
    shared: dict[int, int] = {}  # common indices of the state and the conjugated state
    nodes = list(state.nodes)
    for qubit, index in enumerate(state.line):
        flips, signs = x >> qubit & 1, z >> qubit & 1
        if index is None:
            if flips:
                return None
            continue
        if flips:
            pauli = np.array([[0, 1], [1, 0]], complex)
            if signs:
                pauli = np.array([[0, -1j], [1j, 0]])
            nodes.append(NetworkTensor(pauli, (index + shift, index)))
            continue
        shared[index] = index
        if signs:
            nodes.append(NetworkTensor(np.array([1, -1], complex), (index,)))
    for node in state.nodes:
        own = tuple(shared.get(index, index + shift) for index in node.indices)
        nodes.append(NetworkTensor(node.array.conj(), own))
    return nodes, state.scalar * state.scalar.conjugate()
