"""Plans of the segments of a circuit, with the matrices of errors among their operations.

The matrix of an error is a coefficient, not part of a plan: all Paulis at one location share a
plan, with Y as a real matrix (its phase cannot be observed).
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit, CircuitData
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.planning import planner
from simulators.statevector.planning.lowering import MOST_QUBITS
from simulators.statevector.planning.tables import OperationRange
from simulators.trajectories import noise_table

_MOST_BYTES = 1 << 26  # cached plans
_PAULIS = {
    (1, 0): np.array([[0, 1], [1, 0]], np.complex128),
    (1, 1): np.array([[0, 1], [-1, 0]], np.complex128),
    (0, 1): np.array([[1, 0], [0, -1]], np.complex128),
}


class InsertedMatrix(msgspec.Struct, frozen=True, eq=False):
    """Matrix of an insert at a position."""

    position: int
    qubits: tuple[int, ...]
    matrix: NDArray[np.complex128]
    real: bool


def insert_matrices(
    inserts: noise_table.NoiseTable, insert: int, choice: int, position: int
) -> list[InsertedMatrix]:
    """Matrices of an insert, with this operator of its set."""
    _, which, x, z, first, second = inserts.table[insert].tolist()
    if which == noise_table.PAULI:
        bits = [q for q in range((x | z).bit_length()) if (x | z) >> q & 1]
        return [InsertedMatrix(position, (q,), _PAULIS[x >> q & 1, z >> q & 1], True) for q in bits]
    sets, width = inserts.operators.sets, int(inserts.operators.sets[which, noise_table.QUBITS])
    at = int(sets[which, noise_table.FIRST]) + choice * (2 << 2 * width)
    data = inserts.operators.matrices[at : at + (2 << 2 * width)].view(np.complex128)
    matrix = data.reshape(1 << width, 1 << width)
    return [InsertedMatrix(position, (first, second)[:width], matrix, not matrix.imag.any())]


class Piece(msgspec.Struct, frozen=True, eq=False):
    """Range as a circuit of its own, and its plan."""

    circuit: Circuit
    stretch: planner.SegmentPlan
    at_param: int
    end_param: int
    constants: NDArray[np.float64]  # matrices of the circuit itself, before those of inserts

    @property
    def memory_bytes(self) -> int:
        return self.stretch.memory_bytes + 4 * self.circuit.ops.nbytes + self.constants.nbytes

    def floats(
        self, params: NDArray[np.float64], members: list[InsertedMatrix]
    ) -> NDArray[np.float64]:
        """Coefficients of its table; `params`: of all operations, in their order."""
        stretch = self.stretch
        if members:
            matrices = [np.ascontiguousarray(m.matrix).view(np.float64).ravel() for m in members]
            constants = np.concatenate((self.constants, *matrices))
            stretch = msgspec.structs.replace(stretch, constants=constants)
        return stretch.floats(self.circuit, params[self.at_param : self.end_param])


_Rows = tuple[tuple[str, ...], bytes, tuple[bytes, ...]]  # names, arities and matrices


class Pieces:
    """Plans of ranges of one circuit's operations, in a given order. Threads may share it."""

    def __init__(self, circuit: Circuit, order: NDArray[np.int64], width: int) -> None:
        rows = circuit.table.rows[circuit.ops]
        begins = np.cumsum(rows[:, 1:], axis=0) - rows[:, 1:]
        self._circuit = circuit
        self._width = width
        self._ops = circuit.ops[order]
        self._qubits = [
            circuit.qubits[begins[k, 0] : begins[k, 0] + rows[k, 1]] for k in order.tolist()
        ]
        self._wires = np.concatenate([np.zeros(0, np.uint16), *self._qubits])
        self._wire_ends = np.concatenate(([0], np.cumsum(rows[order, 1])))
        self._tables: dict[tuple[tuple[int, bool], ...], _Rows] = {}
        spans = [np.arange(begins[k, 2], begins[k, 2] + rows[k, 3]) for k in order.tolist()]
        self.params_order = np.concatenate([np.zeros(0, np.int64), *spans])
        self._param_ends = np.concatenate(([0], np.cumsum(rows[order, 3])))
        self._own = [np.frombuffer(data, np.complex128) for data in circuit.matrices]
        self._kept: OrderedDict[tuple[object, ...], Piece] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # threads with separate rows share the plans
        self.plan_count = 0  # plans made, evicted ones included

    def forget(self) -> None:
        """Remove all plans."""
        self._kept.clear()
        self._bytes = 0

    def wide(self, position: int) -> PlacedMatrix | None:
        """Operation at a position, if it is a matrix too large for a plan; else None."""
        row = int(self._ops[position])
        code, width, _, _ = self._circuit.table.rows[row].tolist()
        if code != UNITARY or width <= MOST_QUBITS:
            return None
        data = self._circuit.matrices[int(self._circuit.table.matrix[row])]
        return place(by_columns(data, width), self._qubits[position].tolist())

    def planned(self, begin: int, end: int, members: list[InsertedMatrix], *, zero: bool) -> Piece:
        """Plan operations begin .. end - 1 with these matrices among them, for a state that is
        |0...0>, or any."""
        key = (begin, end, zero, *[(m.position, m.qubits, m.real) for m in members])
        with self._lock:
            piece = self._kept.get(key)
            if piece is not None:
                self._kept.move_to_end(key)
                return piece
        piece = self._create_piece(begin, end, members, zero=zero)
        with self._lock:
            self.plan_count += 1
            if key not in self._kept:
                self._kept[key] = piece
                self._bytes += piece.memory_bytes
            while self._bytes > _MOST_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].memory_bytes
        return piece

    def _wires_of(self, begin: int, end: int) -> NDArray[np.uint16]:
        """Qubits of operations begin .. end - 1, one after the other."""
        return self._wires[self._wire_ends[begin] : self._wire_ends[end]]

    def _table(self, kinds: tuple[tuple[int, bool], ...]) -> _Rows:
        """Rows of the circuit's table and of members of these kinds: qubits, and whether real."""
        results = self._tables.get(kinds)
        if results is None:
            table = self._circuit.table
            arities = table.rows[:, 1:].tolist() + [[width, 0, 0] for width, _ in kinds]
            # A plan depends only on whether the matrix is real.
            units = [
                (np.eye(1 << width, dtype=np.complex128) * (1 if real else 1j)).tobytes()
                for width, real in kinds
            ]
            results = self._tables[kinds] = (
                (*table.names, *["unitary"] * len(kinds)),
                np.array(arities, np.uint16).tobytes(),
                (*self._circuit.matrices, *units),
            )
        return results

    def _create_piece(
        self, begin: int, end: int, members: list[InsertedMatrix], *, zero: bool
    ) -> Piece:
        circuit = self._circuit
        names, arities, matrices = self._table(tuple((len(m.qubits), m.real) for m in members))
        ops: list[NDArray[np.uint16]] = []
        qubits: list[NDArray[np.uint16]] = []
        at = begin
        row = len(circuit.table.names)  # row of the first member
        for number, member in enumerate(members):
            ops += [self._ops[at : member.position], np.array([row + number], np.uint16)]
            qubits += [self._wires_of(at, member.position), np.array(member.qubits, np.uint16)]
            at = member.position
        ops.append(self._ops[at:end])
        qubits.append(self._wires_of(at, end))
        built = CircuitData(
            circuit.num_qubits, circuit.num_clbits, circuit.registers, names, arities,
            np.concatenate(ops).tobytes(), np.concatenate(qubits).tobytes(), b"", b"",
            matrices=matrices,
        ).circuit()  # fmt: skip
        where = OperationRange(0, built.ops.size, 0, 0)
        stretch = planner.plan_segment(built, where, planner.SegmentContext(zero=zero), self._width)
        own = [m.view(np.float64) for m in self._own if m.size <= 4**MOST_QUBITS]
        constants = np.concatenate((np.zeros(0), *own))
        first, last = int(self._param_ends[begin]), int(self._param_ends[end])
        return Piece(built, stretch, first, last, constants)
