"""Lowering of operations to lowered gates, which are fused and divided into sweeps.

A lowered gate is one operation, or one two-level factor of an operation on many qubits. Its kind is
DIAGONAL, PERMUTING (moves amplitudes without arithmetic) or DENSE. TARGET_MASK holds the qubits
along which it moves amplitude, DIAGONAL_MASK those it acts on diagonally; it acts only where all
qubits under CONTROL_MASK have their CONTROL_VALUE.
"""

import numpy as np

from simulators.circuit import gates
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import count, lowest, mapped
from simulators.statevector.planning import fusion as f, tables as t
from simulators.statevector.planning.fusion import P_MASK, P_NUMBERS, P_ONE, P_PARITY, P_ZERO
from simulators.statevector.small.gate_kernels import COUNTS, masks, step_at

# Rows of constant numbers; those of operations follow them.
HADAMARD, MINUS, EXCHANGE, TO_Y, FROM_Y = range(5)
FIXED_ROWS = 5
_R = 0.5**0.5
# As matrices 2x2, (re, im) row by row; a phase has the first number alone. EXCHANGE is also NOT;
# TO_Y turns Z to Y, FROM_Y back.
FIXED_NUMBERS = np.array([
    (_R, 0, _R, 0, _R, 0, -_R, 0), (-1, 0, 0, 0, 0, 0, 0, 0), (0, 0, 1, 0, 1, 0, 0, 0),
    (_R, 0, _R, 0, 0, _R, 0, -_R), (_R, 0, 0, -_R, _R, 0, 0, _R),
])  # fmt: skip

MOST_QUBITS = 3  # qubits of an element that is not split

_SWAP_GATE = gates.GATES["swap"].code
_PIECES = [piece for gate in gates.GATES.values() for piece in gate.pieces]
_FIRST = np.cumsum(COUNTS) - COUNTS
# By piece and code: True if its numbers are real for all parameters.
_REAL_PIECES = np.zeros((gates.FIRST_GATE + len(gates.GATES), int(COUNTS.max())), np.int64)
for _code in range(gates.FIRST_GATE, len(_REAL_PIECES)):
    for _k in range(COUNTS[_code]):
        _piece = _PIECES[_FIRST[_code] + _k]
        _fixed = _piece.source == gates.FIXED and not any(complex(x).imag for x in _piece.matrix)
        _REAL_PIECES[_code, _k] = _piece.kind in (gates.REAL, gates.PERMUTATION) or _fixed

# Gates that are a rotation about a product of two Pauli operators: a phase of each parity, between
# gates that turn the axes of their qubits to Z and back. A phase needs no place in a tile, and the
# turns are multiplied to the gates beside them. By code: 1 + the parity whose phase is the first
# piece's eigenvalue of |+>, that of the other being its conjugate; 0: no such gate. Axes: of the
# first and the second qubit. ECR stays a matrix: on a line it has others beside it.
ROTATED = np.zeros(len(_REAL_PIECES), np.int64)
_AXES = np.zeros((len(_REAL_PIECES), 2), np.int64)
_Z, _X, _Y = range(3)
for _name, _parity, *_axes in ("rxx", 0, _X, _X), ("ryy", 1, _Y, _Y), ("rzx", 0, _Z, _X):
    _code = gates.GATES[_name].code
    ROTATED[_code], _AXES[_code] = 1 + _parity, _axes


@device_function
def _put(elements, at, kind, pieces, first, last, reals):  # type: ignore[no-untyped-def]
    """Write one element of these pieces."""
    moves = mask = ones = 0
    all_mask = all_ones = -1
    for p in range(first, last):
        pieces[p, P_PARITY] = 0
        moves |= pieces[p, P_ZERO] ^ pieces[p, P_ONE]
        mask |= pieces[p, P_MASK]
        all_mask &= pieces[p, P_MASK]
        ones |= pieces[p, P_ZERO]
        all_ones &= pieces[p, P_ZERO]
    condition = all_mask & ~moves & ~(ones ^ all_ones)
    elements[at, f.KIND] = kind
    elements[at, f.TARGET_MASK] = moves
    elements[at, f.DIAGONAL_MASK] = mask & ~moves
    elements[at, f.CONTROL_MASK] = condition
    elements[at, f.CONTROL_VALUE] = all_ones & condition
    elements[at, f.IS_REAL] = reals
    elements[at, f.FIRST] = first
    elements[at, f.LAST] = last
    elements[at, f.MATRIX] = -1
    elements[at, f.REAL_ROTATION] = 0
    return at + 1


