"""Batches of bindings of one small circuit, thousands in a compiled call, eight in SIMD lanes.

Amplitude i of binding b is element 8 * i + b % 8, so a gate is one step on eight bindings, each
with its own matrix. A binding's bits do not depend on its lane or on the other bindings: lanes
never mix, and `small.counts` gives the same counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.gates import FIRST_GATE
from simulators.circuit.ir import Circuit, outcome_width
from simulators.compiler import simd
from simulators.compiler.kernel import (
    I64,
    INT,
    REALS,
    REALS2,
    REALS3,
    U8,
    U32,
    WORDS2,
    device_function,
    kernel,
    record,
)
from simulators.engine import EngineResult, PauliSum, Request, RunControl
from simulators.execution import outputs
from simulators.execution.outputs import FIRST_TERM
from simulators.execution.packing import shot_bytes
from simulators.execution.philox import EIGHT_WORDS, count_below
from simulators.statevector.small import counts as small_counts
from simulators.statevector.small.counts import (
    gather,
    marginalize,
    readout_map,
    record_shots,
    sample,
)
from simulators.statevector.small.gate_kernels import (
    MAX_PIECES,
    across,
    load_matrix,
    masks,
    reach,
    shifted,
    step_at,
)
from simulators.statevector.small.merged_evolution import MergedEvolution, is_merged
from simulators.statevector.small.pair_kernel import BoundRows, load_numbers

# Observables of a request as flat arrays for compiled code.


@record
class PauliArrays(NamedTuple):
    """Pauli strings of all observables, one observable after the other."""

    masks: WORDS2  # [strings, 2]: X, Z
    factors: REALS2  # [strings, 2]: of the two sums of `_mean`
    coefficients: REALS  # [strings]
    ends: I64  # [observables + 1]: first string of each, then the number of strings
    means: REALS  # scratch, [LANES * strings]


class ObservableArrays:
    """Strings of a list of observables in the form of the kernel."""

    def __init__(self, observables: tuple[PauliSum, ...], num_qubits: int) -> None:
        terms = outputs.terms(observables, num_qubits)
        factors = [1j ** ((x & z).bit_count() % 4) for x, z in terms]
        sizes = [len(item.labels) for item in observables]
        self.observables = observables
        self.num_qubits = num_qubits
        self.arrays = PauliArrays(
            np.array(terms, np.uint64).reshape(-1, 2),
            np.array([(f.real, -f.imag) for f in factors]).reshape(-1, 2),
            np.concatenate([np.zeros(0), *[o.coefficients for o in observables]]),
            np.cumsum([0, *sizes]),
            np.empty(simd.LANES * len(terms)),
        )


COUNTS, PROBABILITIES, EXPECTATION, MEMORY = 1, 2, 4, 8  # outputs, as a mask


@record
class BatchOutputs(NamedTuple):
    """Outputs of rows of bindings, one row after the other; those that are not asked for are left
    as they are."""

    outcome_bytes: INT  # of an outcome of COUNTS
    outcomes: U8
    counts: U32
    num_outcomes: U32  # [rows]
    likely_bytes: INT  # of an outcome of PROBABILITIES
    likely: U8
    probs: REALS
    num_likely: U32  # [rows]
    estimates: REALS3  # [rows, observables, 2]: value and standard error
    memory: U8  # ceil(num_clbits / 8) bytes a shot, and 7 more at the end


_SIZE = 1 << SMALL_QUBITS
_MATRIX = 8 * simd.LANES  # float64 of one step's matrices
_NOISE = 1e-24  # smaller probabilities are rounding of amplitudes that are zero, and are dropped
_3 = np.uint64(3)  # bits of a lane's number

# Byte offsets of the parts of the buffer; the states are last, since their size depends on the
# circuit.
_TABLE = 0
_COUNTS = _TABLE + 2 * small_counts.CELLS_ROOM
_SPREAD = _COUNTS + 8 * _SIZE
_EDGES = _SPREAD + 8 * _SIZE
_MAPS = _EDGES + 8 * _SIZE
_SOURCE = _MAPS + 8 * small_counts.MAPS
_STEPS = _SOURCE + 8 * small_counts.MAX_CLBITS
_ONE = _STEPS + 8 * 4 * MAX_PIECES
_EIGHT = _ONE + 8 * 8 * MAX_PIECES
_OWN = _EIGHT + 8 * _MATRIX * MAX_PIECES
_STATES = _OWN + 64
_APART = 8 * 40  # bytes between states, against cache conflicts
_BYTES = _STATES + 3 * (8 * simd.LANES * _SIZE + _APART)


@device_function
def _evolve(buffer, circuit, bound, first, size, control, re, im):  # type: ignore[no-untyped-def]
    """Apply all gates to eight |0...0>; lane v has row first + v (or the last). False: stopped."""
    rows, ops, qubits = circuit.rows, circuit.ops, circuit.qubits
    steps = simd.as_words(buffer, _STEPS, 4 * MAX_PIECES).reshape(MAX_PIECES, 4)
    entries = simd.as_reals(buffer, _ONE, 8 * MAX_PIECES).reshape(MAX_PIECES, 8)
    eight, own = simd.as_reals(buffer, _EIGHT, _MATRIX * MAX_PIECES), simd.as_reals(buffer, _OWN, 8)
    end = np.uint64(size) << _3
    none = simd.splat(0.0)
    at = np.uint64(0)
    while at < end:
        simd.store(re, at, none)
        simd.store(im, at, none)
        at += np.uint64(simd.LANES)
    simd.store(re, np.uint64(0), simd.splat(1.0))
    end = np.uint64(simd.LANES)
    start = np.int64(0)  # typed, as in `small`
    q = p = start
    for k in range(ops.size):
        if control[0]:
            return False
        op = ops[k]
        code, count, num_params = rows[op, 0], rows[op, 1], rows[op, 3]
        if code >= FIRST_GATE:
            pieces = masks(code, qubits, q, count, steps, start)
            end = max(end, np.uint64(reach(qubits, q, count)) << _3)
            load_numbers(
                code, num_params, p, pieces, circuit.params, bound, first, entries, own, eight
            )
            for s in range(pieces):
                across(re, im, end, shifted(step_at(steps, s), _3), load_matrix(eight, s))
        q += count
        p += num_params
    return True


@device_function
def _mean(size, x, z, u, v, re, im, probs, means, at):  # type: ignore[no-untyped-def]
    """Fill means[at : at + 8] with expectation values of the string (x, z); u, v: factors of the
    sums of real and of imaginary parts."""
    sum_ = simd.splat(0.0)
    for k in range(np.uint64(size)):
        j = k ^ x
        sign = simd.splat(1.0 - 2.0 * np.float64(simd.odd(j & z)))
        if x:
            a, b = simd.load(re, k << _3), simd.load(im, k << _3)
            c, d = simd.load(re, j << _3), simd.load(im, j << _3)
            sum_ = sum_ + sign * (simd.splat(u) * (a * c + b * d) + simd.splat(v) * (a * d - b * c))
        else:
            sum_ = sum_ + sign * simd.load(probs, k << _3)
    simd.store(means, at, sum_)


@device_function
def _estimates(paulis, lane, shots, seed, binding, control, into):  # type: ignore[no-untyped-def]
    """Compute value and standard error of each observable."""
    means, coefficients, ends = paulis.means, paulis.coefficients, paulis.ends
    for o in range(ends.size - 1):
        value = 0.0
        square = 0.0
        for t in range(ends[o], ends[o + 1]):
            mean = means[simd.LANES * t + lane]
            weight = coefficients[t]
            if shots:
                draw = np.uint64(FIRST_TERM + t)
                ups = count_below(0.5 * (1.0 + mean), draw, shots, seed, binding, control)
                mean = np.float64(2 * ups - shots) / np.float64(shots)
                square += weight * weight * (max(0.0, 1.0 - mean * mean) / max(1, shots - 1))
            value += weight * mean
        into[o, 0] = value
        into[o, 1] = np.sqrt(square)


@device_function
def _distribution(size, bits, maps, probs, table, width, outcomes, values):  # type: ignore[no-untyped-def]
    """Write the exact distribution of the measured bits, packed like counts; returns the number of
    outcomes."""
    marginalize(size, bits, maps, probs, table)
    total = 0.0
    for j in range(1 << bits):
        if table[j] > _NOISE:
            total += table[j]
        else:
            table[j] = 0.0
    for j in range(1 << bits):
        table[j] /= total
    return gather(bits, maps, table, width, outcomes, values)


@kernel(
    "U8 CircuitArrays BoundRows I64 INT WORD WORD INT PauliArrays BatchOutputs INT -> INT",
    group="deferred",
)
def run(  # type: ignore[no-untyped-def]
    buffer, circuit, bound, control, shots, seed, binding, outputs, paulis, into, evolved
):
    """Run all rows of `bound`, the first of which has number `binding`, and write the `outputs`
    (COUNTS, ...) to `into`; returns 0, or a negative code: see `counts.count`. `evolved`: the
    states of all rows, up to eight, are already in the buffer.
    """
    n, num_clbits = circuit.num_qubits, circuit.num_clbits
    strings, factors, bindings = paulis.masks, paulis.factors, bound.values
    size = 1 << n
    source = simd.as_numbers(buffer, _SOURCE, num_clbits)
    measured, cleared, fits = small_counts.scan(circuit, source)
    if not fits:  # the scan ended early
        return small_counts.ELSEWHERE
    if outputs & EXPECTATION:
        for t in range(len(strings)):
            fits = fits and not strings[t, 0] & measured
        fits = fits and not cleared
    if not measured:
        if outputs & (COUNTS | MEMORY):
            return small_counts.NOTHING
        fits = fits and not cleared
        source = simd.as_numbers(buffer, _SOURCE, n)
        for q in range(n):
            source[q] = q
    if not fits:
        return small_counts.ELSEWHERE
    state = 8 * simd.LANES * size + _APART
    re = simd.as_reals(buffer, _STATES, simd.LANES * size)
    im = simd.as_reals(buffer, _STATES + state, simd.LANES * size)
    weights = simd.as_reals(buffer, _STATES + 2 * state, simd.LANES * size)
    edges = simd.as_reals(buffer, _EDGES, _SIZE)
    table = simd.as_short(buffer, _TABLE, small_counts.CELLS_ROOM)
    counts, room = simd.as_numbers(buffer, _COUNTS, _SIZE), simd.as_numbers(buffer, _SPREAD, _SIZE)
    exact = simd.as_reals(buffer, _SPREAD, _SIZE)
    words = simd.as_words(buffer, _SPREAD, EIGHT_WORDS)  # used by turns with `room` and `exact`
    maps = simd.as_words(buffer, _MAPS, small_counts.MAPS)
    bits, plain = readout_map(n, source, source.size, maps)
    at_count = at_odds = 0
    for first in range(0, len(bindings), simd.LANES):
        if not evolved and not _evolve(buffer, circuit, bound, first, size, control, re, im):
            return small_counts.STOPPED
        for k in range(np.uint64(size)):
            x, y = simd.load(re, k << _3), simd.load(im, k << _3)
            simd.store(weights, k << _3, x * x + y * y)
        if outputs & EXPECTATION:
            for t in range(len(strings)):
                x, z, u, v = strings[t, 0], strings[t, 1], factors[t, 0], factors[t, 1]
                _mean(size, x, z, u, v, re, im, weights, paulis.means, np.uint64(simd.LANES * t))
        for lane in range(min(simd.LANES, len(bindings) - first)):
            r = first + lane
            number = binding + np.uint64(r)
            if outputs & EXPECTATION:
                _estimates(paulis, lane, shots, seed, number, control, into.estimates[r])
            for k in range(size):
                edges[k] = weights[simd.LANES * k + lane]
            if outputs & PROBABILITIES:
                likely, probs = into.likely[at_odds * into.likely_bytes :], into.probs[at_odds:]
                num_outcomes = _distribution(
                    size, bits, maps, edges, exact, into.likely_bytes, likely, probs
                )
                into.num_likely[r] = num_outcomes
                at_odds += num_outcomes
            if outputs & (COUNTS | MEMORY):
                total = 0.0
                for k in range(size):
                    total += edges[k]
                    edges[k] = total
                sample(size, edges, table, shots, seed, number, counts, words, control)
            if outputs & MEMORY:
                bytes_ = (num_clbits + 7) >> 3
                memory = into.memory[r * shots * bytes_ :]
                record_shots(size, edges, table, shots, seed, number, maps, bytes_, memory, control)
            if outputs & COUNTS:
                width = into.outcome_bytes
                outcomes, tallies = into.outcomes[at_count * width :], into.counts[at_count:]
                if plain:
                    num_outcomes = gather(bits, maps, counts, width, outcomes, tallies)
                else:
                    marginalize(size, bits, maps, counts, room)
                    num_outcomes = gather(bits, maps, room, width, outcomes, tallies)
                into.num_outcomes[r] = num_outcomes
                at_count += num_outcomes
            if control[0]:
                return small_counts.STOPPED
    return 0


def scratch() -> NDArray[np.uint8]:
    """Allocate the buffer for `run`; one thread at a time may use it."""
    return simd.aligned(_BYTES)


OUTPUTS = {
    "counts": COUNTS,
    "probabilities": PROBABILITIES,
    "expectation": EXPECTATION,
    "memory": MEMORY,
}

_ROOM = 1 << 16  # outcomes of one call of the kernel; more rows need several calls
_NO_BINDINGS = np.empty((1, 0))
_NO_SLOTS = np.empty(0, np.int32)


_NONE = ObservableArrays((), 0)


class Batch:
    """Buffers of the kernel, allocated once; used by one thread at a time."""

    def __init__(self) -> None:
        self._buffer = scratch()
        self._outcomes = np.empty(8 * (_ROOM + 1), np.uint8)
        self._values = np.empty(_ROOM + 1, np.uint32)
        self._likely = np.empty(8 * (_ROOM + 1), np.uint8)
        self._odds = np.empty(_ROOM + 1)
        self._strings = _NONE
        self._merged = MergedEvolution()

    def run(self, circuit: Circuit, request: Request, control: RunControl) -> EngineResult | int:
        """Run all rows; returns ELSEWHERE, NOTHING or STOPPED as `counts.count`. For outputs that
        are in OUTPUTS, at most SMALL_QUBITS qubits and MAX_CLBITS clbits."""
        table = _NO_BINDINGS if request.bindings is None else request.bindings
        total = len(table)
        outputs = 0
        for output in request.outputs:
            outputs |= OUTPUTS[output]
        strings = self._of(request, circuit) if outputs & EXPECTATION else _NONE
        paulis, arrays, slot_of = strings.arrays, CircuitArrays.of(circuit), _slots(circuit)
        width = outcome_width(circuit.num_clbits)
        measures = circuit.clbits_data != b""
        wide = width if measures else outcome_width(circuit.num_qubits)
        size = 1 << circuit.num_qubits
        max_outcomes = size if outputs & PROBABILITIES else max(1, min(size, request.shots))
        merged, state = is_merged(circuit.num_qubits, circuit.ops.size), 0
        step = simd.LANES if merged else max(simd.LANES, _ROOM // max_outcomes & -simd.LANES)
        result, possible = np.empty((2, min(step, total)), np.uint32)
        places = self._buffer, _STATES, _STATES + 8 * simd.LANES * size + _APART
        estimates = np.empty((total, len(paulis.ends) - 1, 2))
        row_bytes = request.shots * shot_bytes(circuit.num_clbits) if outputs & MEMORY else 0
        memory = np.empty(total * row_bytes + 7 if row_bytes else 0, np.uint8)
        parts: list[list[bytes]] = [[], [], [], [], [], []]
        for first in range(0, total, step):
            rows = BoundRows(slot_of, table[first : first + step])
            if merged:
                phases = bool(outputs & EXPECTATION)
                state = self._merged.eight(arrays, rows, places, phases, control)
                if state < 0:
                    return state
            into = BatchOutputs(
                width, self._outcomes, self._values, result, wide, self._likely, self._odds,
                possible, estimates[first : first + step], memory[first * row_bytes :],
            )  # fmt: skip
            state = run.entry_point(
                self._buffer, arrays, rows, control.flag, request.shots, request.seed,
                request.binding + first, outputs, paulis, into, state,
            )  # fmt: skip
            if state < 0:
                return int(state)
            count = len(rows.values)
            if outputs & COUNTS:
                num_outcomes = int(result[:count].sum())
                parts[0].append(self._outcomes[: num_outcomes * width].tobytes())
                parts[1].append(self._values[:num_outcomes].tobytes())
                parts[2].append(result[:count].tobytes())
            if outputs & PROBABILITIES:
                num_outcomes = int(possible[:count].sum())
                parts[3].append(self._likely[: num_outcomes * wide].tobytes())
                parts[4].append(self._odds[:num_outcomes].tobytes())
                parts[5].append(possible[:count].tobytes())
        outcomes, values, sizes, likely, probs, possibles = (b"".join(part) for part in parts)
        return EngineResult(
            count=total, outcome_width=width if outputs & COUNTS else 0, outcomes=outcomes,
            counts=values, rows=sizes if total > 1 else b"", probability_outcomes=likely,
            probability_width=wide if outputs & PROBABILITIES else 0, probabilities=probs,
            probability_rows=possibles if total > 1 else b"", expectations=estimates.tobytes(),
            memory=memory[: total * row_bytes].tobytes(),
        )  # fmt: skip

    def _of(self, request: Request, circuit: Circuit) -> ObservableArrays:
        cached = self._strings
        if cached.observables is not request.observables or cached.num_qubits != circuit.num_qubits:
            cached = self._strings = ObservableArrays(request.observables, circuit.num_qubits)
        return cached


def _slots(circuit: Circuit) -> NDArray[np.int32]:
    """Slot of each parameter, or -1; empty if all are fixed."""
    if not circuit.slots_data:
        return _NO_SLOTS
    result = np.full(circuit.params.size, -1, np.int32)
    result[circuit.slots[0::2]] = circuit.slots[1::2]
    return result
