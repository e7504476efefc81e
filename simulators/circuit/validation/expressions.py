"""Compiled validation of expressions: syntax, and the type that their owner needs.

Any tokens may be given; no array element is read before its index was checked.
`check_expression_owners` reads only operations that `check_operations` found valid.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit import tokens as tk
from simulators.circuit.gates import CASE, END_BLOCK, FOR, IF, STORE, SWITCH, WHILE
from simulators.circuit.ir import FINDINGS
from simulators.circuit.validation.operations import AT, DETAIL, OWNERS, SOUND
from simulators.compiler.kernel import I32, I64, INT, NAMES, U16, device_function, kernel

MAX_STACK = 100  # values on the stack; a `case` may have more

# Findings of the checks.
(
    NO_END, BAD_TOKEN, OPERAND_RANGE, STACK_EMPTY, STACK_FULL, NOT_ONE_VALUE, WANTS_BOOL,
    WANTS_UINT, WIDTHS_DIFFER, BAD_WIDTH, AFTER_SET, WANTS_CONDITION, WANTS_COUNT, WANTS_VALUE,
    WANTS_LABELS, WANTS_STORE,
) = range(30, 46)  # fmt: skip

# Shapes of expressions: one value; constants of one width; a store.
VALUE, CONSTANTS, SET = range(3)


@device_function
def _typed(token, width, left, right):  # type: ignore[no-untyped-def]
    """Return SOUND if an operator takes operands of these widths and yields `width`, else the
    fault."""
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


@device_function
def _place(token, operand, width, sizes, widths, num_clbits, num_constants, report):  # type: ignore[no-untyped-def]
    """Return SOUND if a token names an existing object of its width, else the fault."""
    report[DETAIL] = operand
    if token in (tk.CLBIT, tk.SET_CLBIT):
        limit, expected = num_clbits, np.int64(0)
    elif token == tk.VALUE:
        limit, expected = num_constants, width
    elif token in (tk.REGISTER, tk.SET_REGISTER):
        limit, expected = np.int64(sizes.size), width
        if 0 <= operand < limit:
            expected = sizes[operand]
    else:
        limit, expected = np.int64(widths.size), width
        if 0 <= operand < limit:
            expected = widths[operand]
    if operand < 0 or operand >= limit:
        return OPERAND_RANGE
    report[DETAIL] = width
    return SOUND if width == expected else BAD_WIDTH


@kernel(I32, I64, I64, INT, INT, I64, I64, returns=INT, group="admission")
def check_expressions(  # type: ignore[no-untyped-def]
    tokens, sizes, widths, num_clbits, num_constants, shapes, report
):
    """Return SOUND with the number of expressions in `report[OWNERS]`, or a fault at `report[AT]`.

    `shapes`: int64, filled with (shape, width) of each expression; room for one a token. Widths on
    the stack: 0 is a Bool. Comparisons and shifts take Uints of any two widths.
    """
    stack = report[FINDINGS:]
    depth = 0  # values on the stack; of plain constants only the first MAX_STACK are kept
    constants = True  # only constants of one width so far
    closed = False  # a value was stored: only END may follow
    done = 0
    for k in range(tokens.size // 3):
        report[AT] = done
        token, operand = np.int64(tokens[3 * k]), np.int64(tokens[3 * k + 1])
        width = np.int64(tokens[3 * k + 2])
        report[DETAIL] = token
        if token < tk.END or token > tk.SET_VARIABLE:
            return BAD_TOKEN
        if token == tk.END:
            if not closed and (depth == 0 or (depth > 1 and not constants)):
                return NOT_ONE_VALUE
            shapes[2 * done] = SET if closed else CONSTANTS if constants else VALUE
            shapes[2 * done + 1] = 0 if closed else stack[0]
            done += 1
            depth = 0
            constants = True
            closed = False
            continue
        if closed:
            return AFTER_SET
        report[DETAIL] = width
        if width < 0 or width > 65_535:
            return BAD_WIDTH
        names = token <= tk.VALUE or token >= tk.VARIABLE
        if names:
            fault = _place(token, operand, width, sizes, widths, num_clbits, num_constants, report)
            if fault != SOUND:
                return fault
        constants = constants and token == tk.VALUE and (depth == 0 or stack[0] == width)
        if depth > MAX_STACK and not constants:
            return STACK_FULL
        if token >= tk.SET_CLBIT:
            if depth != 1:
                return NOT_ONE_VALUE
            if stack[0] != width:
                return WIDTHS_DIFFER
            closed = True
            continue
        if names:
            if depth < MAX_STACK:
                stack[depth] = width
            elif not constants:
                return STACK_FULL
            depth += 1
            continue
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
    report[OWNERS] = done
    return SOUND if depth == 0 and not closed else NO_END


@device_function
def _suits(code, shape, width, tokens, at, switch):  # type: ignore[no-untyped-def]
    """Return SOUND if an expression, which begins at token `at`, is valid for its owner, else the
    fault."""
    single = shape == VALUE or (shape == CONSTANTS and tokens[3 * at + 3] == tk.END)
    if code in (IF, WHILE):
        return SOUND if single and width == 0 else WANTS_CONDITION
    if code == FOR:
        return SOUND if single and shape == CONSTANTS and width > 0 else WANTS_COUNT
    if code == SWITCH:
        return SOUND if single else WANTS_VALUE
    if code == CASE:
        return SOUND if shape == CONSTANTS and width == switch else WANTS_LABELS
    return SOUND if shape == SET else WANTS_STORE


@kernel(NAMES, U16, I32, I64, I64, returns=INT, group="admission")
def check_expression_owners(rows, ops, tokens, shapes, report):  # type: ignore[no-untyped-def]
    """Return SOUND, or a fault with `report[AT]`: an operation whose expression is invalid for it.

    There must be as many expressions as operations that own one.
    """
    widths = report[FINDINGS:]  # width of the value of each open switch
    depth = 0
    done = 0
    token = 0
    for k in range(ops.size):
        code = rows[ops[k], 0]
        if code == END_BLOCK:
            depth -= 1
        if not (code in (IF, WHILE, FOR, SWITCH, CASE) or code == STORE):
            continue
        report[AT] = k
        shape, width = shapes[2 * done], shapes[2 * done + 1]
        if code in (IF, WHILE, FOR, SWITCH):
            widths[depth] = width
            depth += 1
        fault = _suits(code, shape, width, tokens, token, widths[depth - 1] if depth else 0)
        if fault != SOUND:
            return fault
        while tokens[3 * token] != tk.END:
            token += 1
        token += 1
        done += 1
    return SOUND
