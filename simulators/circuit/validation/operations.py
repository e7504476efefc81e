"""Compiled validation of operations: finds the first fault and counts the operations.

Any bytes may be given; no array element is read before its index was checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.ir import FINDINGS, FOUND, MAX_NESTING, Circuit
from simulators.compiler.kernel import F64, I32, I64, INT, NAMES, U16, device_function, kernel

# Findings; SOUND or the first fault.
(
    SOUND, BAD_OP, SHORT_QUBITS, SHORT_CLBITS, SHORT_PARAMS, LONG_QUBITS, LONG_CLBITS, LONG_PARAMS,
    QUBIT_RANGE, CLBIT_RANGE, QUBIT_TWICE, NOT_FINITE, NEGATIVE_DELAY, SLOT_POSITION, SLOT_NUMBER,
    SLOT_TWICE, LONE_ELSE, LONE_END, OPEN_BLOCK, TOO_DEEP, LONE_CASE, NO_CASE, LONE_BREAK,
) = range(23)  # fmt: skip

# Slots of `report`.
(
    AT, DETAIL, OPERATIONS, ONE_QUBIT, TWO_QUBIT, MANY_QUBIT, MEASUREMENTS, RESETS, IFS, LOOPS,
    SWITCHES, STORES, UNITARIES, OWNERS,
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


@kernel(NAMES, U16, U16, U16, F64, I32, INT, INT, INT, I64, returns=INT, group="admission")
def check_operations(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, params, slots, num_slots, num_qubits, num_clbits, report
):
    """Return SOUND, or the first fault with `report[AT]` (operation) and `report[DETAIL]` (the
    value).

    `report`: int64 [FOUND], or [FOUND_WIDE] for a table with operations on more than 8 qubits.
    """
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


def checked(circuit: Circuit) -> tuple[int, NDArray[np.int64]]:
    """SOUND or the first fault, and the findings: int64 [FINDINGS]. Looked for once in a circuit,
    which never changes, and kept in it."""
    kept: tuple[int, NDArray[np.int64]] | None = circuit.__dict__.get("_checked")
    if kept is None:
        report = np.empty(circuit.table.found_size, np.int64)
        fault = check_operations(
            circuit.table.rows,
            circuit.ops,
            circuit.qubits,
            circuit.clbits,
            circuit.params,
            circuit.slots,
            circuit.num_slots,
            circuit.num_qubits,
            circuit.num_clbits,
            report,
        )
        kept = circuit.__dict__["_checked"] = fault, report[:FINDINGS].copy()
    return kept
