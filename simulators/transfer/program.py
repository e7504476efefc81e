"""Program of a circuit with noise for the transfer simulator: rows of one- and two-qubit matrices.

The consecutive operations on a pair of qubits are a chain, a tuple of numbers, so that equal
chains, in one circuit or in many, are multiplied once. Only the qubits that a circuit uses are
included, and one more for each measurement that is not the last operation on its qubit: a cx copies
the bit there, which is read at the end (deferred measurement, Nielsen and Chuang, sect. 4.4).
Rotations of qubits whose detuning is constant during a shot are rows of their own (`Rotations`).
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import from_unitary
from simulators.circuit.analysis.measurements import ORDINARY, TERMINAL, measurement_layout
from simulators.circuit.analysis.quadrature import reaches
from simulators.circuit.gates import (
    BARRIER,
    DELAY,
    DELAY_DT,
    GATES,
    MEASURE,
    RESET,
    UNITARY,
    unitary,
)  # fmt: skip
from simulators.circuit.ir import Circuit, Operation, matrix, operations, used_qubits
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0, Q1, NoiseProgram
from simulators.circuit.passes.rotated_circuit import inserted
from simulators.errors import Unsupported
from simulators.transfer.evolution import HIGH, LOW, NUMBER, DualMatrix, constant

Chain = tuple[int, ...]  # channels by number, constants by ~number, in order of action
_ID, _PHASE = GATES["id"].code, GATES["global_phase"].code
_RESET = np.zeros((4, 4))
_RESET[[0, 3], 0] = 1.0  # I and Z become I
_NONE = np.zeros(0, np.int64)


@functools.lru_cache(maxsize=65_536)
def _gate_ptm(name: str, params: tuple[float, ...], num_qubits: int) -> NDArray[np.float64]:
    return from_unitary(unitary(name, params, num_qubits)).ptm


class ConstantTable:
    """Distinct transfer matrices of gates, and chains of pairs of qubits; shared by programs."""

    def __init__(self) -> None:
        self.matrices: list[DualMatrix] = []
        self.pair_chains: list[Chain] = []
        self._numbers: dict[bytes, int] = {}
        self._pairs: dict[Chain, int] = {}
        self._packed = np.zeros((0, 1, 16))

    def number_of(self, ptm: NDArray[np.float64]) -> int:
        key = np.round(ptm, 14).tobytes()
        result = self._numbers.get(key)
        if result is None:
            result = self._numbers[key] = len(self.matrices)
            self.matrices.append(constant(ptm))
        return result

    def gate_number(self, circuit: Circuit, operation: Operation) -> int:
        if operation.code == UNITARY:
            return self.number_of(from_unitary(matrix(circuit, operation)).ptm)
        return self.number_of(_gate_ptm(operation.name, operation.params, len(operation.qubits)))

    def product(self, second: int, first: int) -> int:
        """Number of the product of two matrices of the table."""
        return self.number_of(self.matrices[second].values[0] @ self.matrices[first].values[0])

    def packed(self) -> NDArray[np.float64]:
        """All matrices of one qubit, [numbers, 1, 16]."""
        old = len(self._packed)
        if old < len(self.matrices):
            new = np.zeros((len(self.matrices) - old, 1, 16))
            for k, each in enumerate(self.matrices[old:]):
                if each.values.shape[1] == 4:
                    new[k] = each.values.reshape(1, 16)
            self._packed = np.concatenate((self._packed, new))
        return self._packed

    def pair_number(self, chain: Chain) -> int:
        result = self._pairs.setdefault(chain, len(self.pair_chains))
        if result == len(self.pair_chains):
            self.pair_chains.append(chain)
        return result


class Rotations(msgspec.Struct, frozen=True, eq=False):
    """Rotations of a circuit about Z by the detunings of a shot. `rows` [rotations]: their places
    in the rows of a program, whose number is that of the rotation; `owners` [rotations]: index in
    `reaches` of the detuning; `angles` [rotations]: rad for a detuning of one standard deviation;
    `reaches`: sum of the angles of each detuned qubit."""

    rows: NDArray[np.int64]
    owners: NDArray[np.int64]
    angles: NDArray[np.float64]
    reaches: tuple[float, ...]


class TransferProgram(msgspec.Struct, frozen=True, eq=False):
    """Matrices of one circuit in the order of action. Qubits are numbered from 0; `qubits` are
    their numbers in the circuit, of a copied bit that of the measured qubit. A row of `rows`, int64
    [operations, 3], is a channel (number >= 0) or a constant (~number) on qubit LOW, with -1 as
    HIGH; or a chain of pairs, by its number in the table, whose matrix has index 4 * high + low."""

    qubits: tuple[int, ...]
    rows: NDArray[np.int64]
    measured: tuple[int, ...]  # qubit of each measured clbit
    clbits: tuple[int, ...]  # ascending; bit k of an outcome is clbits[k]
    channels: frozenset[int]  # numbers of all channels
    rotations: Rotations | None = None  # None: no qubit has a detuning

    @property
    def num_qubits(self) -> int:
        """Qubits of the state: 4^n real numbers."""
        return len(self.qubits)

    @property
    def pairs(self) -> NDArray[np.int64]:
        """Qubits of each step on a pair, [steps, 2]."""
        return self.rows[self.rows[:, HIGH] >= 0, LOW:]

    @property
    def work(self) -> int:
        """Cost: 4^qubits for each step on a pair."""
        return int(4**self.num_qubits * max(len(self.pairs), 1))


def build(
    circuit: Circuit,
    noise: NoiseProgram,
    table: ConstantTable,
    channel_ids: list[int] | None = None,
) -> TransferProgram:
    """Make the program of an admissible circuit. `channel_ids`: number of each channel of `noise`
    in chains; by default its own number. Raises Unsupported for conditions, free parameters, gates
    on more than two qubits, leakage and detunings in loops. The readout is not part of it."""
    found = noise.detunings
    if found is None:
        return _Builder(circuit, noise, table, channel_ids).program()
    rotated = inserted(circuit, noise)
    builder = _Builder(rotated.circuit, rotated.noise, table, channel_ids, rotated.places)
    program, acting = builder.program(), reaches(found)
    is_rotation = program.rows[:, NUMBER] >= _ROTATION
    numbers = program.rows[is_rotation, NUMBER] - _ROTATION
    counts = np.isin(found.qubits[numbers], list(acting))  # the others change no result
    program.rows[is_rotation, NUMBER] = np.where(counts, np.cumsum(counts) - 1, -1)
    kept = np.ones(len(program.rows), np.bool_)
    kept[is_rotation] = counts
    rows = program.rows[kept]
    program = msgspec.structs.replace(program, rows=rows)
    if not acting:
        return program
    places, numbers = np.flatnonzero(is_rotation[kept]), numbers[counts]
    owners = np.searchsorted(list(acting), found.qubits[numbers])
    rotations = Rotations(places, owners, found.angles[numbers], tuple(acting.values()))
    return msgspec.structs.replace(program, rotations=rotations)


_ROTATION = 1 << 40  # numbers of rotations in chains, above those of channels


def _read_later(circuit: Circuit, locations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Locations in the order of their operations, without those whose qubits have all been measured
    and have no later operation: no record depends on them."""
    codes, counts = circuit.table.rows[circuit.ops, :2].T
    acts = np.repeat(codes != BARRIER, counts)
    wires, places = circuit.qubits[acts], np.repeat(np.arange(codes.size), counts)[acts]
    ended = np.full(circuit.num_qubits + 1, codes.size)  # the last entry: no second qubit
    ended[-1] = -1
    last = np.full(circuit.num_qubits, -1)
    last[wires] = places  # the last assignment stays
    measured = np.flatnonzero((last >= 0) & (codes[last] == MEASURE))
    ended[measured] = last[measured]
    after = locations[:, AFTER_OP]
    is_read = (after < ended[locations[:, Q0]]) | (after < ended[locations[:, Q1]])
    kept = locations[is_read]
    return kept[np.argsort(kept[:, AFTER_OP], kind="stable")]


