"""Samples by gate-by-gate simulation: no marginals, one amplitude for each gate.

Each shot begins with the bits of |0...0> and follows the gates. A diagonal gate keeps the bits, a
gate that permutes basis states permutes them, and after any other gate the bits of the qubits that
it moves are drawn again from their distribution given all other bits, which takes the amplitudes of
the circuit so far (Bravyi, Gosset and Liu, Phys. Rev. Lett. 128, 220503, 2022). Only the nodes that
are connected with those qubits through summed indices are contracted; rows of equal bits there are
contracted once, and all rows in one contraction with a batch index. Shot s takes uniform s of draw
1 + k for gate k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.execution.rng import uniforms
from simulators.tensornetwork.contraction.contractor import Contractor
from simulators.tensornetwork.contraction.factors import Factor, permutation
from simulators.tensornetwork.contraction.network import (
    BATCH,
    NetworkTensor,
    StateNetwork,
    first_row,
    selected,
)

Bits = NDArray[np.uint8]


def sample_gates(
    factors: list[Factor],
    num_qubits: int,
    shots: NDArray[np.int64],
    key: tuple[int, int],
    contractor: Contractor,
) -> Bits:
    """Bits of these shots: uint8 [shots, qubits]."""
    bits = np.zeros((shots.size, num_qubits), np.uint8)
    state = StateNetwork(num_qubits)
    draws = np.empty(shots.size)
    for factor in factors:
        contractor.check()
        state.add(factor)
        if not any(factor.moved):
            continue
        moved = permutation(factor)
        if moved is not None:
            _permute(bits, factor, moved)
            continue
        uniforms(*key, 1 + factor.place, shots, draws)
        _redraw(bits, state, factor, draws, contractor)
    return bits


def admit(factors: list[Factor], num_qubits: int, contractor: Contractor) -> None:
    """Raises OutOfMemory if the last amplitudes of `sample_gates`, mostly the widest ones, exceed
    the limits: before the time for all others is spent."""
    redrawn = [k for k, each in enumerate(factors) if any(each.moved) and permutation(each) is None]
    if not redrawn:
        return
    state = StateNetwork(num_qubits)
    for factor in factors[: redrawn[-1] + 1]:
        state.add(factor)
    _, opened, fixed, nodes = _conditional(state, factors[redrawn[-1]])
    first = selected(nodes, fixed, np.zeros((1, num_qubits), np.uint8), BATCH)
    if contractor.rows_at_once(first, (BATCH, *opened)) == 1:
        contractor.admit([first_row(node) for node in first], tuple(opened))


def _permute(bits: Bits, factor: Factor, moved: NDArray[np.int64]) -> None:
    """Permute the bits of a gate's qubits as it permutes basis states."""
    columns = list(factor.qubits)
    weights = 1 << np.arange(len(columns))
    after = moved[bits[:, columns] @ weights]
    bits[:, columns] = after[:, None] >> np.arange(len(columns)) & 1


def _redraw(
    bits: Bits,
    state: StateNetwork,
    factor: Factor,
    draws: NDArray[np.float64],
    contractor: Contractor,
) -> None:
    """Draw the bits of the qubits that a gate moves."""
    qubits, opened, fixed, nodes = _conditional(state, factor)
    columns = sorted({fixed[i] for node in nodes for i in node.indices if i in fixed})
    packed = np.packbits(bits[:, columns], axis=1)
    rows, inverse = _distinct(packed)
    amplitudes = _amplitudes(nodes, opened, fixed, bits[rows], contractor)
    probs = np.square(amplitudes.real, dtype=np.float64)
    probs += np.square(amplitudes.imag, dtype=np.float64)
    edges = np.cumsum(probs, axis=1)
    edges /= edges[:, -1:]
    outcome = (draws[:, None] >= edges[inverse, :-1]).sum(axis=1)
    for place, qubit in enumerate(qubits):  # the first qubit is the highest bit of an outcome
        bits[:, qubit] = outcome >> (len(qubits) - 1 - place) & 1


def _conditional(
    state: StateNetwork, factor: Factor
) -> tuple[list[int], list[int], dict[int, int], list[NetworkTensor]]:
    """Qubits that a gate moves, their indices, the qubit of each other last index, and the nodes
    that have the distribution of those qubits given all others."""
    qubits = [q for q, moves in zip(factor.qubits, factor.moved, strict=True) if moves]
    opened = [index for index in (state.line[q] for q in qubits) if index is not None]
    fixed = {
        index: q for q, index in enumerate(state.line) if index is not None and q not in qubits
    }
    return qubits, opened, fixed, state.connected(opened, fixed)


def _distinct(packed: Bits) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First row of each distinct value, and for each row the index of its value."""
    if not packed.shape[1]:
        return np.zeros(1, np.intp), np.zeros(len(packed), np.intp)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, rows, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows, inverse.reshape(-1)


def _amplitudes(
    nodes: list[NetworkTensor],
    opened: list[int],
    fixed: dict[int, int],
    bits: Bits,
    contractor: Contractor,
) -> NDArray[np.complexfloating]:
    """Amplitudes [rows, 2**opened] up to a common factor of each row."""
    output = tuple(opened)
    size = 1 << len(opened)
    if not any(index in fixed for node in nodes for index in node.indices):
        return contractor.contract(nodes, output).reshape(1, size)
    first = selected(nodes, fixed, bits[:1], BATCH)
    step = contractor.rows_at_once(first, (BATCH, *output))
    results = []
    for at in range(0, len(bits), step):
        part = selected(nodes, fixed, bits[at : at + step], BATCH)
        if step == 1:  # a contraction with slices has no batch index
            part = [first_row(node) for node in part]
            results.append(contractor.contract(part, output).reshape(1, size))
        else:
            results.append(contractor.contract(part, (BATCH, *output)).reshape(-1, size))
    return np.concatenate(results)
