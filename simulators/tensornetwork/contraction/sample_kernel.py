"""Compiled execution of an elimination, for eight shots at once, one in each lane.

A shot begins with the bits of |0...0> and follows the gates: a gate that permutes basis states
permutes its bits, and after any other gate that moves amplitude the bits of the qubits that it
moves are drawn again, given all others (Bravyi, Gosset and Liu, Phys. Rev. Lett. 128, 220503,
2022). The amplitudes are those of `circuit.analysis.elimination`, whose messages hold the values of
the known indices of each shot.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.analysis.elimination import DRAW, PERMUTE, ROOT, SLICES
from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import LANES, add_product, load, splat, store, subtract_product
from simulators.execution.philox import shot_uniform

_VALUE = 2 * LANES  # numbers of a complex value of each shot
LOW_BITS = 6  # of an index, in the lookup of an operand's place
HEAD = LANES  # numbers before the lookups


@device_function
def _table(code, at, reals, node_begins, values, tensor, lookups, table):  # type: ignore[no-untyped-def]
    """Product of gates at `table`; returns the end of their code."""
    nodes = code[at]
    at += 1
    mask = code[at - 2]
    size = np.int64(1)
    while mask:
        mask &= mask - 1
        size <<= 1
    for number in range(nodes):
        node, axes = code[at], code[at + 1]
        at += 2
        begin = node_begins[node]
        known = False
        for lane in range(LANES):
            lookups[lane] = 0
        for axis in range(axes):
            word = code[at + axis]
            if word < 0:
                known = True
                for lane in range(LANES):
                    bit = np.int64(values[LANES * -word + lane])
                    lookups[lane] += bit << (axes - axis)
        for entry in range(size):
            place = np.int64(0)
            for axis in range(axes):
                word = code[at + axis]
                if word >= 0:
                    place += (entry >> word & 1) << (axes - axis)
            to = np.uint64(table + _VALUE * entry)
            if number == 0 and known:
                for lane in range(LANES):
                    here = begin + place + lookups[lane]
                    tensor[table + _VALUE * entry + lane] = reals[here]
                    tensor[table + _VALUE * entry + LANES + lane] = reals[here + 1]
            elif number == 0:
                store(tensor, to, splat(reals[begin + place]))
                store(tensor, to + np.uint64(LANES), splat(reals[begin + place + 1]))
            elif known:
                for lane in range(LANES):
                    here = begin + place + lookups[lane]
                    there = table + _VALUE * entry + lane
                    x, y = tensor[there], tensor[there + LANES]
                    tensor[there] = x * reals[here] - y * reals[here + 1]
                    tensor[there + LANES] = x * reals[here + 1] + y * reals[here]
            else:
                re, im = load(tensor, to), load(tensor, to + np.uint64(LANES))
                x, y = splat(reals[begin + place]), splat(reals[begin + place + 1])
                store(tensor, to, subtract_product(im, y, re * x))
                store(tensor, to + np.uint64(LANES), add_product(im, x, re * y))
        at += axes
    return at


@device_function
def _look_up(lookups, begin, base, mask, bits):  # type: ignore[no-untyped-def]
    """Places of an operand's values by the lower and the upper bits of an index."""
    low = min(bits, np.int64(LOW_BITS))
    step = np.int64(_VALUE)
    lookups[begin] = base
    for bit in range(low):
        add = np.int64(0)
        if mask >> bit & 1:
            add = step
            step <<= 1
        for k in range(1 << bit):
            lookups[begin + (1 << bit) + k] = lookups[begin + k] + add
    begin += 1 << LOW_BITS
    lookups[begin] = 0
    for bit in range(bits - low):
        add = np.int64(0)
        if mask >> (low + bit) & 1:
            add = step
            step <<= 1
        for k in range(1 << bit):
            lookups[begin + (1 << bit) + k] = lookups[begin + k] + add


