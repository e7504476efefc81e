"""Rotations of qubits whose detuning is constant during a shot.

A qubit with the detuning d rotates about Z by d t while it waits for a time t, and by d t / 2 right
before and right after a gate of duration t on it: in the middle of a half turn about X the sign of
the rotation changes, so that the whole half turn contributes nothing, as in its average Hamiltonian
(Haeberlen and Waugh, Phys. Rev. 175, 453). The rotation commutes with relaxation, ZZ interaction
and depolarizing, so a waiting time acts in one piece before the next operation. Before a
measurement or reset it has no effect and is left out.

`with_bounds` adds the largest phase of each qubit that a result may depend on, by its coherence
orders (Bodenhausen, Kogler and Ernst, J. Magn. Reson. 58, 370).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, from_unitary
from simulators.circuit import gates
from simulators.circuit.arrays import Operands
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import Detunings, NoiseProgram

_LOOPS = (gates.WHILE, gates.FOR)


def detunings(
    operands: Operands,
    durations_ns: NDArray[np.float64],
    waits: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    deviation: Callable[[int], float],
) -> Detunings | None:
    """Rotations of a circuit; None: no qubit that it uses has a detuning. `durations_ns`: of its
    operations; `waits`: idle times, the operation that each follows (ascending), its qubit and its
    length in ns; `deviation`: standard deviation of a qubit's detuning, rad per ns."""
    rates = {q: rate for q in np.unique(operands.wires).tolist() if (rate := deviation(q))}
    if not rates:
        return None
    rows: list[tuple[int, int, float]] = []
    pending = dict.fromkeys(rates, 0.0)  # ns that have not acted yet
    codes, first = operands.codes.tolist(), operands.first.tolist()
    wires, lengths = operands.wires.tolist(), durations_ns.tolist()
    after, qubits, times = (each.tolist() for each in waits)
    wait = 0

    def act(k: int, qubit: int) -> None:
        if pending[qubit]:
            rows.append((k, qubit, pending[qubit] * rates[qubit]))
            pending[qubit] = 0.0

    for k, code in enumerate([*codes, gates.STORE]):
        while wait < len(after) and after[wait] < k:
            if qubits[wait] in rates:
                pending[qubits[wait]] += times[wait]
            wait += 1
        if code in (gates.DELAY, gates.DELAY_DT):
            if wires[first[k]] in rates:
                pending[wires[first[k]]] += lengths[k]
        elif code in (gates.MEASURE, gates.RESET):
            if wires[first[k]] in rates:
                pending[wires[first[k]]] = 0.0
        elif code >= gates.UNITARY:
            for qubit in wires[first[k] : first[k + 1]]:
                if qubit in rates:
                    pending[qubit] += 0.5 * lengths[k]
                    if lengths[k] or code not in _DIAGONAL:
                        act(k, qubit)
                    pending[qubit] += 0.5 * lengths[k]
        elif code != gates.BARRIER:  # the bound of a block, or the end
            for qubit in rates:
                act(k, qubit)
    if not rows:
        return None
    before, owners, angles = zip(*rows, strict=True)
    return Detunings(
        np.array(before, np.int64), np.array(owners, np.int64), np.array(angles),
        not set(codes).isdisjoint(_LOOPS),
    )  # fmt: skip


_KEEPS, _REVERSES, _MIXES = 1, -1, 0  # what an operation does to the coherence orders of a qubit
_FLOW = frozenset(
    {
        *(gates.IF, gates.ELSE, gates.END_BLOCK, gates.WHILE, gates.FOR, gates.SWITCH),
        *(gates.CASE, gates.DEFAULT, gates.BREAK, gates.CONTINUE, gates.STORE),
    }
)


