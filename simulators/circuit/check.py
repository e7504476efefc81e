"""Is a circuit admissible? The one answer for everyone, before any engine sees it.

Invariant: every byte pattern gets a message or "", never an exception; the engines' kernels do no
bounds checks because this did them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import survey
from simulators.circuit.ir import MAX_CLBITS, MAX_QUBITS, Circuit
from simulators.circuit.table import MAX_NESTING

MAX_SLOTS = 2**20

_TEXTS = {
    survey.BAD_OP: "row {0} of the operation table does not exist",
    survey.SHORT_QUBITS: "the list of qubits ends too early",
    survey.SHORT_CLBITS: "the list of clbits ends too early",
    survey.SHORT_PARAMS: "the list of parameters ends too early",
    survey.LONG_QUBITS: "the list of qubits is longer than the operations need",
    survey.LONG_CLBITS: "the list of clbits is longer than the operations need",
    survey.LONG_PARAMS: "the list of parameters is longer than the operations need",
    survey.QUBIT_RANGE: "qubit {0} does not exist",
    survey.CLBIT_RANGE: "clbit {0} does not exist",
    survey.QUBIT_TWICE: "the same qubit twice",
    survey.NOT_FINITE: "a parameter is not a finite number",
    survey.NEGATIVE_DELAY: "a delay is negative",
    survey.SLOT_POSITION: "a slot fills parameter {0}, which does not exist",
    survey.SLOT_NUMBER: "slot {0} does not exist",
    survey.SLOT_TWICE: "slots are not in ascending order of parameters (at parameter {0})",
    survey.LONE_ELSE: "an else without an if",
    survey.LONE_END: "an end without an if",
    survey.OPEN_BLOCK: "an if without an end",
    survey.TOO_DEEP: f"blocks are nested more than {MAX_NESTING} deep",
    survey.NO_END: "the last expression does not end",
    survey.BAD_TOKEN: "token {0} does not exist",
    survey.OPERAND_RANGE: "operand {0} does not exist",
    survey.STACK_EMPTY: "an operator lacks an operand",
    survey.STACK_FULL: f"more than {survey.MAX_STACK} values are open",
    survey.NOT_ONE_BOOL: "it does not yield one Bool",
    survey.WANTS_BOOL: "a logical operator needs Bools",
    survey.WANTS_UINT: "an arithmetic operator needs Uints",
    survey.WIDTHS_DIFFER: "the operands' widths differ",
    survey.BAD_WIDTH: "the width {0} does not fit the token",
}


def problem(circuit: Circuit) -> str:
    """Why the circuit cannot be run by any engine; "" if it can."""
    text = circuit.fault or circuit.table.problem or _sizes(circuit)
    if text:
        return text
    found = np.empty(circuit.table.found_size, np.int64)
    fault = survey.bounds(
        circuit.table.rows,
        circuit.ops,
        circuit.qubits,
        circuit.clbits,
        circuit.params,
        circuit.slots,
        circuit.num_slots,
        circuit.num_qubits,
        circuit.num_clbits,
        found,
    )
    if fault != survey.SOUND:
        return _where(circuit, found) + _TEXTS[fault].format(found[survey.DETAIL])
    blocks = int(found[survey.IFS])
    if not blocks and not circuit.conditions.size:
        return ""
    return _conditions(circuit, blocks, found)


def _sizes(circuit: Circuit) -> str:
    if not 0 <= circuit.num_qubits <= MAX_QUBITS:
        return f"{circuit.num_qubits} qubits; the limit is {MAX_QUBITS}"
    if not 0 <= circuit.num_clbits <= MAX_CLBITS:
        return f"{circuit.num_clbits} clbits; the limit is {MAX_CLBITS}"
    if not 0 <= circuit.num_slots <= MAX_SLOTS:
        return f"{circuit.num_slots} parameter slots; the limit is {MAX_SLOTS}"
    total = 0
    for name, size in circuit.registers:
        if size < 0:
            return f"register {name[:64]!r} has {size} bits"
        total += size
    if total != circuit.num_clbits:
        return f"the registers hold {total} bits, the circuit {circuit.num_clbits}"
    return ""


def _where(circuit: Circuit, found: NDArray[np.int64]) -> str:
    at = int(found[survey.AT])
    if at < 0:
        return ""
    op = int(circuit.ops[at])
    name = circuit.table.names[op] if op < len(circuit.table.names) else "?"
    return f"operation {at} ({name}): "


def _conditions(circuit: Circuit, blocks: int, found: NDArray[np.int64]) -> str:
    sizes = np.array([size for _, size in circuit.registers], np.int64)
    fault = survey.conditions(
        circuit.conditions, sizes, circuit.num_clbits, len(circuit.constants), found
    )
    if fault != survey.SOUND:
        return f"condition {found[survey.AT]}: {_TEXTS[fault].format(found[survey.DETAIL])}"
    if found[survey.IFS] != blocks:
        return f"{blocks} if blocks, but {found[survey.IFS]} conditions"
    return ""
