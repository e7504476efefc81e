"""Leakage of gates to a third level, whose population is a flag of each qubit.

After a gate a qubit leaks from |1> with probability p, without coherence between its levels, and a
leaked qubit comes back to |1> with probability s: Kraus operators diag(1, sqrt(1 - p), sqrt(1 -
s)), sqrt(p) |2><1| and sqrt(s) |1><2|. So the state has no coherence between the third level and
the others, and a classical flag says whether a qubit is leaked. Gates on it alone do nothing. On
the other qubits of a gate, and of a channel on two qubits, it acts like the completely mixed state
I / 2: a controlled-Z dephases the partner, a controlled-X on a leaked control flips it half of the
time. (The phase that a partner gets from a leaked transmon is random: Varbanov et al., arXiv
2002.07119, section II.) While it waits, a leaked qubit decays to |1> and from there to |0>: it
comes back to one of them with probabilities of its own. It is read as |1> with a probability of
its own, and a reset brings it back.

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
from noise_models.model import NoiseModel
from simulators.circuit import gates
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, Leakage, NoiseProgram
from simulators.circuit.passes.components import Subcircuit

LEAK, MIX, READ, RETURN = range(4)  # kinds of `FlagStep`


def lost(program: NoiseProgram) -> NoiseProgram:
    """Leakage of the gates of a noise program as maps that only keep the shots that stay."""
    found = program.leakage
    assert found is not None
    out = found.leak > 0.0
    rates, number = np.unique(found.leak[out], return_inverse=True)
    locations = np.column_stack(
        (found.after[out], number, found.qubits[out], np.full(number.size, -1, np.int64))
    )
    channels = []
    for leak in rates.tolist():
        stays, one = math.sqrt(1.0 - leak), 1.0 - 0.5 * leak
        ptm = np.diag((one, stays, stays, one))
        ptm[0, 3] = ptm[3, 0] = 0.5 * leak
        channels.append(Channel(ptm))
    return NoiseProgram(program.digest, frozenset({"kraus"}), locations, tuple(channels))


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


class Waits(msgspec.Struct, frozen=True, eq=False):
    """Idle times: the operation and the location that each one's relaxation follows and precedes,
    by the rules of `Leakage`."""

    after: NDArray[np.int64]
    places: NDArray[np.int64]
    qubits: NDArray[np.int64]
    time_ns: NDArray[np.float64]


def leakage(
    circuit: Circuit,
    operands: Operands,
    model: NoiseModel,
    gate_ends: NDArray[np.int64],
    waits: Waits,
) -> Leakage | None:
    """Leakage of the gates of a circuit, and decay while leaked qubits wait; None: no gate leaks.
    `gate_ends` [operations + 1]: first location after those of the gate's own channels, operation
    -1 first."""
    names, ops = circuit.noise_names, circuit.ops
    known: dict[tuple[int, tuple[int, ...]], tuple[float, float]] = {}
    rows: list[tuple[int, int, int]] = []
    rates: list[tuple[float, float]] = []
    for k in np.flatnonzero((operands.codes >= gates.UNITARY) & (operands.counts > 0)).tolist():
        key = int(ops[k]), operands.qubits(k)
        if key not in known:
            known[key] = model.leakage(names[key[0]], key[1])
        if any(known[key]):
            rows += [(k, int(gate_ends[k + 1]), qubit) for qubit in key[1]]
            rates += [known[key]] * len(key[1])
    leaking = {row[2] for row, (leak, _) in zip(rows, rates, strict=True) if leak}
    if not leaking:
        return None
    acting = [n for n, row in enumerate(rows) if row[2] in leaking]
    events = np.array(rows, np.int64)[acting]
    found = np.column_stack((np.array(rates)[acting], np.zeros(len(acting))))
    idle, decays = _decays(waits, model, _first_leaks(events, found, operands))
    events, found = np.concatenate((events, idle)), np.concatenate((found, decays))
    order = np.lexsort((events[:, 1], events[:, 0]))
    after, place, qubits = events[order].T
    leak, seep, decay = found[order].T
    readout = np.array([model.leaked_readout(q) for q in range(circuit.num_qubits)])
    return Leakage(after, place, qubits, leak, seep, decay, readout)


def _first_leaks(
    events: NDArray[np.int64], rates: NDArray[np.float64], operands: Operands
) -> dict[int, int]:
    """Operation after which each qubit may be leaked; -1 in circuits with loops."""
    if not {gates.FOR, gates.WHILE}.isdisjoint(operands.codes.tolist()):
        return dict.fromkeys(events[:, 2].tolist(), -1)
    found = events[rates[:, 0] > 0.0][::-1]
    return dict(zip(found[:, 2].tolist(), found[:, 0].tolist(), strict=True))


def _decays(
    waits: Waits, model: NoiseModel, leaks: dict[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows (operation, location, qubit) of idle times of qubits that may be leaked, and their
    probabilities (0, to |1>, to |0>)."""
    known: dict[tuple[int, float], tuple[float, float]] = {}
    rows: list[tuple[int, int, int]] = []
    rates: list[tuple[float, float, float]] = []
    for after, place, qubit, time in zip(
        waits.after.tolist(), waits.places.tolist(), waits.qubits.tolist(), waits.time_ns.tolist(),
        strict=True,
    ):  # fmt: skip
        if leaks.get(qubit, after + 1) > after:
            continue
        key = qubit, time
        if key not in known:
            known[key] = model.seepage(*key)
        if any(known[key]):
            rows.append((after, place, qubit))
            rates.append((0.0, *known[key]))
    return np.array(rows, np.int64).reshape(-1, 3), np.array(rates).reshape(-1, 3)


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
