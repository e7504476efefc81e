"""Classes of error patterns that have the same state but for a Pauli string at the end.

Each Pauli error of a pattern is moved towards the end: through gates that turn it into another
Pauli (Clifford gates) or leave it (rotations about it), up to a gate that it does not pass.
Patterns with the same remaining entries are one class: their final states differ by a Pauli string,
of which X and Y invert bits of the outcome, and Z changes nothing. One member is run, the one whose
first error comes last, so that it shares most with the others; each shot samples the class's own
state, in which nothing was left to the end, and inverts its own bits. So a shot's outcome does not
depend on the member that is run. (Paulis through Clifford gates: Gottesman, quant-ph/9807006.)

Remaining entries are compared by a hash of 64 bits.
"""

from __future__ import annotations

import functools
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.circuit.gates import FIRST_GATE, UNITARY, unitary
from simulators.circuit.ir import Circuit
from simulators.compiler.kernel import (
    I64,
    INTS2,
    U64,
    device_function,
    integer_fields,
    kernel,
    record,
    structured,
)
from simulators.trajectories import noise_table
from simulators.trajectories.noise_table import AFTER_OP, PAULI, Q0, Q1, SET, ErrorPatterns, X, Z

_STOPS = -1  # image of a Pauli that does not pass a gate
_ANGLES = (0.73129, 1.21473, -0.41977, 2.05511)  # angles for gates with unknown angles
_SAME = 1e-9
_STEP = integer_fields("first", "second", "kind")  # qubits (-1: none), row of `images` (-1: wide)
_M0, _M1 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ADD = np.uint64(0x9E3779B97F4A7C15)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@record
class FrameRules(NamedTuple):
    """Rules by which Paulis pass the operations of one circuit."""

    steps: Annotated[NDArray[np.void], structured(_STEP)]  # [operations]
    images: INTS2  # [kinds, 16]: image of each Pauli, or _STOPS
    touched: I64  # [operations]: mask of the qubits where a Pauli may change

    @classmethod
    def of(cls, circuit: Circuit) -> FrameRules:
        """Rules that hold for all parameters of the circuit."""
        table = circuit.table
        images = np.full((len(table.names), 16), _STOPS)
        for row, (code, width, _, params) in enumerate(table.rows.tolist()):
            if code < UNITARY or not width:
                images[row] = np.arange(16)
            elif width <= 2:
                matrix = None
                if code == UNITARY:
                    data = np.frombuffer(circuit.matrices[int(table.matrix[row])], np.complex128)
                    matrix = data.reshape(1 << width, 1 << width)
                elif code >= FIRST_GATE and params <= len(_ANGLES):
                    matrix = unitary(table.names[row], _ANGLES[:params], width)
                if matrix is not None:
                    images[row, : 4**width] = _images(matrix.tobytes(), width)
        counts = table.rows[circuit.ops, 1]
        begins = np.cumsum(counts) - counts
        wires = np.append(circuit.qubits.astype(np.int64), -1)
        steps = np.empty(circuit.ops.size, _STEP)
        steps["first"] = wires[np.where(counts > 0, begins, -1)]
        steps["second"] = wires[np.where(counts > 1, np.minimum(begins + 1, wires.size - 1), -1)]
        wide = table.rows[circuit.ops, 1] > 2
        steps["kind"] = circuit.ops
        steps["kind"][wide] = -1
        passive = (images == np.arange(16)).all(axis=1)
        touched = np.zeros(counts.size, np.int64)
        for side in ("first", "second"):
            there = np.flatnonzero(steps[side] >= 0)
            touched[there] |= 1 << steps[side][there]
        touched[passive[circuit.ops]] = 0
        touched[wide] = -1
        return cls(steps, images, touched)


@functools.lru_cache(maxsize=1024)
def _images(data: bytes, width: int) -> NDArray[np.int64]:
    """Image of each Pauli under a gate, up to its sign; int64 [4^width]."""
    matrix = np.frombuffer(data, np.complex128).reshape(1 << width, 1 << width)
    basis = paulis(width)
    moved = matrix @ basis @ matrix.conj().T
    overlaps = np.abs(np.einsum("iab,jba->ij", moved, basis)) / (1 << width)
    best = overlaps.argmax(axis=1)
    exact = overlaps[np.arange(len(basis)), best] > 1.0 - _SAME
    return np.where(exact, best, _STOPS)


