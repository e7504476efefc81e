"""Connected components of a circuit with noise: parts that share no gate and no channel.

Qubits are joined by operations and by channels on two qubits. Classical bits join nothing: only
circuits whose measurements are all final and that have no conditions are cut. Components of few
qubits share a part, since a part costs more than its state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import BARRIER
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import Subcircuit, extract_part
from simulators.circuit.passes.light_cone import join, root_of
from simulators.circuit.passes.noise_part import noise_of_part
from simulators.compiler.kernel import I64, INTS2, NAMES, U8, U16, device_function, kernel

PACKED_QUBITS = 2  # components share a part up to this width


def component_qubits(
    circuit: Circuit,
    kept: NDArray[np.bool_],
    locations: NDArray[np.int64],
    needed: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], ...]:
    """Needed qubits of each part, ascending; parts in the order of their first qubit.

    `kept` [operations]; `locations` [n, 4]: those that act; `needed` [qubits].
    """
    roots = np.empty(circuit.num_qubits, np.int64)
    _connect(circuit.table.rows, circuit.ops, circuit.qubits, kept.view(np.uint8), locations, roots)
    root = roots.tolist()
    groups: dict[int, list[int]] = {}
    for qubit in np.flatnonzero(needed).tolist():
        groups.setdefault(root[qubit], []).append(qubit)
    parts: list[list[int]] = []
    shared: list[int] | None = None
    for group in groups.values():
        if shared is not None and len(shared) + len(group) <= PACKED_QUBITS:
            shared += group
            continue
        parts.append(group)
        if len(group) < PACKED_QUBITS:
            shared = group
    return tuple(np.array(sorted(part), np.int64) for part in parts)


@device_function
def connect(rows, ops, qubits, kept, locations, parent):  # type: ignore[no-untyped-def]
    """Fill parent[qubit]: one qubit of its component by operations and channels."""
    for q in range(parent.size):
        parent[q] = q
    at = 0
    for k in range(ops.size):
        code, count = rows[ops[k], 0], rows[ops[k], 1]
        if kept[k] and code != BARRIER:
            for j in range(at + 1, at + count):
                join(parent, np.int64(qubits[at]), np.int64(qubits[j]))
        at += count
    for place in range(locations.shape[0]):
        if locations[place, Q1] >= 0:
            join(parent, locations[place, Q0], locations[place, Q1])
    for q in range(parent.size):
        parent[q] = root_of(parent, q)


_connect = kernel(NAMES, U16, U16, U8, INTS2, I64, group="attachment")(connect)


def split(part: Subcircuit, noise: NoiseProgram) -> tuple[tuple[Subcircuit, NoiseProgram], ...]:
    """Components of an active part with their noise, but without readout error, which acts on joint
    records; a single entry if the part is connected.

    Numbers are those in the whole circuit, as in `part`. Free parameters keep their positions.
    """
    circuit = part.circuit
    everything = np.ones(circuit.ops.size, np.bool_)
    needed = np.ones(circuit.num_qubits, np.bool_)
    groups = component_qubits(circuit, everything, noise.locations, needed)
    if len(groups) == 1:
        return ((part, noise),)
    number = np.empty(circuit.num_qubits, np.int64)  # component of each qubit
    for k, qubits in enumerate(groups):
        number[qubits] = k
    rows = circuit.table.rows[circuit.ops]
    first = np.cumsum(rows[:, 1]) - rows[:, 1]
    acts = np.flatnonzero((rows[:, 1] > 0) & (rows[:, 0] != BARRIER))
    place = np.full(circuit.ops.size, -1, np.int64)
    place[acts] = number[circuit.qubits[first[acts]]]
    of_locations = number[noise.locations[:, Q0]]
    pieces = []
    for k, qubits in enumerate(groups):
        piece = extract_part(circuit, place == k, qubits)
        locations = noise.locations[of_locations == k]
        own = noise_of_part(noise, locations, piece.operations, qubits, readout=False)
        pieces.append((piece.within(part), own))
    return tuple(pieces)