class _Builder:
    def __init__(
        self,
        circuit: Circuit,
        noise: NoiseProgram,
        table: ConstantTable,
        channel_ids: list[int] | None,
        rotations: NDArray[np.int64] = _NONE,
    ) -> None:
        """`rotations`: operations that are rotations by detunings, ascending."""
        self._circuit = circuit
        self._table = table
        self._rotations = {k: number for number, k in enumerate(rotations.tolist())}
        self._numbers = channel_ids if channel_ids is not None else list(range(len(noise.channels)))
        rows = circuit.table.rows[circuit.ops]
        self._codes, self._counts = rows[:, 0], rows[:, 1]
        self._refuse(noise)
        self._locations = _read_later(circuit, noise.locations)
        noise = msgspec.structs.replace(noise, locations=self._locations)
        self._roles = measurement_layout(circuit, noise, keep=True).roles
        self._qubits = used_qubits(circuit).tolist()
        self._place = {qubit: k for k, qubit in enumerate(self._qubits)}
        self._pending: list[Chain] = [()] * len(self._qubits)  # of each qubit
        self._pair: dict[int, tuple[int, int, Chain]] = {}  # by qubit: last operations on a pair
        self._rows: list[tuple[int, int, int]] = []
        self._channels: set[int] = set()

    def _refuse(self, noise: NoiseProgram) -> None:
        circuit, codes = self._circuit, self._codes
        gates = (codes >= UNITARY) & (self._counts > 2)
        other = (codes < MEASURE) & ~np.isin(codes, (BARRIER, DELAY, DELAY_DT))
        for wrong, text in (
            (bool(circuit.conditions_data) or other.any(), "conditions or stored values"),
            (circuit.num_slots > len(self._rotations), "free parameters"),
            (gates.any(), "gates on more than two qubits"),
            (noise.leakage is not None, "leakage; noise={'gate.leakage': 0} leaves it out"),
            (noise.readout is not None and noise.readout.own, "measurements of other names"),
        ):
            if wrong:
                hint = "run it on another engine"
                raise Unsupported(f"the transfer simulator and {text}", hint=hint)

    def program(self) -> TransferProgram:
        measured: dict[int, int] = {}
        location = self._add_noise(0, -1)
        for operation in operations(self._circuit, self._circuit.params):
            self._operation(operation, measured)
            location = self._add_noise(location, operation.place)
        for qubit in range(len(self._qubits)):
            self._end_pair(qubit)
            self._end_chain(qubit)
        clbits = tuple(sorted(measured))
        return TransferProgram(
            tuple(self._qubits), np.array(self._rows, np.int64).reshape(-1, 3),
            tuple(measured[clbit] for clbit in clbits), clbits, frozenset(self._channels),
        )  # fmt: skip

    def _add_noise(self, location: int, place: int) -> int:
        """Add the channels from a location on up to those after an operation; returns the next
        location."""
        while location < len(self._locations) and self._locations[location, AFTER_OP] <= place:
            row = self._locations[location]
            qubits = (int(row[Q0]),) if row[Q1] < 0 else (int(row[Q0]), int(row[Q1]))
            self._act(self._numbers[int(row[CHANNEL])], [self._place[qubit] for qubit in qubits])
            location += 1
        return location

    def _operation(self, operation: Operation, measured: dict[int, int]) -> None:
        if operation.code == BARRIER:
            return
        places, role = [self._place[q] for q in operation.qubits], self._roles[operation.place]
        if operation.code == MEASURE:
            place = places[0]
            if role != TERMINAL or place in measured.values():
                place = self._copied(place, operation.qubits[0])
            measured[operation.clbits[0]] = place
        elif operation.code == RESET:
            if role == ORDINARY:
                self._act(~self._table.number_of(_RESET), places)
        elif operation.place in self._rotations:
            self._act(_ROTATION + self._rotations[operation.place], places)
        elif operation.is_gate and places and operation.code not in (_ID, _PHASE):
            self._act(~self._table.gate_number(self._circuit, operation), places)

    def _copied(self, place: int, qubit: int) -> int:
        """Copy the bit of a qubit to a new one; returns the number of that."""
        self._qubits.append(qubit)
        self._pending.append(())
        self._act(~self._table.number_of(_gate_ptm("cx", (), 2)), [place, len(self._qubits) - 1])
        return len(self._qubits) - 1

    def _act(self, number: int, places: list[int]) -> None:
        """Add a channel, a rotation or a constant (~number) after the earlier operations on its
        qubits."""
        if 0 <= number < _ROTATION:
            self._channels.add(number)
        if len(places) == 1:
            self._end_pair(places[0])
            self._pending[places[0]] = self._joined(self._pending[places[0]], number)
            return
        low, high = places
        if low in self._pair and self._pair[low][:2] == (low, high):
            chain = self._joined(self._pair[low][2], number)
        else:
            for qubit in places:
                self._end_pair(qubit)
                self._end_chain(qubit)
            chain = (number,)
        self._pair[low] = self._pair[high] = (low, high, chain)

    def _end_pair(self, qubit: int) -> None:
        """Write the row of the last operations on a pair with this qubit."""
        if qubit in self._pair:
            low, high, chain = self._pair[qubit]
            del self._pair[low], self._pair[high]
            self._rows.append((self._table.pair_number(chain), low, high))

    def _end_chain(self, qubit: int) -> None:
        """Write the rows of the last operations on one qubit."""
        self._rows += [(number, qubit, -1) for number in self._pending[qubit]]
        self._pending[qubit] = ()

    def _joined(self, chain: Chain, number: int) -> Chain:
        """Chain with one more number; two consecutive constants are multiplied."""
        if number < 0 and chain and chain[-1] < 0:
            return (*chain[:-1], ~self._table.product(~number, ~chain[-1]))
        return (*chain, number)
