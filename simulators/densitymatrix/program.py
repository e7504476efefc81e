"""Program of a circuit with noise: segments of gates and channels, and what splits branches."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import from_unitary
from simulators.circuit.analysis.measurements import NO_OP_RESET, TERMINAL, MeasurementLayout
from simulators.circuit.gates import ELSE, END_BLOCK, GATES, IF, MEASURE, RESET, UNITARY, unitary
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, NoiseProgram
from simulators.circuit.noise import Q0 as FIRST
from simulators.circuit.noise import Q1 as SECOND
from simulators.densitymatrix.fusion import (
    BLOCK,
    CODE,
    FIXED_CODES,
    PARAM,
    Q0,
    Q1,
    TABLE,
    fixed_ptm,
)
from simulators.densitymatrix.wide_gates import wide_ptm

MIN_QUBITS = 2  # of a state: blocks act on two

_RESET = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1.0, 0, 0, 0]])
_ID = GATES["id"].code


class Segment(msgspec.Struct, frozen=True, eq=False):
    """Gates and channels that are fused; see `fusion`."""

    items: NDArray[np.int64]


class WideGate(msgspec.Struct, frozen=True, eq=False):
    """A gate on more than two qubits."""

    name: str
    qubits: tuple[int, ...]
    param: int  # where its parameters begin
    matrix: NDArray[np.complex128] | None  # of `unitary`

    def ptm(self, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its transfer matrix [4^k, 4^k]; the first qubit is the lowest digit."""
        if self.matrix is not None:
            return wide_ptm(self.matrix)
        count = GATES[self.name].params
        given = tuple(params[self.param : self.param + count].tolist())
        return wide_ptm(unitary(self.name, given, len(self.qubits)))


class Measurement(msgspec.Struct, frozen=True, eq=False):
    """A measurement before the end: splits branches by what is read."""

    qubit: int
    clbit: int
    confusion: NDArray[np.float64]  # [2, 2]: row read, column true


class Condition(msgspec.Struct, frozen=True, eq=False):
    """An `if` with its branches."""

    expression: int
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = Segment | WideGate | Measurement | Condition


