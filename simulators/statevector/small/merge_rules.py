"""Choice of the gates of a small circuit that are multiplied into one matrix.

A run is a sequence of two-qubit gates on one pair of qubits, with no other gate on several qubits
between them on either. A run is merged if one 4x4 matrix costs less than its gates one by one, with
the one-qubit matrices pending before them. The choice depends on the circuit's structure alone.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import COMPLEX, FIRST_GATE, GATES, PERMUTATION, PHASE, REAL
from simulators.compiler.kernel import device_function, inline_function

MIN_QUBITS = 8  # with fewer, an operation on the state costs as little as one on a matrix
MIN_OPERATIONS = 128  # with fewer, there is little to merge
MAX_RUNS = 4096  # runs that are compared; later ones are merged

# Kinds of a pending matrix; the larger includes the smaller, except REAL_ONE and DIAGONAL_ONE,
# which join to COMPLEX.
IDENTITY, DIAGONAL, REAL_MATRIX, COMPLEX_MATRIX = range(4)

# Time for each amplitude, in units of a complex product.
_OVERHEAD = 0.6  # overhead of an operation on all amplitudes
_ONE_QUBIT = np.array([0.0, 1.0, 1.5, 2.6])
PAIR_COST = 3.9
_WORK = {PHASE: 1.0, PERMUTATION: 0.5, REAL: 1.0, COMPLEX: 2.0}  # per affected amplitude


def _matrix_kind(name: str) -> int:
    kinds = {piece.kind for piece in GATES[name].pieces}
    if not kinds:
        return IDENTITY
    if kinds == {PHASE}:
        return DIAGONAL
    return REAL_MATRIX if kinds <= {PERMUTATION, REAL} else COMPLEX_MATRIX


def _cost_of(name: str) -> float:
    gate, total = GATES[name], 0.0
    for piece in gate.pieces:
        bits = gate.qubits - piece.targets + piece.mask.bit_count()
        share = 0.5**bits * (1 if piece.kind == PHASE else 2)
        total += share * (_WORK[piece.kind] + _OVERHEAD)
    return total


def _moves_of(name: str) -> int:
    gate, moves = GATES[name], 0
    for piece in gate.pieces:
        moves |= (piece.low ^ piece.high) << (gate.qubits - piece.targets)
    return moves


# By code: the kind of a gate's matrix; of gates on two qubits, cost and operands moved (as a mask).
KINDS = np.zeros(FIRST_GATE + len(GATES), np.int64)
_COSTS = np.zeros(FIRST_GATE + len(GATES))
MOVES = np.zeros(FIRST_GATE + len(GATES), np.int64)
for _name, _gate in GATES.items():
    KINDS[_gate.code] = _matrix_kind(_name)
    if _gate.qubits == 2:
        _COSTS[_gate.code], MOVES[_gate.code] = _cost_of(_name), _moves_of(_name)


@inline_function
def joined(left, right):  # type: ignore[no-untyped-def]
    """Kind of the product of two matrices of these kinds."""
    if left == right or right == IDENTITY:
        return left
    return right if left == IDENTITY else np.int64(COMPLEX_MATRIX)


@device_function
def choose_runs(rows, ops, qubits, n, costs, kind_of, partner, run_of):  # type: ignore[no-untyped-def]
    """Fill costs[r] with the cost of run r gate by gate, with the matrices pending before and
    within it. `kind_of`, `partner`, `run_of`: scratch, int64 [n]."""
    kinds, gate_costs, moves, ones = KINDS, _COSTS, MOVES, _ONE_QUBIT
    for q in range(n):
        kind_of[q], partner[q] = IDENTITY, -1
    at = runs = 0
    for k in range(ops.size):
        code, count = rows[ops[k], 0], rows[ops[k], 1]
        if code >= FIRST_GATE:
            if count == 1:
                q = qubits[at]
                kind_of[q] = joined(kind_of[q], kinds[code])
            elif count == 2:
                a, b = np.int64(qubits[at]), np.int64(qubits[at + 1])
                if partner[a] != b or partner[b] != a:
                    for c in (a, b):
                        if partner[c] >= 0:
                            partner[partner[c]] = -1
                    partner[a], partner[b] = b, a
                    run_of[a] = run_of[b] = runs
                    if runs < MAX_RUNS:
                        costs[runs] = 0.0
                    runs += 1
                total = gate_costs[code]
                for j in range(2):
                    c = b if j else a
                    if kind_of[c] > DIAGONAL or moves[code] >> j & 1:
                        total += ones[kind_of[c]]
                        kind_of[c] = IDENTITY
                if run_of[a] < MAX_RUNS:
                    costs[run_of[a]] += total
            else:
                for j in range(at, at + count):
                    c = np.int64(qubits[j])
                    if partner[c] >= 0:
                        partner[partner[c]] = -1
                    partner[c], kind_of[c] = -1, IDENTITY
        at += count


def is_merged(num_qubits: int, num_operations: int) -> bool:
    """Return whether the gates of a circuit of this size are merged at all."""
    return num_qubits >= MIN_QUBITS and num_operations >= MIN_OPERATIONS
