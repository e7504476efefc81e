"""Wires that qubits share one after the other, in circuits with a hidden register.

A qubit that is reset forgets what it held, so from its last use up to the reset its state needs no
place, and noise on it has no effect. Communication qubits of linked QPUs are reset for each Bell
pair: those of different links share wires (qubit reuse; DeCross et al., Phys. Rev. X 13, 041057).
Other circuits keep their wires: their counts are those of their seed, which the order of the wires
changes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import Readout, ReadoutGroup
from simulators.circuit import gates
from simulators.circuit.ir import Circuit, shown_clbits
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import Subcircuit
from simulators.circuit.passes.leakage_flags import has_flags

_MOST_OPERANDS = 1 << 18  # of longer circuits the wires stay: a pass over one takes a second
_LOOPS = (gates.WHILE, gates.FOR, gates.SWITCH)
_IDLE = (gates.BARRIER, gates.DELAY, gates.DELAY_DT)


class _Life:
    """Time from a reset of a qubit, or from the begin, to its last use before the next reset."""

    __slots__ = ("ends_in_pair", "first", "is_locked", "last", "qubit", "wire")

    def __init__(self, qubit: int, first: int) -> None:
        self.qubit, self.first, self.last = qubit, first, first  # operations; -1: the begin
        self.ends_in_pair = False  # a channel on two qubits follows the last operation
        self.is_locked = False  # results show its measurement, the last use of the qubit
        self.wire = -1


def with_shared_wires(part: Subcircuit, noise: NoiseProgram) -> tuple[Subcircuit, NoiseProgram]:
    """A part on fewer wires, for outputs of clbits alone, and its noise; both unchanged if that
    saves none. `Subcircuit.qubits` has one of the qubits of each wire."""
    circuit = part.circuit
    if shown_clbits(circuit) is None or not _is_covered(circuit, noise):
        return part, noise
    lives = _lives(circuit, noise)
    owners = np.array([life.qubit for life in _assign(lives)], np.int64)
    if not 0 < owners.size < circuit.num_qubits:
        return part, noise
    wires = _moved(circuit, lives)
    shared = replace(circuit, num_qubits=owners.size, qubits_data=wires.astype("<u2").tobytes())
    locations = _located(noise.locations, lives)
    digest = hashlib.blake2b(noise.digest + wires.tobytes(), digest_size=32).digest()
    readout = None if noise.readout is None else _readout(circuit, noise.readout, lives, owners)
    own = replace(noise, digest=digest, locations=locations, readout=readout)
    return replace(part, circuit=shared, qubits=part.qubits[owners]), own


def _is_covered(circuit: Circuit, noise: NoiseProgram) -> bool:
    codes = circuit.table.rows[circuit.ops, 0]
    special = noise.leakage is not None or noise.detunings is not None or has_flags(noise)
    is_long = circuit.qubits.size + len(noise.locations) > _MOST_OPERANDS
    return not (special or is_long or np.isin(codes, _LOOPS).any())


def _lives(circuit: Circuit, noise: NoiseProgram) -> list[list[_Life]]:
    """Lives of each qubit, in order."""
    rows, qubits, clbits = circuit.table.rows, circuit.qubits.tolist(), circuit.clbits.tolist()
    table = rows[:, :3].tolist()
    bits_shown = shown_clbits(circuit)
    shown = set() if bits_shown is None else set(bits_shown.tolist())
    pairs: dict[int, list[int]] = {}
    for after, _, first, second in noise.locations.tolist():
        if second >= 0:
            pairs.setdefault(after, []).extend((first, second))
    lives: list[list[_Life]] = [[] for _ in range(circuit.num_qubits)]

    def use(qubit: int, at: int, *, pair: bool = False) -> _Life:
        if not lives[qubit]:
            lives[qubit].append(_Life(qubit, -1))
        life = lives[qubit][-1]
        life.last, life.ends_in_pair, life.is_locked = at, pair, False
        return life

    for qubit in pairs.get(-1, ()):
        use(qubit, -1, pair=True)
    depth = at = bit = 0
    for k, op in enumerate(circuit.ops.tolist()):
        code, number, bits = table[op]
        depth += (code == gates.IF) - (code == gates.END_BLOCK)
        for qubit in () if code in _IDLE else qubits[at : at + number]:
            if code == gates.RESET and not depth:
                lives[qubit].append(_Life(qubit, k))
                continue
            life = use(qubit, k)
            life.is_locked = bits > 0 and clbits[bit] in shown
        for qubit in pairs.get(k, ()):
            use(qubit, k, pair=True)
        at, bit = at + number, bit + bits
    for own in lives:
        for earlier in own[:-1]:
            earlier.is_locked = False
    return lives


def _assign(lives: list[list[_Life]]) -> list[_Life]:
    """Set the wire of each life; returns the last life of each wire. One from the begin has a new
    wire, on which others may follow."""
    busy: list[_Life] = []  # by wire, its last life
    every = [life for own in lives for life in own]
    for life in sorted(every, key=lambda each: (each.first, each.qubit)):
        free = [
            wire
            for wire, last in enumerate(busy)
            if life.first >= 0 and last.last < life.first and not last.is_locked
        ]
        if not free:
            life.wire = len(busy)
            busy.append(life)
            continue
        same = [wire for wire in free if busy[wire].qubit == life.qubit]
        life.wire = (same or free)[0]
        busy[life.wire] = life
    return busy


def _at(own: list[_Life], at: int) -> _Life | None:
    """Life of a qubit that holds an operation."""
    number = bisect_right([life.first for life in own], at) - 1
    return own[number] if number >= 0 else None


def _moved(circuit: Circuit, lives: list[list[_Life]]) -> NDArray[np.int64]:
    """Wire of each operand; 0 of those of barriers and delays."""
    counts = circuit.table.rows[circuit.ops, 1]
    owners = np.repeat(np.arange(circuit.ops.size), counts).tolist()
    result = np.zeros(len(owners), np.int64)
    for place, (qubit, k) in enumerate(zip(circuit.qubits.tolist(), owners, strict=True)):
        life = _at(lives[qubit], k)
        result[place] = 0 if life is None else life.wire
    return result


def _located(locations: NDArray[np.int64], lives: list[list[_Life]]) -> NDArray[np.int64]:
    """Locations that act on a life before its end, on their wires."""
    results = []
    for row in locations.tolist():
        after = row[AFTER_OP]
        first = _at(lives[row[Q0]], after)
        if first is None:
            continue
        if row[Q1] < 0:
            if after > first.last or (after == first.last and not first.ends_in_pair):
                continue
        else:
            second = _at(lives[row[Q1]], after)
            assert second is not None  # a channel on two qubits is a use of both
            row[Q1] = second.wire
        row[Q0] = first.wire
        results.append(row)
    return np.array(results, np.int64).reshape(-1, 4)


def _readout(
    circuit: Circuit, readout: Readout, lives: list[list[_Life]], owners: NDArray[np.int64]
) -> Readout:
    """Readout error of the wires: that of the qubit that has it last, and of each measurement of
    another one."""
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    own = dict(readout.own)
    for k in np.flatnonzero(rows[:, 0] == gates.MEASURE).tolist():
        qubit = int(circuit.qubits[begins[k]])
        life = _at(lives[qubit], k)
        assert life is not None
        if owners[life.wire] != qubit:
            own[k] = readout.flips(qubit, k)
    wire_of = {int(qubit): wire for wire, qubit in enumerate(owners.tolist())}
    groups = tuple(
        ReadoutGroup(tuple(wire_of[q] for q in group.qubits), group.confusion)
        for group in readout.groups
        if all(q in wire_of for q in group.qubits)
    )
    flips = np.array([readout.flips(qubit, -1) for qubit in owners.tolist()]).reshape(-1, 2)
    return Readout(flips[:, 0].copy(), flips[:, 1].copy(), groups, own)
