"""Backward light cone: drops operations that cannot change the requested outputs.

Going backwards, each qubit has a level: UNUSED, Z_BASIS (only its measurement outcome is needed) or
FULL. An operation is dropped if it moves amplitude only along qubits that are UNUSED, and acts
diagonally on qubits that are at most Z_BASIS: phases before a measurement, controls of unused
targets. Blocks under a condition are kept; in a circuit with conditions, so are all measurements.
With noise, a location is dropped only if all its qubits are unused there, so an operation may be
dropped while its noise stays: a diagonal gate before a measurement changes no outcome, its noise
may. A channel leaves a qubit at Z_BASIS if its Z-diagonal part is closed, and leaves the second
qubit unused if the first one's part does not depend on it. Locations inside blocks are kept.

Connected components are found by union-find over qubits, clbits and blocks. Only for circuits that
`admission.validation_error` admitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates, ir, noise as circuit_noise
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.noise import AFTER_OP, CHANNEL, CLOSED, FIRST_ALONE, Q0, Q1, SECOND_ALONE
from simulators.compiler.kernel import U8, device_function, kernel, record
from simulators.compiler.simd import take_bytes

UNUSED, Z_BASIS, FULL = range(3)  # part of a qubit's state that is needed: none, its outcome, all

_OF_CLBITS = {"counts", "memory", "probabilities"}
_OF_ALL_QUBITS = {"statevector", "amplitudes"}
_OF_LETTERS = np.full(256, 255, np.uint8)
_OF_LETTERS[np.frombuffer(b"IZXY", np.uint8)] = UNUSED, Z_BASIS, FULL, FULL


class OutputSupport(msgspec.Struct, frozen=True):
    """Classical bits and qubits of Pauli strings that the requested outputs depend on."""

    clbits: bool
    levels: bytes  # level of each qubit in the strings; b"" without strings
    together: bool = False  # the outputs need a joint state of all kept qubits


def output_support(
    outputs: Iterable[str], labels: Iterable[str], circuit: Circuit
) -> OutputSupport | None:
    """Support of the outputs; None: the whole circuit. `labels`: of all Pauli strings, qubit 0 the
    last letter."""
    wanted = set(outputs)
    if wanted & _OF_ALL_QUBITS or (wanted & _OF_CLBITS and not circuit.clbits_data):
        return None
    levels = b""
    if "expectation" in wanted:
        result = _levels(labels, circuit.num_qubits)
        if result is None:
            return None
        levels = result
    return OutputSupport(bool(wanted & _OF_CLBITS), levels, "gradient" in wanted)


def _levels(labels: Iterable[str], num_qubits: int) -> bytes | None:
    """Level of each qubit in the labels; None if they are no Pauli strings on this number of
    qubits."""
    values = list(labels)
    if any(len(label) != num_qubits or not label.isascii() for label in values):
        return None
    letters = np.frombuffer("".join(values).encode(), np.uint8).reshape(len(values), num_qubits)
    result = _OF_LETTERS[letters].max(axis=0, initial=UNUSED)
    return None if (result > FULL).any() else result[::-1].tobytes()


# By code: the qubits along which it moves amplitude, bit k for the k-th from the end; whether it
# maps each outcome to one outcome; whether it only permutes qubits.
_MOVES, _PERMUTES, _SWAPS = range(3)
_MOST = 62  # qubits from the end that `_MOVES` covers; a gate moves only its last few
_ID, _GLOBAL = gates.GATES["id"].code, gates.GATES["global_phase"].code


def _kind(gate: gates.Gate) -> tuple[int, int, int]:
    moves, permutes = 0, True
    for piece in gate.pieces:
        moved = piece.low ^ piece.high
        moves |= sum(1 << (piece.targets - 1 - j) for j in range(piece.targets) if moved >> j & 1)
        a, _, _, d = piece.matrix
        permutes &= piece.kind == gates.PHASE or (piece.source == gates.FIXED and a == 0 == d)
    return moves, int(permutes), int(gate.name == "swap")


GATE_KINDS = np.zeros((gates.FIRST_GATE + len(gates.GATES), 3), np.int64)
GATE_KINDS[gates.UNITARY] = -1, 0, 0
GATE_KINDS[gates.FIRST_GATE :] = [_kind(gate) for gate in gates.GATES.values()]


@device_function
def gate_levels(kind, qubits, first, count, levels):  # type: ignore[no-untyped-def]
    """Return whether a gate can be dropped; else raise the levels of its qubits before it."""
    moves = kind[_MOVES]
    moved = looked = np.uint8(UNUSED)
    for j in range(count):
        level = levels[qubits[first + j]]
        place = count - 1 - j
        if moves < 0 or (place < _MOST and moves >> place & 1):
            moved = max(moved, level)
        else:
            looked = max(looked, level)
    if moved == UNUSED and looked <= Z_BASIS:
        return True
    if kind[_SWAPS]:
        a, b = qubits[first], qubits[first + 1]
        levels[a], levels[b] = levels[b], levels[a]
        return False
    after = np.uint8(FULL)
    if kind[_PERMUTES] and max(moved, looked) <= Z_BASIS:
        after = np.uint8(Z_BASIS)
    for j in range(count):
        q = qubits[first + j]
        place = count - 1 - j
        if moves < 0 or (place < _MOST and moves >> place & 1):
            levels[q] = after
        else:
            levels[q] = max(levels[q], np.uint8(Z_BASIS))
    return False


@record
class ConeArrays(NamedTuple):
    """What `walk_cone` reads and fills."""

    levels: U8  # [qubits]: before: levels at the end
    kept: U8  # [operations]
    acting: U8  # [locations]
    needed: U8  # [qubits]
    turned: U8  # [qubits]: scratch
    written: U8  # [clbits]: scratch


@device_function
def take_cone(scratch, circuit, num_locations):  # type: ignore[no-untyped-def]
    """`ConeArrays` without levels from a buffer of bytes, and the rest of the buffer."""
    levels, scratch = take_bytes(scratch, circuit.num_qubits)
    kept, scratch = take_bytes(scratch, circuit.ops.size)
    acting, scratch = take_bytes(scratch, num_locations)
    needed, scratch = take_bytes(scratch, circuit.num_qubits)
    turned, scratch = take_bytes(scratch, circuit.num_qubits)
    written, scratch = take_bytes(scratch, circuit.num_clbits)
    levels[:] = UNUSED
    return ConeArrays(levels, kept, acting, needed, turned, written), scratch


def cone_bytes(circuit: Circuit, num_locations: int = 0) -> int:
    """Size of what `take_cone` takes."""
    return 3 * circuit.num_qubits + circuit.ops.size + num_locations + circuit.num_clbits


@device_function
def walk_cone(circuit, bits_seen, blocks, phases, places, traits, cone):  # type: ignore[no-untyped-def]
    """Fill `cone`; returns the number of dropped operations with an effect. Without `phases`,
    diagonal gates count only if they follow a measurement.

    `bits_seen`: clbits are outputs. `blocks`: there are conditions. `places` [locations, 4],
    `traits` [channels]: of the noise.
    """
    rows, ops, qubits, clbits = circuit.rows, circuit.ops, circuit.qubits, circuit.clbits
    levels, kept, acting, needed = cone.levels, cone.kept, cone.acting, cone.needed
    turned, written = cone.turned, cone.written
    turned[:] = 0
    written[:] = 0
    at = qubits.size
    bit = clbits.size
    depth = gone = 0
    place = places.shape[0] - 1
    for q in range(levels.size):
        needed[q] = levels[q] != UNUSED
    for k in range(ops.size - 1, -2, -1):
        while place >= 0 and places[place, AFTER_OP] >= k:
            a, b = places[place, Q0], places[place, Q1]
            trait = traits[places[place, CHANNEL]]
            low = levels[a]
            high = levels[b] if b >= 0 else np.uint8(UNUSED)
            acting[place] = depth > 0 or low > UNUSED or high > UNUSED
            if acting[place]:
                after = np.uint8(FULL)
                if depth == 0 and trait & CLOSED and max(low, high) <= Z_BASIS:
                    after = np.uint8(Z_BASIS)
                needed[a] = 1
                if depth > 0 or low > UNUSED or not trait & SECOND_ALONE:
                    levels[a] = after
                if b >= 0:
                    needed[b] = 1
                    if depth > 0 or high > UNUSED or not trait & FIRST_ALONE:
                        levels[b] = after
            place -= 1
        if k < 0:
            break
        code, count = rows[ops[k], 0], rows[ops[k], 1]
        at -= count
        bit -= rows[ops[k], 2]
        kept[k] = 1
        if code == gates.END_BLOCK:
            depth += 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            depth -= 1
        elif code in (_ID, _GLOBAL) or code < gates.MEASURE:
            kept[k] = 0
        elif depth:
            for j in range(at, at + count):
                levels[qubits[j]] = FULL
        elif code == gates.MEASURE:
            q = qubits[at]
            wanted = blocks or (bits_seen and not written[clbits[bit]])
            written[clbits[bit]] = 1
            gone += turned[q]  # with the later gate, it would not be a final one
            turned[q] = 0
            if wanted or levels[q] == FULL:
                levels[q] = Z_BASIS
            else:
                kept[k] = 0
                gone += 1
        elif code == gates.RESET:
            if levels[qubits[at]] == UNUSED:
                kept[k] = 0
                gone += 1
            levels[qubits[at]] = UNUSED
        elif code >= gates.UNITARY and gate_levels(GATE_KINDS[code], qubits, at, count, levels):
            kept[k] = 0
            if phases or GATE_KINDS[code, _MOVES] != 0:
                gone += 1
            else:
                for j in range(at, at + count):
                    turned[qubits[j]] = 1
        if kept[k]:
            for j in range(at, at + count):
                needed[qubits[j]] = 1
    return gone


_light_cone_kernel = kernel(
    "CircuitArrays INT INT INT INTS2 U8 ConeArrays -> INT", group="light_cone"
)(walk_cone)


@device_function
def root_of(parent, node):  # type: ignore[no-untyped-def]
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@device_function
def join(parent, a, b):  # type: ignore[no-untyped-def]
    parent[root_of(parent, a)] = root_of(parent, b)


@device_function
def walk_components(circuit, tokens, starts, first_bit, first_op, kept, needed, parent):  # type: ignore[no-untyped-def]
    """Fill parent[node]: one node of its component; returns 1 if needed qubits have several
    components. Nodes: the qubits, the clbits from `first_bit` on, all variables as one, then the
    operations. `needed` [qubits]: the qubits of operations are added."""
    rows, ops, qubits, clbits = circuit.rows, circuit.ops, circuit.qubits, circuit.clbits
    for node in range(parent.size):
        parent[node] = node
    at = bit = depth = token = 0
    block = np.int64(0)
    for k in range(ops.size):
        code, count, bits = rows[ops[k], 0], rows[ops[k], 1], rows[ops[k], 2]
        if kept[k]:
            node = first_op + k
            opens = code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH)
            if opens:
                if depth == 0:
                    block = np.int64(node)
                depth += 1
            if depth:
                join(parent, node, block)
            if code == gates.END_BLOCK:
                depth -= 1
            for j in range(at, at + count):
                needed[qubits[j]] = 1
                join(parent, node, np.int64(qubits[j]))  # a qubit's paths to its root stay short
            for j in range(bit, bit + bits):
                join(parent, first_bit + np.int64(clbits[j]), node)
            if opens or code in (gates.CASE, gates.STORE):
                while tokens[3 * token] != ir.END:
                    kind, operand = tokens[3 * token], tokens[3 * token + 1]
                    token += 1
                    if kind == ir.CLBIT or kind == ir.SET_CLBIT:
                        join(parent, first_bit + operand, node)
                    elif kind == ir.REGISTER or kind == ir.SET_REGISTER:
                        for c in range(starts[operand], starts[operand + 1]):
                            join(parent, first_bit + c, node)
                    elif kind == ir.VARIABLE or kind == ir.SET_VARIABLE:
                        join(parent, first_op - 1, node)
                token += 1
        at += count
        bit += bits
    for node in range(parent.size):
        parent[node] = root_of(parent, node)
    first = np.int64(-1)
    several = 0
    for q in range(needed.size):
        if needed[q]:
            if first < 0:
                first = parent[q]
            elif parent[q] != first:
                several = 1
    return several


_components_kernel = kernel("CircuitArrays I32 I64 INT INT U8 U8 I64 -> INT", group="light_cone")(
    walk_components
)


class LightCone(msgspec.Struct, frozen=True, eq=False):
    """Operations, noise locations and qubits that the outputs depend on."""

    kept: NDArray[np.bool_]  # [operations]
    acting: NDArray[np.bool_]  # [locations]
    needed: NDArray[np.bool_]  # [qubits]
    gone: int  # number of dropped operations with an effect

    @property
    def qubits(self) -> NDArray[np.int64]:
        """Numbers of the needed qubits, ascending; the first qubit if none is needed."""
        result = np.flatnonzero(self.needed)
        return result if result.size else np.arange(min(1, self.needed.size))


NO_PLACES = np.zeros((0, 4), np.int64)
_NO_BYTES = np.zeros(0, np.uint8)


def light_cone(
    circuit: Circuit, support: OutputSupport, noise: circuit_noise.NoiseProgram | None = None
) -> LightCone:
    """Light cone of the outputs, and of the noise. If clbits alone are outputs and there are no
    conditions, diagonal gates are not among the `gone` operations: without the others they change
    no probability, and the planner drops them by itself. A diagonal gate after a measurement
    counts, because the measurement is final only without it."""
    places, traits, acting = NO_PLACES, _NO_BYTES, _NO_BYTES
    if noise is not None:
        places, traits = noise.locations, noise.facts.traits
        acting = np.empty(len(places), np.uint8)
    blocks, size = int(bool(circuit.conditions_data)), circuit.num_qubits
    levels, turned, needed = np.zeros((3, size), np.uint8)
    if support.levels:
        levels[:] = np.frombuffer(support.levels, np.uint8)
    kept, written = np.empty(circuit.ops.size, np.uint8), np.empty(circuit.num_clbits, np.uint8)
    gone = _light_cone_kernel(
        CircuitArrays.of(circuit), int(support.clbits), blocks, int(bool(support.levels)) | blocks,
        places, traits, ConeArrays(levels, kept, acting, needed, turned, written),
    )  # fmt: skip
    return LightCone(kept.view(np.bool_), acting.view(np.bool_), needed.view(np.bool_), int(gone))


def connected_components(
    circuit: Circuit, kept: NDArray[np.bool_], needed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Component numbers of the qubits and of the kept operations, int64 [qubits] and [operations];
    and whether needed qubits have several components. `needed` [qubits]: the qubits of kept
    operations are added."""
    first_op = circuit.num_qubits + circuit.num_clbits + 1
    parent = np.empty(first_op + circuit.ops.size, np.int64)
    several = _components_kernel(
        CircuitArrays.of(circuit), circuit.conditions, register_starts(circuit),
        circuit.num_qubits, first_op, kept.view(np.uint8), needed.view(np.uint8), parent,
    )  # fmt: skip
    return parent[: circuit.num_qubits], parent[first_op:], bool(several)


def is_loaded() -> bool:
    """Return whether the kernels of this module are loaded. Until then the first call loads them,
    which takes seconds if they must be compiled."""
    return _light_cone_kernel.is_loaded and _components_kernel.is_loaded


def load() -> None:
    _light_cone_kernel.load()
    _components_kernel.load()
