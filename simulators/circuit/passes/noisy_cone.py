"""Parts of circuits with noise: light cone, connected components, and the noise of a part."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import BARRIER
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import Subcircuit, extract_part
from simulators.circuit.passes.light_cone import OutputSupport, join, light_cone, root_of
from simulators.compiler.kernel import device_function, kernel

# Noise of a part of a circuit.


def noise_of_part(
    noise: NoiseProgram,
    locations: NDArray[np.int64],
    operations: NDArray[np.int64],
    qubits: NDArray[np.int64],
    *,
    readout: bool = True,
) -> NoiseProgram:
    """Noise program in the numbering of a part.

    `locations` [n, 4]: kept locations of `noise`, on `qubits` alone; `operations`, `qubits`: of the
    part, by their numbers in the circuit of `noise`, ascending. A channel after an operation that
    the part lacks follows the last earlier one of the part. `readout`: True if the part has the
    readout error too.
    """
    wires = np.empty(int(qubits.max(initial=-1)) + 1, np.int64)
    wires[qubits] = np.arange(qubits.size)
    moved = np.empty((len(locations), 4), np.int64)
    used, marks = np.empty(len(noise.channels), np.int64), np.full(len(noise.channels), -1)
    used = used[: _move_locations(locations, operations, wires, marks, used, moved)]
    digest = hashlib.blake2b(noise.digest, digest_size=32)
    digest.update(qubits.tobytes() + operations.tobytes() + moved[:, CHANNEL].tobytes())
    return msgspec.structs.replace(
        noise,
        digest=digest.digest(),
        locations=moved,
        channels=tuple([noise.channels[k] for k in used.tolist()]),
        readout=noise.readout.of(qubits) if readout and noise.readout is not None else None,
        known_facts=noise.facts.of(used),
    )


@kernel("INTS2 I64 I64 I64 I64 INTS2 -> INT", group="attachment")
def _move_locations(locations, operations, wires, marks, used, moved):  # type: ignore[no-untyped-def]
    """Fill `moved` with locations in the numbering of a part, and `used` with the channels in the
    order of their first location; returns the number of channels.

    `wires`: new number of each qubit; `marks` [channels]: all -1.
    """
    channels = before = 0
    for place in range(locations.shape[0]):
        while before < operations.size and operations[before] <= locations[place, AFTER_OP]:
            before += 1
        channel, second = locations[place, CHANNEL], locations[place, Q1]
        if marks[channel] < 0:
            marks[channel] = channels
            used[channels] = channel
            channels += 1
        moved[place, AFTER_OP] = before - 1
        moved[place, CHANNEL] = marks[channel]
        moved[place, Q0] = wires[locations[place, Q0]]
        moved[place, Q1] = wires[second] if second >= 0 else np.int64(-1)
    return channels


# Part of a circuit with noise that its outputs depend on.


def active_part(
    circuit: Circuit, noise: NoiseProgram, support: OutputSupport | None
) -> tuple[Subcircuit, NoiseProgram]:
    """Part of a circuit that its outputs depend on, and its noise; all of it without `support`.

    Qubits and operations are renumbered; `Subcircuit` has their numbers in the whole circuit.
    Barriers and delays are dropped, their noise stays.
    """
    if support is None:
        operations, params = np.arange(circuit.ops.size), np.arange(circuit.params.size)
        return Subcircuit(circuit, np.arange(circuit.num_qubits), operations, params), noise
    cone = light_cone(circuit, support, noise)
    part = extract_part(circuit, cone.kept, cone.qubits)
    return part, noise_of_part(noise, noise.locations[cone.acting], part.operations, part.qubits)


# Connected components of a circuit with noise: parts that share no gate and no channel.
#
# Qubits are joined by operations and by channels on two qubits. Classical bits join nothing: only
# circuits whose measurements are all final and that have no conditions are cut. Components of few
# qubits share a part, since a part costs more than its state.

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


_connect = kernel("NAMES U16 U16 U8 INTS2 I64", group="attachment")(connect)


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