@device_function
def _flip(elements, at, pieces, piece, mask, target):  # type: ignore[no-untyped-def]
    """Write a NOT with more controls than rows can have: a phase between two Hadamards."""
    for k in range(3):
        middle = k == 1
        pieces[piece + k, P_MASK] = mask if middle else target
        pieces[piece + k, P_ZERO] = mask if middle else 0
        pieces[piece + k, P_ONE] = mask if middle else target
        pieces[piece + k, P_NUMBERS] = MINUS if middle else HADAMARD
        kind = f.DIAGONAL if middle else f.DENSE
        at = _put(elements, at, kind, pieces, piece + k, piece + k + 1, 1)
    return at


@device_function
def _rotate(elements, at, pieces, piece, code, a, b, number):  # type: ignore[no-untyped-def]
    """Write a gate of ROTATED on wires a and b, numbers[number] and the next being its phases."""
    odd = ROTATED[code] - 1
    for step in range(3):
        if step == 1:
            for k in range(2):
                pieces[piece + k, P_MASK] = 1 << a | 1 << b
                pieces[piece + k, P_ZERO] = pieces[piece + k, P_ONE] = (1 << a) * (k ^ odd)
                pieces[piece + k, P_NUMBERS] = number + k
            _put(elements, at, f.DIAGONAL, pieces, piece, piece + 2, 0)
            elements[at, f.CONTROL_MASK] = elements[at, f.CONTROL_VALUE] = 0
            pieces[piece, P_PARITY] = pieces[piece + 1, P_PARITY] = 1
            at += 1
            piece += 2
            continue
        for k in range(2):
            axis = _AXES[code, k]
            if axis == _Z:
                continue
            wire = b if k else a
            pieces[piece, P_MASK] = pieces[piece, P_ONE] = 1 << wire
            pieces[piece, P_ZERO] = 0
            pieces[piece, P_NUMBERS] = HADAMARD
            if axis == _Y:
                pieces[piece, P_NUMBERS] = FROM_Y if step == 0 else TO_Y
            reals = int(axis == _X)
            at = _put(elements, at, f.DENSE, pieces, piece, piece + 1, reals)
            piece += 1
    return at, piece


@kernel("NAMES U16 U16 I64 I64 OperationRange I64 INT WORDS2 INTS2 INTS2 I64", group="wide")
def lower(  # type: ignore[no-untyped-def]
    rows, ops, qubits, matrix, offsets, where, wires, room, scratch, pieces, elements, done
):
    """Write the elements of a range of operations. `done`: numbers of elements and pieces.

    `matrix`: for each row of the table, the number of its matrix; offsets[number]: its start among
    the constants, as -1 - 2 * place - (1 if it is real), or 0: not lowered here. `wires`: the wire
    of each qubit, which SWAP exchanges without operations. `room`: number of row bits of a tile.
    `scratch`: uint64 [pieces of a gate, 4].
    """
    at = piece = 0
    number = FIXED_ROWS
    at_qubit = where.at_qubit
    for k in range(where.first, where.last):
        op = ops[k]
        code, nq = rows[op, 0], rows[op, 1]
        if code == gates.UNITARY:
            result = offsets[matrix[op]]
            if result < 0:
                moves = 0
                for j in range(at_qubit, at_qubit + nq):
                    moves |= 1 << wires[qubits[j]]
                    pieces[piece, j - at_qubit] = wires[qubits[j]]
                elements[at, f.KIND] = f.DENSE
                elements[at, f.TARGET_MASK] = moves
                elements[at, f.DIAGONAL_MASK] = 0
                elements[at, f.CONTROL_MASK] = 0
                elements[at, f.CONTROL_VALUE] = 0
                elements[at, f.IS_REAL] = (-1 - result) & 1
                elements[at, f.FIRST] = piece
                elements[at, f.LAST] = piece + 1
                elements[at, f.MATRIX] = (-1 - result) >> 1
                elements[at, f.REAL_ROTATION] = 0
                at += 1
                piece += 1
        elif code == _SWAP_GATE:
            a, b = qubits[at_qubit], qubits[at_qubit + 1]
            wires[a], wires[b] = wires[b], wires[a]
            number += 1
        elif code >= gates.FIRST_GATE:
            begin = piece
            steps = masks(code, qubits, at_qubit, nq, scratch, np.int64(0))
            mask = 0
            swaps = phases = True
            reals = 1
            for s in range(steps):
                step = step_at(scratch, s)
                pieces[piece, P_MASK] = mapped(np.int64(step.mask), wires)
                pieces[piece, P_ZERO] = mapped(np.int64(step.zero_bits), wires)
                pieces[piece, P_ONE] = mapped(np.int64(step.one_bits), wires)
                pieces[piece, P_NUMBERS] = number + s
                how = np.int64(step.kind)
                swaps = swaps and how == gates.PERMUTATION
                phases = phases and how == gates.PHASE
                reals &= _REAL_PIECES[code, s]
                mask |= pieces[piece, P_MASK]
                piece += 1
            number += steps
            if ROTATED[code]:
                a, b = wires[qubits[at_qubit]], wires[qubits[at_qubit + 1]]
                at, piece = _rotate(elements, at, pieces, begin, code, a, b, number - steps)
            elif phases and count(mask) <= 2:
                if steps:
                    at = _put(elements, at, f.DIAGONAL, pieces, begin, piece, reals)
            elif swaps and count(mask) > room:
                target = pieces[begin, P_ZERO] ^ pieces[begin, P_ONE]
                at = _flip(elements, at, pieces, begin, mask, target)
                piece = begin + 3
            elif not phases and not swaps and count(mask) <= MOST_QUBITS:
                at = _put(elements, at, f.DENSE, pieces, begin, piece, reals)
            else:
                for s in range(begin, piece):
                    kind = f.DENSE
                    if pieces[s, P_ZERO] == pieces[s, P_ONE]:
                        kind = f.DIAGONAL
                    elif np.int64(step_at(scratch, s - begin).kind) == gates.PERMUTATION:
                        kind = f.PERMUTING
                    a = _REAL_PIECES[code, s - begin]
                    at = _put(elements, at, kind, pieces, s, s + 1, a)
        at_qubit += nq
    done[0], done[1] = at, piece


