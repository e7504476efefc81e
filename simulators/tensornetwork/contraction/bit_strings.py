"""Amplitudes of chosen bit strings, from one network for all of them.

Bits that all strings share are set before the path is searched. If the strings are most of the
values of the few qubits in which they differ, these qubits stay open, and one contraction has all
amplitudes. Else the strings are rows of a batch: one path, and one contraction for many rows. Ranks
and tasks share the rows. A network whose tensors are too large for a batch is divided into slices,
string by string, and these are shared instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.tensornetwork.contraction.contractor import Contractor
from simulators.tensornetwork.contraction.network import (
    BATCH,
    NetworkTensor,
    StateNetwork,
    first_row,
    selected,
)

Bits = NDArray[np.uint8]
Amplitudes = NDArray[np.complexfloating]

_BATCH_WIDTH = 22  # log2 of the values of the largest tensor of a batch: 64 MiB
_OPEN_QUBITS = 12  # open in one contraction, at most
_OPEN_SHARE = 8  # open where strings are at least one in so many of the open qubits' values


def chosen_amplitudes(state: StateNetwork, bits: Bits, contractor: Contractor) -> Amplitudes:
    """Amplitude of each bit string, up to the global phase: [strings]. `bits`: uint8 [strings,
    qubits], the bit of qubit q in column q. If tasks share the contractions: this task's part of a
    sum."""
    idle = [q for q, index in enumerate(state.line) if index is None]  # still |0>
    possible = np.flatnonzero(~bits[:, idle].any(axis=1))
    qubit_of = {index: q for q, index in enumerate(state.line) if index is not None}
    result = np.zeros(len(bits), contractor.dtype)
    if not possible.size:
        return result
    rows = bits[possible]
    varying = {index: q for index, q in qubit_of.items() if (rows[:, q] != rows[0, q]).any()}
    shared = {index: q for index, q in qubit_of.items() if index not in varying}
    nodes, scalar = _simplified(selected(state.nodes, shared, rows[:1], BATCH))
    if not nodes:
        values = np.full(len(rows), float(contractor.owns(0)), contractor.dtype)
    elif len(varying) <= _OPEN_QUBITS and 1 << len(varying) <= _OPEN_SHARE * len(rows):
        values = _opened(nodes, varying, rows, contractor)
    else:
        values = _batched(nodes, varying, rows, contractor)
    result[possible] = values * np.asarray(scalar * state.scalar, result.dtype)
    return result


def _simplified(nodes: list[NetworkTensor]) -> tuple[list[NetworkTensor], complex]:
    """Nodes of the only row without the batch index, and the product of those without indices."""
    kept, scalar = [], 1.0 + 0.0j
    for node in map(first_row, nodes):
        if node.indices:
            kept.append(node)
        else:
            scalar *= complex(node.array)
    return kept, scalar


def _opened(
    nodes: list[NetworkTensor], varying: dict[int, int], rows: Bits, contractor: Contractor
) -> Amplitudes:
    """Amplitudes of all values of the varying qubits, by one contraction, and those of the rows."""
    table = contractor.contract(nodes, tuple(varying))
    picked: Amplitudes = table[tuple(rows[:, q] for q in varying.values())]
    return np.full(len(rows), table) if not varying else picked


def _batched(
    nodes: list[NetworkTensor], varying: dict[int, int], rows: Bits, contractor: Contractor
) -> Amplitudes:
    first = selected(nodes, varying, rows[:1], BATCH)
    step = contractor.rows_at_once(first, (BATCH,), _BATCH_WIDTH)
    if step > 1:
        return contractor.contract_rows(
            lambda part: selected(nodes, varying, part, BATCH), rows, step
        )
    values = np.zeros(len(rows), contractor.dtype)
    for number in range(len(rows)):  # a contraction with slices has no batch index
        part, scalar = _simplified(selected(nodes, varying, rows[number : number + 1], BATCH))
        contractor.check()
        values[number] = scalar * complex(contractor.contract(part, (), number))
    return values