def with_bounds(
    found: Detunings, circuit: Circuit, operands: Operands, noise: NoiseProgram
) -> Detunings:
    """Rotations with the largest phase of each qubit that a result depends on; a circuit with
    conditions has no bounds.

    Elements of the state between |0> and |1> of a qubit have the coherence order 1 or -1, and a
    phase in an interval; those of order -1 mirror it. Populations have order 0 and do not turn. A
    rotation moves the interval, a half turn reverses it, a measurement ends it, and what mixes the
    orders gives all of them the largest phase of any.
    """
    codes, names = operands.codes.tolist(), circuit.table.names
    if not _FLOW.isdisjoint(codes):
        return found
    events: dict[int, list[tuple[int, int, int, int, float]]] = {}
    for q in np.unique(found.qubits).tolist():
        events[q] = []
    for k, q, angle in zip(
        found.before.tolist(), found.qubits.tolist(), found.angles.tolist(), strict=True
    ):
        events[q].append((k, 0, 0, 0, angle))
    ops, wires, first = circuit.ops.tolist(), operands.wires.tolist(), operands.first.tolist()
    for k, code in enumerate(codes):
        if code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            for place, q in enumerate(wires[first[k] : first[k + 1]]):
                if q in events:
                    events[q].append((k, 1, place, first[k + 1] - first[k], 0.0))
    for after, number, low, high in noise.locations.tolist():
        for place, q in enumerate((low, high)):
            if q in events:
                events[q].append((after, 2, place, number, 0.0))
    bounds = {}
    for q, of_qubit in events.items():
        phases = _Phases()
        for k, kind, place, number, angle in sorted(of_qubit, key=lambda each: each[:2]):
            if kind == 0:
                phases.turn(angle)
            elif kind == 2:
                phases.act(_order_of_channel(noise.channels[number])[place])
            elif codes[k] >= gates.UNITARY:
                phases.act(_order_of_gate(names[ops[k]], number)[place])
            else:
                phases.end()
        bounds[q] = phases.largest
    return msgspec.structs.replace(found, bounds=bounds)


class _Phases:
    """Phases of one qubit: at most `zero` in its populations, `low` to `high` at order 1, which
    is there after something has mixed the orders."""

    def __init__(self) -> None:
        self.zero = self.low = self.high = 0.0
        self._is_off = False  # whether order 1 is there

    @property
    def largest(self) -> float:
        return max(self.zero, abs(self.low), abs(self.high))

    def turn(self, angle: float) -> None:
        """Turn order 1 by an angle."""
        if self._is_off:
            self.low, self.high = self.low + angle, self.high + angle

    def act(self, order: int) -> None:
        """Keep, reverse or mix the orders."""
        if order == _REVERSES:
            self.low, self.high = -self.high, -self.low
        elif order == _MIXES:
            self.zero = self.high = self.largest
            self.low, self._is_off = -self.high, True

    def end(self) -> None:
        """Measure or reset the qubit."""
        self.low = self.high = 0.0
        self._is_off = False


_ANGLES = (0.7, 1.9, 3.1, 0.4)  # at which a gate with angles keeps the orders if it always does


@functools.lru_cache(maxsize=1024)
def _order_of_gate(name: str, num_qubits: int) -> tuple[int, ...]:
    """What a gate does to the orders of each of its qubits, whatever its angles are."""
    gate = gates.GATES.get(name)
    if gate is None or num_qubits > _MOST_QUBITS:
        return (_MIXES,) * num_qubits
    matrix = gates.unitary(name, _ANGLES[: gate.params], num_qubits)
    results = []
    for place in range(num_qubits):
        z = 1.0 - 2.0 * (np.arange(1 << num_qubits) >> place & 1)
        moved = (matrix * z) @ matrix.conj().T
        signs = (1.0,) if gate.params else (1.0, -1.0)
        same = [sign for sign in signs if np.abs(moved - np.diag(sign * z)).max() < _EXACT]
        results.append(int(same[0]) if same else _MIXES)
    return tuple(results)


@functools.lru_cache(maxsize=1024)
def _order_of_channel(channel: Channel) -> tuple[int, ...]:
    """The same of a channel."""
    ptm = channel.ptm
    results = []
    for place in range(1 if len(ptm) == 4 else 2):
        turn: NDArray[np.floating[Any]] = _TURN
        if len(ptm) == 16:
            turn = np.kron(np.eye(4), _TURN) if place == 0 else np.kron(_TURN, np.eye(4))
        left, right = ptm @ turn, turn @ ptm
        same = [sign for sign in (1, -1) if np.abs(left - sign * right).max() < _EXACT]
        results.append(same[0] if same else _MIXES)
    return tuple(results)


_MOST_QUBITS = 4
_EXACT = 1e-12
_TURN = np.zeros((4, 4))  # derivative of a rotation about Z by its angle
_TURN[1, 2], _TURN[2, 1] = -1.0, 1.0
_DIAGONAL = frozenset(gate.code for gate in gates.GATES.values() if gate.diagonal)


def rotations(program: NoiseProgram, qubit: int) -> NoiseProgram:
    """Rotations of one qubit by one standard deviation of its detuning, as channels."""
    found = program.detunings
    assert found is not None
    mine = found.qubits == qubit
    angles, number = np.unique(found.angles[mine], return_inverse=True)
    locations = np.column_stack(
        (found.before[mine] - 1, number, found.qubits[mine], np.full(number.size, -1))
    )
    half = np.exp(0.5j * angles)
    channels = tuple(from_unitary(np.diag((1.0 / phase, phase))) for phase in half)
    return NoiseProgram(program.digest, frozenset({"kraus"}), locations, channels)
