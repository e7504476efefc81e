"""The third level of qubits that leak (see `leakage`) as a flag of each.

A leaked qubit has an arbitrary state in an engine; it is mixed before an operation that shows it,
and set before a measurement. `flagged` has the flags as qubits of their own, which only channels
act on: exact where the density matrix has room for them. In a trajectory the flags are bits of the
shot: `unflagged`.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, from_kraus
from simulators.circuit import gates
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.components import Subcircuit

LEAK, MIX, READ, RETURN = range(4)  # kinds of `FlagStep`


class FlagChannel(Channel, frozen=True, eq=False):
    """Channel of a `FlagStep` on a qubit and its flag; RETURN is on the flag alone."""

    kind: int
    leak: float
    seep: float
    decay: float


class FlagStep(msgspec.Struct, frozen=True, eq=False):
    """What happens to a qubit and its flag. LEAK: with probability `leak` from |1>, back with
    `seep`, and with `decay` to |0>; MIX: a leaked qubit is completely mixed; READ: it is in |1>
    with probability `leak`, else in |0>; RETURN: the flag is cleared."""

    kind: int
    after: int  # the operation that it follows, -1: before all
    place: int  # it acts before this location of the noise program
    qubit: int
    leak: float = 0.0
    seep: float = 0.0
    decay: float = 0.0


def steps(circuit: Circuit, noise: NoiseProgram) -> Iterator[FlagStep]:
    """What happens to qubits and flags, in the order of its action: by operation and location."""
    found = noise.leakage
    assert found is not None
    operands = Operands.of(circuit)
    codes = operands.codes
    leaking = set(found.qubits.tolist())
    # Before the first leak of a qubit nothing needs its flag, but in a loop.
    first = dict.fromkeys(leaking, -1)
    if set(codes.tolist()).isdisjoint((gates.FOR, gates.WHILE)):
        for k, qubit in zip(found.after[::-1].tolist(), found.qubits[::-1].tolist(), strict=True):
            first[qubit] = k
    after = noise.locations[:, AFTER_OP]
    ends = np.searchsorted(after, np.arange(-1, codes.size), side="right")
    event, events = 0, list(
        zip(found.after.tolist(), found.places.tolist(), found.qubits.tolist(),
            found.leak.tolist(), found.seep.tolist(), found.decay.tolist(), strict=True)
    )  # fmt: skip
    for k, code in enumerate([gates.BARRIER, *codes.tolist()]):
        op, before = k - 1, int(ends[k - 1]) if k else 0
        wires = operands.qubits(op) if op >= 0 else ()
        mine = [q for q in wires if q in leaking and first[q] < op]
        if code == gates.MEASURE:
            for q in mine:
                yield FlagStep(READ, op - 1, before, q, float(found.readout[q]))
        elif code >= gates.UNITARY and len(wires) > 1:
            for q in mine:
                yield FlagStep(MIX, op - 1, before, q)
        end = int(ends[k])
        mixed = set(mine) if code >= gates.UNITARY else set()
        for place in range(before, end + 1):
            while event < len(events) and events[event][:2] == (op, place):
                _, _, qubit, *rates = events[event]
                yield FlagStep(LEAK, op, place, qubit, *rates)
                mixed.discard(qubit)
                event += 1
            if place < end and noise.locations[place, Q1] >= 0:
                pair = noise.locations[place, [Q0, Q1]].tolist()
                for q in pair:
                    if q in leaking and first[q] <= op and q not in mixed:
                        yield FlagStep(MIX, op, place, q)
                mixed.difference_update(pair)
        if code == gates.RESET:
            for q in mine:
                yield FlagStep(RETURN, op, end, q)
    last = dict.fromkeys(leaking, -1)
    for k in np.flatnonzero(codes >= gates.MEASURE).tolist():
        last.update(dict.fromkeys(leaking.intersection(operands.qubits(k)), k))
    for q in sorted(leaking):
        if last[q] < 0 or codes[last[q]] != gates.MEASURE:
            yield FlagStep(MIX, codes.size - 1, int(ends[-1]), q)  # as expectation values see it


class FlaggedCircuit(msgspec.Struct, frozen=True, eq=False):
    """A circuit with a qubit for the flag of each qubit that leaks, after its own qubits."""

    circuit: Circuit
    noise: NoiseProgram
    num_flags: int

    def of(self, circuit: Circuit) -> Circuit:
        """The flagged form of another circuit with the same structure."""
        return msgspec.structs.replace(circuit, num_qubits=self.circuit.num_qubits)

    def labels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Pauli strings of the circuit's qubits, with the identity on the flags."""
        return tuple("I" * self.num_flags + label for label in labels)


