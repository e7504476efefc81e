"""Trajectories of a small circuit: one compiled traversal of the prefix tree.

Positions are operations, each a segment of its own, so no operation is executed twice for the same
prefix. Gates use `small.gate_kernels`, so an instance has the bits of a run of the circuit with its
errors written into it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import COMPLEX, FIRST_GATE, PERMUTATION, PHASE, UNITARY
from simulators.compiler.kernel import (
    I64,
    INT,
    INTS2,
    REALS,
    REALS2,
    REALS3,
    U16,
    WORDS2,
    device_function,
    inline_function,
    integer_fields,
    kernel,
    record,
    structured,
)
from simulators.compiler.simd import odd
from simulators.statevector.small.gate_kernels import (
    KIND,
    MASK,
    ONE,
    ZERO,
    GateStep,
    Matrix,
    apply,
    matrices as write_matrices,
    matrix_at,
    multiply,
    place,
    step_at,
)
from simulators.trajectories import prefix_tree
from simulators.trajectories.noise_table import (
    COUNT,
    FIRST,
    FLAG,
    MOST_OPERATORS,
    NO_FLAG,
    PAULI,
    Q0,
    Q1,
    QUBITS,
    SET,
    X,
    Z,
)
from simulators.trajectories.prefix_tree import ADVANCE, CHOOSE_KRAUS, SAMPLE

MOST_DENSE = 10  # largest number of qubits of a matrix
STOPPED = -1
_1 = np.uint64(1)

# Operations of the circuit. `first_step`: the first of its steps, which end where those of the next
# operation begin; `matrix`: start of its matrix among the custom ones, _NO_MATRIX if it has none,
# and _FACTOR for one that is a step and changes the norm; `first_qubit`, `width`: its qubits.
OPERATION = integer_fields("first_step", "matrix", "first_qubit", "width")
_NO_MATRIX, _FACTOR = -1, -2

# Parameters that depend on the set of a row: `operation`, its `code` and its first parameter; the
# parameter, and its column of the sets.
VARIED = integer_fields("operation", "code", "first_param", "param", "column")

# Matrices of qubits that have not acted on a state yet, 8 floats, and whether there is one.
_IS_PENDING = 8
PENDING = 9


@record
class GateArrays(NamedTuple):
    """Operations of a circuit, as steps and as matrices."""

    num_qubits: INT
    operations: Annotated[NDArray[np.void], structured(OPERATION)]  # and the end
    steps: WORDS2  # [steps, 4], see `gate_kernels`
    floats: REALS2  # [steps, 8]: their matrices
    qubits: U16
    custom: REALS  # matrices of `unitary`


@record
class OperatorArrays(NamedTuple):
    """Errors that may be inserted, see `noise_table`."""

    table: INTS2
    sets: INTS2
    matrices: REALS
    effects: REALS


@record
class SetArrays(NamedTuple):
    """Sets of parameters of rows."""

    set_of: I64  # of each row, by which `order` is sorted first; empty: one set for all rows
    values: REALS2  # [sets, columns]
    factors: REALS  # of each varied parameter
    varied: Annotated[NDArray[np.void], structured(VARIED)]
    params: REALS  # of the circuit, written anew for each set


@record
class WalkOutputs(NamedTuple):
    """Outputs of rows: basis states, or values of the observables if there are any."""

    final_x: I64  # [rows]: mask of qubits whose bit is read inverted, see `sample`
    indices: I64  # [rows]: basis states
    strings: INTS2  # [strings, 3]: X mask, Z mask and observable of each Pauli string
    coefficients: REALS  # [strings]
    values: REALS2  # [rows, observables]
    stat: I64  # [2]: executed operations, and the largest number of states held at once


@record
class WalkScratch(NamedTuple):
    """Memory of one walk."""

    states: REALS3  # [states, 2, 2**n and a vector]: real and imaginary parts
    # [states, n, PENDING], see `advance`; [states, 0, PENDING]: each step acts at once
    unapplied: REALS3
    room: I64  # [rows]
    columns: REALS  # [2 << MOST_DENSE]: amplitudes that a matrix multiplies
    rho: REALS  # [32]: density matrix of two qubits
    probs: REALS  # [MOST_OPERATORS]
    sums: REALS  # [2**n]
    gate: REALS2  # [1, 8]: matrix of one step
    pair: I64  # [2]: qubits of an insert

    @classmethod
    def of(
        cls, states: NDArray[np.float64], unapplied: NDArray[np.float64], rows: int
    ) -> WalkScratch:
        """Allocate all but the states."""
        return cls(
            states, unapplied, np.empty(rows, np.int64), np.empty(2 << MOST_DENSE), np.empty(32),
            np.empty(MOST_OPERATORS), np.empty(states.shape[2]), np.empty((1, 8)),
            np.empty(2, np.int64),
        )  # fmt: skip


@device_function
def _is_factor(given, at):  # type: ignore[no-untyped-def]
    """Return whether a matrix is diag(1, r) with a real r."""
    others = given[at + 1] == 0.0 and given[at + 2] == 0.0 and given[at + 3] == 0.0
    others = others and given[at + 4] == 0.0 and given[at + 5] == 0.0 and given[at + 7] == 0.0
    return others and given[at] == 1.0


@kernel("NAMES U16 F64 I64 GateArrays -> INT", group="trajectories")
def lay(rows, ops, params, matrix_of, gates):  # type: ignore[no-untyped-def]
    """Write all operations and their steps; returns the number of steps. matrix_of: for each row of
    the table, the start of its matrix among the custom ones. A matrix diag(1, r) with a real r is a
    step."""
    qubits, steps, floats, custom = gates.qubits, gates.steps, gates.floats, gates.custom
    row = np.int64(0)
    q = p = np.int64(0)
    for k in range(ops.size):
        op = ops[k]
        each = gates.operations[k]
        each.first_step, each.matrix = row, _NO_MATRIX
        each.first_qubit, each.width = q, rows[op, 1]
        if rows[op, 0] >= FIRST_GATE:
            row = place(rows[op, 0], qubits, q, rows[op, 1], params, p, steps, floats, row)
        elif rows[op, 0] == UNITARY:
            if rows[op, 1] == 1 and _is_factor(custom, matrix_of[op]):
                for j in range(8):
                    floats[row, j] = 0.0
                floats[row, 0] = custom[matrix_of[op] + 6]
                steps[row, KIND] = PHASE
                steps[row, MASK] = steps[row, ZERO] = steps[row, ONE] = _1 << np.uint64(qubits[q])
                each.matrix = _FACTOR
                row += 1
            else:
                each.matrix = matrix_of[op]
        q += rows[op, 1]
        p += rows[op, 3]
    gates.operations[ops.size].first_step = row
    return row


@device_function
def _set_params(number, sets, gates):  # type: ignore[no-untyped-def]
    """Write the parameters of a set, and the numbers of the steps of their operations."""
    for k in range(sets.varied.size):
        each = sets.varied[k]
        sets.params[each.param] = sets.factors[k] * sets.values[number, each.column]
    for k in range(sets.varied.size):
        each = sets.varied[k]
        row = gates.operations[each.operation].first_step
        write_matrices(each.code, sets.params, each.first_param, gates.floats, row)


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
def _step(re, im, size, step, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step; a separate function, so that it is compiled once."""
    apply(re, im, size, step, floats, row)


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
                multiply(a, b, c, d, matrix_at(floats, row))
            )