class Program(msgspec.Struct, frozen=True, eq=False):
    """See the module."""

    num_qubits: int  # MIN_QUBITS at least
    steps: tuple[Step, ...]
    tables: NDArray[np.float64]  # transfer matrices of BLOCK floats each
    longest: int  # items of a segment

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays, about."""
        return self.tables.nbytes + 64 * self.longest


def build_program(circuit: Circuit, noise: NoiseProgram, layout: MeasurementLayout) -> Program:
    """Program of an admissible circuit without loops and variables, with gates on few qubits."""
    return _Builder(circuit, noise, layout).program()


class _Builder:
    """Operations and locations in one order: operation k has key 2 k, noise after it 2 k + 1."""

    def __init__(self, circuit: Circuit, noise: NoiseProgram, layout: MeasurementLayout) -> None:
        self._circuit = circuit
        self._noise = noise
        self._roles = layout.roles
        rows = circuit.table.rows[circuit.ops]
        self._codes, self._counts = rows[:, 0], rows[:, 1]
        ends = np.cumsum(rows[:, 1:], axis=0)
        self._begins = ends - rows[:, 1:]
        self._tables: list[NDArray[np.float64]] = []
        self._longest = 0
        self._expression = 0
        self._keys, self._items = self._all_items()
        splits = (self._codes == MEASURE) & (layout.roles != TERMINAL)
        splits |= (self._codes >= UNITARY) & (self._counts > 2)
        splits |= (self._codes == IF) | (self._codes == ELSE) | (self._codes == END_BLOCK)
        self._boundaries = np.flatnonzero(splits).tolist()

    def program(self) -> Program:
        """See `build_program`."""
        steps, _, _ = self._block(0, -1)
        tables = _padded(self._tables)
        width = max(MIN_QUBITS, self._circuit.num_qubits)
        return Program(width, steps, tables, self._longest)

    def _table(self, ptm: NDArray[np.float64]) -> int:
        self._tables.append(ptm)
        return len(self._tables) - 1

    def _all_items(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys and items of everything that is fused, in order."""
        circuit, codes = self._circuit, self._codes
        names, table_rows = circuit.table.names, circuit.table.rows
        source = np.full(len(table_rows), -1, np.int64)  # of each row of the circuit's table
        for row in np.flatnonzero(np.bincount(circuit.ops, minlength=len(table_rows))).tolist():
            code, width = int(table_rows[row, 0]), int(table_rows[row, 1])
            if code == UNITARY and width <= 2:
                data = circuit.matrices[circuit.table.matrix[row]]
                matrix = np.frombuffer(data, np.complex128).reshape(1 << width, -1)
                source[row] = self._table(from_unitary(matrix).ptm)
            elif code in FIXED_CODES and code != _ID:
                source[row] = self._table(fixed_ptm(code))
            elif code == RESET:
                source[row] = self._table(_RESET)
            elif code > UNITARY and width <= 2 and names[row] in ("mcx", "mcphase"):
                source[row] = self._multi_controlled(names[row], width)
        gates = (codes >= UNITARY) & (self._counts > 0) & (self._counts <= 2) & (codes != _ID)
        gates |= (codes == RESET) & (self._roles != NO_OP_RESET)
        places = np.flatnonzero(gates)
        wires = circuit.qubits.astype(np.int64)
        first, counts = self._begins[places, 0], self._counts[places]
        acting = np.empty((places.size, 5), np.int64)
        acting[:, TABLE] = source[circuit.ops[places]]
        acting[:, CODE] = codes[places]
        acting[:, PARAM] = self._begins[places, 2]
        acting[:, Q0] = wires[first]
        acting[:, Q1] = np.where(counts > 1, wires[np.minimum(first + 1, wires.size - 1)], -1)
        locations, begin = self._noise.locations, len(self._tables)
        self._tables += [channel.ptm for channel in self._noise.channels]
        noisy = np.zeros((len(locations), 5), np.int64)
        noisy[:, TABLE] = begin + locations[:, CHANNEL]
        noisy[:, Q0], noisy[:, Q1] = locations[:, FIRST], locations[:, SECOND]
        keys = np.concatenate((2 * places, 2 * locations[:, AFTER_OP] + 1))
        order = np.argsort(keys, kind="stable")
        return keys[order], np.concatenate((acting, noisy))[order]

    def _multi_controlled(self, name: str, width: int) -> int:
        """Table of a gate on any number of qubits that has two or one; -1 with a parameter."""
        if name == "mcphase":
            return -1
        return self._table(from_unitary(unitary(name, (), width)).ptm)

    def _block(self, at: int, after: int) -> tuple[tuple[Step, ...], int, int]:
        """Steps from boundary `at` on, after the operation `after`, to the end of the block: with
        the number of the boundary that ends it and its operation."""
        steps: list[Step] = []
        while True:
            k = self._boundaries[at] if at < len(self._boundaries) else self._circuit.ops.size
            self._segment(steps, after, k)
            if at == len(self._boundaries) or self._codes[k] in (ELSE, END_BLOCK):
                return tuple(steps), at, k
            after = k
            at += 1
            if self._codes[k] == IF:
                number = self._expression
                self._expression += 1
                then, at, after = self._block(at, k)
                otherwise: tuple[Step, ...] = ()
                if self._codes[after] == ELSE:
                    otherwise, at, after = self._block(at + 1, after)
                at += 1
                steps.append(Condition(number, then, otherwise))
            elif self._codes[k] == MEASURE:
                steps.append(self._measurement(k))
            else:
                steps.append(self._wide(k))

    def _segment(self, steps: list[Step], after: int, before: int) -> None:
        """Append what is fused between two operations."""
        first, last = np.searchsorted(self._keys, (2 * after + 1, 2 * before)).tolist()
        if last > first:
            self._longest = max(self._longest, last - first)
            steps.append(Segment(np.ascontiguousarray(self._items[first:last])))

    def _measurement(self, k: int) -> Measurement:
        qubit = int(self._circuit.qubits[self._begins[k, 0]])
        p01 = p10 = 0.0
        if self._noise.readout is not None:
            p01 = float(self._noise.readout.p01[qubit])
            p10 = float(self._noise.readout.p10[qubit])
        confusion = np.array([[1.0 - p01, p10], [p01, 1.0 - p10]])
        return Measurement(qubit, int(self._circuit.clbits[self._begins[k, 1]]), confusion)

    def _wide(self, k: int) -> WideGate:
        circuit, row = self._circuit, int(self._circuit.ops[k])
        first = self._begins[k, 0]
        qubits = tuple(circuit.qubits[first : first + self._counts[k]].tolist())
        matrix = None
        if self._codes[k] == UNITARY:
            data = circuit.matrices[circuit.table.matrix[row]]
            matrix = np.frombuffer(data, np.complex128).reshape(1 << len(qubits), -1)
        return WideGate(circuit.table.names[row], qubits, int(self._begins[k, 2]), matrix)


def _padded(ptms: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Transfer matrices behind each other, BLOCK floats each."""
    found = np.zeros((len(ptms), BLOCK))
    for size in (4, 16):
        mine = [k for k, ptm in enumerate(ptms) if len(ptm) == size]
        if mine:
            found[mine, : size * size] = np.array([ptms[k] for k in mine]).reshape(len(mine), -1)
    return found.ravel()
