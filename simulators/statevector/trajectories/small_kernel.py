"""Trajectories of a small circuit: one compiled traversal of the prefix tree.

Positions are operations, each a segment of its own, so no operation is executed twice for the same
prefix. Gates use `small.gate_kernels`, so an instance has the bits of a run of the circuit with its
errors written into it.
"""

import numpy as np

from simulators.circuit.gates import COMPLEX, FIRST_GATE, PERMUTATION, PHASE, UNITARY
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import odd
from simulators.statevector.small.gate_kernels import (
    apply,
    matrices as write_matrices,
    multiply,
    place,
)
from simulators.trajectories import prefix_tree
from simulators.trajectories.noise_table import (
    COUNT,
    FIRST,
    FLAG,
    NO_FLAG,
    PAULI,
    Q0,
    Q1,
    QUBITS,
    SET,
    X,
    Z,
)
from simulators.trajectories.prefix_tree import ADVANCE, CALL, CHOOSE_KRAUS, SAMPLE

MOST_DENSE = 10  # largest number of qubits of a matrix
WORK = 4 << MOST_DENSE
STOPPED = -1

# A parameter that depends on the set of a row: its operation, the code and the first parameter of
# that, the parameter, and its column of the sets.
VARIED_OP, VARIED_CODE, AT_PARAM, PARAM, SET_COLUMN = range(5)
VARIED = 5

# For each operation: first of its steps; for a matrix: its start, else -1, and _FACTOR for one that
# is a step and changes the norm; first of its qubits, their number.
STEP, DENSE, AT_QUBIT, WIDTH = range(4)
_FACTOR = -2
_1 = np.uint64(1)
# Matrices of qubits that have not acted on a state yet, 8 floats, and whether there is one.
_IS_PENDING = 8
PENDING = 9


@device_function
def _is_factor(given, at):  # type: ignore[no-untyped-def]
    """Return whether a matrix is diag(1, r) with a real r."""
    others = given[at + 1] == 0.0 and given[at + 2] == 0.0 and given[at + 3] == 0.0
    others = others and given[at + 4] == 0.0 and given[at + 5] == 0.0 and given[at + 7] == 0.0
    return others and given[at] == 1.0


@kernel("NAMES U16 U16 F64 I64 REALS INTS2 WORDS2 REALS2 -> INT", group="trajectories")
def lay(rows, ops, qubits, params, matrix_at, given, laid, steps, floats):  # type: ignore[no-untyped-def]
    """Write the steps of all operations: laid[k], and the end in its last row; returns their
    number. matrix_at: for each row of the table, the start of its matrix among the given ones. A
    matrix diag(1, r) with a real r is a step."""
    row = np.int64(0)
    q = p = np.int64(0)
    for k in range(ops.size):
        op = ops[k]
        laid[k, STEP], laid[k, DENSE] = row, -1
        laid[k, AT_QUBIT], laid[k, WIDTH] = q, rows[op, 1]
        if rows[op, 0] >= FIRST_GATE:
            row = place(rows[op, 0], qubits, q, rows[op, 1], params, p, steps, floats, row)
        elif rows[op, 0] == UNITARY:
            if rows[op, 1] == 1 and _is_factor(given, matrix_at[op]):
                for j in range(8):
                    floats[row, j] = 0.0
                floats[row, 0] = given[matrix_at[op] + 6]
                steps[row, 0] = PHASE
                steps[row, 1] = steps[row, 2] = steps[row, 3] = _1 << np.uint64(qubits[q])
                laid[k, DENSE] = _FACTOR
                row += 1
            else:
                laid[k, DENSE] = matrix_at[op]
        q += rows[op, 1]
        p += rows[op, 3]
    laid[ops.size, STEP] = row
    return row


@device_function
def _set_params(number, set_values, factors, varied, params, laid, floats):  # type: ignore[no-untyped-def]
    """Write the parameters of a set, and the numbers of the steps of their operations."""
    for k in range(varied.shape[0]):
        params[varied[k, PARAM]] = factors[k] * set_values[number, varied[k, SET_COLUMN]]
    for k in range(varied.shape[0]):
        row = laid[varied[k, VARIED_OP], STEP]
        write_matrices(varied[k, VARIED_CODE], params, varied[k, AT_PARAM], floats, row)