@device_function
def _on(kind, mask):  # type: ignore[no-untyped-def]
    """Step on one qubit, whose bit is the mask."""
    zero_bits = mask if kind == PHASE else np.uint64(0)
    return GateStep(np.uint64(kind), mask, zero_bits, mask)


@device_function
def _flush(re, im, size, qubit, pending, gate):  # type: ignore[no-untyped-def]
    """Apply the pending matrix of a qubit, if there is one."""
    if pending.shape[0] and pending[qubit, _IS_PENDING]:
        for k in range(8):
            gate[0, k] = pending[qubit, k]
        mask = _1 << np.uint64(qubit)
        _step(re, im, size, _on(COMPLEX, mask), gate, np.int64(0))
        pending[qubit, _IS_PENDING] = 0.0


@device_function
def _turned(rho, side, bit, pending):  # type: ignore[no-untyped-def]
    """Apply the pending matrix of a qubit, bit `bit` of an index, to a density matrix."""
    if not pending[_IS_PENDING]:
        return
    for columns in range(2):
        sign = 1.0 - 2.0 * columns
        step, other = (2, 2 * side) if columns else (2 * side, 2)
        m = Matrix(
            pending[0], sign * pending[1], pending[2], sign * pending[3], pending[4],
            sign * pending[5], pending[6], sign * pending[7],
        )  # fmt: skip
        for k in range(side):
            for a in range(side):
                if not a & bit:
                    i = step * a + other * k
                    j = step * (a | bit) + other * k
                    rho[i], rho[i + 1], rho[j], rho[j + 1] = multiply(
                        rho[i], rho[i + 1], rho[j], rho[j + 1], m
                    )