@device_function
def _mixed(value, more):  # type: ignore[no-untyped-def]
    """A hash of two numbers: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    value = (value ^ np.uint64(more)) + _ADD
    value = (value ^ (value >> _S30)) * _M0
    value = (value ^ (value >> _S27)) * _M1
    return value ^ (value >> _S31)


@device_function
def _letter(x, z, qubit):  # type: ignore[no-untyped-def]
    """Index of the Pauli of a qubit: I, X, Y, Z."""
    a, b = x >> qubit & 1, z >> qubit & 1
    return (a ^ b) * (1 + 2 * b) + 2 * (a & b)


@device_function
def _with(mask, qubit, bit):  # type: ignore[no-untyped-def]
    return mask & ~(np.int64(1) << qubit) | np.int64(bit) << qubit


@record
class HashTable(NamedTuple):
    """Classes of rows: slots of a power of two, more than rows."""

    hashes: U64
    rows: I64  # the row that is run
    begins: I64  # its first insert


@kernel("I64 I64 I64 INTS2 FrameRules U64 I64 I64 HashTable I64", group="trajectories")
def classify(ends, entries, sets, table, rules, hashes, frames, leaders, slots, alone):  # type: ignore[no-untyped-def]
    """Fill frames[row], the bits that the errors of a row invert at the end, and leaders[row], the
    row that is run for its class; -1: none, the circuit without errors. Rows have inserts in order
    of action. sets [rows]: rows of one set of parameters are a class; empty: all are of one.
    `hashes` [rows]: scratch. alone [inserts]: -1; then the first row that has only this insert."""
    steps, images, touched = rules.steps, rules.images, rules.touched
    slot_hash, slot_row, slot_begin = slots
    rows, total = ends.size - 1, steps.shape[0]
    for row in range(rows):
        is_single = ends[row + 1] == ends[row] + 1
        if is_single and alone[entries[ends[row]]] >= 0:
            same = alone[entries[ends[row]]]
            frames[row], hashes[row] = frames[same], hashes[same]
            continue
        x = z = np.int64(0)
        result = np.uint64(0)
        at = np.int64(0)  # operations that the frame has passed
        for number in range(ends[row], ends[row + 1] + 1):
            last = number == ends[row + 1]
            insert = np.int64(-1) if last else entries[number]
            stop = total if last else table[insert, AFTER_OP] + 1
            while x | z:
                while at < stop and not touched[at] & (x | z):
                    at += 1
                if at >= stop:
                    break
                q0, q1, kind = steps[at].first, steps[at].second, steps[at].kind
                if kind < 0:  # wide gate: entries that could meet it stop before it
                    bits = x | z
                    while bits:
                        qubit = np.int64(0)
                        while not bits >> qubit & 1:
                            qubit += 1
                        bits &= bits - 1
                        entry = (at * 64 + qubit) * 4 + _letter(x, z, qubit)
                        result = _mixed(result, entry + 1)
                    x = z = np.int64(0)
                elif q0 >= 0:
                    first = _letter(x, z, q0)
                    second = np.int64(0) if q1 < 0 else _letter(x, z, q1)
                    if first | second:
                        if images[kind, 4 * second + first] < 0:
                            # One of the two may pass alone.
                            keep_first = first > 0 and images[kind, first] >= 0
                            keep_second = second > 0 and images[kind, 4 * second] >= 0
                            if not keep_first or keep_second:
                                result = _mixed(result, (at * 64 + q0) * 4 + first + 1)
                                first = np.int64(0)
                            if not keep_second and second > 0:
                                result = _mixed(result, (at * 64 + q1) * 4 + second + 1)
                                second = np.int64(0)
                        image = images[kind, 4 * second + first]
                        first, second = image & 3, image >> 2
                        x = _with(x, q0, first == 1 or first == 2)
                        z = _with(z, q0, first >= 2)
                        if q1 >= 0:
                            x = _with(x, q1, second == 1 or second == 2)
                            z = _with(z, q1, second >= 2)
                at += 1
            at = stop
            if last:
                break
            if table[insert, SET] == PAULI:
                x ^= table[insert, X]
                z ^= table[insert, Z]
                continue
            for side in range(2):
                qubit = table[insert, Q0] if side == 0 else table[insert, Q1]
                if qubit >= 0 and (x | z) >> qubit & 1:
                    entry = ~((insert * 64 + qubit) * 4 + _letter(x, z, qubit))
                    result = _mixed(result, entry)
                    x = _with(x, qubit, 0)
                    z = _with(z, qubit, 0)
            result = _mixed(result, ~(insert * 256))
        frames[row] = x
        hashes[row] = result
        if is_single:
            alone[entries[ends[row]]] = row
    for row in range(sets.size):
        if hashes[row]:
            hashes[row] = _mixed(hashes[row], sets[row])
    for k in range(slot_row.size):
        slot_row[k] = -1
    mask = np.uint64(slot_row.size - 1)
    for row in range(rows):
        leaders[row] = -1
        if not hashes[row]:
            continue
        slot = np.int64(hashes[row] & mask)
        while slot_row[slot] >= 0 and slot_hash[slot] != hashes[row]:
            slot = (slot + 1) & np.int64(mask)
        begin = entries[ends[row]]
        if slot_row[slot] < 0 or begin > slot_begin[slot]:
            slot_row[slot], slot_begin[slot], slot_hash[slot] = row, begin, hashes[row]
    for row in range(rows):
        if hashes[row]:
            slot = np.int64(hashes[row] & mask)
            while slot_hash[slot] != hashes[row] or slot_row[slot] < 0:
                slot = (slot + 1) & np.int64(mask)
            leaders[row] = slot_row[slot]


@kernel("I64 I64 I64 I64 I64 I64", group="trajectories")
def _replace(ends, entries, leaders, places, new_ends, new_entries):  # type: ignore[no-untyped-def]
    """Replace the places of each row by those of its leader, ascending."""
    for row in range(leaders.size):
        leader = leaders[row]
        size = np.int64(0) if leader < 0 else ends[leader + 1] - ends[leader]
        new_ends[row + 1] = new_ends[row] + size
        for k in range(size):
            place = places[entries[ends[leader] + k]]
            at = new_ends[row] + k - 1
            while at >= new_ends[row] and new_entries[at] > place:
                new_entries[at + 1] = new_entries[at]
                at -= 1
            new_entries[at + 1] = place


class FramedPatterns(msgspec.Struct, frozen=True, eq=False):
    """Patterns that are run, and the conversion of a class's outcome to a shot's."""

    patterns: ErrorPatterns  # patterns of places
    final_x: NDArray[np.int64]  # [rows]: bits that the pattern that is run inverts
    frames: NDArray[np.int64]  # [rows]: bits that the shot's own errors invert


def carry(
    patterns: ErrorPatterns,
    table: noise_table.NoiseTable,
    rules: FrameRules,
    places: NDArray[np.int64],
    sets: NDArray[np.int64] | None = None,
) -> FramedPatterns:
    """Classify patterns. `patterns`: of inserts in order of action, which is that of the table;
    `sets`: see `classify`."""
    rows = patterns.count
    size = 1 << max(4, (2 * rows).bit_length())
    slots = HashTable(np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64))
    hashes, frames = np.empty(rows, np.uint64), np.empty(rows, np.int64)
    leaders = np.empty(rows, np.int64)
    classify(
        patterns.ends, patterns.entries, np.zeros(0, np.int64) if sets is None else sets,
        table.table, rules, hashes, frames, leaders, slots, np.full(len(table.table), -1),
    )  # fmt: skip
    sizes = np.diff(patterns.ends)
    total = int(sizes[leaders[leaders >= 0]].sum())
    ends, entries = np.zeros(rows + 1, np.int64), np.empty(total, np.int64)
    final_x = np.where(leaders >= 0, frames[leaders], 0)
    _replace(patterns.ends, patterns.entries, leaders, places, ends, entries)
    return FramedPatterns(ErrorPatterns(entries, ends), final_x, frames)
