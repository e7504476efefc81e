"""Admission check: validation of a circuit before any engine gets it.

Any received bytes give a message or "", never an exception. The engines' kernels check no bounds
because this check did.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import MAX_CLBITS, MAX_NESTING, MAX_QUBITS, Circuit, Table
from simulators.circuit.validation import operations
from simulators.compiler.kernel import kernel

MAX_SLOTS = 2**20
MAX_VARIABLES = 4096
MAX_CONSTANT_BYTES = (MAX_CLBITS + 7) // 8  # arithmetic on longer constants would take minutes
MAX_MATRIX_BYTES = 32 * 2**20

_AT_ONCE = 1 << 18  # numbers of matrices that are checked together: 4 MiB
_TOLERANCE = 1e-4  # tolerance of a unitary matrix; Qiskit's own is 1e-5
_SMALL = 8  # largest matrix for the compiled check: calls of numpy take longer for many of them
_MULTIPLIED = 32  # largest matrix that is multiplied by its inverse

_TEXTS = {
    operations.BAD_OP: "row {0} of the operation table does not exist",
    operations.SHORT_QUBITS: "the list of qubits ends too early",
    operations.SHORT_CLBITS: "the list of clbits ends too early",
    operations.SHORT_PARAMS: "the list of parameters ends too early",
    operations.LONG_QUBITS: "the list of qubits is longer than the operations need",
    operations.LONG_CLBITS: "the list of clbits is longer than the operations need",
    operations.LONG_PARAMS: "the list of parameters is longer than the operations need",
    operations.QUBIT_RANGE: "qubit {0} does not exist",
    operations.CLBIT_RANGE: "clbit {0} does not exist",
    operations.QUBIT_TWICE: "the same qubit twice",
    operations.NOT_FINITE: "a parameter is not a finite number",
    operations.NEGATIVE_DELAY: "a delay is negative",
    operations.SLOT_POSITION: "a slot fills parameter {0}, which does not exist",
    operations.SLOT_NUMBER: "slot {0} does not exist",
    operations.SLOT_TWICE: "slots are not in ascending order of parameters (at parameter {0})",
    operations.LONE_ELSE: "an else without an if",
    operations.LONE_END: "an end without a block",
    operations.OPEN_BLOCK: "a block without an end",
    operations.TOO_DEEP: f"blocks are nested more than {MAX_NESTING} deep",
    operations.LONE_CASE: "a case outside of a switch, or after its default",
    operations.NO_CASE: "a switch begins with something else than a case",
    operations.LONE_BREAK: "outside of a loop",
    operations.NO_END: "the last expression does not end",
    operations.BAD_TOKEN: "token {0} does not exist",
    operations.OPERAND_RANGE: "operand {0} does not exist",
    operations.STACK_EMPTY: "an operator lacks an operand",
    operations.STACK_FULL: f"more than {operations.MAX_STACK} values are open",
    operations.NOT_ONE_VALUE: "it does not yield one value",
    operations.WANTS_BOOL: "a logical operator needs Bools",
    operations.WANTS_UINT: "an arithmetic operator needs Uints",
    operations.WIDTHS_DIFFER: "the operands' widths differ",
    operations.BAD_WIDTH: "the width {0} does not fit the token",
    operations.AFTER_SET: "token {0} follows a store",
    operations.WANTS_CONDITION: "its expression does not yield one Bool",
    operations.WANTS_COUNT: "its expression is not one constant Uint",
    operations.WANTS_VALUE: "its expression does not yield one value",
    operations.WANTS_LABELS: "its expression is not constants of the switch's type",
    operations.WANTS_STORE: "its expression stores nothing",
}


def validation_error(circuit: Circuit) -> str:
    """Reason why no engine can run the circuit; "" if it is valid."""
    text = circuit.fault or circuit.table.problem or _sizes(circuit)
    if text:
        return text
    fault, result = operations.checked(circuit)
    if fault != operations.SOUND:
        return _where(circuit, result) + _TEXTS[fault].format(result[operations.DETAIL])
    text = _matrices(circuit)
    if text:
        return text
    if not result[operations.OWNERS] and not circuit.conditions.size:
        return ""
    return _expressions(circuit, int(result[operations.OWNERS]))


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
    longest = max(map(len, circuit.constants), default=0)
    if longest > MAX_CONSTANT_BYTES:
        return f"a constant of {longest} bytes; the limit is {MAX_CONSTANT_BYTES}"
    return _variables(circuit) if circuit.variables else ""


def _variables(circuit: Circuit) -> str:
    if len(circuit.variables) > MAX_VARIABLES:
        return f"{len(circuit.variables)} variables; the limit is {MAX_VARIABLES}"
    total = 0
    for number, width in enumerate(circuit.variables):
        if not 0 <= width <= MAX_CLBITS:
            return f"variable {number} has {width} bits; the limit is {MAX_CLBITS}"
        total += max(1, width)
    if total > MAX_CLBITS:
        return f"the variables have {total} bits; the limit is {MAX_CLBITS}"
    return ""


@functools.lru_cache(maxsize=1024)
def _matrix_widths(table: Table) -> tuple[int, ...]:
    """Qubits of each row that stands for a matrix."""
    return tuple(table.rows[table.matrix >= 0, 1].tolist())


def _matrices(circuit: Circuit) -> str:
    wanted = _matrix_widths(circuit.table)
    if not wanted and not circuit.matrices:
        return ""
    if len(wanted) != len(circuit.matrices):
        return f"{len(wanted)} kinds of unitary, but {len(circuit.matrices)} matrices"
    if sum(map(len, circuit.matrices)) > MAX_MATRIX_BYTES:
        return f"the matrices have more than {MAX_MATRIX_BYTES} bytes"
    sizes = list(map(len, circuit.matrices))
    if sizes != [16 << 2 * qubits for qubits in wanted]:
        number = next(k for k, qubits in enumerate(wanted) if sizes[k] != 16 << 2 * qubits)
        return f"matrix {number} has {sizes[number]} bytes, not those of {wanted[number]} qubits"
    wrong: list[int] = []
    for qubits in set(wanted):
        indices = [number for number, width in enumerate(wanted) if width == qubits]
        at_once = max(1, _AT_ONCE >> 2 * qubits)
        for first in range(0, len(indices), at_once):
            some = indices[first : first + at_once]
            data = b"".join([circuit.matrices[number] for number in some])
            if 1 << qubits <= _SMALL:
                place = _first_not_unitary(np.frombuffer(data), 1 << qubits)
                wrong += [] if place < 0 else [some[place]]
                continue
            stack = np.frombuffer(data, np.complex128).reshape(-1, 1 << qubits, 1 << qubits)
            wrong += [some[place] for place in np.flatnonzero(~_unitary(stack)).tolist()]
    return f"matrix {min(wrong)} is not unitary" if wrong else ""


@kernel("F64 INT -> INT", group="admission")
def _first_not_unitary(values, size):  # type: ignore[no-untyped-def]
    """Return the first of several matrices [size, size] that is not unitary within rounding, -1 if
    all are. `values`: real and imaginary parts, alternating."""
    row = 2 * size
    for m in range(values.size // (row * size)):
        for a in range(m * size, (m + 1) * size):
            for b in range(m * size, a + 1):
                re, im = -1.0 if a == b else 0.0, 0.0
                for k in range(0, row, 2):
                    x, y = values[a * row + k], values[a * row + k + 1]
                    u, v = values[b * row + k], values[b * row + k + 1]
                    re += x * u + y * v
                    im += y * u - x * v
                if not re * re + im * im <= _TOLERANCE**2:  # also if it is no number
                    return m
    return -1


def _unitary(stack: NDArray[np.complex128]) -> NDArray[np.bool_]:
    """Mask of the matrices that are unitary within rounding; of wide ones only the lengths of rows
    and columns are checked. stack: [matrices, size, size]."""
    largest = np.abs(stack.view(np.float64)).max(axis=(1, 2))
    result: NDArray[np.bool_] = largest < 2.0  # false for nan too
    some = stack[result]
    if stack.shape[1] <= _MULTIPLIED:
        gap = some @ some.conj().transpose(0, 2, 1) - np.eye(stack.shape[1])
        result[result] = np.abs(gap).max(axis=(1, 2)) <= _TOLERANCE
    else:
        weights = some.real**2 + some.imag**2
        gaps = [np.abs(weights.sum(axis) - 1.0).max(axis=1) for axis in (1, 2)]
        result[result] = np.maximum(*gaps) <= _TOLERANCE
    return result


def _where(circuit: Circuit, report: NDArray[np.int64]) -> str:
    at = int(report[operations.AT])
    if at < 0:
        return ""
    op = int(circuit.ops[at])
    name = circuit.table.names[op] if op < len(circuit.table.names) else "?"
    return f"operation {at} ({name}): "


def _expressions(circuit: Circuit, owners: int) -> str:
    report = np.empty(circuit.table.found_size, np.int64)
    sizes = np.array([size for _, size in circuit.registers], np.int64)
    widths = np.array(circuit.variables, np.int64)
    shapes = np.empty(2 * (circuit.conditions.size // 3), np.int64)
    fault = operations.check_expressions(
        circuit.conditions, sizes, widths, circuit.num_clbits, len(circuit.constants), shapes,
        report,
    )  # fmt: skip
    if fault != operations.SOUND:
        return (
            f"expression {report[operations.AT]}: {_TEXTS[fault].format(report[operations.DETAIL])}"
        )
    if report[operations.OWNERS] != owners:
        return f"{owners} expressions are wanted, but there are {report[operations.OWNERS]}"
    fault = operations.check_expression_owners(
        circuit.table.rows, circuit.ops, circuit.conditions, shapes, report
    )
    if fault != operations.SOUND:
        return _where(circuit, report) + _TEXTS[fault]
    return ""