@device_function
def _set_end(set_of, order, low, high):  # type: ignore[no-untyped-def]
    """End of the rows from `low` on that have one set of parameters."""
    if not set_of.size:
        return high
    end = low + 1
    while end < high and set_of[order[end]] == set_of[order[low]]:
        end += 1
    return end


@device_function
def _dense(re, im, size, wires, at, width, matrices, first, work):  # type: ignore[no-untyped-def]
    """Apply the matrix at `first` to qubits wires[at : at + width]."""
    side = 1 << width
    mask = np.int64(0)
    for j in range(width):
        mask |= np.int64(1) << np.int64(wires[at + j])
    for base in range(size):
        if base & mask:
            continue
        for k in range(side):
            i = np.int64(base)
            for j in range(width):
                i |= (k >> j & 1) << np.int64(wires[at + j])
            work[2 * k], work[2 * k + 1] = re[i], im[i]
        for k in range(side):
            x = y = 0.0
            for c in range(side):
                u = matrices[first + 2 * (side * k + c)]
                v = matrices[first + 2 * (side * k + c) + 1]
                x += u * work[2 * c] - v * work[2 * c + 1]
                y += u * work[2 * c + 1] + v * work[2 * c]
            i = np.int64(base)
            for j in range(width):
                i |= (k >> j & 1) << np.int64(wires[at + j])
            re[i], im[i] = x, y


