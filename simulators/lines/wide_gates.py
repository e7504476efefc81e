"""Gates on three and more qubits as gates on one and two.

A gate under controls is divided by Barenco et al., Phys. Rev. A 52, 3457 (1995), Lemma 7.5: its
roots under one control, and flips of that control under the others. Any other one by the quantum
Shannon decomposition (Shende, Bullock, Markov, IEEE Trans. CAD 25, 1000, 2006), or by the
definition that its name has.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

Matrix = NDArray[np.complex128]
Part = tuple[tuple[int, ...], Matrix]  # qubits of the gate, the first one bit 0; a matrix on them

MOST_QUBITS = 5
_DEFINED = ("rccx", "rcccx")
_X = np.array([[0, 1], [1, 0]], np.complex128)
_SWAP = np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]]
_ZERO = 1e-13


@functools.lru_cache(maxsize=256)
def parts_of(name: str, data: bytes) -> tuple[Part, ...]:
    """Parts of a gate, in order; `data`: its matrix, complex128, row by row."""
    size = round((len(data) // 16) ** 0.5)
    matrix = np.frombuffer(data, np.complex128).reshape(size, size)
    qubits = tuple(range(size.bit_length() - 1))
    controls, targets, rest = _controls(matrix, qubits)
    if len(targets) == 1:
        return tuple(_controlled(controls, targets[0], rest))
    if len(targets) == 2 and controls and np.abs(rest - _SWAP).max() < _ZERO:
        one, two = targets
        flip = list(_controlled([(two, 1)], one, _X))
        return *flip, *_controlled([*controls, (one, 1)], two, _X), *flip
    if name in _DEFINED:
        from qiskit.circuit.library import get_standard_gate_name_mapping

        return tuple(_read(get_standard_gate_name_mapping()[name].definition, qubits))
    from qiskit.synthesis import qs_decomposition

    return tuple(_read(qs_decomposition(matrix), qubits))


def _controls(
    matrix: Matrix, qubits: tuple[int, ...]
) -> tuple[list[tuple[int, int]], tuple[int, ...], Matrix]:
    """Controls of a gate with their values, the other qubits, and the gate on these."""
    controls: list[tuple[int, int]] = []
    for qubit in qubits:
        if len(matrix) == 2:
            break
        at = [q for q in qubits if q not in [c for c, _ in controls]].index(qubit)
        index = np.arange(len(matrix))
        for value in (0, 1):
            inside, outside = index[index >> at & 1 == value], index[index >> at & 1 != value]
            idle = matrix[np.ix_(outside, outside)] - np.eye(outside.size)
            mixed = matrix[np.ix_(inside, outside)], matrix[np.ix_(outside, inside)]
            if max(np.abs(each).max() for each in (idle, *mixed)) < _ZERO:
                controls.append((qubit, value))
                matrix = matrix[np.ix_(inside, inside)]
                break
    own = {qubit for qubit, _ in controls}
    return controls, tuple(q for q in qubits if q not in own), matrix


def _controlled(controls: list[tuple[int, int]], target: int, unitary: Matrix) -> Iterator[Part]:
    """Parts of a unitary on one qubit under controls."""
    if not controls:
        yield (target,), unitary
        return
    *others, (last, value) = controls
    if not others:
        both = np.eye(4, dtype=np.complex128)
        both[value::2, value::2] = unitary
        yield (last, target), both
        return
    root = _root(unitary)
    yield from _controlled([(last, value)], target, root)
    yield from _controlled(others, last, _X)
    yield from _controlled([(last, value)], target, root.conj().T)
    yield from _controlled(others, last, _X)
    yield from _controlled(others, target, root)


def _root(unitary: Matrix) -> Matrix:
    """Square root of a unitary on one qubit: (1 + V) / sqrt(det(1 + V)) of its special part V."""
    phase = np.sqrt(np.linalg.det(unitary) + 0j)
    special = unitary / phase  # cos t - i sin t (n . sigma)
    if special.trace().real < 0.0:
        special, phase = -special, -phase
    whole = np.eye(2) + special
    result: Matrix = np.sqrt(phase) * whole / np.sqrt(np.linalg.det(whole) + 0j)
    return result


def _read(circuit: QuantumCircuit, qubits: tuple[int, ...]) -> Iterator[Part]:
    """Gates of a circuit on one and two qubits; others by their definition."""
    from qiskit.quantum_info import Operator

    for item in circuit.data:
        own = tuple(qubits[circuit.find_bit(bit).index] for bit in item.qubits)
        if len(own) > 2:
            yield from _read(item.operation.definition, own)
        elif own:
            yield own, np.asarray(Operator(item.operation).data, np.complex128)
    if circuit.global_phase:
        yield qubits[:1], np.eye(2, dtype=np.complex128) * np.exp(1j * float(circuit.global_phase))
