"""Factors of a circuit: gates, with one-qubit gates multiplied, and the qubits on which each is
diagonal."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.interaction_width import moved_qubits
from simulators.circuit.ir import Circuit
from simulators.circuit.operations import with_matrices

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
