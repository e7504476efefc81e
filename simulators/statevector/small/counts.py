"""Counts of a small static circuit in one compiled call: evolve, sample, pack.

For at most COUNTS_QUBITS qubits and 64 clbits; a circuit with mid-circuit operations is not run
here. No plan and no threads; all scratch memory is one buffer, allocated once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import COUNTS_QUBITS
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, FIRST_GATE, GATES, MEASURE, RESET
from simulators.compiler.arrays import (
    aligned,
    as_numbers,
    as_reals,
    as_short,
    as_tallies,
    as_words,
    read_reals,
    read_short,
)
from simulators.compiler.kernel import BYTES, I64, INT, NAMES, U8, WORD, device_function, kernel
from simulators.compiler.simd import LANES
from simulators.statevector.small.gate_kernels import MAX_PIECES, apply, masks, matrices
from simulators.statevector.small.sampling_kernels import (
    CELLS_ROOM,
    MAPS,
    gather,
    marginalize,
    readout_map,
    sample,
)

MAX_CLBITS = 64
ELSEWHERE, STOPPED, NOTHING = -1, -2, -3  # instead of a number of outcomes

SIZE = 1 << COUNTS_QUBITS
_ID = GATES["id"].code
_1 = np.uint64(1)

# Byte offsets of the parts of the buffer.
_GAP = 320  # bytes between states, against cache conflicts
RE = 0
IM = RE + 8 * SIZE + _GAP
_COUNTS = IM + 8 * SIZE + _GAP
_SPREAD = _COUNTS + 8 * SIZE + _GAP
_STEPS = _SPREAD + 8 * SIZE
_MATRICES = _STEPS + 8 * 4 * MAX_PIECES
_SOURCE = _MATRICES + 8 * 8 * MAX_PIECES
_MAPS = _SOURCE + 8 * MAX_CLBITS
_TABLE = _MAPS + 8 * MAPS
OUTCOMES = _TABLE + 2 * CELLS_ROOM
VALUES = OUTCOMES + 8 * (SIZE + 2)
_BYTES = VALUES + 4 * (SIZE + 1)


@device_function
def scan(rows, ops, qubits, clbits, source):  # type: ignore[no-untyped-def]
    """Return masks of measured qubits and of qubits reset at the end, and whether this path can run
    the circuit.

    Fills source[clbit] = qubit, or -1. A reset of an unused qubit has no effect.
    """
    for k in range(source.size):
        source[k] = -1
    touched = measured = cleared = np.uint64(0)
    q = c = 0
    for k in range(ops.size):
        op = ops[k]
        code, count = rows[op, 0], rows[op, 1]
        if code >= FIRST_GATE:
            mine = np.uint64(0)
            for j in range(q, q + count):
                mine |= _1 << np.uint64(qubits[j])
            if code != _ID:
                if mine & (measured | cleared):
                    return measured, cleared, False
                touched |= mine
        elif code == MEASURE:
            mine = _1 << np.uint64(qubits[q])
            if mine & cleared:
                return measured, cleared, False
            measured |= mine
            source[clbits[c]] = qubits[q]
        elif code == RESET:
            cleared |= (_1 << np.uint64(qubits[q])) & touched
        elif code != BARRIER and code != DELAY and code != DELAY_DT:
            return measured, cleared, False
        q += count
        c += rows[op, 2]
    return measured, cleared, True


@device_function
def _evolve(rows, ops, qubits, params, size, control, re, im, steps, floats):  # type: ignore[no-untyped-def]
    """Apply all gates to |0...0>; False if it was stopped."""
    for k in range(max(size, LANES)):
        re[k] = 0.0
        im[k] = 0.0
    re[0] = 1.0
    start = np.int64(0)  # int64 variable, not a literal: numba would specialise the callee again
    q = p = start
    for k in range(ops.size):
        if control[0]:
            return False
        op = ops[k]
        code, count = rows[op, 0], rows[op, 1]
        if code >= FIRST_GATE:
            matrices(code, params, p, floats, start)
            for s in range(masks(code, qubits, q, count, steps, start)):
                kind, mask, zero_bits, one_bits = steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3]
                apply(re, im, size, kind, mask, zero_bits, one_bits, floats, s)
        q += count
        p += rows[op, 3]
    return True


@kernel(
    U8, NAMES, BYTES, BYTES, BYTES, BYTES, I64, INT, INT, INT, INT, WORD, WORD, INT, returns=INT,
    group="small",
)  # fmt: skip
def count(  # type: ignore[no-untyped-def]
    buffer, rows, ops_data, qubits_data, clbits_data, params_data, control,
    n, num_clbits, width, shots, seed, binding, evolved,
):  # fmt: skip
    """Count shots: `count(buffer, rows, ops_data ...)`; the data are a `Circuit`'s, with all slots
    filled.

    Fills the buffer's OUTCOMES (rows of `width` bytes, ascending) and VALUES (uint32); returns
    their number, or a negative code. `evolved`: the state is already in the buffer, from RE and IM
    on. ELSEWHERE: the circuit branches, or needs another path; STOPPED: the control flag; NOTHING:
    no measurement.
    """
    size = 1 << n
    ops = read_short(ops_data, 0, len(ops_data) // 2)
    qubits = read_short(qubits_data, 0, len(qubits_data) // 2)
    clbits = read_short(clbits_data, 0, len(clbits_data) // 2)
    params = read_reals(params_data, 0, len(params_data) // 8)
    source = as_numbers(buffer, _SOURCE, num_clbits)
    measured, _, fits = scan(rows, ops, qubits, clbits, source)
    if not fits:
        return ELSEWHERE
    if not measured:
        return NOTHING
    re, im = as_reals(buffer, RE, SIZE), as_reals(buffer, IM, SIZE)
    steps = as_words(buffer, _STEPS, 4 * MAX_PIECES).reshape(MAX_PIECES, 4)
    floats = as_reals(buffer, _MATRICES, 8 * MAX_PIECES).reshape(MAX_PIECES, 8)
    if not evolved and not _evolve(rows, ops, qubits, params, size, control, re, im, steps, floats):
        return STOPPED
    total = 0.0
    for i in range(size):
        total += re[i] * re[i] + im[i] * im[i]
        re[i] = total
    counts, maps = as_numbers(buffer, _COUNTS, SIZE), as_words(buffer, _MAPS, MAPS)
    sample(size, re, as_short(buffer, _TABLE, CELLS_ROOM), shots, seed, binding, counts, control)
    if control[0]:
        return STOPPED
    bits, plain = readout_map(n, source, num_clbits, maps)
    outcomes, values = buffer[OUTCOMES:], as_tallies(buffer, VALUES, SIZE + 1)
    if plain:
        return gather(bits, maps, counts, width, outcomes, values)
    table = as_numbers(buffer, _SPREAD, SIZE)
    marginalize(size, bits, maps, counts, table)
    return gather(bits, maps, table, width, outcomes, values)


def scratch() -> NDArray[np.uint8]:
    """Allocate the buffer for `count`; one thread at a time may use it."""
    return aligned(_BYTES)
