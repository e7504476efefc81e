"""Kernels on many narrow states in one array.

State k of a call is row numbers[k] of the array: 2**n amplitudes. Calls take a range of k.
"""

from __future__ import annotations

import math

import numpy as np

from simulators.compiler.kernel import (
    I64,
    INT,
    REAL,
    REALS,
    REALS2,
    SINGLES,
    WORDS2,
    device_function,
    kernel,
)
from simulators.statevector.backend.gate_list import KIND, MASK, ONE, ZERO
from simulators.statevector.backend.matrix import multiply_unit
from simulators.statevector.small.gate_kernels import apply
from simulators.statevector.state import load, store


@device_function
def _amplitude(reals, singles, at):  # type: ignore[no-untyped-def]
    """Real and imaginary part of one amplitude."""
    if reals.size:
        return reals[2 * at], reals[2 * at + 1]
    return np.float64(singles[2 * at]), np.float64(singles[2 * at + 1])


@device_function
def _put(reals, singles, at, x, y):  # type: ignore[no-untyped-def]
    if reals.size:
        reals[2 * at], reals[2 * at + 1] = x, y
    else:
        singles[2 * at], singles[2 * at + 1] = x, y


@kernel(REALS, SINGLES, INT, I64, WORDS2, REALS2, INT, INT, I64, REALS, group="deferred")
def apply_steps(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, steps, floats, first, last, control, scratch
):
    """Apply steps (see `gate_list`) to each state. `scratch`: float64 [2 * 2**n], at least 2 *
    LANES; the control flag is read before each step."""
    room = scratch.size // 2
    re, im = scratch[:room], scratch[room:]
    size = np.int64(1) << n
    zero = np.int64(0)
    for state in range(first, last):
        start = ordinals[state] << n
        load(reals, singles, start, size, re, im, zero)
        for s in range(steps.shape[0]):
            if control[0]:
                return
            kind, mask = steps[s, KIND], steps[s, MASK]
            apply(re, im, size, kind, mask, steps[s, ZERO], steps[s, ONE], floats, s)
        store(reals, singles, start, size, re, im, zero)