@device_function
def _step(re, im, size, kind, mask, zero_bits, one_bits, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step; a separate function, so that it is compiled once."""
    apply(re, im, size, kind, mask, zero_bits, one_bits, floats, row)


@device_function
def _multiply(pending, kind, zero, one, floats, row):  # type: ignore[no-untyped-def]
    """Multiply the pending matrix of a qubit by a step on it. zero, one: its patterns, as bits."""
    if not pending[_IS_PENDING]:
        for k in range(8):
            pending[k] = 1.0 if k == 0 or k == 6 else 0.0
        pending[_IS_PENDING] = 1.0
    low, high = 4 * zero, 4 * one
    for k in range(0, 4, 2):
        a, b = pending[low + k], pending[low + k + 1]
        c, d = pending[high + k], pending[high + k + 1]
        if kind == PHASE:
            pending[low + k] = a * floats[row, 0] - b * floats[row, 1]
            pending[low + k + 1] = a * floats[row, 1] + b * floats[row, 0]
        elif kind == PERMUTATION:
            pending[low + k], pending[low + k + 1] = c, d
            pending[high + k], pending[high + k + 1] = a, b
        else:
            pending[low + k], pending[low + k + 1], pending[high + k], pending[high + k + 1] = (
                multiply(
                    a, b, c, d, floats[row, 0], floats[row, 1], floats[row, 2], floats[row, 3],
                    floats[row, 4], floats[row, 5], floats[row, 6], floats[row, 7],
                )
            )  # fmt: skip


@device_function
def _flush(re, im, size, qubit, pending, gate):  # type: ignore[no-untyped-def]
    """Apply the pending matrix of a qubit, if there is one."""
    if pending.shape[0] and pending[qubit, _IS_PENDING]:
        for k in range(8):
            gate[0, k] = pending[qubit, k]
        mask = _1 << np.uint64(qubit)
        _step(re, im, size, COMPLEX, mask, np.uint64(0), mask, gate, np.int64(0))
        pending[qubit, _IS_PENDING] = 0.0


@device_function
def _turned(rho, side, bit, pending):  # type: ignore[no-untyped-def]
    """Apply the pending matrix of a qubit, bit `bit` of an index, to a density matrix."""
    if not pending[_IS_PENDING]:
        return
    for columns in range(2):
        sign = 1.0 - 2.0 * columns
        step, other = (2, 2 * side) if columns else (2 * side, 2)
        for k in range(side):
            for a in range(side):
                if not a & bit:
                    i = step * a + other * k
                    j = step * (a | bit) + other * k
                    rho[i], rho[i + 1], rho[j], rho[j + 1] = multiply(
                        rho[i], rho[i + 1], rho[j], rho[j + 1], pending[0], sign * pending[1],
                        pending[2], sign * pending[3], pending[4], sign * pending[5], pending[6],
                        sign * pending[7],
                    )  # fmt: skip


@device_function
def _insert(  # type: ignore[no-untyped-def]
    re, im, size, table, insert, choice, sets, matrices, gate, pair, work, pending
):
    """Apply one insert; `gate`: float64 [1, 8]; `pending`: see `advance`."""
    which = table[insert, SET]
    if which == PAULI:
        x, z = table[insert, X], table[insert, Z]
        for k in range(8):
            gate[0, k] = 0.0
        gate[0, 0] = -1.0
        bit, qubit = np.int64(1), np.int64(0)
        if pending.shape[0]:
            while x >> qubit or z >> qubit:
                if x >> qubit & 1:
                    _multiply(pending[qubit], PERMUTATION, 0, 1, gate, np.int64(0))
                if z >> qubit & 1:
                    _multiply(pending[qubit], PHASE, 1, 1, gate, np.int64(0))
                qubit += 1
            return
        while bit <= x | z:
            mask = np.uint64(bit)
            if x & bit:
                _step(re, im, size, PERMUTATION, mask, np.uint64(0), mask, gate, np.int64(0))
            if z & bit:
                _step(re, im, size, PHASE, mask, mask, mask, gate, np.int64(0))
            bit <<= 1
        return
    width = sets[which, QUBITS]
    first = sets[which, FIRST] + choice * (2 << 2 * width)
    _flush(re, im, size, table[insert, Q0], pending, gate)
    if width == 1:
        for k in range(8):
            gate[0, k] = matrices[first + k]
        mask = _1 << np.uint64(table[insert, Q0])
        _step(re, im, size, COMPLEX, mask, np.uint64(0), mask, gate, np.int64(0))
        return
    _flush(re, im, size, table[insert, Q1], pending, gate)
    pair[0], pair[1] = table[insert, Q0], table[insert, Q1]
    _dense(re, im, size, pair, np.int64(0), width, matrices, first, work)


@device_function
def advance(  # type: ignore[no-untyped-def]
    re, im, size, begin, end, laid, steps, floats, wires, custom, work, pending, gate
):
    """Apply operations begin .. end - 1. pending [qubits, PENDING]: matrices of qubits, that act
    before the next operation of several qubits, and are unitary; empty: each step acts at once."""
    for k in range(begin, end):
        if pending.shape[0] and (laid[k, STEP] < laid[k + 1, STEP] or laid[k, DENSE] >= 0):
            qubit = np.int64(wires[laid[k, AT_QUBIT]])
            if laid[k, WIDTH] == 1 and laid[k, DENSE] < 0:
                for s in range(laid[k, STEP], laid[k + 1, STEP]):
                    zero, one = np.int64(steps[s, 2] != 0), np.int64(steps[s, 3] != 0)
                    _multiply(pending[qubit], steps[s, 0], zero, one, floats, s)
                if laid[k, DENSE] == _FACTOR:
                    _flush(re, im, size, qubit, pending, gate)
                continue
            for j in range(laid[k, WIDTH]):
                qubit = np.int64(wires[laid[k, AT_QUBIT] + j])
                _flush(re, im, size, qubit, pending, gate)
        if laid[k, DENSE] >= 0:
            _dense(
                re, im, size, wires, laid[k, AT_QUBIT], laid[k, WIDTH], custom, laid[k, DENSE], work
            )
        for s in range(laid[k, STEP], laid[k + 1, STEP]):
            _step(re, im, size, steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3], floats, s)


@device_function
def reduced(re, im, size, first, second, rho):  # type: ignore[no-untyped-def]
    """Density matrix of one or two (second >= 0) qubits, row by row, (re, im)."""
    width = 1 if second < 0 else 2
    side = 1 << width
    mask = 1 << first
    if second >= 0:
        mask |= 1 << second
    for k in range(2 * side * side):
        rho[k] = 0.0
    for base in range(size):
        if base & mask:
            continue
        for a in range(side):
            i = base | (a & 1) << first
            if second >= 0:
                i |= (a >> 1) << second
            for b in range(side):
                j = base | (b & 1) << first
                if second >= 0:
                    j |= (b >> 1) << second
                rho[2 * (side * a + b)] += re[i] * re[j] + im[i] * im[j]
                rho[2 * (side * a + b) + 1] += im[i] * re[j] - re[i] * im[j]


@device_function
def weigh(rho, which, sets, effects, probs):  # type: ignore[no-untyped-def]
    """Fill odds[c] with the trace of each operator's effect with rho; returns their number."""
    size = 1 << sets[which, QUBITS]
    at = sets[which, FIRST]
    for c in range(sets[which, COUNT]):
        result = 0.0
        for a in range(size):
            for b in range(size):
                e, r = 2 * (size * a + b), 2 * (size * b + a)
                result += effects[at + e] * rho[r] - effects[at + e + 1] * rho[r + 1]
        probs[c] = max(0.0, result)
        at += 2 * size * size
    return sets[which, COUNT]


@device_function
def sample(re, im, size, order, low, high, first, seed, binding, frame, sums, indices):  # type: ignore[no-untyped-def]
    """Fill indices[row] with the basis state of each row order[low : high], by draw 0 of its shot:
    the first whose cumulative probability is greater than u times the total. Amplitude k is that of
    basis state k ^ frame."""
    total = 0.0
    for k in range(size):
        i = k ^ frame
        total += re[i] * re[i] + im[i] * im[i]
        sums[k] = total
    for k in range(low, high):
        row = order[k]
        t = prefix_tree.number_of(seed, binding, np.uint64(0), np.int64(first + row)) * total
        a, b = np.int64(0), np.int64(size - 1)
        while a < b:
            middle = (a + b) >> 1
            if sums[middle] > t:
                b = middle
            else:
                a = middle + 1
        indices[row] = a


@device_function
def evaluate(re, im, size, strings, coefficients, values):  # type: ignore[no-untyped-def]
    """Fill values[o] with the expectation value of each observable in a state of any norm. strings:
    X mask, Z mask and observable of each Pauli string, int64 [strings, 3]."""
    total = 0.0
    for k in range(size):
        total += re[k] * re[k] + im[k] * im[k]
    for o in range(values.size):
        values[o] = 0.0
    for s in range(strings.shape[0]):
        x, z = strings[s, 0], strings[s, 1]
        same = cross = 0.0
        for k in range(size):
            i = k ^ x
            sign = 1.0 - 2.0 * odd(np.uint64(i & z))
            same += sign * (re[k] * re[i] + im[k] * im[i])
            cross += sign * (re[k] * im[i] - im[k] * re[i])
        turns = np.int64(0)
        both = x & z
        while both:
            turns += both & 1
            both >>= 1
        turns &= 3
        value = same if turns == 0 else -cross if turns == 1 else -same if turns == 2 else cross
        values[strings[s, 2]] += coefficients[s] * value / total


@kernel(
    "INTS2 INT INT INT INT I64 I64 I64 I64 I64 I64 I64 I64 I64 I64 INTS2 INTS2 REALS REALS INTS2 "
    "WORDS2 REALS2 U16 REALS INT WORD WORD I64 REALS2 REALS REALS2 I64 I64 INTS2 REALS REALS2 I64 "
    "I64 REALS2 REALS INTS2 REALS INTS2 REALS3 -> INT",
    group="trajectories",
)
def run(  # type: ignore[no-untyped-def]
    frames, low, high, cap, n, order, begins, entries, chosen, place_at, drawn, insert_of,
    locations, final_x, same, table, sets, matrices, effects, laid, steps, floats, wires, custom,
    first, seed, binding, control, states, work, gate, room, indices, strings, coefficients, values,
    stat, set_of, set_values, factors, varied, params, flags, unapplied,
):  # fmt: skip
    """Run rows order[low : high] and fill indices[row] with basis states. Returns 0 or STOPPED.

    final_x[row]: mask of qubits whose bit is read inverted (see `sample`). values[row]: values of
    the observables, in place of a basis state, if there are any (see `evaluate`). same[position] =
    position. states: float64 [2 * cap, 2**n and a vector], each state's parts one after the other;
    work: float64 [WORK + 2**n]; room: int64 [rows + CALL + 2]. stat: executed operations, and the
    largest number of states held at once. set_of[row]: its set of parameters, by
    which `order` is sorted first; empty: one for all rows. For each set `params` and `floats` are
    written anew, see `_set_params`. flags: of each place, see `noise_table`; empty: none has one.
    unapplied [cap, qubits, PENDING]: see `advance`; [cap, 0, PENDING]: each step acts at once.
    """
    size = 1 << n
    call, pair, moved = room[:CALL], room[CALL : CALL + 2], room[CALL + 2 :]
    rho, probs, sums = work[:32], work[32:], work[WORK:]
    call[prefix_tree.TARGET], top, last = 0, np.int64(0), low
    while True:
        if control[0]:
            return STOPPED
        top = prefix_tree.next_action(
            frames, top, cap, order, begins, entries, chosen, place_at, drawn, same, same, call
        )
        target = call[prefix_tree.TARGET]
        re, im, pending = states[2 * target], states[2 * target + 1], unapplied[target]
        if call[prefix_tree.WHAT] == ADVANCE:
            source, position = call[prefix_tree.SOURCE], call[prefix_tree.FROM]
            if source < 0:
                for k in range(re.size):
                    re[k] = im[k] = 0.0
                re[0] = 1.0
                for qubit in range(pending.shape[0]):
                    pending[qubit, _IS_PENDING] = 0.0
            elif source != target:
                for qubit in range(pending.shape[0]):
                    for k in range(PENDING):
                        pending[qubit, k] = unapplied[source, qubit, k]
                for k in range(re.size):
                    re[k], im[k] = states[2 * source, k], states[2 * source + 1, k]
            for k in range(call[prefix_tree.FIRST], call[prefix_tree.LAST]):
                at = place_at[entries[k]]
                advance(
                    re, im, size, position, at, laid, steps, floats, wires, custom, work, pending,
                    gate,
                )  # fmt: skip
                position = at
                insert = insert_of[entries[k]]
                has_flag = flags.shape[0] > 0 and flags[entries[k], FLAG] != NO_FLAG
                if has_flag and chosen[k] == sets[table[insert, SET], COUNT] - 1:
                    continue  # the identity
                _insert(
                    re,
                    im,
                    size,
                    table,
                    insert,
                    chosen[k],
                    sets,
                    matrices,
                    gate,
                    pair,
                    work,
                    pending,
                )
            end = call[prefix_tree.TO]
            advance(
                re, im, size, position, end, laid, steps, floats, wires, custom, work, pending, gate
            )
            stat[0] += end - call[prefix_tree.FROM]
            stat[1] = max(stat[1], target + 1)
        elif call[prefix_tree.WHAT] == CHOOSE_KRAUS:
            depth = call[prefix_tree.FIRST]
            insert = insert_of[entries[begins[order[call[prefix_tree.LOW]]] + depth]]
            reduced(re, im, size, table[insert, Q0], table[insert, Q1], rho)
            if pending.shape[0]:
                side = 1 << sets[table[insert, SET], QUBITS]
                _turned(rho, side, 1, pending[table[insert, Q0]])
                if side == 4:
                    _turned(rho, side, 2, pending[table[insert, Q1]])
            choices = weigh(rho, table[insert, SET], sets, effects, probs)
            prefix_tree.choose(
                probs, choices, order, call[prefix_tree.LOW], call[prefix_tree.HIGH], begins,
                entries, depth, chosen, flags, locations[insert], first, seed, binding, moved,
            )  # fmt: skip
        elif call[prefix_tree.WHAT] == SAMPLE:
            begin, to = call[prefix_tree.LOW], call[prefix_tree.HIGH]
            for qubit in range(pending.shape[0]):
                _flush(re, im, size, qubit, pending, gate)
            if strings.shape[0]:
                evaluate(re, im, size, strings, coefficients, values[order[begin]])
                for k in range(begin + 1, to):
                    for o in range(values.shape[1]):
                        values[order[k], o] = values[order[begin], o]
            else:
                frame = final_x[order[begin]]
                sample(re, im, size, order, begin, to, first, seed, binding, frame, sums, indices)
        elif last < high:
            start, last = last, _set_end(set_of, order, last, high)
            if set_of.size:
                number = set_of[order[start]]
                _set_params(number, set_values, factors, varied, params, laid, floats)
            top = prefix_tree.begin(frames, start, last)
        else:
            return 0
