"""Parameter binding: computes the coefficients of a sweep table for one binding."""

import math

import numpy as np

from simulators.circuit.gates import FIRST_GATE
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import count
from simulators.statevector.planning import tables as t
from simulators.statevector.planning.lowering import FIXED_NUMBERS, FIXED_ROWS, ROTATED
from simulators.statevector.small.gate_kernels import matrices

_SIDE = 8  # side of the largest matrix of a block

# Scratch: accumulators and a column of factors for a DIAGONAL_RULE; two matrices for a BLOCK.
_COLUMN = 2 * (t.FIRST_TARGET + t.MOST_TERMS)
SCRATCH = _COLUMN + (2 << (t.MOST_WIDTH - t.LANE_WIRES))
_SECOND = 2 * _SIDE * _SIDE


@kernel("NAMES U16 F64 OperationRange REALS2", group="wide")
def pieces_of(rows, ops, params, where, entries):  # type: ignore[no-untyped-def]
    """Write the numbers of all pieces of a range of operations, and the constant ones."""
    for row in range(FIXED_ROWS):
        for k in range(8):
            entries[row, k] = FIXED_NUMBERS[row, k]
    row, at_param = FIXED_ROWS, where.at_param
    for k in range(where.first, where.last):
        op = ops[k]
        if rows[op, 0] >= FIRST_GATE:
            at = row
            row = matrices(rows[op, 0], params, at_param, entries, row)
            if ROTATED[rows[op, 0]]:
                entries[at, 0] = entries[at + 1, 0] = entries[at, 0] + entries[at, 2]
                entries[at, 1] += entries[at, 3]
                entries[at + 1, 1] = -entries[at, 1]
        at_param += rows[op, 3]


@device_function
def _pair(parts, row, size, entries, work):  # type: ignore[no-untyped-def]
    """Multiply a 2x2 action to the matrix in `work`, from the left."""
    mask, zero_bits, one_bits = parts[row, t.PART_MASK], parts[row, t.ZERO], parts[row, t.ONE]
    n = parts[row, t.NUMBERS]
    gap = zero_bits ^ one_bits
    for i in range(size):
        if i & mask != zero_bits:
            continue
        for c in range(size):
            k = 2 * (size * i + c)
            a, b = work[k], work[k + 1]
            if not gap:
                work[k] = entries[n, 0] * a - entries[n, 1] * b
                work[k + 1] = entries[n, 0] * b + entries[n, 1] * a
                continue
            other = 2 * (size * (i ^ gap) + c)
            x, y = work[other], work[other + 1]
            work[k] = entries[n, 0] * a - entries[n, 1] * b + entries[n, 2] * x - entries[n, 3] * y
            work[k + 1] = (
                entries[n, 0] * b + entries[n, 1] * a + entries[n, 2] * y + entries[n, 3] * x
            )
            work[other] = (
                entries[n, 4] * a - entries[n, 5] * b + entries[n, 6] * x - entries[n, 7] * y
            )
            work[other + 1] = (
                entries[n, 4] * b + entries[n, 5] * a + entries[n, 6] * y + entries[n, 7] * x
            )


@device_function
def _multiply_matrix(parts, row, size, constants, work):  # type: ignore[no-untyped-def]
    """Multiply a given matrix to the matrix in `work`, from the left."""
    first, wires = -1 - parts[row, t.NUMBERS], parts[row, t.PART_MASK]
    side = 1 << wires
    bits = 0
    for j in range(wires):
        bits |= parts[row, t.ZERO + j]
    for rest in range(size):
        if rest & bits:
            continue
        for c in range(size):
            for i in range(side):
                x = y = 0.0
                for j in range(side):
                    at = rest
                    for b in range(wires):
                        if j >> b & 1:
                            at |= parts[row, t.ZERO + b]
                    k, m = 2 * (size * at + c), 2 * (first + side * i + j)
                    x += constants[m] * work[k] - constants[m + 1] * work[k + 1]
                    y += constants[m] * work[k + 1] + constants[m + 1] * work[k]
                work[_SECOND + 2 * i], work[_SECOND + 2 * i + 1] = x, y
            for i in range(side):
                at = rest
                for b in range(wires):
                    if i >> b & 1:
                        at |= parts[row, t.ZERO + b]
                k = 2 * (size * at + c)
                work[k], work[k + 1] = work[_SECOND + 2 * i], work[_SECOND + 2 * i + 1]