@device_function
def _product(tensor, lookups, operands, stride, low, high):  # type: ignore[no-untyped-def]
    begin = np.int64(HEAD)
    here = np.uint64(lookups[begin + low] + lookups[begin + high])
    re, im = load(tensor, here), load(tensor, here + np.uint64(LANES))
    for _ in range(operands - 1):
        begin += stride
        here = np.uint64(lookups[begin + low] + lookups[begin + high])
        x, y = load(tensor, here), load(tensor, here + np.uint64(LANES))
        re, im = subtract_product(im, y, re * x), add_product(im, x, re * y)
    return re, im


@device_function
def _scale(tensor, begin, count):  # type: ignore[no-untyped-def]
    """Divide the values of each shot by the largest part of one."""
    for lane in range(LANES):
        most = 0.0
        for k in range(lane, LANES * 2 * count, LANES):
            most = max(most, abs(tensor[begin + k]))
        if most > 0.0:
            for k in range(lane, LANES * 2 * count, LANES):
                tensor[begin + k] /= most


@device_function
def _multiplied(code, at, reals, node_begins, values, tensor, lookups, sizes):  # type: ignore[no-untyped-def]
    """Execute a MESSAGE or a ROOT at code[at]; returns the end of its code."""
    sums, tables, stride = sizes
    is_root = code[at] == ROOT
    slot, bits, scaled = _VALUE * code[at + 1], code[at + 2], code[at + 3]
    groups, messages = code[at + 4], code[at + 5]
    at += 6
    axes = bits if is_root else bits + 1
    table, begin = tables, np.int64(HEAD)
    for _ in range(groups):
        mask = code[at]
        end = _table(code, at + 1, reals, node_begins, values, tensor, lookups, table)
        _look_up(lookups, begin, table, mask, axes)
        at = end
        size = np.int64(1)
        while mask:
            mask &= mask - 1
            size <<= 1
        table += _VALUE * size
        begin += stride
    for _ in range(messages):
        _look_up(lookups, begin, _VALUE * code[at], code[at + 1], axes)
        at += 2
        begin += stride
    operands = groups + messages
    low = min(axes, np.int64(LOW_BITS))
    if is_root:
        for k in range(np.int64(1) << axes):
            here = np.uint64(sums + _VALUE * k)
            re, im = splat(1.0), splat(0.0)
            if operands:
                re, im = _product(
                    tensor, lookups, operands, stride, k & ((1 << low) - 1),
                    (1 << LOW_BITS) + (k >> low),
                )  # fmt: skip
            store(tensor, here, load(tensor, here) + re)
            there = here + np.uint64(LANES)
            store(tensor, there, load(tensor, there) + im)
        return at
    for upper in range(np.int64(1) << (axes - low)):
        high = (1 << LOW_BITS) + upper
        to = slot + (np.int64(_VALUE) << (low - 1)) * upper
        for k in range(0, np.int64(1) << low, 2):
            re, im = _product(tensor, lookups, operands, stride, k, high)
            x, y = _product(tensor, lookups, operands, stride, k + 1, high)
            store(tensor, np.uint64(to), re + x)
            store(tensor, np.uint64(to + LANES), im + y)
            to += _VALUE
    if scaled:
        _scale(tensor, slot, np.int64(1) << bits)
    return at


@device_function
def _draw(code, at, place, first, keys, values, tensor, sums):  # type: ignore[no-untyped-def]
    """Draw the bits of a gate from the values at `sums`, and clear them."""
    bits = code[at]
    size = np.int64(1) << bits
    for lane in range(LANES):
        total = 0.0
        for k in range(size):
            here = sums + _VALUE * k + lane
            re, im = np.float64(tensor[here]), np.float64(tensor[here + LANES])
            total += re * re + im * im
        draw = shot_uniform(first + lane, 1 + place, keys[0], keys[1])
        part, outcome = 0.0, np.int64(0)
        for k in range(size - 1):
            here = sums + _VALUE * k + lane
            re, im = np.float64(tensor[here]), np.float64(tensor[here + LANES])
            part += re * re + im * im
            outcome += draw >= part / total
        for bit in range(bits):
            values[LANES * (1 + code[at + 1 + bit]) + lane] = np.uint8(outcome >> bit & 1)
    for k in range(2 * size):
        store(tensor, np.uint64(sums + LANES * k), splat(0.0))


