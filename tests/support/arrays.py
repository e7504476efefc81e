"""Circuits as flat arrays, of operations or of Qiskit: a second way beside the client's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import ir
from simulators.circuit.gates import GATES, OTHERS
from simulators.circuit.ir import Circuit, CircuitData

if TYPE_CHECKING:  # Qiskit takes a second to load, in each rank
    from qiskit import QuantumCircuit
    from qiskit.circuit import Clbit, IfElseOp

Token = tuple[int, int, int]


class Arrays:
    """Operations one after the other; `circuit` packs them."""

    def __init__(
        self, num_qubits: int, num_clbits: int, registers: Iterable[tuple[str, int]] = ()
    ) -> None:
        self.num_qubits = num_qubits
        self.num_clbits = num_clbits
        self.registers = tuple(registers) or ((("c", num_clbits),) if num_clbits else ())
        self.table: dict[tuple, int] = {}
        self.ops: list[int] = []
        self.qubits: list[int] = []
        self.clbits: list[int] = []
        self.params: list[float] = []
        self.slots: list[tuple[int, int]] = []
        self.num_slots = 0
        self.conditions: list[Token] = []
        self.constants: list[bytes] = []
        self.variables: list[int] = []
        self.matrices: list[bytes] = []

    def add(
        self, name: str, qubits: Sequence[int] = (), clbits: Sequence[int] = (),
        params: Sequence[float] = (),
    ) -> Arrays:  # fmt: skip
        key = (name, len(qubits), len(clbits), len(params))
        self._append(key, qubits, clbits, params)
        return self

    def measure(self, qubits: Iterable[int]) -> Arrays:
        """Measure each qubit into the clbit of its number."""
        for qubit in qubits:
            self.add("measure", [qubit], [qubit])
        return self

    def unitary(self, matrix: NDArray[np.complex128], qubits: Sequence[int]) -> Arrays:
        """An operation given by its matrix."""
        data = np.ascontiguousarray(matrix, np.complex128).tobytes()
        if data not in self.matrices:
            self.matrices.append(data)
        key = ("unitary", len(qubits), 0, 0, self.matrices.index(data))
        self._append(key, qubits, (), ())
        return self

    def _append(
        self, key: tuple, qubits: Sequence[int], clbits: Sequence[int], params: Sequence[float]
    ) -> None:
        self.ops.append(self.table.setdefault(key, len(self.table)))
        self.qubits += qubits
        self.clbits += clbits
        self.params += params

    def free(self, slot: int) -> None:
        """Let the last parameter come from a slot."""
        self.slots.append((len(self.params) - 1, slot))
        self.num_slots = max(self.num_slots, slot + 1)

    def begin(self, *tokens: Token, name: str = "if") -> Arrays:
        """An `if`, or another operation with a postfix expression, without its END."""
        self.conditions += [*tokens, (ir.END, 0, 0)]
        return self.add(name)

    def repeat(self, count: int) -> Arrays:
        """The head of a `for`."""
        return self.begin((ir.VALUE, self.value(count), 64), name="for")

    def variable(self, width: int) -> int:
        """Number of a new variable; width 0: a Bool."""
        self.variables.append(width)
        return len(self.variables) - 1

    def value(self, number: int) -> int:
        """Index of a new constant."""
        self.constants.append(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "little"))
        return len(self.constants) - 1

    def equals(self, register: int, number: int) -> tuple[Token, ...]:
        """Tokens of `register == number`."""
        width = self.registers[register][1]
        operand = self.value(number)
        return (ir.REGISTER, register, width), (ir.VALUE, operand, width), (ir.EQUAL, 0, 0)

    def fields(self) -> tuple:
        """The arguments of `CircuitData`."""
        return (
            self.num_qubits, self.num_clbits, self.registers, tuple(key[0] for key in self.table),
            np.array([key[1:4] for key in self.table], np.uint16).tobytes(),
            np.array(self.ops, np.uint16).tobytes(), np.array(self.qubits, np.uint16).tobytes(),
            np.array(self.clbits, np.uint16).tobytes(), np.array(self.params, np.float64).tobytes(),
            self.num_slots, np.array(self.slots, np.int32).tobytes(),
            np.array(self.conditions, np.int32).tobytes(), tuple(self.constants),
            tuple(self.variables), tuple(self.matrices),
        )  # fmt: skip

    def circuit(self) -> Circuit:
        return CircuitData(*self.fields()).circuit()


def measured(arrays: Arrays) -> Circuit:
    return arrays.measure(range(arrays.num_qubits)).circuit()


def from_qiskit(circuit: QuantumCircuit) -> Circuit:
    """Bound circuits; `if_test` on a clbit or a register; custom gates by their definition."""
    loose = [bit for bit in circuit.clbits if not circuit.find_bit(bit).registers]
    registers = [(register.name, register.size) for register in circuit.cregs]
    arrays = Arrays(
        circuit.num_qubits, circuit.num_clbits, registers + [("", len(loose))] * bool(loose)
    )
    table = {bit: k for k, bit in enumerate([b for r in circuit.cregs for b in r] + loose)}
    _Walk(circuit, arrays).walk(circuit, list(range(circuit.num_qubits)), table)
    return arrays.circuit()


class _Walk:
    def __init__(self, circuit: QuantumCircuit, arrays: Arrays) -> None:
        self.names = [register.name for register in circuit.cregs]
        self.arrays = arrays

    def walk(self, circuit: QuantumCircuit, wires: list[int], bits: dict[Clbit, int]) -> None:
        from qiskit.circuit import IfElseOp

        if circuit.global_phase:
            self.arrays.add("global_phase", params=[float(circuit.global_phase)])
        for item in circuit.data:
            operation = item.operation
            qubits = [wires[circuit.find_bit(bit).index] for bit in item.qubits]
            clbits = [bits[bit] for bit in item.clbits]
            if isinstance(operation, IfElseOp):
                self._if(operation, qubits, clbits, bits)
            elif operation.name in GATES or operation.name in OTHERS:
                params = [float(value) for value in operation.params]
                self.arrays.add(operation.name, qubits, clbits, params)
            else:
                body = operation.definition
                self.walk(body, qubits, dict(zip(body.clbits, clbits, strict=True)))

    def _if(
        self, operation: IfElseOp, qubits: list[int], clbits: list[int], bits: dict[Clbit, int]
    ) -> None:
        from qiskit.circuit import Clbit

        target, value = operation.condition
        if isinstance(target, Clbit):
            tokens: tuple[Token, ...] = ((ir.CLBIT, bits[target], 0),)
            if not value:
                tokens += ((ir.LOGIC_NOT, 0, 0),)
        else:
            tokens = self.arrays.equals(self.names.index(target.name), int(value))
        self.arrays.begin(*tokens)
        for number, body in enumerate(operation.blocks):
            if number:
                self.arrays.add("else")
            self.walk(body, qubits, dict(zip(body.clbits, clbits, strict=True)))
        self.arrays.add("end")