@kernel("I64 INTS2 INTS2 I64", group="wide")
def settle(wires, pieces, elements, done):  # type: ignore[no-untyped-def]
    """Append elements that bring each qubit to its own wire; `wires` and `done` as for `lower`."""
    for qubit in range(wires.size):
        wire = wires[qubit]
        if wire == qubit:
            continue
        for other in range(wires.size):
            if wires[other] == qubit:
                wires[other] = wire
        wires[qubit] = qubit
        piece = done[1]
        pieces[piece, P_MASK] = 1 << wire | 1 << qubit
        pieces[piece, P_ZERO] = 1 << wire
        pieces[piece, P_ONE] = 1 << qubit
        pieces[piece, P_NUMBERS] = EXCHANGE
        done[0] = _put(elements, done[0], f.PERMUTING, pieces, piece, piece + 1, 1)
        done[1] = piece + 1


@kernel("INTS2 INT INT -> INT", group="wide")
def reach(elements, size, measured):  # type: ignore[no-untyped-def]
    """Drop the elements that change no outcome of the wires `measured`; returns the number of
    remaining ones. An element can be delayed to the end if later relevant elements share no wire
    with it, or share it only diagonally; at the end it is relevant if it moves amplitude along a
    relevant wire."""
    matters, moved = measured, 0
    kept = size
    for k in range(size - 1, -1, -1):
        moves, looks = elements[k, f.TARGET_MASK], elements[k, f.DIAGONAL_MASK]
        if moves & matters or looks & moved:
            matters |= moves | looks
            moved |= moves
            kept -= 1
            for c in range(f.COLUMNS):
                elements[kept, c] = elements[k, c]
    for k in range(kept, size):
        for c in range(f.COLUMNS):
            elements[k - kept, c] = elements[k, c]
    return size - kept


# Products of gates on one wire that move no amplitude, or all of it.
#
# Transpiled circuits write H, X or CX as several rotations by multiples of a quarter turn. Their
# product between two gates on more wires is often diagonal, or diagonal after a NOT: phases, which
# need no place in a tile, and an exchange of rows.

_ALMOST = 1e-9  # of elements of a product that must be 0
_HEADS, _TAILS, _FOLLOWS = range(3)  # lists of `runs`: first and last element by wire, next element


@device_function
def _identity(products, wire):  # type: ignore[no-untyped-def]
    for k in range(8):
        products[wire, k] = 1.0 if k in (0, 6) else 0.0


@device_function
def _times(products, wire, pieces, p, numbers):  # type: ignore[no-untyped-def]
    """Multiply a piece on one wire to the wire's product, from the left."""
    n = pieces[p, P_NUMBERS]
    zero_bits, one_bits = int(pieces[p, P_ZERO] != 0), int(pieces[p, P_ONE] != 0)
    for c in range(2):
        i, j = 4 * zero_bits + 2 * c, 4 * one_bits + 2 * c
        a, b, x, y = (
            products[wire, i], products[wire, i + 1], products[wire, j], products[wire, j + 1]
        )  # fmt: skip
        m = numbers[n]
        if i == j:
            products[wire, i], products[wire, i + 1] = m[0] * a - m[1] * b, m[0] * b + m[1] * a
            continue
        products[wire, i] = m[0] * a - m[1] * b + m[2] * x - m[3] * y
        products[wire, i + 1] = m[0] * b + m[1] * a + m[2] * y + m[3] * x
        products[wire, j] = m[4] * a - m[5] * b + m[6] * x - m[7] * y
        products[wire, j + 1] = m[4] * b + m[5] * a + m[6] * y + m[7] * x