@device_function
def _permute(code, at, images, begin, values):  # type: ignore[no-untyped-def]
    """Permute the bits of a gate's qubits."""
    qubits = code[at]
    for lane in range(LANES):
        state = np.int64(0)
        for k in range(qubits):
            state |= np.int64(values[LANES * (1 + code[at + 1 + 2 * k]) + lane]) << k
        image = images[begin + state]
        for k in range(qubits):
            after = code[at + 2 + 2 * k]
            if after != code[at + 1 + 2 * k]:
                values[LANES * (1 + after) + lane] = np.uint8(image >> k & 1)


def _samples(  # type: ignore[no-untyped-def]
    code, reals, images, nodes, line, span, tensor, lookups, values, out, flag,
):  # fmt: skip
    """Bits of shots span[0] .. span[1] - 1, of which span[4] is row 0 of `out`: uint8 [shots,
    qubits]. span[2 : 4]: seed and binding; span[5 : 8]: place of the sums and of the tables, and
    numbers of the lookups of an operand. reals: the gates. images: of the basis states of gates
    that permute. nodes: where these begin, and the operation of each node. line: the last index of
    each qubit. values: uint8 [indices + 1, LANES]."""
    node_begins, image_begins, places = nodes[0], nodes[1], nodes[2]
    keys = np.uint64(span[2]), np.uint64(span[3])
    sizes = span[5], span[6], span[7]
    for first in range(span[0], span[1], LANES):
        for k in range(values.size):
            values[k] = 0
        for k in range(span[5], span[6]):
            tensor[k] = 0.0
        at, repeated, indices, number, end = (
            np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(-1)
        )  # fmt: skip
        while at < code.size:
            if flag[0]:
                return
            kind = code[at]
            if kind == DRAW:
                bits = code[at + 1]
                place = places[code[at + 2 + bits]]
                _draw(code, at + 1, place, first, keys, values, tensor, span[5])
                at += 3 + bits
            elif kind == PERMUTE:
                _permute(code, at + 2, images, image_begins[code[at + 1]], values)
                at += 3 + 2 * code[at + 2]
            elif kind == SLICES:
                indices = code[at + 1]
                repeated, number = at + 2, np.int64(0)
                end = at + 3 + indices + code[at + 2 + indices]
                at += 3 + indices
                for k in range(indices):
                    for lane in range(LANES):
                        values[LANES * (1 + code[repeated + k]) + lane] = 0
            else:
                at = _multiplied(code, at, reals, node_begins, values, tensor, lookups, sizes)
                if at == end:  # once more, with the next values of the sliced indices
                    number += 1
                    if number < np.int64(1) << indices:
                        for k in range(indices):
                            for lane in range(LANES):
                                values[LANES * (1 + code[repeated + k]) + lane] = np.uint8(
                                    number >> k & 1
                                )
                        at = repeated + indices + 1
                    else:
                        end = np.int64(-1)
        for qubit in range(line.size):
            for lane in range(min(np.int64(LANES), span[1] - first)):
                out[(first + lane - span[4]) * line.size + qubit] = values[
                    LANES * (1 + line[qubit]) + lane
                ]


_SIGNATURE = "I64 REALS I64 INTS2 I64 I64 {} I64 U8 U8 I64"
double = kernel(_SIGNATURE.format("REALS"), group="sweeps", precision="double")(_samples)
single = kernel(_SIGNATURE.format("SINGLES"), group="sweeps", precision="single")(_samples)