def flagged(circuit: Circuit, noise: NoiseProgram) -> FlaggedCircuit:
    """Make the flags of a noise program qubits."""
    found = noise.leakage
    assert found is not None
    owners = np.unique(found.qubits).tolist()
    flag = {qubit: circuit.num_qubits + k for k, qubit in enumerate(owners)}
    numbers: dict[tuple[int, float, float, float], int] = {}
    channels = list(noise.channels)
    rows: list[tuple[int, int, int, int]] = []
    places: list[int] = []
    for step in steps(circuit, noise):
        key = step.kind, step.leak, step.seep, step.decay
        if key not in numbers:
            numbers[key] = len(channels)
            channels.append(_channel(*key))
        pair = (flag[step.qubit], -1) if step.kind == RETURN else (step.qubit, flag[step.qubit])
        rows.append((step.after, numbers[key], *pair))
        places.append(step.place)
    readout = noise.readout
    count = circuit.num_qubits + len(owners)
    return FlaggedCircuit(
        msgspec.structs.replace(circuit, num_qubits=count),
        msgspec.structs.replace(
            noise,
            digest=hashlib.blake2b(noise.digest + b"flagged", digest_size=32).digest(),
            kinds=noise.kinds - {"leakage"} | {"kraus"},
            locations=np.insert(noise.locations, places, rows, axis=0),
            channels=tuple(channels),
            readout=None if readout is None else readout.widened(count),
            known_facts=None,
            leakage=None,
        ),
        len(owners),
    )


def unflagged(part: Subcircuit, noise: NoiseProgram) -> tuple[Subcircuit, NoiseProgram]:
    """A part of a flagged circuit without its flags: each `FlagChannel` is on the qubit alone."""
    steps = np.array([isinstance(each, FlagChannel) for each in noise.channels], np.bool_)
    rows = noise.locations.copy()
    flags = steps[rows[:, CHANNEL]]
    pairs = flags & (rows[:, Q1] >= 0)
    owner = np.arange(part.circuit.num_qubits)
    owner[rows[pairs, Q1]] = rows[pairs, Q0]
    rows[flags, Q0], rows[flags, Q1] = owner[rows[flags, Q0]], -1
    qubits = np.setdiff1d(np.arange(owner.size), noise.locations[pairs, Q1])
    alone = flags & ~np.isin(rows[:, Q0], rows[pairs, Q0])  # a flag that nothing reads
    circuit = msgspec.structs.replace(part.circuit, num_qubits=qubits.size)
    return (
        msgspec.structs.replace(part, circuit=circuit, qubits=part.qubits[: qubits.size]),
        msgspec.structs.replace(noise, locations=rows[~alone], known_facts=None),
    )


def has_flags(noise: NoiseProgram) -> bool:
    """Return whether a noise program is that of a flagged circuit."""
    return any(isinstance(each, FlagChannel) for each in noise.channels)


@functools.lru_cache(maxsize=256)
def _channel(kind: int, leak: float, seep: float, decay: float) -> FlagChannel:
    """Channel of a step on a qubit (bit 0) and its flag (bit 1)."""
    return FlagChannel(_map(kind, leak, seep, decay).ptm, kind, leak, seep, decay)


def _map(kind: int, leak: float, seep: float, decay: float) -> Channel:

    def unit(row: int, column: int, weight: float = 1.0) -> NDArray[np.complex128]:
        result = np.zeros((4, 4), np.complex128)
        result[row, column] = math.sqrt(weight)
        return result

    if kind == RETURN:
        return from_kraus([np.array([[1, 0], [0, 0]]), np.array([[0, 1], [0, 0]])])
    if kind == LEAK:
        left = max(1.0 - seep - decay, 0.0)
        stays = np.diag(np.sqrt([1.0, 1.0 - leak, left, left])).astype(np.complex128)
        back = [unit(to, at, p) for to, p in ((1, seep), (0, decay)) for at in (2, 3)]
        return from_kraus([stays, unit(3, 1, leak), *back])
    share = 0.5 if kind == MIX else leak
    sets = [unit(2 + to, 2 + at, (1.0 - share, share)[to]) for at in (0, 1) for to in (0, 1)]
    return from_kraus([np.diag([1, 1, 0, 0]).astype(np.complex128), *sets])