@device_function
def _product(rules, r, size, parts, entries, constants, work):  # type: ignore[no-untyped-def]
    """Write the product of all parts to `work`."""
    for k in range(2 * size * size):
        work[k] = 0.0
    for k in range(size):
        work[2 * (size * k + k)] = 1.0
    for row in range(rules[r, t.FIRST_PART], rules[r, t.END_PART]):
        if parts[row, t.NUMBERS] < 0:
            _multiply_matrix(parts, row, size, constants, work)
        else:
            _pair(parts, row, size, entries, work)


@device_function
def _block(rules, r, parts, entries, constants, work, floats):  # type: ignore[no-untyped-def]
    moved, free = rules[r, t.MOVED], rules[r, t.FREE]
    size = 1 << (moved + free)
    _product(rules, r, size, parts, entries, constants, work)
    at = rules[r, t.NUMBERS_AT]
    side = 1 << moved
    for pattern in range(1 << free):
        for i in range(side):
            for j in range(side):
                k = 2 * (size * (pattern << moved | i) + (pattern << moved | j))
                floats[at] = work[k]
                at += 1
                if not rules[r, t.REAL_NUMBERS]:
                    floats[at] = work[k + 1]
                    at += 1


@device_function
def _real_rotation(rules, r, parts, entries, constants, work, floats):  # type: ignore[no-untyped-def]
    """Factor U = diag(a, b) [[c, -s], [s, c]] diag(1, d); rows of numbers: d, a, b."""
    _product(rules, r, np.int64(2), parts, entries, constants, work)
    at, row = rules[r, t.NUMBERS_AT], rules[r, t.DERIVED]
    c, s = math.hypot(work[0], work[1]), math.hypot(work[4], work[5])
    floats[at] = floats[at + 3] = c
    floats[at + 1], floats[at + 2] = -s, s
    ax, ay, bx, by = 1.0, 0.0, 1.0, 0.0
    if c > 0.0:
        ax, ay = work[0] / c, work[1] / c
    if s > 0.0:
        bx, by = work[4] / s, work[5] / s
    if c > s:  # d from b d c, or from -a d s
        u, v = work[6] / c, work[7] / c
        dx, dy = u * bx + v * by, v * bx - u * by
    else:
        u, v = -work[2] / s, -work[3] / s
        dx, dy = u * ax + v * ay, v * ax - u * ay
    entries[row, 0], entries[row, 1] = dx, dy
    entries[row + 1, 0], entries[row + 1, 1] = ax, ay
    entries[row + 2, 0], entries[row + 2, 1] = bx, by


@device_function
def _multiply(into, to, x, y):  # type: ignore[no-untyped-def]
    """Multiply into[to], a complex number, by x + iy."""
    u, v = into[to], into[to + 1]
    into[to] = u * x - v * y
    into[to + 1] = u * y + v * x


@device_function
def _collect(parts, first, last, num_targets, entries, work):  # type: ignore[no-untyped-def]
    """Compute the accumulators of all targets."""
    for k in range(num_targets):
        work[2 * k] = 1.0
        work[2 * k + 1] = 0.0
    for row in range(first, last):
        x, y = entries[parts[row, t.NUMBERS], 0], entries[parts[row, t.NUMBERS], 1]
        for term in range(4):
            power = parts[row, t.EXPONENTS + term]
            to = 2 * parts[row, t.TARGETS + term - 1] if term else 0
            while power > 0:
                _multiply(work, to, x, y)
                power -= 1
            while power < 0:
                _multiply(work, to, x, -y)
                power += 1


@device_function
def _doubled(into, at, size, x, y):  # type: ignore[no-untyped-def]
    """Write the next `size` complex numbers: the previous ones times x + iy."""
    for k in range(at, at + 2 * size, 2):
        u, v = into[k], into[k + 1]
        into[k + 2 * size] = u * x - v * y
        into[k + 2 * size + 1] = u * y + v * x


@device_function
def _table(first, bits, work, into, at):  # type: ignore[no-untyped-def]
    """Fill into[at ..]: for each value of `bits` places from `first` on, the factors of places and
    pairs; into[at] is given."""
    column = _COLUMN
    for j in range(bits):
        size = 1 << j
        work[column] = work[2 * (1 + first + j)]
        work[column + 1] = work[2 * (1 + first + j) + 1]
        for i in range(j):
            pair = 2 * (t.PAIRS + t.MOST_WIDTH * (first + j) + first + i)
            _doubled(work, column, 1 << i, work[pair], work[pair + 1])
        for k in range(0, 2 * size, 2):
            x, y, u, v = into[at + k], into[at + k + 1], work[column + k], work[column + k + 1]
            into[at + 2 * size + k] = x * u - y * v
            into[at + 2 * size + k + 1] = x * v + y * u


