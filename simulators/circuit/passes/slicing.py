"""Slices of a circuit: consecutive operations, on the same qubits and clbits."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import tokens as tk
from simulators.circuit.gates import CASE, END_BLOCK, FOR, IF, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit, register_starts

_OPENERS = (IF, WHILE, FOR, SWITCH)
_OWNERS = (*_OPENERS, CASE, STORE)  # each owns one expression, in order


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
    ends = np.concatenate(([0], np.flatnonzero(tokens[:, 0] == tk.END) + 1))
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
        if token == tk.VALUE:
            meant = circuit.constants[operand]
        elif token in (tk.REGISTER, tk.SET_REGISTER):
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
