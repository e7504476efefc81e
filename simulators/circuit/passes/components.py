"""Parts of circuits, with noise and without: light cone, connected components, and slices."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS
from simulators.circuit import ir
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.gates import BARRIER, CASE, END_BLOCK, FOR, IF, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes import light_cone as passes_light_cone
from simulators.circuit.passes.light_cone import FULL, OutputSupport, join, light_cone, root_of
from simulators.compiler.kernel import device_function, kernel

# Reduction of a circuit to the light cone of its outputs, and its connected components.
#
# Each component is again a circuit, with its own qubits and the same clbits, and stores the numbers
# of its operations, qubits and parameters in the whole circuit. The reduction depends on the
# structure and the requested outputs alone. Small circuits are not reduced: it would cost more than
# it saves.

_OPENERS = (IF, WHILE, FOR, SWITCH)
_OWNERS = (*_OPENERS, CASE, STORE)  # each owns one expression, in order


class Subcircuit(msgspec.Struct, frozen=True, eq=False):
    """A part of a circuit that can be run alone."""

    circuit: Circuit  # with the parameters of its origin
    qubits: NDArray[np.int64]  # [its qubits] numbers in the whole circuit, ascending
    operations: NDArray[np.int64]  # [its operations] numbers in the whole circuit
    params: NDArray[np.int64]  # [its parameters] numbers in the whole circuit

    def of(self, circuit: Circuit) -> Circuit:
        """This part of another circuit with the same structure."""
        params = circuit.params[self.params].tobytes()
        return msgspec.structs.replace(self.circuit, params_data=params)

    def within(self, outer: Subcircuit) -> Subcircuit:
        """This part of a part, numbered as the whole circuit of the latter."""
        return msgspec.structs.replace(
            self,
            qubits=outer.qubits[self.qubits],
            operations=outer.operations[self.operations],
            params=outer.params[self.params],
        )

    @property
    def memory_bytes(self) -> int:
        own, arrays = self.circuit, (self.qubits, self.operations, self.params)
        data = (own.ops_data, own.qubits_data, own.clbits_data, own.params_data, own.slots_data)
        return sum(map(len, data)) + sum(array.nbytes for array in arrays)

    def labels(self, labels: tuple[str, ...], num_qubits: int) -> tuple[str, ...]:
        """Pauli strings of the full circuit, restricted to this component's qubits."""
        if not labels:
            return ()
        letters = np.frombuffer("".join(labels).encode(), np.uint8).reshape(-1, num_qubits)
        text = letters[:, (num_qubits - 1 - self.qubits)[::-1]].tobytes().decode()
        size = self.qubits.size
        return tuple(text[at : at + size] for at in range(0, len(text), size))


class Partition(msgspec.Struct, frozen=True, eq=False):
    """Operations that are run, and the components of a circuit."""

    kept: NDArray[np.bool_]  # [operations]
    parts: tuple[NDArray[np.int64], ...]  # qubits of each part; (): the circuit is not divided
    places: NDArray[np.int64]  # [operations] part of each operation

    @property
    def num_qubits(self) -> int:
        """Number of qubits of all components."""
        return sum(part.size for part in self.parts)

    @property
    def widest(self) -> int:
        return max((part.size for part in self.parts), default=0)


_NONE = np.zeros(0, np.int64)
UNREDUCED = Partition(_NONE.view(np.bool_), (), _NONE)


def partition(circuit: Circuit, asked: OutputSupport | None) -> Partition:
    """Find the light cone and its components; UNREDUCED if no operation can be dropped and the
    circuit is not divided."""
    if asked is None or circuit.num_qubits <= SMALL_QUBITS:
        return UNREDUCED
    # Small circuits avoid the kernels that this loads.
    seen = np.frombuffer(asked.levels, np.uint8)
    if circuit.clbits_data and (seen == FULL).any():
        measured = measurement_layout(circuit, keep=True).measured
        if any(measured >> qubit & 1 for qubit in np.flatnonzero(seen == FULL).tolist()):
            return UNREDUCED  # invalid outputs: see `expectation.refuse_collapsed`
    cone = light_cone(circuit, asked)
    kept, needed = cone.kept, cone.needed
    roots, of_operations, several = passes_light_cone.connected_components(circuit, kept, needed)
    all_needed = bool(needed.all())
    if all_needed and not cone.gone and not several:
        return UNREDUCED
    parts: tuple[NDArray[np.int64], ...] = (cone.qubits,)
    places = np.zeros(circuit.ops.size, np.int64)
    # Samples of Pauli strings need the states of each shot, which are known part by part only.
    if several and not (
        asked.together or (asked.levels and measurement_layout(circuit, keep=True).branching)
    ):
        parts = _packed(roots, parts[0])
        if len(parts) > 1:  # operations without qubits, such as a store, belong to the first part
            number = np.zeros(max(roots.max(), of_operations.max(initial=0)) + 1, np.int64)
            for n, part in enumerate(parts):
                number[roots[part]] = n
            places = number[of_operations]
    if all_needed and not cone.gone and len(parts) == 1:
        return UNREDUCED
    return Partition(kept, parts, places)


