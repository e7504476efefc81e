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
from simulators.circuit.passes.noisy_cone import ActiveSupport, renumbered

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
    parent = list(range(circuit.num_qubits))

    def root(qubit: int) -> int:
        while parent[qubit] != qubit:
            parent[qubit] = parent[parent[qubit]]
            qubit = parent[qubit]
        return qubit

    for one, two in _joined(circuit, kept, locations):
        parent[root(one)] = root(two)
    groups: dict[int, list[int]] = {}
    for qubit in np.flatnonzero(needed).tolist():
        groups.setdefault(root(qubit), []).append(qubit)
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


def _joined(
    circuit: Circuit, kept: NDArray[np.bool_], locations: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Distinct pairs of qubits of one operation or channel."""
    rows = circuit.table.rows[circuit.ops]
    counts = rows[:, 1]
    wires = circuit.qubits.astype(np.int64)
    first = np.cumsum(counts) - counts
    wide = np.flatnonzero(kept & (counts > 1) & (rows[:, 0] != BARRIER))
    size = circuit.num_qubits
    keys = [locations[locations[:, Q1] >= 0][:, [Q0, Q1]] @ np.array([size, 1])]
    for k in range(1, int(counts[wide].max(initial=1))):
        mine = wide[counts[wide] > k]
        keys.append(wires[first[mine]] * size + wires[first[mine] + k])
    found = np.unique(np.concatenate(keys)).tolist()
    return [divmod(key, size) for key in found]


def split(part: Subcircuit, noise: NoiseProgram) -> tuple[tuple[Subcircuit, NoiseProgram], ...]:
    """Components of an active part, with their noise; one: the part as it is.

    Numbers are those in the whole circuit, as in `part`.
    """
    circuit = part.circuit
    everything = np.ones(circuit.ops.size, np.bool_)
    needed = np.ones(circuit.num_qubits, np.bool_)
    groups = component_qubits(circuit, everything, noise.locations, needed)
    if len(groups) == 1:
        return ((part, noise),)
    number = np.empty(circuit.num_qubits, np.int64)
    for k, qubits in enumerate(groups):
        number[qubits] = k
    rows = circuit.table.rows[circuit.ops]
    first = np.cumsum(rows[:, 1]) - rows[:, 1]
    acts = np.flatnonzero((rows[:, 1] > 0) & (rows[:, 0] != BARRIER))
    place = np.full(circuit.ops.size, -1, np.int64)
    place[acts] = number[circuit.qubits[first[acts]]]
    locations = number[noise.locations[:, Q0]]
    found = []
    for k, qubits in enumerate(groups):
        kept = place == k
        own = extract_part(circuit, kept, qubits)
        active = ActiveSupport(kept, locations == k, number == k)
        piece = Subcircuit(
            own.circuit, part.qubits[own.qubits], part.numbers[own.numbers], part.params[own.params]
        )
        found.append((piece, renumbered(noise, own, active)))
    return tuple(found)
