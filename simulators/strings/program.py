"""Program of a circuit with noise for strings: mixes and layers of relabellings, last ones first.

Operations on one qubit between two operations on pairs become one map, channels, resets and
measurements included. Maps that act on different qubits commute, so each is placed as early as
those before it allow: all mixes of a round, then its relabellings, which one pass over the strings
applies.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, GATES, MEASURE, RESET
from simulators.circuit.ir import Circuit, with_matrices
from simulators.circuit.noise import NoiseProgram
from simulators.strings import local_maps
from simulators.strings.local_maps import Map, Mix, Relabelling

_PASSIVE = (BARRIER, DELAY, DELAY_DT, GATES["id"].code, GATES["global_phase"].code)
_MEASURED = np.diag([1.0, 0.0, 1.0, 0.0])
_RESET = np.zeros((4, 4))
_RESET[[0, 2], 0] = 1.0  # I and Z become I

# Integers of a packed program: a header, then tables.
(
    WORDS, NUM_QUBITS, STEPS, NUM_STEPS, GATES_AT, OWNERS, MIXES, LABELS, HEADER,
) = range(9)  # fmt: skip
STEP = 4  # columns: MIX, qubits, table; or LAYERS, first and last layer, whether it moves letters
MIX, LAYERS = range(2)
GATE = 3  # columns: qubits, table
# Columns of a letter of a mix: its kind, the numbers of its others and of its passive letters, then
# these, each list in 15 columns.
LETTER = 33
OTHERS, PASSIVE_AT = 3, 18


class Program(msgspec.Struct, frozen=True, eq=False):
    """Program as the kernel reads it. `reals`: of each mix its matrix, row by row with 16 columns;
    then of each relabelling 16 factors."""

    num_qubits: int
    ints: NDArray[np.int64]
    reals: NDArray[np.float64]
    mixes: int
    rounds: int

    @property
    def words(self) -> int:
        return int(self.ints[WORDS])


def program_of(
    circuit: Circuit, params: NDArray[np.float64], noise: NoiseProgram | None
) -> Program:
    """Program of an admissible circuit without conditions, with gates on one and two qubits."""
    items = _Items(circuit.num_qubits, noise)
    items.noise_after(-1)
    for operation, matrix in with_matrices(circuit, params):
        if operation.code == MEASURE:
            items.one(operation.qubits[0], items.number(_MEASURED))
        elif operation.code == RESET:
            items.one(operation.qubits[0], items.number(_RESET))
        elif matrix is not None and operation.code not in _PASSIVE and operation.qubits:
            items.gate(operation.qubits, matrix)
        items.noise_after(operation.place)
    return _Packer(circuit.num_qubits, items).program()


class _Items:
    """Maps of a circuit in its order, with those on one qubit joined."""

    def __init__(self, num_qubits: int, noise: NoiseProgram | None) -> None:
        self.maps: list[Map] = []
        self.placed: list[tuple[int, int, int]] = []  # qubits (second: -1), number
        self._pending: list[tuple[int, ...]] = [()] * num_qubits
        self._last_pair: list[int] = [-1] * num_qubits  # place of the last item of each qubit
        self._numbers: dict[bytes, int] = {}
        self._products: dict[tuple[int, ...], int] = {}
        self._gates: dict[int, Sequence[tuple[int, int]]] = {}
        self._matrices: list[NDArray[np.complex128]] = []  # which the keys above are addresses of
        self._exchanged: dict[int, int] = {}
        self._noise = [] if noise is None else noise.locations.tolist()
        self._channels = () if noise is None else noise.channels
        self._of_channel: dict[int, int] = {}
        self._next = 0

    def number(self, one: Map) -> int:
        key = one.tobytes()
        result = self._numbers.setdefault(key, len(self.maps))
        if result == len(self.maps):
            self.maps.append(one)
        return result

    def gate(self, qubits: tuple[int, ...], matrix: NDArray[np.complex128]) -> None:
        steps = self._gates.get(id(matrix))
        if steps is None:
            self._matrices.append(matrix)
            maps = local_maps.gate_maps(matrix)
            steps = self._gates[id(matrix)] = [(side, self.number(one)) for side, one in maps]
        for side, number in steps:
            if side >= 0:
                self.one(qubits[side], number)
            else:
                self.pair(qubits[0], qubits[1], number)

    def one(self, qubit: int, number: int) -> None:
        self._pending[qubit] = (*self._pending[qubit], number)

    def pair(self, first: int, second: int, number: int) -> None:
        if first > second:
            first, second, number = second, first, self._reversed(number)
        self._flush(first)
        self._flush(second)
        last = self._last_pair[first]
        if last >= 0 and last == self._last_pair[second]:
            joined = self._joined(self.placed[last][2], number)
            if joined >= 0:
                self.placed[last] = first, second, joined
                return
        self._last_pair[first] = self._last_pair[second] = len(self.placed)
        self.placed.append((first, second, number))

    def noise_after(self, place: int) -> None:
        rows = self._noise
        while self._next < len(rows) and rows[self._next][0] <= place:
            _, channel, first, second = rows[self._next]
            self._next += 1
            number = self._of_channel.get(channel)
            if number is None:
                number = self.number(local_maps.map_of(self._channels[channel].ptm))
                self._of_channel[channel] = number
            if second < 0:
                self.one(first, number)
            else:
                self.pair(first, second, number)

    def finish(self) -> None:
        for qubit in range(len(self._pending)):
            self._flush(qubit)

    def _flush(self, qubit: int) -> None:
        chain = self._pending[qubit]
        if not chain:
            return
        self._pending[qubit] = ()
        number = self._products.get(chain)
        if number is None:
            # Heisenberg picture: the last map is the first one that a string takes.
            product = functools.reduce(lambda after, k: self.maps[k] @ after, chain, np.eye(4))
            number = self._products[chain] = self.number(_rounded(product))
        self._last_pair[qubit] = len(self.placed)
        self.placed.append((qubit, -1, number))

    def _reversed(self, number: int) -> int:
        result = self._exchanged.get(number)
        if result is None:
            result = self.number(local_maps.exchanged(self.maps[number]))
            self._exchanged[number] = result
        return result

    def _joined(self, before: int, after: int) -> int:
        """Number of two maps on a pair, if both are relabellings; else -1."""
        key = before, after
        result = self._products.get(key)
        if result is None:
            both = (self.maps[before], self.maps[after])
            result = -1
            if all(len(one) == 16 and local_maps.is_relabelling(one) for one in both):
                result = self.number(_rounded(both[1] @ both[0]))
            self._products[key] = result
        return result


def _rounded(one: Map) -> Map:
    """Map without rounding errors of zero and of one."""
    one = np.where(np.abs(one) < 1e-14, 0.0, one)
    return np.where(np.abs(np.abs(one) - 1.0) < 1e-14, np.sign(one), one)


class _Packer:
    """Places maps in rounds, from the end of the circuit to its beginning."""

    def __init__(self, num_qubits: int, items: _Items) -> None:
        self._num_qubits = num_qubits
        self._items = items
        self._mixes: list[list[tuple[int, int, int]]] = []  # of each round: qubits, table
        self._layers: list[list[list[tuple[int, int, int]]]] = []  # of each round
        self._mix_tables: list[Mix] = []
        self._labels: list[Relabelling] = []
        self._known: dict[int, tuple[int, int]] = {}  # tables of a map
        self._round = [0] * num_qubits
        self._layer = [-1] * num_qubits  # last layer of its round, -1: mixes only

    def program(self) -> Program:
        self._items.finish()
        for first, second, number in reversed(self._items.placed):
            tables = self._known.get(number)
            if tables is None:
                parts = local_maps.parts_of(self._items.maps[number])
                tables = self._known[number] = self._added(parts)
            qubits = (first,) if second < 0 else (first, second)
            if tables[0] >= 0:
                self._place_mix(qubits, tables[0])
            if tables[1] >= 0:
                self._place_label(qubits, tables[1])
        return self._packed()

    def _added(self, parts: local_maps.Parts) -> tuple[int, int]:
        mix = label = -1
        if parts.mix is not None:
            mix = len(self._mix_tables)
            self._mix_tables.append(parts.mix)
        if parts.relabelling is not None:
            label = len(self._labels)
            self._labels.append(parts.relabelling)
        return mix, label

    def _place_mix(self, qubits: tuple[int, ...], table: int) -> None:
        at = max(self._round[q] + (self._layer[q] >= 0) for q in qubits)
        for q in qubits:
            self._round[q], self._layer[q] = at, -1
        self._grow(at)
        self._mixes[at].append((qubits[0], qubits[1] if len(qubits) > 1 else -1, table))

    def _place_label(self, qubits: tuple[int, ...], table: int) -> None:
        at = max(self._round[q] for q in qubits)
        layer = 1 + max(self._layer[q] if self._round[q] == at else -1 for q in qubits)
        for q in qubits:
            self._round[q], self._layer[q] = at, layer
        self._grow(at)
        layers = self._layers[at]
        while len(layers) <= layer:
            layers.append([])
        layers[layer].append((qubits[0], qubits[1] if len(qubits) > 1 else -1, table))

    def _grow(self, at: int) -> None:
        while len(self._mixes) <= at:
            self._mixes.append([])
            self._layers.append([])

    def _packed(self) -> Program:
        steps: list[tuple[int, int, int, int]] = []
        gates: list[tuple[int, int, int]] = []
        owners: list[NDArray[np.int64]] = []
        moves = [label.moves for label in self._labels]
        for mixes, layers in zip(self._mixes, self._layers, strict=True):
            steps += [(MIX, *mix) for mix in mixes]
            begin, moved = len(owners), False
            for layer in layers:
                owner = np.full(self._num_qubits, -1, np.int64)
                for first, second, table in layer:
                    owner[first] = owner[max(first, second)] = len(gates)
                    gates.append((first, second, table))
                    moved |= moves[table]
                owners.append(owner)
            if layers:
                steps.append((LAYERS, begin, len(owners), int(moved)))
        header = np.zeros(HEADER, np.int64)
        header[WORDS] = (self._num_qubits + 63) // 64
        header[NUM_QUBITS], header[NUM_STEPS] = self._num_qubits, len(steps)
        tables = (
            (STEPS, np.array(steps, np.int64)),
            (GATES_AT, np.array(gates, np.int64)),
            (OWNERS, np.array(owners, np.int64)),
            (MIXES, self._mix_ints()),
            (LABELS, np.array([_padded(each.images) for each in self._labels], np.int64)),
        )
        size = HEADER
        for where, values in tables:
            header[where] = size
            size += values.size
        reals = np.zeros((len(self._mix_tables), 16, 16))
        for row, mix in zip(reals, self._mix_tables, strict=True):
            row[: len(mix.matrix), : len(mix.matrix)] = mix.matrix
        factors = np.array([_padded(each.factors) for each in self._labels], np.float64)
        return Program(
            self._num_qubits, np.concatenate([header, *(values.ravel() for _, values in tables)]),
            np.concatenate((reals.ravel(), factors.ravel())), len(self._mix_tables),
            len(self._mixes),
        )  # fmt: skip

    def _mix_ints(self) -> NDArray[np.int64]:
        result = np.zeros((len(self._mix_tables), 16, LETTER), np.int64)
        for rows, mix in zip(result, self._mix_tables, strict=True):
            size = len(mix.matrix)
            rows[:size, 0] = mix.kinds
            for row, others, passive in zip(rows, mix.others, mix.passive, strict=False):
                row[1], row[2] = len(others), len(passive)
                row[OTHERS : OTHERS + len(others)] = others
                row[PASSIVE_AT : PASSIVE_AT + len(passive)] = passive
        return result


def _padded(values: NDArray[np.float64] | NDArray[np.int64]) -> list[float]:
    return [*values.tolist(), *[0] * (16 - values.size)]