def extract(circuit: Circuit, partition: Partition) -> tuple[Subcircuit, ...]:
    return tuple(
        extract_part(circuit, partition.kept & (partition.places == n), part)
        for n, part in enumerate(partition.parts)
    )


def _packed(roots: NDArray[np.int64], qubits: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Qubits of each part. Narrow components share a part while it is small: a part costs more than
    its amplitudes."""
    _, first, inverse = np.unique(roots[qubits], return_index=True, return_inverse=True)
    sizes = np.bincount(inverse)
    part_of = np.zeros(sizes.size, np.int64)
    parts = 0
    shared, room = 0, 0
    for component in np.argsort(first).tolist():
        size = int(sizes[component])
        if size <= room:
            part_of[component] = shared
            room -= size
            continue
        part_of[component] = parts
        if SMALL_QUBITS - size > room:
            shared, room = parts, SMALL_QUBITS - size
        parts += 1
    mine = part_of[inverse]
    order = np.argsort(mine, kind="stable")
    return tuple(np.split(qubits[order], np.cumsum(np.bincount(mine))[:-1]))


def extract_part(
    circuit: Circuit, kept: NDArray[np.bool_], qubits: NDArray[np.int64]
) -> Subcircuit:
    """Make a circuit of these operations, on these qubits."""
    new = np.zeros(circuit.num_qubits, np.int64)
    new[qubits] = np.arange(qubits.size)
    ops, wires, clbits = (
        np.empty(flat.size, np.uint16) for flat in (circuit.ops, circuit.qubits, circuit.clbits)
    )
    op_ids, params = np.empty(ops.size, np.int64), np.empty(circuit.params.size, np.int64)
    sizes = np.zeros(4, np.int64)
    _extract(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, kept.view(np.uint8), new,
        ops, wires, clbits, op_ids, params, sizes,
    )  # fmt: skip
    count, num_wires, num_clbits, num_params = sizes.tolist()
    params = params[:num_params]
    slots = circuit.slots.reshape(-1, 2)
    if slots.size:
        slots = slots[np.isin(slots[:, 0], params)].copy()
        slots[:, 0] = np.searchsorted(params, slots[:, 0])  # parameters ascend
    cut = msgspec.structs.replace(
        circuit,
        num_qubits=qubits.size,
        ops_data=ops[:count].tobytes(),
        qubits_data=wires[:num_wires].tobytes(),
        clbits_data=clbits[:num_clbits].tobytes(),
        params_data=circuit.params[params].tobytes(),
        slots_data=slots.tobytes(),
        conditions_data=_conditions(circuit, kept) if circuit.conditions_data else b"",
    )
    return Subcircuit(cut, qubits, op_ids[:count], params)


@kernel("NAMES U16 U16 U16 U8 I64 SHORTS SHORTS SHORTS I64 I64 I64", group="light_cone")
def _extract(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, kept, new, kept_ops, kept_qubits, kept_clbits, op_ids, params, sizes
):
    """Fill the flat arrays of the kept operations, with qubits renumbered by `new`, the numbers of
    these operations and parameters, and `sizes`: operations, qubits, clbits, parameters."""
    at = bit = param = 0
    count = wires = bits = angles = 0
    for k in range(ops.size):
        op = ops[k]
        if kept[k]:
            kept_ops[count] = op
            op_ids[count] = k
            count += 1
            for j in range(at, at + rows[op, 1]):
                kept_qubits[wires] = new[qubits[j]]
                wires += 1
            for j in range(bit, bit + rows[op, 2]):
                kept_clbits[bits] = clbits[j]
                bits += 1
            for j in range(param, param + rows[op, 3]):
                params[angles] = j
                angles += 1
        at += rows[op, 1]
        bit += rows[op, 2]
        param += rows[op, 3]
    sizes[0], sizes[1], sizes[2], sizes[3] = count, wires, bits, angles


def _conditions(circuit: Circuit, kept: NDArray[np.bool_]) -> bytes:
    codes = circuit.table.rows[circuit.ops, 0]
    tokens = circuit.conditions.reshape(-1, 3)
    ends = tokens[:, 0] == ir.END
    number = np.cumsum(ends) - ends  # expression number of each token
    own: NDArray[np.bool_] = kept[np.isin(codes, _OWNERS)][number]
    return bytes(tokens[own].tobytes())


# Noise of a part of a circuit.


def noise_of_part(
    noise: NoiseProgram,
    locations: NDArray[np.int64],
    operations: NDArray[np.int64],
    qubits: NDArray[np.int64],
    *,
    readout: bool = True,
) -> NoiseProgram:
    """Noise program in the numbering of a part. `locations` [n, 4]: kept locations of `noise`, on
    `qubits` alone; `operations`, `qubits`: of the part, by their numbers in the circuit of `noise`,
    ascending. A channel after an operation that the part lacks follows the last earlier one of the
    part. `readout`: True if the part has the readout error too."""
    if noise.leakage is not None and len(locations) < len(noise.locations):
        raise ValueError("a part of a circuit that leaks: make its flags qubits before")
    wires = np.full(int(qubits.max(initial=-1)) + 1, -1, np.int64)
    wires[qubits] = np.arange(qubits.size)
    moved = np.empty((len(locations), 4), np.int64)
    used, marks = np.empty(len(noise.channels), np.int64), np.full(len(noise.channels), -1)
    used = used[: _move_locations(locations, operations, wires, marks, used, moved)]
    digest = hashlib.blake2b(noise.digest, digest_size=32)
    digest.update(qubits.tobytes() + operations.tobytes() + moved[:, CHANNEL].tobytes())
    of_part = noise.readout.of(qubits) if readout and noise.readout is not None else None
    if of_part is not None and of_part.own:
        own = {k: of_part.own[at] for k, at in enumerate(operations.tolist()) if at in of_part.own}
        of_part = msgspec.structs.replace(of_part, own=own)
    return msgspec.structs.replace(
        noise,
        ordered=None,
        digest=digest.digest(),
        locations=moved,
        channels=tuple([noise.channels[k] for k in used.tolist()]),
        readout=of_part,
        known_facts=noise.facts.of(used),
        detunings=None if noise.detunings is None else noise.detunings.of(operations, wires),
        leakage=None if noise.leakage is None else noise.leakage.of(operations, wires),
    )


@kernel("INTS2 I64 I64 I64 I64 INTS2 -> INT", group="attachment")
def _move_locations(locations, operations, wires, marks, used, moved):  # type: ignore[no-untyped-def]
    """Fill `moved` with locations in the numbering of a part, and `used` with the channels in the
    order of their first location; returns the number of channels. `wires`: new number of each
    qubit; `marks` [channels]: all -1."""
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
    Barriers and delays are dropped, their noise stays."""
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
    packed: int = PACKED_QUBITS,
) -> tuple[NDArray[np.int64], ...]:
    """Needed qubits of each part, ascending; parts in the order of their first qubit. `kept`
    [operations]; `locations` [n, 4]: those that act; `needed` [qubits]; `packed`: width up to
    which components share a part."""
    roots = np.empty(circuit.num_qubits, np.int64)
    _connect(circuit.table.rows, circuit.ops, circuit.qubits, kept.view(np.uint8), locations, roots)
    root = roots.tolist()
    groups: dict[int, list[int]] = {}
    for qubit in np.flatnonzero(needed).tolist():
        groups.setdefault(root[qubit], []).append(qubit)
    parts: list[list[int]] = []
    shared: list[int] | None = None
    for group in groups.values():
        if shared is not None and len(shared) + len(group) <= packed:
            shared += group
            continue
        parts.append(group)
        if len(group) < packed:
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


