"""Program of a circuit with noise: segments of gates and channels, and operations that split
branches.
"""

from __future__ import annotations

import itertools
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, from_unitary
from simulators.circuit import noise as circuit_noise
from simulators.circuit.analysis.measurements import NO_OP_RESET, MeasurementLayout
from simulators.circuit.gates import GATES, MEASURE, RESET, UNITARY, unitary
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, CHANNEL, Q0 as FIRST, Q1 as SECOND, transfer_matrices
from simulators.compiler.kernel import kernel
from simulators.densitymatrix.fusion import CODE, FIXED, PARAM, Q0, Q1, TABLE, fixed_gates
from simulators.dynamic.instructions import Assembler, ControlFlow, Measure
from simulators.dynamic.liveness import live_bits

# Gates on three and more qubits: their transfer matrices, and their action on a state.

MAX_QUBITS = 4  # widest gate: its transfer matrix has 65,536 entries


def wide_ptm(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Transfer matrix [4^k, 4^k] of a unitary [2^k, 2^k]; the first qubit is the lowest digit. The
    map rho -> U rho U^+ is written in the Pauli basis one qubit at a time."""
    side = len(matrix)
    count = side.bit_length() - 1
    paulis = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    full = np.ones((1, 1, 1), np.complex128)
    for _ in range(count):  # the next qubit is a higher digit
        full = np.einsum("aij,bkl->abikjl", paulis, full).reshape(
            4 * len(full), 2 * full.shape[1], 2 * full.shape[2]
        )
    moved = matrix @ full @ matrix.conj().T
    result = full.reshape(len(full), -1).conj() @ moved.reshape(len(full), -1).T / side
    return np.ascontiguousarray(result.real)


def apply_wide(
    v: NDArray[np.float64], num_qubits: int, ptm: NDArray[np.float64], qubits: tuple[int, ...]
) -> NDArray[np.float64]:
    """The vector [4^n] after a gate on some qubits."""
    count = len(qubits)
    axes = [num_qubits - 1 - qubit for qubit in reversed(qubits)]
    gate = ptm.reshape((4,) * (2 * count))
    moved = np.tensordot(gate, v.reshape((4,) * num_qubits), axes=(range(count, 2 * count), axes))
    return np.ascontiguousarray(np.moveaxis(moved, range(count), axes)).reshape(-1)


MIN_QUBITS = 2  # least qubits of a state: blocks act on two

_ID, _MCX = GATES["id"].code, GATES["mcx"].code


class Segment(msgspec.Struct, frozen=True, eq=False):
    """Gates and channels that are fused; see `fusion`."""

    items: NDArray[np.int64]


class WideGate(msgspec.Struct, frozen=True, eq=False):
    """A gate on more than two qubits."""

    name: str
    qubits: tuple[int, ...]
    param: int  # index of its first parameter
    matrix: NDArray[np.complex128] | None  # of `unitary`

    def ptm(self, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transfer matrix of the gate [4^k, 4^k]; the first qubit is the lowest digit."""
        if self.matrix is not None:
            return wide_ptm(self.matrix)
        count = GATES[self.name].params
        values = tuple(params[self.param : self.param + count].tolist())
        return wide_ptm(unitary(self.name, values, len(self.qubits)))


class Measurement(Measure, frozen=True, eq=False):
    """Measurement before the end: splits branches by the recorded outcome. Clbit -1: nothing reads
    the outcome, and no branch splits."""

    confusion: NDArray[np.float64]  # [2, 2]: row read, column true


Step = Segment | WideGate | Measurement | ControlFlow


class Program(msgspec.Struct, frozen=True, eq=False, dict=True):
    """Steps of a circuit with noise, and the matrices of its gates and channels."""

    num_qubits: int  # at least MIN_QUBITS
    steps: tuple[Step, ...]
    live: tuple[int, ...]  # masks of the bits that are live at each step, see `live_bits`
    gates: NDArray[np.float64]  # transfer matrices [matrices, BLOCK] of gates
    channels: NDArray[np.float64]  # transfer matrices of channels
    longest: int  # largest number of items of a segment

    @cached_property
    def work(self) -> list[float]:
        """Part of the work that is done before each step, and after the last."""
        sizes = [len(step.items) if isinstance(step, Segment) else 1 for step in self.steps]
        total = max(1, sum(sizes))
        return [size / total for size in itertools.accumulate(sizes, initial=0)]

    @property
    def memory_bytes(self) -> int:
        return self.gates.nbytes + 64 * self.longest


@kernel("NAMES U16 U16 I64 I64 INTS2 I64 I64 INTS2 -> INT", group="noise")
def _order_items(  # type: ignore[no-untyped-def]
    rows, ops, qubits, roles, sources, locations, matrices, keys, items
):
    """Fill `keys` and `items` of all fused operations; returns their number. `sources`: TABLE of
    each row of the circuit's table; `matrices`: row of each channel's matrix."""
    at = param = place = count = 0
    for k in range(-1, ops.size):
        if k >= 0:
            op = ops[k]
            code, number = rows[op, 0], rows[op, 1]
            acts = code >= UNITARY and number > 0 and number <= 2 and code != _ID
            if acts or (code == RESET and roles[k] != NO_OP_RESET):
                keys[count] = 2 * k
                items[count, TABLE] = sources[op]
                items[count, CODE] = code
                items[count, PARAM] = param
                items[count, Q0] = qubits[at]
                items[count, Q1] = np.int64(qubits[at + 1]) if number > 1 else np.int64(-1)
                count += 1
            at += number
            param += rows[op, 3]
        while place < locations.shape[0] and locations[place, AFTER_OP] <= k:
            keys[count] = 2 * k + 1
            items[count, TABLE] = matrices[locations[place, CHANNEL]]
            items[count, CODE] = items[count, PARAM] = 0
            items[count, Q0] = locations[place, FIRST]
            items[count, Q1] = locations[place, SECOND]
            count += 1
            place += 1
    return count


def build_program(
    circuit: Circuit,
    noise: circuit_noise.NoiseProgram,
    layout: MeasurementLayout,
    live: int = -1,
) -> Program:
    """Program of an admissible circuit without loops and variables, with gates on few qubits.
    `live`: mask of the bits that outputs show."""
    return _Builder(circuit, noise, layout).program(live)


class _Builder:
    """Builder of a program, with operations and locations in one order: operation k has key 2 k,
    noise after it 2 k + 1."""

    def __init__(
        self, circuit: Circuit, noise: circuit_noise.NoiseProgram, layout: MeasurementLayout
    ) -> None:
        self._circuit = circuit
        self._noise = noise
        self._roles = layout.roles
        self._counts = circuit.table.rows[circuit.ops, 1]
        self._own: list[Channel] = []
        self._longest = 0
        self._keys, self._items = self._all_items()
        self._assembler = Assembler(circuit, layout.roles)

    def program(self, live: int) -> Program:
        """The program; see `build_program`."""
        codes, steps, after = self._assembler.codes, self._assembler.items, -1
        splits = self._assembler.marks() & (codes != RESET)
        splits |= (codes >= UNITARY) & (self._counts > 2)
        for k in [*np.flatnonzero(splits).tolist(), codes.size]:
            self._segment(steps, after, k)
            if k == codes.size:
                break
            if codes[k] == MEASURE:
                steps.append(self._measurement(k))
            elif codes[k] >= UNITARY:
                steps.append(self._wide(k))
            else:
                self._assembler.add(k)
            after = k
        width = max(MIN_QUBITS, self._circuit.num_qubits)
        masks = live_bits(steps, live)
        for at, step in enumerate(steps):
            if isinstance(step, Measurement) and not masks[at + 1] >> step.clbit & 1:
                steps[at] = msgspec.structs.replace(step, clbit=-1)
        channels = self._noise.facts.all_matrices
        return Program(width, tuple(steps), masks, self._gates, channels, self._longest)

    def _all_items(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys and items of all fused operations, in order."""
        circuit, noise = self._circuit, self._noise
        rows = circuit.table.rows
        fixed = fixed_gates()
        sources = fixed.sources[rows[:, 0]]
        own = (rows[:, 0] == UNITARY) | (rows[:, 0] == _MCX)
        for row in np.flatnonzero(own & (rows[:, 1] <= 2)).tolist():
            if not (circuit.ops == row).any():
                continue
            sources[row] = FIXED - len(fixed.blocks) - len(self._own)
            self._own.append(self._own_matrix(row))
        room = circuit.ops.size + len(noise.locations)
        keys, items = np.empty(room, np.int64), np.empty((room, 5), np.int64)
        count = _order_items(
            rows, circuit.ops, circuit.qubits, self._roles, sources, noise.locations,
            noise.facts.rows, keys, items,
        )  # fmt: skip
        return keys[:count], items[:count]

    def _own_matrix(self, row: int) -> Channel:
        """Gate of a row of the table that is no fixed gate and has no parameters."""
        circuit, width = self._circuit, int(self._circuit.table.rows[row, 1])
        if circuit.table.rows[row, 0] == UNITARY:
            data = circuit.matrices[circuit.table.matrix[row]]
            return from_unitary(np.frombuffer(data, np.complex128).reshape(1 << width, -1))
        return from_unitary(unitary(circuit.table.names[row], (), width))

    @property
    def _gates(self) -> NDArray[np.float64]:
        """Matrices of gates: the fixed ones, then the circuit's own."""
        fixed = fixed_gates().blocks
        if not self._own:
            return fixed
        return np.concatenate((fixed, transfer_matrices(self._own)))

    def _segment(self, steps: list[Step], after: int, before: int) -> None:
        """Append the fused items between two operations."""
        first, last = np.searchsorted(self._keys, (2 * after + 1, 2 * before)).tolist()
        if last > first:
            self._longest = max(self._longest, last - first)
            steps.append(Segment(np.ascontiguousarray(self._items[first:last])))

    def _measurement(self, k: int) -> Measurement:
        qubit = int(self._circuit.qubits[self._assembler.begins[k, 0]])
        p01 = p10 = 0.0
        if self._noise.readout is not None:
            p01, p10 = self._noise.readout.flips(qubit, k)
        confusion = np.array([[1.0 - p01, p10], [p01, 1.0 - p10]])
        clbit = int(self._circuit.clbits[self._assembler.begins[k, 1]])
        return Measurement(k, qubit, clbit, False, confusion)

    def _wide(self, k: int) -> WideGate:
        circuit, row = self._circuit, int(self._circuit.ops[k])
        first = self._assembler.begins[k, 0]
        qubits = tuple(circuit.qubits[first : first + self._counts[k]].tolist())
        matrix = None
        if self._assembler.codes[k] == UNITARY:
            data = circuit.matrices[circuit.table.matrix[row]]
            matrix = np.frombuffer(data, np.complex128).reshape(1 << len(qubits), -1)
        return WideGate(circuit.table.names[row], qubits, int(self._assembler.begins[k, 2]), matrix)
