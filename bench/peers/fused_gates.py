"""Gates as matrices on a few qubits, fused as simulators do that apply one matrix in each sweep."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.peers.base import Gate, matrix

_CONTROLLED = {"cx": "x", "cz": "z", "cp": "p"}  # gates on the last of their qubits


class MatrixGate(msgspec.Struct, frozen=True, eq=False):
    """A matrix complex128[2^k, 2^k]; bit j of its index is the qubit `targets[j]`."""

    matrix: NDArray[np.complex128]
    targets: tuple[int, ...]
    controls: tuple[int, ...] = ()


def gate_by_gate(gates: Iterable[Gate]) -> list[MatrixGate]:
    """A matrix for each gate, without its control."""
    results = []
    for name, qubits, angles in gates:
        if name in _CONTROLLED:
            on_last = matrix(_CONTROLLED[name], angles)
            results.append(MatrixGate(on_last, qubits[1:], qubits[:1]))
        else:
            results.append(MatrixGate(matrix(name, angles), qubits))
    return results


def fused(gates: Iterable[Gate], width: int) -> list[MatrixGate]:
    """Matrices on at most `width` qubits: each gate goes to the last block that acts on one of its
    qubits, if that has room, else it begins a block."""
    members: list[list[Gate]] = []
    qubits_of: list[tuple[int, ...]] = []
    last: dict[int, int] = {}  # block of a qubit
    for gate in gates:
        qubits = gate[1]
        block = max((last.get(qubit, -1) for qubit in qubits), default=-1)
        union = () if block < 0 else tuple(dict.fromkeys(qubits_of[block] + qubits))
        if block < 0 or len(union) > width:
            block, union = len(members), qubits
            members.append([])
            qubits_of.append(())
        members[block].append(gate)
        qubits_of[block] = union
        last |= dict.fromkeys(qubits, block)
    return [
        MatrixGate(_product(inside, qubits), qubits)
        for inside, qubits in zip(members, qubits_of, strict=True)
    ]


def _product(gates: list[Gate], qubits: tuple[int, ...]) -> NDArray[np.complex128]:
    """Gates in their order, as one matrix."""
    size = len(qubits)
    result = np.eye(1 << size, dtype=np.complex128).reshape((2,) * size + (1 << size,))
    for name, on, angles in gates:
        axes = [size - 1 - qubits.index(qubit) for qubit in reversed(on)]
        count = len(on)
        factor = matrix(name, angles).reshape((2,) * (2 * count))
        result = np.tensordot(factor, result, (range(count, 2 * count), axes))
        result = np.moveaxis(result, range(count), axes)
    return np.ascontiguousarray(result.reshape(1 << size, 1 << size))