@inline_function
def _insert(re, im, size, inserts, insert, choice, scratch, pending):  # type: ignore[no-untyped-def]
    """Apply one insert; `pending`: see `advance`."""
    table, sets, gate, pair = inserts.table, inserts.sets, scratch.gate, scratch.pair
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
                _step(re, im, size, _on(PERMUTATION, mask), gate, np.int64(0))
            if z & bit:
                _step(re, im, size, _on(PHASE, mask), gate, np.int64(0))
            bit <<= 1
        return
    width = sets[which, QUBITS]
    first = sets[which, FIRST] + choice * (2 << 2 * width)
    _flush(re, im, size, table[insert, Q0], pending, gate)
    if width == 1:
        for k in range(8):
            gate[0, k] = inserts.matrices[first + k]
        mask = _1 << np.uint64(table[insert, Q0])
        _step(re, im, size, _on(COMPLEX, mask), gate, np.int64(0))
        return
    _flush(re, im, size, table[insert, Q1], pending, gate)
    pair[0], pair[1] = table[insert, Q0], table[insert, Q1]
    _dense(re, im, size, pair, np.int64(0), width, inserts.matrices, first, scratch.columns)


@device_function
def advance(re, im, size, begin, end, gates, pending, gate, columns):  # type: ignore[no-untyped-def]
    """Apply operations begin .. end - 1. pending [qubits, PENDING]: matrices of qubits, that act
    before the next operation of several qubits, and are unitary; empty: each step acts at once."""
    qubits, steps, floats = gates.qubits, gates.steps, gates.floats
    for k in range(begin, end):
        each = gates.operations[k]
        first, last = each.first_step, gates.operations[k + 1].first_step
        if pending.shape[0] and (first < last or each.matrix >= 0):
            qubit = np.int64(qubits[each.first_qubit])
            if each.width == 1 and each.matrix < 0:
                for s in range(first, last):
                    zero, one = np.int64(steps[s, ZERO] != 0), np.int64(steps[s, ONE] != 0)
                    _multiply(pending[qubit], steps[s, KIND], zero, one, floats, s)
                if each.matrix == _FACTOR:
                    _flush(re, im, size, qubit, pending, gate)
                continue
            for j in range(each.width):
                qubit = np.int64(qubits[each.first_qubit + j])
                _flush(re, im, size, qubit, pending, gate)
        if each.matrix >= 0:
            at, width = each.first_qubit, each.width
            _dense(re, im, size, qubits, at, width, gates.custom, each.matrix, columns)
        for s in range(first, last):
            _step(re, im, size, step_at(steps, s), floats, s)


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
    """Fill probs[c] with the trace of each operator's effect with rho; returns their number."""
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
def sample(re, im, size, order, low, high, draws, frame, sums, indices):  # type: ignore[no-untyped-def]
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
        shot = np.int64(draws.first + row)
        t = prefix_tree.number_of(draws.seed, draws.binding, np.uint64(0), shot) * total
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


@inline_function
def _start_state(walk, scratch):  # type: ignore[no-untyped-def]
    """Write the state that an ADVANCE begins with."""
    source, target = walk.action[0].source, walk.action[0].target
    states, unapplied = scratch.states, scratch.unapplied
    if source < 0:
        for k in range(states.shape[2]):
            states[target, 0, k] = states[target, 1, k] = 0.0
        states[target, 0, 0] = 1.0
        for qubit in range(unapplied.shape[1]):
            unapplied[target, qubit, _IS_PENDING] = 0.0
    elif source != target:
        for qubit in range(unapplied.shape[1]):
            for k in range(PENDING):
                unapplied[target, qubit, k] = unapplied[source, qubit, k]
        for k in range(states.shape[2]):
            states[target, 0, k] = states[source, 0, k]
            states[target, 1, k] = states[source, 1, k]