def split(
    part: Subcircuit, noise: NoiseProgram, packed: int = PACKED_QUBITS
) -> tuple[tuple[Subcircuit, NoiseProgram], ...]:
    """Components of an active part with their noise, but without readout error, which acts on joint
    records; a single entry if the part is connected. Numbers are those in the whole circuit, as in
    `part`. Free parameters keep their positions. `packed`: see `component_qubits`."""
    circuit = part.circuit
    everything = np.ones(circuit.ops.size, np.bool_)
    needed = np.ones(circuit.num_qubits, np.bool_)
    groups = component_qubits(circuit, everything, noise.locations, needed, packed)
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


# Slices of a circuit: consecutive operations, on the same qubits and clbits.


def depths(circuit: Circuit) -> NDArray[np.int64]:
    """Number of open blocks after each operation: int64 [operations]."""
    codes = circuit.table.rows[circuit.ops, 0]
    opened = np.isin(codes, _OPENERS).astype(np.int64)
    return np.cumsum(opened - (codes == END_BLOCK))


def sliced(circuit: Circuit, first: int, last: int) -> Circuit:
    """Slice with the operations first .. last - 1, whose blocks are closed; its parameters and
    slots are those of `parameter_range`."""
    rows = circuit.table.rows[circuit.ops]
    at_qubit, at_clbit, at_param = _begins(rows, first)
    end_qubit, end_clbit, end_param = _begins(rows, last)
    slots = circuit.slots.reshape(-1, 2)
    slots = slots[(slots[:, 0] >= at_param) & (slots[:, 0] < end_param)]
    owners = np.cumsum(np.isin(rows[:, 0], _OWNERS))
    begun = int(owners[first - 1]) if first else 0
    ended = int(owners[last - 1]) if last else 0
    tokens = circuit.conditions.reshape(-1, 3)
    ends = np.concatenate(([0], np.flatnonzero(tokens[:, 0] == ir.END) + 1))
    return msgspec.structs.replace(
        circuit,
        ops_data=circuit.ops_data[2 * first : 2 * last],
        qubits_data=circuit.qubits_data[2 * at_qubit : 2 * end_qubit],
        clbits_data=circuit.clbits_data[2 * at_clbit : 2 * end_clbit],
        params_data=circuit.params_data[8 * at_param : 8 * end_param],
        slots_data=(slots - np.array([at_param, 0], np.int32)).astype("<i4").tobytes(),
        conditions_data=tokens[ends[begun] : ends[ended]].tobytes(),
    )