@device_function
def _is_zero(products, wire, first, other):  # type: ignore[no-untyped-def]
    """Return whether two elements of the wire's product are 0."""
    return (
        abs(products[wire, first]) + abs(products[wire, first + 1]) < _ALMOST
        and abs(products[wire, other]) + abs(products[wire, other + 1]) < _ALMOST
    )


@device_function
def _end_run(wire, at, into, elements, pieces, products, runs, rules, parts, done):  # type: ignore[no-untyped-def]
    """Write the elements of the wire's run to into[at ..], or those that replace them; returns the
    number of written elements."""
    head = runs[_HEADS, wire]
    runs[_HEADS, wire] = -1
    dense = 0
    e = head
    while e >= 0:
        dense += elements[e, f.KIND] != f.DIAGONAL
        e = runs[_FOLLOWS, e]
    single = head >= 0 and runs[_FOLLOWS, head] < 0 and elements[head, f.KIND] == f.PERMUTING
    diagonal, anti = _is_zero(products, wire, 2, 4), _is_zero(products, wire, 0, 6)
    if not dense or single or not (diagonal or anti):
        while head >= 0:
            for c in range(f.COLUMNS):
                into[at, c] = elements[head, c]
            at += 1
            head = runs[_FOLLOWS, head]
        return at
    products[wire, 0] -= 1.0
    products[wire, 6] -= 1.0
    if diagonal and _is_zero(products, wire, 0, 6):
        return at
    bit, piece, number, rule, part = 1 << wire, done[1], done[2], done[3], done[4]
    rules[rule, t.RULE_KIND] = t.TURN_RULE
    rules[rule, t.FIRST_PART] = part
    while head >= 0:
        for p in range(elements[head, f.FIRST], elements[head, f.LAST]):
            parts[part, t.NUMBERS] = pieces[p, P_NUMBERS]
            parts[part, t.PART_MASK] = 1
            parts[part, t.ZERO] = int(pieces[p, P_ZERO] != 0)
            parts[part, t.ONE] = int(pieces[p, P_ONE] != 0)
            part += 1
        head = runs[_FOLLOWS, head]
    rules[rule, t.END_PART] = part
    rules[rule, t.NUMBERS_AT] = number
    rules[rule, t.ANTI] = int(anti)
    for k in range(3):
        is_phase = k != 0
        pieces[piece + k, P_MASK] = bit
        pieces[piece + k, P_ZERO] = bit if k == 2 else 0
        pieces[piece + k, P_ONE] = bit if k != 1 else 0
        pieces[piece + k, P_NUMBERS] = number + k - 1 if is_phase else EXCHANGE
    if anti:
        at = _put(into, at, f.PERMUTING, pieces, piece, piece + 1, 1)
    at = _put(into, at, f.DIAGONAL, pieces, piece + 1, piece + 3, 0)
    done[1], done[2], done[3], done[4] = piece + 3, number + 2, rule + 1, part
    return at


@kernel("INTS2 INT INTS2 INTS2 REALS2 REALS2 INTS2 INTS2 INTS2 I64", group="wide")
def merge_turns(  # type: ignore[no-untyped-def]
    elements, size, into, pieces, numbers, products, runs, rules, parts, done
):
    """Write the elements to `into` with such products of gates as phases. `numbers`: of the pieces,
    for angles with the same multiples of a quarter turn, and others that stand for any angle.
    `products`: scratch, float64 [64, 8]; `runs`: int64 [3, elements + 64]. `done`: numbers of
    elements, pieces, rows of numbers, rules and parts."""
    at = size - size
    for wire in range(64):
        runs[_HEADS, wire] = -1
    for e in range(size):
        mask = elements[e, f.TARGET_MASK] | elements[e, f.DIAGONAL_MASK]
        if mask and not mask & (mask - 1) and elements[e, f.MATRIX] < 0:
            wire = lowest(mask)
            if runs[_HEADS, wire] < 0:
                runs[_HEADS, wire] = e
                _identity(products, wire)
            else:
                runs[_FOLLOWS, runs[_TAILS, wire]] = e
            runs[_TAILS, wire] = e
            runs[_FOLLOWS, e] = -1
            for p in range(elements[e, f.FIRST], elements[e, f.LAST]):
                _times(products, wire, pieces, p, numbers)
            continue
        while mask:
            wire = lowest(mask)
            at = _end_run(wire, at, into, elements, pieces, products, runs, rules, parts, done)
            mask &= mask - 1
        for c in range(f.COLUMNS):
            into[at, c] = elements[e, c]
        at += 1
    for wire in range(64):
        at = _end_run(wire, at, into, elements, pieces, products, runs, rules, parts, done)
    done[0] = at
