"""Lowering of operations to lowered gates, which are fused and divided into sweeps.

A lowered gate is one operation, or one two-level factor of an operation on many qubits. Its kind is
DIAGONAL, PERMUTING (moves amplitudes without arithmetic) or DENSE. TARGET_MASK holds the qubits
along which it moves amplitude, DIAGONAL_MASK those it acts on diagonally; it acts only where all
qubits under CONTROL_MASK have their CONTROL_VALUE.
"""

import numpy as np

from simulators.circuit import gates
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import count, mapped
from simulators.statevector.planning import fusion as f
from simulators.statevector.planning.fusion import P_MASK, P_NUMBERS, P_ONE, P_PARITY, P_ZERO
from simulators.statevector.small.gate_kernels import COUNTS, masks

# Rows of constant numbers; those of operations follow them.
HADAMARD, MINUS, EXCHANGE = range(3)
FIXED_ROWS = 3

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


@kernel("NAMES U16 U16 I64 I64 INT INT INT I64 INT WORDS2 INTS2 INTS2 I64", group="wide")
def lower(  # type: ignore[no-untyped-def]
    rows, ops, qubits, matrix, offsets, first, last, at_qubit, wires, room, scratch, pieces,
    elements, done,
):  # fmt: skip
    """Write the elements of operations first .. last - 1. `done`: numbers of elements and pieces.

    `matrix`: for each row of the table, the number of its matrix; offsets[number]: its start among
    the constants, as -1 - 2 * place - (1 if it is real), or 0: not lowered here. `wires`: the wire
    of each qubit, which SWAP exchanges without operations. `room`: number of row bits of a tile.
    `scratch`: uint64 [pieces of a gate, 4].
    """
    at = piece = 0
    number = FIXED_ROWS
    for k in range(first, last):
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
                pieces[piece, P_MASK] = mapped(np.int64(scratch[s, 1]), wires)
                pieces[piece, P_ZERO] = mapped(np.int64(scratch[s, 2]), wires)
                pieces[piece, P_ONE] = mapped(np.int64(scratch[s, 3]), wires)
                pieces[piece, P_NUMBERS] = number + s
                how = np.int64(scratch[s, 0])
                swaps = swaps and how == gates.PERMUTATION
                phases = phases and how == gates.PHASE
                reals &= _REAL_PIECES[code, s]
                mask |= pieces[piece, P_MASK]
                piece += 1
            number += steps
            if phases and count(mask) <= 2:
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
                    elif np.int64(scratch[s - begin, 0]) == gates.PERMUTATION:
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
