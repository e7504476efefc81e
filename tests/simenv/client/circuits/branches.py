"""Exact simulation by following every branch: the steps of `circuit_judge`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

State = NDArray[np.complex128]
Branch = tuple[State, int]  # not normalized; the classical bits as a number


def start(num_qubits: int) -> list[Branch]:
    state = np.zeros(2**num_qubits, np.complex128)
    state[0] = 1
    return [(state, 0)]


def apply(state: State, matrix: NDArray[np.complex128], qubits: Sequence[int]) -> State:
    """A matrix in Qiskit's order on some qubits (qubit 0: lowest bit of the index)."""
    count, width = len(qubits), state.size.bit_length() - 1
    axes = [width - 1 - qubit for qubit in reversed(qubits)]
    tensor = np.moveaxis(state.reshape((2,) * width), axes, range(count))
    shape = tensor.shape
    tensor = (matrix @ tensor.reshape(2**count, -1)).reshape(shape)
    return np.moveaxis(tensor, range(count), axes).reshape(-1)


def evolve(
    branches: Iterable[Branch], matrix: NDArray[np.complex128], qubits: Sequence[int]
) -> list[Branch]:
    return [(apply(state, matrix, qubits), bits) for state, bits in branches]


def measure(branches: Iterable[Branch], qubit: int, clbit: int) -> list[Branch]:
    result = []
    for state, bits in branches:
        for outcome, value in enumerate(_projections(state, qubit)):
            result.append((value, bits & ~(1 << clbit) | outcome << clbit))
    return _alive(result)


def reset(branches: Iterable[Branch], qubit: int) -> list[Branch]:
    flip = np.array([[0, 1], [1, 0]], np.complex128)
    result = []
    for state, bits in branches:
        zero, value = _projections(state, qubit)
        result += [(zero, bits), (apply(value, flip, [qubit]), bits)]
    return _alive(result)


def split(
    branches: Iterable[Branch], condition: Callable[[int], bool]
) -> tuple[list[Branch], list[Branch]]:
    """Those where the condition on the bits holds, and the others."""
    yes: list[Branch] = []
    no: list[Branch] = []
    for branch in branches:
        (yes if condition(branch[1]) else no).append(branch)
    return yes, no


def distribution(branches: Iterable[Branch]) -> dict[int, float]:
    """Probability of each value of the classical bits."""
    table: dict[int, float] = defaultdict(float)
    for state, bits in branches:
        table[bits] += float(np.vdot(state, state).real)
    return dict(table)


def _projections(state: State, qubit: int) -> list[State]:
    bit = np.arange(state.size) >> qubit & 1
    return [np.where(bit == value, state, 0) for value in (0, 1)]


def _alive(branches: list[Branch]) -> list[Branch]:
    return [(state, bits) for state, bits in branches if np.vdot(state, state).real > 1e-14]
