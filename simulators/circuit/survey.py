"""Compiled passes that find the first fault in a circuit's arrays.

Invariant: they may be given any bytes, and look at no array element before its index was checked.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit import tokens as tk
from simulators.circuit.gates import (
    DELAY,
    DELAY_DT,
    ELSE,
    END_BLOCK,
    FIRST_GATE,
    IF,
    MEASURE,
    RESET,
)
from simulators.circuit.table import FINDINGS, FOUND, MAX_NESTING
from simulators.jit import F64, I32, I64, INT, NAMES, U16, kernel, part

MAX_STACK = 100

# What `bounds` finds; SOUND or the first fault.
(
    SOUND, BAD_OP, SHORT_QUBITS, SHORT_CLBITS, SHORT_PARAMS, LONG_QUBITS, LONG_CLBITS, LONG_PARAMS,
    QUBIT_RANGE, CLBIT_RANGE, QUBIT_TWICE, NOT_FINITE, NEGATIVE_DELAY, SLOT_POSITION, SLOT_NUMBER,
    SLOT_TWICE, LONE_ELSE, LONE_END, OPEN_BLOCK, TOO_DEEP,
) = range(20)  # fmt: skip

# What `conditions` finds.
(
    NO_END, BAD_TOKEN, OPERAND_RANGE, STACK_EMPTY, STACK_FULL, NOT_ONE_BOOL, WANTS_BOOL, WANTS_UINT,
    WIDTHS_DIFFER, BAD_WIDTH,
) = range(30, 40)  # fmt: skip

# Slots of `found`, filled by `bounds`.
(
    AT, DETAIL, OPERATIONS, ONE_QUBIT, TWO_QUBIT, MANY_QUBIT, MEASUREMENTS, RESETS, IFS,
) = range(FINDINGS)  # fmt: skip


@part
def _repeated(qubits, first, count, stamps, mark):  # type: ignore[no-untyped-def]
    """Whether one operation names a qubit twice; `stamps` keeps wide ones linear."""
    if count <= 8:
        for i in range(1, count):
            for j in range(i):
                if qubits[first + i] == qubits[first + j]:
                    return True
        return False
    for i in range(count):
        q = qubits[first + i]
        if stamps[q] == mark:
            return True
        stamps[q] = mark
    return False


@part
def _slots(slots, num_slots, num_params, found):  # type: ignore[no-untyped-def]
    last = np.int64(-1)
    for k in range(slots.size // 2):
        position, slot = np.int64(slots[2 * k]), np.int64(slots[2 * k + 1])
        found[DETAIL] = position
        if position < 0 or position >= num_params:
            return SLOT_POSITION
        if position <= last:
            return SLOT_TWICE
        if slot < 0 or slot >= num_slots:
            found[DETAIL] = slot
            return SLOT_NUMBER
        last = position
    return SOUND


@kernel(NAMES, U16, U16, U16, F64, I32, INT, INT, INT, I64, returns=INT)
def bounds(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, params, slots, num_slots, num_qubits, num_clbits, found
):
    """SOUND, or the first fault with `found[AT]` (operation) and `found[DETAIL]` (the value).

    `found`: int64 [FOUND], or [FOUND_WIDE] for a table with operations on more than 8 qubits.
    """
    for k in range(FINDINGS):
        found[k] = 0
    blocks = found[FINDINGS:FOUND]  # 1: an `else` came
    stamps = found[FOUND:]
    fresh = True
    depth = q = c = p = 0
    found[OPERATIONS] = ops.size
    for k in range(ops.size):
        found[AT] = k
        op = np.int64(ops[k])
        if op >= rows.shape[0]:
            found[DETAIL] = op
            return BAD_OP
        code, nq, nc, np_ = rows[op, 0], rows[op, 1], rows[op, 2], rows[op, 3]
        if q + nq > qubits.size:
            return SHORT_QUBITS
        if c + nc > clbits.size:
            return SHORT_CLBITS
        if p + np_ > params.size:
            return SHORT_PARAMS
        for j in range(q, q + nq):
            if qubits[j] >= num_qubits:
                found[DETAIL] = qubits[j]
                return QUBIT_RANGE
        if nq > 8 and fresh:
            stamps[:] = -1
            fresh = False
        if nq > 1 and _repeated(qubits, q, nq, stamps, k):
            return QUBIT_TWICE
        for j in range(c, c + nc):
            if clbits[j] >= num_clbits:
                found[DETAIL] = clbits[j]
                return CLBIT_RANGE
        for j in range(p, p + np_):
            if not np.isfinite(params[j]):
                return NOT_FINITE
            if code in (DELAY, DELAY_DT) and params[j] < 0.0:
                return NEGATIVE_DELAY
        q += nq
        c += nc
        p += np_
        if code >= FIRST_GATE:
            found[ONE_QUBIT if nq <= 1 else TWO_QUBIT if nq == 2 else MANY_QUBIT] += 1
        elif code == MEASURE:
            found[MEASUREMENTS] += 1
        elif code == RESET:
            found[RESETS] += 1
        elif code == IF:
            if depth == MAX_NESTING:
                return TOO_DEEP
            blocks[depth] = 0
            depth += 1
            found[IFS] += 1
        elif code == ELSE:
            if depth == 0 or blocks[depth - 1]:
                return LONE_ELSE
            blocks[depth - 1] = 1
        elif code == END_BLOCK:
            if depth == 0:
                return LONE_END
            depth -= 1
    found[AT] = -1
    if depth:
        return OPEN_BLOCK
    if q != qubits.size:
        return LONG_QUBITS
    if c != clbits.size:
        return LONG_CLBITS
    if p != params.size:
        return LONG_PARAMS
    return _slots(slots, num_slots, params.size, found)


@part
def _typed(token, width, left, right):  # type: ignore[no-untyped-def]
    """Whether an operator takes operands of these widths and yields `width`."""
    if token == tk.CAST:
        return SOUND
    if token in (tk.LOGIC_NOT, tk.LOGIC_AND, tk.LOGIC_OR):
        if left or right:
            return WANTS_BOOL
        return SOUND if width == 0 else BAD_WIDTH
    if token in (tk.BIT_NOT, tk.BIT_AND, tk.BIT_OR, tk.BIT_XOR):
        if left != right:
            return WIDTHS_DIFFER
        return SOUND if width == left else BAD_WIDTH
    if token in (tk.EQUAL, tk.NOT_EQUAL):
        if (left == 0) != (right == 0):
            return WIDTHS_DIFFER
        return SOUND if width == 0 else BAD_WIDTH
    if left == 0 or right == 0:
        return WANTS_UINT
    if token in (tk.LESS, tk.LESS_EQUAL, tk.GREATER, tk.GREATER_EQUAL, tk.INDEX):
        return SOUND if width == 0 else BAD_WIDTH
    if token in (tk.ADD, tk.SUB, tk.MUL, tk.DIV) and left != right:
        return WIDTHS_DIFFER
    return SOUND if width == left else BAD_WIDTH


@kernel(I32, I64, INT, INT, I64, returns=INT)
def conditions(tokens, sizes, num_clbits, num_constants, found):  # type: ignore[no-untyped-def]
    """SOUND with the number of expressions in `found[IFS]`, or a fault at expression `found[AT]`.

    Widths on the stack: 0 is a Bool. Comparisons and shifts take Uints of any two widths.
    """
    stack = found[FINDINGS:]
    depth = 0
    found[IFS] = 0
    for k in range(tokens.size // 3):
        found[AT] = found[IFS]
        token, operand = np.int64(tokens[3 * k]), np.int64(tokens[3 * k + 1])
        width = np.int64(tokens[3 * k + 2])
        found[DETAIL] = operand
        if token < tk.END or token > tk.INDEX:
            found[DETAIL] = token
            return BAD_TOKEN
        if token == tk.END:
            if depth != 1 or stack[0] != 0:
                return NOT_ONE_BOOL
            depth = 0
            found[IFS] += 1
            continue
        if width < 0 or width > 65_535:
            found[DETAIL] = width
            return BAD_WIDTH
        if token <= tk.VALUE:
            limit = sizes.size
            if token == tk.CLBIT:
                limit = num_clbits
            elif token == tk.VALUE:
                limit = num_constants
            if operand < 0 or operand >= limit:
                return OPERAND_RANGE
            if depth == MAX_STACK:
                return STACK_FULL
            expected = np.int64(0)
            if token == tk.REGISTER:
                expected = sizes[operand]
            elif token == tk.VALUE:
                expected = width
            if width != expected:
                found[DETAIL] = width
                return BAD_WIDTH
            stack[depth] = width
            depth += 1
            continue
        found[DETAIL] = width
        takes = 1 if token <= tk.LOGIC_NOT else 2
        if depth < takes:
            return STACK_EMPTY
        depth -= takes
        left = stack[depth]
        fault = _typed(token, width, left, stack[depth + takes - 1])
        if fault != SOUND:
            return fault
        stack[depth] = width
        depth += 1
    return SOUND if depth == 0 else NO_END