@kernel(REALS, SINGLES, INT, I64, I64, I64, REALS, INT, INT, I64, REALS, group="deferred")
def multiply(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, wires, offsets, columns, first, last, control, scratch
):
    """Apply a matrix (see `matrix.Dense`) to each state. `scratch`: float64 [4 * 2**wires]."""
    for state in range(first, last):
        for unit in range((np.int64(1) << n) // offsets.size):
            if control[0]:
                return
            start = ordinals[state] << n
            multiply_unit(reals, singles, unit, start, wires, offsets, columns, scratch)


@kernel(REALS, SINGLES, INT, I64, INT, INT, INT, REALS2, group="deferred")
def qubit_weights(reals, singles, n, ordinals, qubit, first, last, weights):  # type: ignore[no-untyped-def]
    """Fill weights[k] with the weights of the qubit's outcomes 0 and 1 in state k."""
    for state in range(first, last):
        start = ordinals[state] << n
        x = y = 0.0
        for k in range(np.int64(1) << n):
            u, v = _amplitude(reals, singles, start + k)
            p = u * u + v * v
            if (k >> qubit) & 1:
                y += p
            else:
                x += p
        weights[state, 0] = x
        weights[state, 1] = y


@kernel(REALS, SINGLES, INT, I64, I64, INT, INT, REALS, INT, INT, INT, group="deferred")
def project(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, into, qubit, outcome, factors, move, first, last
):
    """Set state into[k] to the part of state k with the outcome, times factors[k]; both may be the
    same. `move`: the qubit ends in |0>, else in the outcome."""
    low = (np.int64(1) << qubit) - 1
    target = 0 if move else outcome
    for state in range(first, last):
        source, start, factor = ordinals[state] << n, into[state] << n, factors[state]
        for pair in range((np.int64(1) << n) >> 1):
            i = ((pair & ~low) << 1) | (pair & low)
            x, y = _amplitude(reals, singles, source + (i | (outcome << qubit)))
            _put(reals, singles, start + (i | ((1 - target) << qubit)), 0.0, 0.0)
            _put(reals, singles, start + (i | (target << qubit)), x * factor, y * factor)


@kernel(REALS, SINGLES, INT, I64, INT, INT, REALS, group="deferred")
def fingerprints(reals, singles, n, ordinals, first, last, sketches):  # type: ignore[no-untyped-def]
    """Fill sketches[k] with the squared overlap of state k with a fixed pseudo-random vector, as in
    `reductions`."""
    for state in range(first, last):
        start = ordinals[state] << n
        x = y = 0.0
        word = np.uint64(1)
        for k in range(np.int64(1) << n):
            word = word * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            u = np.float64(np.int64(word >> np.uint64(33))) * 2.0**-31 - 0.5
            v = np.float64(np.int64(word & np.uint64(0x7FFFFFFF))) * 2.0**-31 - 0.5
            a, b = _amplitude(reals, singles, start + k)
            x += a * u - b * v
            y += a * v + b * u
        sketches[state] = x * x + y * y


@device_function
def _same(reals, singles, size, left, right, tolerance):  # type: ignore[no-untyped-def]
    """Return whether |left - phase * right| <= tolerance for some phase, as
    `protocol.equal_up_to_phase`."""
    x = y = 0.0
    for k in range(size):
        a, b = _amplitude(reals, singles, right + k)
        c, d = _amplitude(reals, singles, left + k)
        x += a * c + b * d
        y += a * d - b * c
    length = math.hypot(x, y)
    if length < 0.5:
        return False
    x /= length
    y /= length
    gap = 0.0
    for k in range(size):
        a, b = _amplitude(reals, singles, left + k)
        c, d = _amplitude(reals, singles, right + k)
        u = a - x * c + y * d
        v = b - x * d - y * c
        gap += u * u + v * v
    return gap <= tolerance * tolerance


@kernel(REALS, SINGLES, INT, I64, I64, REALS, REAL, REAL, I64, I64, I64, group="deferred")
def equals(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, order, sketches_, near, tolerance, control, kept, into
):
    """Fill into[k] with the state that represents state k; see `Ensemble.equals`. `order`: by
    sketches_; `kept`: int64 [states]."""
    size = np.int64(1) << n
    count = 0
    for k in range(order.size):
        if control[0]:
            return
        at = order[k]
        into[at] = at
        other = count - 1
        while other >= 0 and sketches_[at] - sketches_[kept[other]] <= near:
            left, right = ordinals[kept[other]] << n, ordinals[at] << n
            if _same(reals, singles, size, left, right, tolerance):
                into[at] = kept[other]
                break
            other -= 1
        if into[at] == at:
            kept[count] = at
            count += 1


@kernel(REALS, SINGLES, INT, I64, I64, I64, REALS, INT, INT, REALS, I64, group="deferred")
def locate(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, order, begins, draws, first, last, cumulative, indices
):
    """Fill indices[s] with the basis state of draws[s], for the draws order[begins[k] : begins[k +
    1]] of state k; see `protocol.sample`. `cumulative`: float64 [2**n]."""
    size = np.int64(1) << n
    for state in range(first, last):
        if begins[state] == begins[state + 1]:
            continue
        start = ordinals[state] << n
        total = 0.0
        for k in range(size):
            x, y = _amplitude(reals, singles, start + k)
            total += x * x + y * y
            cumulative[k] = total
        for s in range(begins[state], begins[state + 1]):
            t = draws[order[s]] * total
            low, high = np.int64(0), size - 1  # the first whose sum is greater than t, or the last
            while low < high:
                middle = (low + high) >> 1
                if cumulative[middle] > t:
                    high = middle
                else:
                    low = middle + 1
            indices[order[s]] = low