@inline_function
def _advance(re, im, size, walk, rows, tree, inserts, gates, scratch, pending):  # type: ignore[no-untyped-def]
    """Carry out ADVANCE: evolve a state, with its inserts."""
    action = walk.action[0]
    _start_state(walk, scratch)
    position = action.begin
    for k in range(action.first, action.last):
        place = rows.entries[k]
        at = tree.place_at[place]
        advance(re, im, size, position, at, gates, pending, scratch.gate, scratch.columns)
        position = at
        insert = tree.insert_of[place]
        has_flag = tree.flags.shape[0] > 0 and tree.flags[place, FLAG] != NO_FLAG
        if has_flag and rows.chosen[k] == inserts.sets[inserts.table[insert, SET], COUNT] - 1:
            continue  # the identity
        _insert(re, im, size, inserts, insert, rows.chosen[k], scratch, pending)
    end = action.end
    advance(re, im, size, position, end, gates, pending, scratch.gate, scratch.columns)


@inline_function
def _weigh_operators(re, im, size, insert, inserts, scratch, pending):  # type: ignore[no-untyped-def]
    """Weigh the operators of an insert in a state; returns their number."""
    table, rho = inserts.table, scratch.rho
    reduced(re, im, size, table[insert, Q0], table[insert, Q1], rho)
    if pending.shape[0]:
        side = 1 << inserts.sets[table[insert, SET], QUBITS]
        _turned(rho, side, 1, pending[table[insert, Q0]])
        if side == 4:
            _turned(rho, side, 2, pending[table[insert, Q1]])
    return weigh(rho, table[insert, SET], inserts.sets, inserts.effects, scratch.probs)


@kernel(
    "WalkState RowArrays TreeArrays OperatorArrays GateArrays SetArrays WalkOutputs WalkScratch "
    "RandomDraws INT INT I64 -> INT",
    group="trajectories",
)
def run(  # type: ignore[no-untyped-def]
    walk, rows, tree, inserts, gates, sets, outputs, scratch, draws, low, high, control
):
    """Run rows order[low : high] and write their outputs. Returns 0 or STOPPED.

    Each operation is a segment: `tree.floor` and `tree.ceil` map a position to itself. The numbers
    of `gates` are written anew for each set of parameters (`_set_params`).
    """
    order, begins, entries, cap = rows.order, rows.begins, rows.entries, scratch.states.shape[0]
    size = 1 << gates.num_qubits
    action = walk.action[0]
    action.target = 0
    open_nodes, last = np.int64(0), low
    while True:
        if control[0]:
            return STOPPED
        open_nodes = prefix_tree.next_action(walk, open_nodes, cap, rows, tree)
        target = action.target
        re, im = scratch.states[target, 0], scratch.states[target, 1]
        pending = scratch.unapplied[target]
        if action.kind == ADVANCE:
            _advance(re, im, size, walk, rows, tree, inserts, gates, scratch, pending)
            outputs.stat[0] += action.end - action.begin
            outputs.stat[1] = max(outputs.stat[1], target + 1)
        elif action.kind == CHOOSE_KRAUS:
            insert = tree.insert_of[entries[begins[order[action.low]] + action.first]]
            choices = _weigh_operators(re, im, size, insert, inserts, scratch, pending)
            prefix_tree.choose(scratch.probs, choices, action, rows, tree, draws, scratch.room)
        elif action.kind == SAMPLE:
            begin, end, values = action.low, action.high, outputs.values
            for qubit in range(pending.shape[0]):
                _flush(re, im, size, qubit, pending, scratch.gate)
            first = order[begin]
            if outputs.strings.shape[0]:
                evaluate(re, im, size, outputs.strings, outputs.coefficients, values[first])
                for k in range(begin + 1, end):
                    for o in range(values.shape[1]):
                        values[order[k], o] = values[first, o]
            else:
                frame, indices = outputs.final_x[first], outputs.indices
                sample(re, im, size, order, begin, end, draws, frame, scratch.sums, indices)
        elif last < high:
            start, last = last, _set_end(sets.set_of, order, last, high)
            if sets.set_of.size:
                _set_params(sets.set_of[order[start]], sets, gates)
            open_nodes = prefix_tree.begin(walk.nodes, start, last)
        else:
            return 0
