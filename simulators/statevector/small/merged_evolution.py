"""Choice of the gates that are multiplied into one matrix, and the evolution by them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import COUNTS_QUBITS
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.gates import COMPLEX, FIRST_GATE, GATES, PERMUTATION, PHASE, REAL
from simulators.circuit.ir import Circuit
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, inline_function, kernel
from simulators.compiler.simd import aligned, as_numbers, as_reals, as_words, load, splat, store
from simulators.engine import RunControl
from simulators.statevector.small import pair_kernel
from simulators.statevector.small.counts import (
    IM,
    MAX_CLBITS,
    RE,
    STOPPED,
    scan,
)
from simulators.statevector.small.gate_kernels import (
    KIND,
    MASK,
    MAX_PIECES,
    ONE,
    ZERO,
    apply_matrix,
    load_matrix,
    masks,
    reach,
    shifted,
    step_at,
)
from simulators.statevector.small.pair_kernel import BoundRows

# Choice of the gates of a small circuit that are multiplied into one matrix.
#
# A run is a sequence of two-qubit gates on one pair of qubits, with no other gate on several qubits
# between them on either. A run is merged if one 4x4 matrix costs less than its gates one by one,
# with the one-qubit matrices pending before them. The choice depends on the circuit's structure
# alone.

MIN_QUBITS = 8  # with fewer, an operation on the state costs as little as one on a matrix
MIN_OPERATIONS = 128  # with fewer, there is little to merge
WIDE_QUBITS, WIDE_OPERATIONS = 11, 32  # the same for states whose passes cost more than matrices
MAX_RUNS = 4096  # runs that are compared; later ones are merged

# Kinds of a pending matrix; the larger includes the smaller, except REAL_ONE and DIAGONAL_ONE,
# which join to COMPLEX.
IDENTITY, DIAGONAL, REAL_MATRIX, COMPLEX_MATRIX = range(4)

# Time for each amplitude, in units of a complex product.
_OVERHEAD = 0.6  # overhead of an operation on all amplitudes
_ONE_QUBIT = np.array([0.0, 1.0, 1.5, 2.6])
PAIR_COST = 3.9
_WORK = {PHASE: 1.0, PERMUTATION: 0.5, REAL: 1.0, COMPLEX: 2.0}  # per affected amplitude


# By code: the kind of a gate's matrix; of gates on two qubits, cost and operands moved (as a mask).
KINDS = np.zeros(FIRST_GATE + len(GATES), np.int64)
_COSTS = np.zeros(FIRST_GATE + len(GATES))
MOVES = np.zeros(FIRST_GATE + len(GATES), np.int64)
for _gate in GATES.values():
    _kinds = {piece.kind for piece in _gate.pieces}
    if _kinds == {PHASE}:
        KINDS[_gate.code] = DIAGONAL
    elif _kinds:
        KINDS[_gate.code] = REAL_MATRIX if _kinds <= {PERMUTATION, REAL} else COMPLEX_MATRIX
    for _piece in _gate.pieces if _gate.qubits == 2 else ():
        _share = 0.5 ** (2 - _piece.targets + _piece.mask.bit_count())
        _share *= 1 if _piece.kind == PHASE else 2
        _COSTS[_gate.code] += _share * (_WORK[_piece.kind] + _OVERHEAD)
        MOVES[_gate.code] |= (_piece.low ^ _piece.high) << (2 - _piece.targets)


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
    least = WIDE_OPERATIONS if num_qubits >= WIDE_QUBITS else MIN_OPERATIONS
    return num_qubits >= MIN_QUBITS and num_operations >= least


# Evolution of a small state with neighbouring gates multiplied into one matrix.
#
# Gates on one qubit are multiplied into that qubit's pending 2x2 matrix, which commutes with
# operations that are diagonal on the qubit if it is diagonal too. `merged_evolution` chooses the
# gates on two qubits that are multiplied into a 4x4 matrix; all others are applied one by one.
#
# Matrices are computed by the same steps as states, as blocks of 2 or 4 rows. The merging depends
# on the circuit's structure alone, never on parameters or on the number of bindings that run
# together; each amplitude has the same bits for one binding and for eight in the lanes of a vector.

NOT_EVOLVED, EVOLVED = 0, 1
_NOT_BOUND = BoundRows(np.empty(0, np.int32), np.empty((1, 0)))

# Byte offsets of the parts of the buffer.
_PENDING_FLOATS = 4 * simd.LANES  # floats of the real or the imaginary parts of a pending matrix
_PENDINGS_FLOATS = _PENDING_FLOATS * COUNTS_QUBITS
_PAIRS_FLOATS = pair_kernel.PAIR_FLOATS * COUNTS_QUBITS
_MOST_STEPS = MAX_PIECES + 2
_STEP_WORDS, _EIGHT_FLOATS = 4 * _MOST_STEPS, 8 * simd.LANES * _MOST_STEPS
_STEPS = 0
_EIGHT = _STEPS + 8 * _STEP_WORDS
_ONE = _EIGHT + 8 * _EIGHT_FLOATS
_OWN = _ONE + 8 * 8 * MAX_PIECES
_PENDING = _OWN + 64
_PENDING_IM = _PENDING + 8 * _PENDINGS_FLOATS
_PAIRS = _PENDING_IM + 8 * _PENDINGS_FLOATS
_PAIRS_IM = _PAIRS + 8 * _PAIRS_FLOATS
_PAIR_WORK = _PAIRS_IM + 8 * _PAIRS_FLOATS
_RUN_COSTS = _PAIR_WORK + 2 * 8 * pair_kernel.PAIR_FLOATS
_KIND_OF = _RUN_COSTS + 8 * MAX_RUNS
_PARTNER = _KIND_OF + 8 * COUNTS_QUBITS
_RUN_OF = _PARTNER + 8 * COUNTS_QUBITS
_SOURCE = _RUN_OF + 8 * COUNTS_QUBITS
SCRATCH_BYTES = _SOURCE + 8 * MAX_CLBITS

_0, _1, _2, _8 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(8)
_16, _48, _56, _64 = (np.uint64(8 * k) for k in (2, 6, 7, 8))
_LANES = np.uint64(simd.LANES)


class _Scratch(NamedTuple):
    """Scratch memory of one evolution, and the size of the state."""

    buffer: Any
    shift: Any  # 3 for eight states, whose amplitudes are interleaved, else 0
    end: Any  # floats of the real, or the imaginary, parts that may differ from zero, see `reach`


@device_function
def _pending_steps(w, q):  # type: ignore[no-untyped-def]
    """Write the pending matrix of a qubit as steps from MAX_PIECES on; returns their number."""
    steps = as_words(w.buffer, _STEPS, _STEP_WORDS).reshape(_MOST_STEPS, 4)
    eight = as_reals(w.buffer, _EIGHT, _EIGHT_FLOATS)
    kind_of = as_numbers(w.buffer, _KIND_OF, COUNTS_QUBITS)
    re = as_reals(w.buffer, _PENDING, _PENDINGS_FLOATS)
    im = as_reals(w.buffer, _PENDING_IM, _PENDINGS_FLOATS)
    kind = kind_of[q]
    bit = _1 << np.uint64(q)
    row = np.uint64(_PENDING_FLOATS * q)
    to = np.uint64(64 * MAX_PIECES)
    for r in range(np.uint64(2)):
        for c in range(np.uint64(2)):
            if not w.shift:
                x, y = splat(re[row + _LANES * r + c]), splat(im[row + _LANES * r + c])
            else:
                x, y = load(re, row + _LANES * (_2 * r + c)), load(im, row + _LANES * (_2 * r + c))
            e = to + _16 * (_2 * r + c)
            store(eight, e, x)
            store(eight, e + _8, y)
    s = MAX_PIECES
    steps[s, MASK] = bit
    steps[s, ZERO] = _0
    if kind == DIAGONAL:
        steps[s, KIND] = steps[s + 1, KIND] = np.uint64(PHASE)
        steps[s, ONE] = _0
        steps[s + 1, MASK] = steps[s + 1, ZERO] = steps[s + 1, ONE] = bit
        store(eight, to + _64, load(eight, to + _48))
        store(eight, to + _64 + _8, load(eight, to + _56))
        return 2
    steps[s, KIND] = np.uint64(REAL if kind == REAL_MATRIX else COMPLEX)
    steps[s, ONE] = bit
    return 1


@device_function
def _apply_steps(w, re, im, first, pieces):  # type: ignore[no-untyped-def]
    """Apply steps `first` .. first + pieces - 1 to the state."""
    steps = as_words(w.buffer, _STEPS, _STEP_WORDS).reshape(_MOST_STEPS, 4)
    eight = as_reals(w.buffer, _EIGHT, _EIGHT_FLOATS)
    for s in range(first, first + pieces):
        step = shifted(step_at(steps, s), w.shift)
        apply_matrix(re, im, w.end, step, load_matrix(eight, s))


@device_function
def _is_one_matrix(w, q):  # type: ignore[no-untyped-def]
    """Return whether the run of qubit q is applied as one matrix."""
    run_of = as_numbers(w.buffer, _RUN_OF, COUNTS_QUBITS)
    costs = as_reals(w.buffer, _RUN_COSTS, MAX_RUNS)
    return run_of[q] >= MAX_RUNS or costs[run_of[q]] > PAIR_COST


@device_function
def _to_run(w, a, b, first, pieces):  # type: ignore[no-untyped-def]
    """Multiply steps to the matrix of the run of a and b."""
    steps = as_words(w.buffer, _STEPS, _STEP_WORDS).reshape(_MOST_STEPS, 4)
    eight = as_reals(w.buffer, _EIGHT, _EIGHT_FLOATS)
    re = as_reals(w.buffer, _PAIRS, _PAIRS_FLOATS)
    im = as_reals(w.buffer, _PAIRS_IM, _PAIRS_FLOATS)
    low, high = min(a, b), max(a, b)
    pair_kernel.absorb(
        re, im, np.uint64(pair_kernel.PAIR_FLOATS * low), 4, 4 if w.shift else 1,
        _1 << np.uint64(low), _1 << np.uint64(high), steps, first, pieces, eight,
    )  # fmt: skip


@device_function
def _to_pending(w, q, pieces, kind):  # type: ignore[no-untyped-def]
    """Multiply steps of one qubit to its pending matrix."""
    steps = as_words(w.buffer, _STEPS, _STEP_WORDS).reshape(_MOST_STEPS, 4)
    eight = as_reals(w.buffer, _EIGHT, _EIGHT_FLOATS)
    kind_of = as_numbers(w.buffer, _KIND_OF, COUNTS_QUBITS)
    re = as_reals(w.buffer, _PENDING, _PENDINGS_FLOATS)
    im = as_reals(w.buffer, _PENDING_IM, _PENDINGS_FLOATS)
    at, columns = np.uint64(_PENDING_FLOATS * q), 2 if w.shift else 1
    if kind_of[q] == IDENTITY:
        pair_kernel.reset(re, im, at, 2, columns)
    kind_of[q] = joined(kind_of[q], kind)
    pair_kernel.absorb(
        re, im, at, 2, columns, _1 << np.uint64(q), _0, steps, np.int64(0), pieces, eight,
    )  # fmt: skip


@device_function
def _apply_run(w, first, second, re, im):  # type: ignore[no-untyped-def]
    """Apply the matrix of the run of these qubits to the state."""
    m_re = as_reals(w.buffer, _PAIRS, _PAIRS_FLOATS)
    m_im = as_reals(w.buffer, _PAIRS_IM, _PAIRS_FLOATS)
    a, b = np.uint64(min(first, second)), np.uint64(max(first, second))
    low, high = _1 << (a + w.shift), _1 << (b + w.shift)
    at = np.uint64(pair_kernel.PAIR_FLOATS) * a
    work_re = as_reals(w.buffer, _PAIR_WORK, pair_kernel.PAIR_FLOATS)
    work_im = as_reals(w.buffer, _PAIR_WORK + 8 * pair_kernel.PAIR_FLOATS, pair_kernel.PAIR_FLOATS)
    if low < _LANES:
        pair_kernel.apply_pair_in_lanes(re, im, w.end, low, high, m_re, m_im, at, work_re, work_im)
    elif w.shift:
        pair_kernel.apply_pair(re, im, w.end, low, high, m_re, m_im, at)
    else:
        for r in range(np.uint64(4)):
            for c in range(np.uint64(4)):
                to = _LANES * (np.uint64(4) * r + c)
                store(work_re, to, splat(m_re[at + _LANES * r + c]))
                store(work_im, to, splat(m_im[at + _LANES * r + c]))
        pair_kernel.apply_pair(re, im, w.end, low, high, work_re, work_im, _0)


@device_function
def _end_run(w, q, re, im):  # type: ignore[no-untyped-def]
    """End the run of qubit q, if there is one."""
    partner = as_numbers(w.buffer, _PARTNER, COUNTS_QUBITS)
    other = partner[q]
    if other >= 0:
        partner[q] = partner[other] = -1
        if _is_one_matrix(w, q):
            _apply_run(w, q, other, re, im)


@device_function
def _apply_pending(w, q, re, im):  # type: ignore[no-untyped-def]
    """Apply the pending matrix of qubit q to the state."""
    kind_of = as_numbers(w.buffer, _KIND_OF, COUNTS_QUBITS)
    num_steps = _pending_steps(w, q)
    _apply_steps(w, re, im, np.int64(MAX_PIECES), num_steps)
    kind_of[q] = IDENTITY


@device_function
def _begin_pair(w, a, b, runs, code, re, im):  # type: ignore[no-untyped-def]
    """Prepare a gate on two qubits: its run, and the matrices pending on its qubits. Returns
    whether it is merged, and the number of runs."""
    kind_of = as_numbers(w.buffer, _KIND_OF, COUNTS_QUBITS)
    partner = as_numbers(w.buffer, _PARTNER, COUNTS_QUBITS)
    run_of = as_numbers(w.buffer, _RUN_OF, COUNTS_QUBITS)
    m_re = as_reals(w.buffer, _PAIRS, _PAIRS_FLOATS)
    m_im = as_reals(w.buffer, _PAIRS_IM, _PAIRS_FLOATS)
    is_open = partner[a] == b and partner[b] == a
    if not is_open:
        _end_run(w, a, re, im)
        _end_run(w, b, re, im)
        partner[a], partner[b] = b, a
        run_of[a] = run_of[b] = runs
        runs += 1
    merged = _is_one_matrix(w, a)
    if merged and not is_open:
        at = np.uint64(pair_kernel.PAIR_FLOATS * min(a, b))
        pair_kernel.reset(m_re, m_im, at, 4, 4 if w.shift else 1)
    for j in range(2):
        q = b if j else a
        kind = kind_of[q]
        if merged and kind != IDENTITY:
            num_steps = _pending_steps(w, q)
            _to_run(w, a, b, np.int64(MAX_PIECES), num_steps)
            kind_of[q] = IDENTITY
        elif kind > DIAGONAL or (kind == DIAGONAL and MOVES[code] >> j & 1):
            _apply_pending(w, q, re, im)
    return merged, runs


@device_function
def _finish(w, n, phases, re, im):  # type: ignore[no-untyped-def]
    """End all runs, and apply the pending matrices."""
    kind_of = as_numbers(w.buffer, _KIND_OF, COUNTS_QUBITS)
    partner = as_numbers(w.buffer, _PARTNER, COUNTS_QUBITS)
    least = IDENTITY if phases else DIAGONAL
    for q in range(n):
        other = partner[q]
        if other >= 0 and _is_one_matrix(w, q):
            for p in (q, other):
                if kind_of[p] > least:
                    num_steps = _pending_steps(w, p)
                    _to_run(w, q, other, np.int64(MAX_PIECES), num_steps)
                kind_of[p] = IDENTITY
        _end_run(w, q, re, im)
        if kind_of[q] > least and partner[q] < 0:
            _apply_pending(w, q, re, im)


@kernel("U8 U8 INT INT CircuitArrays BoundRows I64 INT INT -> INT", group="wide")
def evolve(scratch, states, at_re, at_im, circuit, bound, control, shift, phases):  # type: ignore[no-untyped-def]
    """Apply all gates of a circuit to |0...0>; returns EVOLVED, STOPPED, or NOT_EVOLVED if it has
    mid-circuit operations.

    shift 0: one state, with the circuit's parameters; 3: eight states, that of lane v with row v
    (or the last) of `bound`. `states`: bytes; real parts are from at_re on, imaginary ones from
    at_im. Without `phases` the amplitudes' last phases are left out. `scratch`: SCRATCH_BYTES.
    """
    rows, ops, qubits, n = circuit.rows, circuit.ops, circuit.qubits, circuit.num_qubits
    start = np.int64(0)  # int64 variable, not a literal: numba would specialise the callee again
    source = as_numbers(scratch, _SOURCE, circuit.num_clbits)
    _, _, fits = scan(circuit, source)
    if not fits:
        return NOT_EVOLVED
    size = np.int64(1) << (n + shift)
    w = _Scratch(scratch, np.uint64(shift), _LANES)
    re, im = as_reals(states, at_re, size), as_reals(states, at_im, size)
    for k in range(size):
        re[k] = im[k] = 0.0
    for lane in range(1 << shift):
        re[lane] = 1.0
    steps = as_words(scratch, _STEPS, _STEP_WORDS).reshape(_MOST_STEPS, 4)
    eight = as_reals(scratch, _EIGHT, _EIGHT_FLOATS)
    kind_of = as_numbers(scratch, _KIND_OF, COUNTS_QUBITS)
    partner = as_numbers(scratch, _PARTNER, COUNTS_QUBITS)
    run_of = as_numbers(scratch, _RUN_OF, COUNTS_QUBITS)
    costs = as_reals(scratch, _RUN_COSTS, MAX_RUNS)
    entries = as_reals(scratch, _ONE, 8 * MAX_PIECES).reshape(MAX_PIECES, 8)
    own = as_reals(scratch, _OWN, 8)
    kinds = KINDS
    choose_runs(rows, ops, qubits, n, costs, kind_of, partner, run_of)
    for each in range(n):
        kind_of[each], partner[each] = IDENTITY, -1
    runs = q = p = start
    for k in range(ops.size):
        if control[0]:
            return STOPPED
        op = ops[k]
        code, count, num_params = rows[op, 0], rows[op, 1], rows[op, 3]
        if code >= FIRST_GATE and (count or phases) and (kinds[code] or count != 1):
            merged = False
            a = np.int64(qubits[q]) if count else start
            b = np.int64(qubits[q + 1]) if count > 1 else start
            if count > 1:
                reached = np.uint64(reach(qubits, q, count)) << w.shift
                w = _Scratch(scratch, w.shift, max(w.end, reached))
            if count == 2:
                merged, runs = _begin_pair(w, a, b, runs, code, re, im)
            elif count > 2:
                for j in range(q, q + count):
                    _end_run(w, np.int64(qubits[j]), re, im)
                    if kind_of[qubits[j]] != IDENTITY:
                        _apply_pending(w, np.int64(qubits[j]), re, im)
            pieces = masks(code, qubits, q, count, steps, start)
            pair_kernel.load_numbers(
                code, num_params, p, pieces, circuit.params, bound, start, entries, own, eight
            )
            if count == 1:
                _to_pending(w, a, pieces, kinds[code])
            elif merged:
                _to_run(w, a, b, start, pieces)
            else:
                _apply_steps(w, re, im, start, pieces)
        q += count
        p += num_params
    _finish(_Scratch(scratch, w.shift, np.uint64(size)), n, phases, re, im)
    return EVOLVED


class MergedEvolution:
    """Scratch memory of `evolve`, allocated once; used by one thread at a time."""

    def __init__(self) -> None:
        self._scratch = aligned(SCRATCH_BYTES)

    def run_single(
        self, circuit: Circuit, params: bytes, states: NDArray[np.uint8], control: RunControl
    ) -> int:
        """Evolve the state of `counts.count`, for these parameters."""
        arrays = CircuitArrays.of(circuit, np.frombuffer(params))
        result: int = evolve.entry_point(
            self._scratch, states, RE, IM, arrays, _NOT_BOUND, control.flag, 0, 0
        )
        return result

    def eight(
        self,
        circuit: CircuitArrays,
        bound: BoundRows,
        states: tuple[NDArray[np.uint8], int, int],
        phases: bool,
        control: RunControl,
    ) -> int:
        """Evolve the states of up to eight rows of bindings. `states`: a buffer, and the byte
        offsets of real and imaginary parts."""
        result: int = evolve.entry_point(
            self._scratch, *states, circuit, bound, control.flag, 3, int(phases)
        )
        return result
