"""Parts of circuits: connected components, and slices."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS
from simulators.circuit import ir
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.gates import CASE, END_BLOCK, FOR, IF, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.passes import light_cone as passes_light_cone
from simulators.circuit.passes.light_cone import FULL, connected_components, light_cone
from simulators.compiler.kernel import kernel

# Reduction of a circuit to the light cone of its outputs, and its connected components.
#
# Each component is again a circuit, with its own qubits and the same clbits, and stores the numbers
# of its operations, qubits and parameters in the whole circuit. The reduction depends on the
# structure and the requested outputs alone. Small circuits are not reduced: it would cost more than
# it saves.

_OWNERS = np.array([IF, WHILE, FOR, SWITCH, CASE, STORE])


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
        """Bytes of its arrays."""
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
        """Qubits of the widest part."""
        return max((part.size for part in self.parts), default=0)


_NONE = np.zeros(0, np.int64)
UNREDUCED = Partition(_NONE.view(np.bool_), (), _NONE)


def partition(circuit: Circuit, asked: passes_light_cone.OutputSupport | None) -> Partition:
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
    roots, of_operations, several = connected_components(circuit, kept, needed)
    all_needed = bool(needed.all())
    if all_needed and not cone.gone and not several:
        return UNREDUCED
    parts: tuple[NDArray[np.int64], ...] = (cone.qubits,)
    places = np.zeros(circuit.ops.size, np.int64)
    if several and not _must_stay_together(circuit, asked):
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
    """Make a circuit of each part."""
    return tuple(
        extract_part(circuit, partition.kept & (partition.places == n), part)
        for n, part in enumerate(partition.parts)
    )


def _must_stay_together(circuit: Circuit, asked: passes_light_cone.OutputSupport) -> bool:
    """Return whether the outputs need a joint state. Samples of Pauli strings need the states of
    each shot, which are known part by part only."""
    if asked.together:
        return True
    return bool(asked.levels) and measurement_layout(circuit, keep=True).branching


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
    cut = msgspec.structs.replace(
        circuit,
        num_qubits=qubits.size,
        ops_data=ops[:count].tobytes(),
        qubits_data=wires[:num_wires].tobytes(),
        clbits_data=clbits[:num_clbits].tobytes(),
        params_data=circuit.params[params].tobytes(),
        slots_data=_kept_slots(circuit, params) if circuit.slots_data else b"",
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


def _kept_slots(circuit: Circuit, params: NDArray[np.int64]) -> bytes:
    """Slots of the free parameters among these, which are ascending."""
    pairs = circuit.slots.reshape(-1, 2)
    pairs = pairs[np.isin(pairs[:, 0], params)].copy()
    pairs[:, 0] = np.searchsorted(params, pairs[:, 0])
    return bytes(pairs.tobytes())


def _conditions(circuit: Circuit, kept: NDArray[np.bool_]) -> bytes:
    """Expressions of the kept operations."""
    codes = circuit.table.rows[circuit.ops, 0]
    tokens = circuit.conditions.reshape(-1, 3)
    ends = tokens[:, 0] == ir.END
    number = np.cumsum(ends) - ends  # expression number of each token
    own: NDArray[np.bool_] = kept[np.isin(codes, _OWNERS)][number]
    return bytes(tokens[own].tobytes())


# Slices of a circuit: consecutive operations, on the same qubits and clbits.

_OPENERS = (IF, WHILE, FOR, SWITCH)
_EXPRESSION_OWNERS = (*_OPENERS, CASE, STORE)  # each owns one expression, in order


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
    owners = np.cumsum(np.isin(rows[:, 0], _EXPRESSION_OWNERS))
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
