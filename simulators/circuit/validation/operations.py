"""Compiled validation of operations and of classical expressions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates, ir
from simulators.circuit.analysis.measurements import classify
from simulators.circuit.gates import CASE, END_BLOCK, FOR, IF, STORE, SWITCH, WHILE
from simulators.circuit.ir import FINDINGS, FOUND, MAX_NESTING, Circuit
from simulators.compiler.kernel import device_function, kernel

# Compiled validation of operations: finds the first fault, counts the operations, and finds what a
# profile reads of a sound circuit. One call does all: of a small circuit calls take longer than
# loops.
#
# Any bytes may be given; no array element is read before its index was checked.

# Findings; SOUND or the first fault.
(
    SOUND, BAD_OP, SHORT_QUBITS, SHORT_CLBITS, SHORT_PARAMS, LONG_QUBITS, LONG_CLBITS, LONG_PARAMS,
    QUBIT_RANGE, CLBIT_RANGE, QUBIT_TWICE, NOT_FINITE, NEGATIVE_DELAY, SLOT_POSITION, SLOT_NUMBER,
    SLOT_TWICE, LONE_ELSE, LONE_END, OPEN_BLOCK, TOO_DEEP, LONE_CASE, NO_CASE, LONE_BREAK,
) = range(23)  # fmt: skip

# Slots of `report`: place of a fault, numbers of operations, Clifford structure, entanglement.
# OTHER: there is a gate that never is Clifford; BETWEEN: one whose angle decides that it is not;
# OPEN: one with a free parameter or a matrix, which is not examined; ANGLED: one that has angles.
# BOND_BITS, LONGEST: see `profiler.CircuitTraits`. BRANCHES: 1 if the circuit needs branching, 0 if
# not, also if it has conditions, which are not read here.
(
    AT, DETAIL, OPERATIONS, ONE_QUBIT, TWO_QUBIT, MANY_QUBIT, MEASUREMENTS, RESETS, IFS, LOOPS,
    SWITCHES, STORES, UNITARIES, OWNERS, OTHER, BETWEEN, OPEN, ANGLED, BOND_BITS, LONGEST, BRANCHES,
) = range(FINDINGS)  # fmt: skip

# Kinds and states of an open block.
_THEN, _ELSE, _LOOP, _HEAD, _CASE, _LAST = range(6)


@device_function
def _repeated(qubits, first, count, stamps, mark):  # type: ignore[no-untyped-def]
    """Return whether one operation names a qubit twice; `stamps` keeps wide operations linear."""
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


@device_function
def _slots(slots, num_slots, num_params, report):  # type: ignore[no-untyped-def]
    last = np.int64(-1)
    for k in range(slots.size // 2):
        position, slot = np.int64(slots[2 * k]), np.int64(slots[2 * k + 1])
        report[DETAIL] = position
        if position < 0 or position >= num_params:
            return SLOT_POSITION
        if position <= last:
            return SLOT_TWICE
        if slot < 0 or slot >= num_slots:
            report[DETAIL] = slot
            return SLOT_NUMBER
        last = position
    return SOUND


@device_function
def _mark(code, blocks, depth, report):  # type: ignore[no-untyped-def]
    """Return SOUND with the new depth in report[DETAIL], or the fault of a marker."""
    top = blocks[depth - 1] if depth else -1
    report[DETAIL] = depth
    if top == _HEAD and code not in (gates.CASE, gates.DEFAULT):
        return NO_CASE
    if code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
        if depth == MAX_NESTING:
            return TOO_DEEP
        blocks[depth] = _THEN if code == gates.IF else _HEAD if code == gates.SWITCH else _LOOP
        report[DETAIL] = depth + 1
        report[IFS if code == gates.IF else SWITCHES if code == gates.SWITCH else LOOPS] += 1
    elif code == gates.ELSE:
        if top != _THEN:
            return LONE_ELSE
        blocks[depth - 1] = _ELSE
    elif code == gates.END_BLOCK:
        if top < 0:
            return LONE_END
        report[DETAIL] = depth - 1
    elif code in (gates.CASE, gates.DEFAULT):
        if top != _HEAD and top != _CASE:
            return LONE_CASE
        blocks[depth - 1] = _CASE if code == gates.CASE else _LAST
    elif code in (gates.BREAK, gates.CONTINUE):
        for k in range(depth):
            if blocks[k] == _LOOP:
                return SOUND
        return LONE_BREAK
    return SOUND


@device_function
def _count(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, params, slots, num_slots, num_qubits, num_clbits, report
):
    """Check and count the operations, see `check_operations`."""
    for k in range(FINDINGS):
        report[k] = 0
    blocks = report[FINDINGS:FOUND]
    stamps = report[FOUND:]
    fresh = True
    depth = np.int64(0)
    q = c = p = 0
    report[OPERATIONS] = ops.size
    for k in range(ops.size):
        report[AT] = k
        op = np.int64(ops[k])
        if op >= rows.shape[0]:
            report[DETAIL] = op
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
                report[DETAIL] = qubits[j]
                return QUBIT_RANGE
        if nq > 8 and fresh:
            stamps[:] = -1
            fresh = False
        if nq > 1 and _repeated(qubits, q, nq, stamps, k):
            return QUBIT_TWICE
        for j in range(c, c + nc):
            if clbits[j] >= num_clbits:
                report[DETAIL] = clbits[j]
                return CLBIT_RANGE
        for j in range(p, p + np_):
            if not np.isfinite(params[j]):
                return NOT_FINITE
            if code in (gates.DELAY, gates.DELAY_DT) and params[j] < 0.0:
                return NEGATIVE_DELAY
        q += nq
        c += nc
        p += np_
        if gates.IF <= code < gates.STORE:
            fault = _mark(code, blocks, depth, report)
            if fault != SOUND:
                return fault
            depth = report[DETAIL]
        elif depth and blocks[depth - 1] == _HEAD:
            return NO_CASE
        if code >= gates.UNITARY:
            report[ONE_QUBIT if nq <= 1 else TWO_QUBIT if nq == 2 else MANY_QUBIT] += 1
            if code < gates.FIRST_GATE:
                report[UNITARIES] += 1
        elif code == gates.MEASURE:
            report[MEASUREMENTS] += 1
        elif code == gates.RESET:
            report[RESETS] += 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH, gates.CASE):
            report[OWNERS] += 1
        elif code == gates.STORE:
            report[OWNERS] += 1
            report[STORES] += 1
    report[AT] = -1
    if depth:
        return OPEN_BLOCK
    if q != qubits.size:
        return LONG_QUBITS
    if c != clbits.size:
        return LONG_CLBITS
    if p != params.size:
        return LONG_PARAMS
    return _slots(slots, num_slots, params.size, report)


_MAX_STEPS = 10**7  # limit of examined cuts; beyond it the bound is unknown
_RANK_TWO = {"rxx", "ryy", "rzz", "rzx", "ecr"}  # in addition to gates with controls

# Clifford kind of each code, and log2 of its operator's Schmidt rank; 0: it depends on the qubits.
KINDS = np.zeros((gates.FIRST_GATE + len(gates.GATES), 2), np.int64)
for _gate in gates.GATES.values():
    # One target under controls: the projector on the controls, and the rest.
    _single = all(piece.targets == 1 for piece in _gate.pieces)
    _controlled = (_gate.controls == gates.ANY or _gate.controls > 0) and _single
    KINDS[_gate.code] = _gate.clifford_angles, int(_controlled or _gate.name in _RANK_TWO)
MCX, MCPHASE = gates.GATES["mcx"].code, gates.GATES["mcphase"].code
# Gates whose angles depend on one another in what makes them Clifford gates.
_R, _U, _U3 = (gates.GATES[name].code for name in ("r", "u", "u3"))
_CU, _CU3 = (gates.GATES[name].code for name in ("cu", "cu3"))
_PLUS, _MINUS = (gates.GATES[name].code for name in ("xx_plus_yy", "xx_minus_yy"))


@device_function
def _is_multiple(angle, unit):  # type: ignore[no-untyped-def]
    count = np.round(angle / unit)
    limit = min(gates.LARGEST_TOLERANCE, gates.ANGLE_TOLERANCE * max(1.0, abs(count)))
    return abs(angle - count * unit) <= limit


@device_function
def has_clifford_angles(code, kind, params, first, count):  # type: ignore[no-untyped-def]
    """Return whether the angles `params[first : first + count]` make a gate of kind QUARTERS or
    HALVES a Clifford gate. A half turn about any axis that is a multiple of pi/4 from X is one (r,
    and u as Rz(phi) Ry(pi) Rz(lambda), of which phi - lambda alone matters); where the first angle
    is a whole turn the axis does not matter. Under a control (cu, cu3) the gate has to be a Pauli
    operator with a phase that is a multiple of a quarter turn."""
    quarter = gates.QUARTER_TURN
    if code in (_R, _U, _U3) and _is_multiple(params[first], 2.0 * quarter):
        turned = not _is_multiple(params[first], 4.0 * quarter)
        if code == _R:
            return not turned or _is_multiple(params[first + 1], 0.5 * quarter)
        other = params[first + 2]
        return _is_multiple(params[first + 1] + (-other if turned else other), quarter)
    if code in (_CU, _CU3):
        both = params[first + 1] + params[first + 2]
        phase = params[first + 3] if code == _CU else 0.0
        if _is_multiple(params[first], 4.0 * quarter):
            return _is_multiple(both, 2.0 * quarter) and _is_multiple(phase, quarter)
        axis = _is_multiple(params[first + 1] - params[first + 2], 2.0 * quarter)
        half = _is_multiple(params[first], 2.0 * quarter)
        return half and axis and _is_multiple(2.0 * phase + both, 2.0 * quarter)
    if code in (_PLUS, _MINUS):
        if _is_multiple(params[first], 4.0 * quarter):
            return True
        return _is_multiple(params[first], 2.0 * quarter) and _is_multiple(
            params[first + 1], quarter
        )
    unit = quarter if kind == gates.QUARTERS else 2.0 * quarter
    result = True
    for j in range(first, first + count):
        result = result and _is_multiple(params[j], unit)
    return result


@kernel("NAMES NAMES U16 F64 U8 -> INT", group="admission")
def count_non_clifford(rows, kinds, ops, params, is_free):  # type: ignore[no-untyped-def]
    """Number of non-Clifford gates; those with free parameters, and matrices, are not counted."""
    result = p = 0
    for k in range(ops.size):
        code, nq, np_ = rows[ops[k], 0], rows[ops[k], 1], rows[ops[k], 3]
        if code > gates.UNITARY:
            kind = kinds[code, 0]
            if code == MCX and nq <= 2:
                kind = gates.ALWAYS
            elif code == MCPHASE and nq <= 2:
                kind = gates.QUARTERS if nq == 1 else gates.HALVES
            is_open = False
            for j in range(p, p + np_):
                is_open |= is_free[j] != 0
            if kind == gates.NEVER:
                result += 1
            elif kind != gates.ALWAYS and not is_open:
                result += not has_clifford_angles(code, kind, params, p, np_)
        p += np_
    return result


@device_function
def _count_features(rows, kinds, ops, qubits, params, slots, num_qubits, bits, report):  # type: ignore[no-untyped-def]
    """Find Clifford structure and entanglement. `bits`: int64 [cuts], zeros."""
    q = p = slot = steps = 0
    for k in range(ops.size):
        code, nq, np_ = rows[ops[k], 0], rows[ops[k], 1], rows[ops[k], 3]
        if code >= gates.UNITARY:
            kind = gates.ALWAYS if code == gates.UNITARY else kinds[code, 0]
            if code == gates.UNITARY:
                report[OPEN] = 1
            if code == MCX and nq <= 2:
                kind = gates.ALWAYS
            elif code == MCPHASE and nq <= 2:
                kind = gates.QUARTERS if nq == 1 else gates.HALVES
            if kind == gates.NEVER:
                report[OTHER] = 1
            elif kind != gates.ALWAYS:
                report[ANGLED] = 1
                while slot < slots.size and slots[slot] < p:
                    slot += 2
                is_open = slot < slots.size and slots[slot] < p + np_
                if is_open:
                    report[OPEN] = 1
                elif not report[BETWEEN] and not has_clifford_angles(code, kind, params, p, np_):
                    report[BETWEEN] = 1
            if nq > 1 and report[BOND_BITS] >= 0:
                low = high = np.int64(qubits[q])
                for j in range(q + 1, q + nq):
                    low = min(low, np.int64(qubits[j]))
                    high = max(high, np.int64(qubits[j]))
                report[LONGEST] = max(report[LONGEST], high - low)
                steps += (high - low) * nq
                if steps > _MAX_STEPS:
                    report[BOND_BITS] = -1
                else:
                    rank = np.int64(1) if code > gates.UNITARY and kinds[code, 1] else np.int64(0)
                    for cut in range(low, high):
                        more = rank
                        if more == 0:
                            left = np.int64(0)
                            for j in range(q, q + nq):
                                if qubits[j] <= cut:
                                    left += 1
                            more = 2 * min(left, nq - left)
                        limit = min(cut + 1, num_qubits - cut - 1)
                        bits[cut] = min(bits[cut] + more, limit)
                        report[BOND_BITS] = max(report[BOND_BITS], bits[cut])
        q += nq
        p += np_


@kernel("NAMES NAMES U16 U16 U16 F64 I32 INT INT INT I64 -> INT", group="admission")
def check_operations(  # type: ignore[no-untyped-def]
    rows, kinds, ops, qubits, clbits, params, slots, num_slots, num_qubits, num_clbits, report
):
    """Return SOUND with all findings, or the first fault with `report[AT]` (operation) and
    `report[DETAIL]` (the value). `report`: int64 [FOUND], or [FOUND_WIDE] for a table with
    operations on more than 8 qubits, and at least FINDINGS and one more for each qubit, clbit and
    operation."""
    fault = _count(
        rows, ops, qubits, clbits, params, slots, num_slots, num_qubits, num_clbits, report
    )
    if fault != SOUND:
        return fault
    report[DETAIL] = 0
    scratch = report[FINDINGS:]
    scratch[:num_qubits] = 0
    _count_features(rows, kinds, ops, qubits, params, slots, num_qubits, scratch, report)
    if not report[OWNERS]:
        first = num_qubits + num_clbits
        report[BRANCHES] = classify(
            rows, ops, qubits, clbits, slots[:0], scratch[:0], scratch[:num_qubits],
            scratch[num_qubits:first], scratch[:0].reshape((2, 0)), 0, scratch[first:],
        )  # fmt: skip
    return fault


def checked(circuit: Circuit) -> tuple[int, NDArray[np.int64]]:
    """SOUND or the first fault, and the findings: int64 [FINDINGS]. Looked for once in a circuit,
    which never changes, and kept in it."""
    kept: tuple[int, NDArray[np.int64]] | None = circuit.__dict__.get("_checked")
    if kept is None:
        kept = circuit.__dict__["_checked"] = check(circuit, circuit.qubits)
    return kept


def check(circuit: Circuit, qubits: NDArray[np.uint16]) -> tuple[int, NDArray[np.int64]]:
    """The same for a circuit whose operations are on other `qubits`."""
    size = FINDINGS + circuit.num_qubits + circuit.num_clbits + circuit.ops.size
    report = np.empty(max(size, circuit.table.found_size), np.int64)
    fault = check_operations(
        circuit.table.rows, KINDS, circuit.ops, qubits, circuit.clbits, circuit.params,
        circuit.slots, circuit.num_slots, circuit.num_qubits, circuit.num_clbits, report,
    )  # fmt: skip
    return fault, report[:FINDINGS].copy()


# Compiled validation of expressions: syntax, and the type that their owner needs.
#
# Any tokens may be given; no array element is read before its index was checked.
# `check_expression_owners` reads only operations that `check_operations` found valid.

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
    if token == ir.CAST:
        return SOUND
    if token in (ir.LOGIC_NOT, ir.LOGIC_AND, ir.LOGIC_OR):
        if left or right:
            return WANTS_BOOL
        return SOUND if width == 0 else BAD_WIDTH
    if token in (ir.BIT_NOT, ir.BIT_AND, ir.BIT_OR, ir.BIT_XOR):
        if left != right:
            return WIDTHS_DIFFER
        return SOUND if width == left else BAD_WIDTH
    if token in (ir.EQUAL, ir.NOT_EQUAL):
        if (left == 0) != (right == 0):
            return WIDTHS_DIFFER
        return SOUND if width == 0 else BAD_WIDTH
    if left == 0 or right == 0:
        return WANTS_UINT
    if token in (ir.LESS, ir.LESS_EQUAL, ir.GREATER, ir.GREATER_EQUAL, ir.INDEX):
        return SOUND if width == 0 else BAD_WIDTH
    if token in (ir.ADD, ir.SUB, ir.MUL, ir.DIV) and left != right:
        return WIDTHS_DIFFER
    return SOUND if width == left else BAD_WIDTH


@device_function
def _place(token, operand, width, sizes, widths, num_clbits, num_constants, report):  # type: ignore[no-untyped-def]
    """Return SOUND if a token names an existing object of its width, else the fault."""
    report[DETAIL] = operand
    if token in (ir.CLBIT, ir.SET_CLBIT):
        limit, expected = num_clbits, np.int64(0)
    elif token == ir.VALUE:
        limit, expected = num_constants, width
    elif token in (ir.REGISTER, ir.SET_REGISTER):
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


@kernel("I32 I64 I64 INT INT I64 I64 -> INT", group="admission")
def check_expressions(  # type: ignore[no-untyped-def]
    tokens, sizes, widths, num_clbits, num_constants, shapes, report
):
    """Return SOUND with the number of expressions in `report[OWNERS]`, or a fault at `report[AT]`.
    `shapes`: int64, filled with (shape, width) of each expression; room for one a token. Widths on
    the stack: 0 is a Bool. Comparisons and shifts take Uints of any two widths."""
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
        if token < ir.END or token > ir.SET_VARIABLE:
            return BAD_TOKEN
        if token == ir.END:
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
        names = token <= ir.VALUE or token >= ir.VARIABLE
        if names:
            fault = _place(token, operand, width, sizes, widths, num_clbits, num_constants, report)
            if fault != SOUND:
                return fault
        constants = constants and token == ir.VALUE and (depth == 0 or stack[0] == width)
        if depth > MAX_STACK and not constants:
            return STACK_FULL
        if token >= ir.SET_CLBIT:
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
        takes = 1 if token <= ir.LOGIC_NOT else 2
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
    single = shape == VALUE or (shape == CONSTANTS and tokens[3 * at + 3] == ir.END)
    if code in (IF, WHILE):
        return SOUND if single and width == 0 else WANTS_CONDITION
    if code == FOR:
        return SOUND if single and shape == CONSTANTS and width > 0 else WANTS_COUNT
    if code == SWITCH:
        return SOUND if single else WANTS_VALUE
    if code == CASE:
        return SOUND if shape == CONSTANTS and width == switch else WANTS_LABELS
    return SOUND if shape == SET else WANTS_STORE


@kernel("NAMES U16 I32 I64 I64 -> INT", group="admission")
def check_expression_owners(rows, ops, tokens, shapes, report):  # type: ignore[no-untyped-def]
    """Return SOUND, or a fault with `report[AT]`: an operation whose expression is invalid for it.
    There must be as many expressions as operations that own one."""
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
        while tokens[3 * token] != ir.END:
            token += 1
        token += 1
        done += 1
    return SOUND