@device_function
def _diagonal_tables(rules, r, parts, entries, work, floats):  # type: ignore[no-untyped-def]
    terms, height, crossed = rules[r, t.NUM_TERMS], rules[r, t.HEIGHT], rules[r, t.CROSSED]
    num_targets = t.FIRST_TARGET + terms
    _collect(parts, rules[r, t.FIRST_PART], rules[r, t.END_PART], num_targets, entries, work)
    at = rules[r, t.NUMBERS_AT]
    floats[at], floats[at + 1] = work[0], work[1]
    _table(t.LANE_WIRES, height, work, floats, at)
    at += 2 << height
    column = _COLUMN
    tables = 1 << count(crossed)
    own = column + 4 * t.LANES  # after the scratch of `_table`
    work[own] = 1.0
    work[own + 1] = 0.0
    _table(0, t.LANE_WIRES, work, work, own)
    for c in range(tables):
        work[column] = 1.0
        work[column + 1] = 0.0
        for lane in range(t.LANE_WIRES):
            x, y = 1.0, 0.0
            rest, chosen, row = crossed, c, 0
            while rest:
                if rest & 1:
                    if chosen & 1:
                        pair = 2 * (t.PAIRS + t.MOST_WIDTH * (t.LANE_WIRES + row) + lane)
                        u, v = work[pair], work[pair + 1]
                        x, y = x * u - y * v, x * v + y * u
                    chosen >>= 1
                rest >>= 1
                row += 1
            _doubled(work, column, 1 << lane, x, y)
        for k in range(t.LANES):
            x, y = work[own + 2 * k], work[own + 2 * k + 1]
            u, v = work[column + 2 * k], work[column + 2 * k + 1]
            floats[at + k] = x * u - y * v
            floats[at + t.LANES + k] = x * v + y * u
        at += 2 * t.LANES
    for k in range(2 * terms):
        floats[at + k] = work[2 * t.FIRST_TARGET + k]


@device_function
def _uniform_phase(rules, r, parts, entries, floats):  # type: ignore[no-untyped-def]
    at = rules[r, t.NUMBERS_AT]
    for _ in range(1 << rules[r, t.HEIGHT]):
        floats[at] = 1.0
        floats[at + 1] = 0.0
        at += 2
    n = parts[rules[r, t.FIRST_PART], t.NUMBERS]
    for lane in range(t.LANES):
        is_set = lane & rules[r, t.LANES_MASK] == rules[r, t.LANES_VALUE]
        floats[at + lane] = entries[n, 0] if is_set else 1.0
        floats[at + t.LANES + lane] = entries[n, 1] if is_set else 0.0


@device_function
def _kronecker_pair(rules, r, floats):  # type: ignore[no-untyped-def]
    low, high, at = rules[r, t.FIRST_PART], rules[r, t.END_PART], rules[r, t.NUMBERS_AT]
    for i in range(4):
        for j in range(4):
            left, right = (
                floats[low + 2 * (i & 1) + (j & 1)],
                floats[high + 2 * (i >> 1) + (j >> 1)],
            )
            floats[at + 4 * i + j] = left * right


@kernel("INTS2 INTS2 REALS2 F64 REALS REALS", group="wide")
def fill(rules, parts, entries, constants, work, floats):  # type: ignore[no-untyped-def]
    """Compute all numbers of a table. `entries`: of the pieces; `work`: float64 [SCRATCH]."""
    for r in range(rules.shape[0]):
        if rules[r, t.RULE_KIND] == t.TURN_RULE:
            _product(rules, r, np.int64(2), parts, entries, constants, work)
            row, at = rules[r, t.NUMBERS_AT], 2 * rules[r, t.ANTI]
            entries[row, 0], entries[row, 1] = work[at], work[at + 1]
            entries[row + 1, 0], entries[row + 1, 1] = work[6 - at], work[7 - at]
        elif rules[r, t.RULE_KIND] == t.REAL_ROTATION_RULE:
            _real_rotation(rules, r, parts, entries, constants, work, floats)
    for r in range(rules.shape[0]):
        if rules[r, t.RULE_KIND] == t.BLOCK:
            _block(rules, r, parts, entries, constants, work, floats)
        elif rules[r, t.RULE_KIND] == t.DIAGONAL_RULE:
            _diagonal_tables(rules, r, parts, entries, work, floats)
        elif rules[r, t.RULE_KIND] == t.UNIFORM_PHASE:
            _uniform_phase(rules, r, parts, entries, floats)
        elif rules[r, t.RULE_KIND] == t.KRONECKER_PAIR:
            _kronecker_pair(rules, r, floats)