def parameter_range(circuit: Circuit, first: int, last: int) -> slice:
    """Range of the parameters of operations first .. last - 1 among all parameters."""
    rows = circuit.table.rows[circuit.ops]
    return slice(_begins(rows, first)[2], _begins(rows, last)[2])


def _begins(rows: NDArray[np.int64], first: int) -> tuple[int, int, int]:
    """First qubit, clbit and parameter of an operation in the flat arrays."""
    qubits, clbits, params = rows[:first, 1:].sum(axis=0).tolist()
    return qubits, clbits, params


def content(circuit: Circuit) -> list[bytes]:
    """Content that determines the effect of a circuit's operations, independent of unused table
    entries: equal for equal slices of different circuits."""
    rows = circuit.table.rows[circuit.ops]
    matrices = circuit.table.matrix[circuit.ops]
    own = [circuit.matrices[k] for k in matrices[matrices >= 0].tolist()]
    starts = register_starts(circuit).tolist()
    tokens: list[object] = []
    for token, operand, width in circuit.conditions.reshape(-1, 3).tolist():
        meant: object = operand
        if token == ir.VALUE:
            meant = circuit.constants[operand]
        elif token in (ir.REGISTER, ir.SET_REGISTER):
            meant = starts[operand], starts[operand + 1]
        tokens.append((token, meant, width))
    return [
        rows.tobytes(),
        circuit.qubits_data,
        circuit.clbits_data,
        circuit.params_data,
        repr(tokens).encode(),
        *own,
    ]


def parts_problem(circuit: Circuit, ends: tuple[int, ...]) -> str:
    """Reason why the leading operations cannot be divided at `ends`; "" if they can. See
    `CircuitParts`."""
    size = circuit.ops.size
    if not ends or any(a > b for a, b in zip((0, *ends), (*ends, size), strict=True)):
        return f"parts that end before operations {ends}, of {size}: they do not follow each other"
    open_blocks = np.concatenate(([0], depths(circuit)))[np.array(ends)]
    if open_blocks.any():
        return f"a part ends inside a block, before operation {ends[int(open_blocks.argmax())]}"
    if (circuit.slots[0::2] < parameter_range(circuit, 0, ends[-1]).stop).any():
        return "a part has free parameters: only what follows the parts may"
    return ""
