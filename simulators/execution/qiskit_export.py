"""Export of a circuit to Qiskit, operation by operation: no transpiler, no text.

Gates that the target lacks are exported as matrices. Conditions become Qiskit expressions. Loops,
variables and operators that no backend evaluates are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Gate, Instruction, library
from qiskit.circuit.classical import expr, types

from simulators.circuit import ir
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, ELSE, END_BLOCK, IF, MEASURE, RESET
from simulators.circuit.ir import Circuit, Operation, matrix, operations
from simulators.errors import Unsupported

_GATES = {name: type(gate) for name, gate in library.get_standard_gate_name_mapping().items()}
_MOST_BITS = 64  # largest register in a condition: Aer's integers

_TWO = {
    getattr(ir, name): getattr(expr.Binary.Op, name)
    for name in (
        *("BIT_AND", "BIT_OR", "BIT_XOR", "LOGIC_AND", "LOGIC_OR", "EQUAL", "NOT_EQUAL"),
        *("LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"),
    )
}
_ONE = {ir.BIT_NOT: expr.Unary.Op.BIT_NOT, ir.LOGIC_NOT: expr.Unary.Op.LOGIC_NOT}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Gates of the target. `native` None: every gate that Qiskit names."""

    engine: str
    elsewhere: str  # hint of the error for an operation that cannot be written
    native: frozenset[str] | None = None
    pauses: bool = False  # barriers, delays and the names of measurements are exported


def convert(circuit: Circuit, params: NDArray[Any], dialect: Dialect) -> QuantumCircuit:
    """Convert the circuit with `params` (numbers, or Qiskit's parameters): qubits in one register
    `q`, the classical registers as `c0`, `c1` ..., so clbit k is Qiskit's clbit k."""
    writer = _Writer(circuit, dialect)
    for operation in operations(circuit, params):
        writer.take(operation)
    return writer.circuit


class _Writer:
    """Writer of one circuit. `_open`: the conditions of open blocks, with the circuits around
    them."""

    def __init__(self, circuit: Circuit, dialect: Dialect) -> None:
        self._circuit = circuit
        self._dialect = dialect
        self._registers = [
            ClassicalRegister(size, f"c{number}")
            for number, (_, size) in enumerate(circuit.registers)
        ]
        self.circuit = QuantumCircuit(QuantumRegister(circuit.num_qubits, "q"), *self._registers)
        self._now = self.circuit
        self._open: list[tuple[QuantumCircuit, expr.Expr, QuantumCircuit | None]] = []
        self._conditions = iter(_conditions(circuit))

    def take(self, operation: Operation) -> None:
        code = operation.code
        if operation.is_gate:
            if not operation.qubits:
                self._now.global_phase += operation.params[0] if operation.params else 0.0
            elif operation.name != "id":
                qubits = [self.circuit.qubits[q] for q in operation.qubits]
                self._now.append(self._gate(operation), qubits, copy=False)
        elif code == MEASURE and self._dialect.pauses and operation.name != "measure":
            measurement = Instruction(operation.name, 1, 1, [])
            self._now.append(measurement, operation.qubits, operation.clbits)
        elif code == MEASURE:
            self._now.measure(operation.qubits[0], operation.clbits[0])
        elif code == RESET:
            self._now.reset(operation.qubits[0])
        elif code == IF:
            self._open.append((self._now, self._condition(next(self._conditions)), None))
            self._now = self._empty()
        elif code == ELSE:
            around, condition, _ = self._open.pop()
            self._open.append((around, condition, self._now))
            self._now = self._empty()
        elif code == END_BLOCK:
            around, condition, then = self._open.pop()
            bodies = (self._now, None) if then is None else (then, self._now)
            around.if_else(condition, *bodies, around.qubits, around.clbits)
            self._now = around
        elif code in (BARRIER, DELAY, DELAY_DT):
            if self._dialect.pauses:
                self._pause(operation)
        else:
            text = f"engine {self._dialect.engine!r} cannot run operation {operation.place}"
            text += f" ({operation.name})"
            raise Unsupported(text, hint=self._dialect.elsewhere)

    def _pause(self, operation: Operation) -> None:
        qubits = [self.circuit.qubits[q] for q in operation.qubits]
        if operation.code == BARRIER:
            self._now.barrier(qubits)
        elif operation.code == DELAY:
            self._now.delay(operation.params[0], qubits, unit="ns")
        else:
            self._now.delay(int(operation.params[0]), qubits, unit="dt")

    def _empty(self) -> QuantumCircuit:
        return QuantumCircuit(self.circuit.qubits, *self._registers)

    def _gate(self, operation: Operation) -> Gate:
        name, count = operation.name, len(operation.qubits)
        if name == "mcx":
            return library.MCXGate(count - 1) if count > 1 else library.XGate()
        if name == "mcphase" and count > 1:
            return library.MCPhaseGate(operation.params[0], count - 1)
        native = self._dialect.native
        if name in _GATES if native is None else name in native:
            return _GATES[name](*operation.params)
        return library.UnitaryGate(matrix(self._circuit, operation), check_input=False)

    def _condition(self, tokens: list[tuple[int, int, int]]) -> expr.Expr:
        stack: list[expr.Expr] = []
        for token, operand, width in tokens:
            kind = types.Uint(width) if width else types.Bool()
            if token == ir.CLBIT:
                stack.append(expr.Var(self.circuit.clbits[operand], types.Bool()))
            elif token == ir.REGISTER and width <= _MOST_BITS:
                stack.append(expr.Var(self._registers[operand], kind))
            elif token == ir.VALUE and (value := self._value(operand, width)) is not None:
                stack.append(expr.Value(value, kind))
            elif token == ir.CAST:
                stack.append(expr.Cast(stack.pop(), kind))
            elif token in _ONE:
                stack.append(expr.Unary(_ONE[token], stack.pop(), kind))
            elif token in _TWO:
                right, left = stack.pop(), stack.pop()
                stack.append(expr.Binary(_TWO[token], left, right, kind))
            else:
                text = f"engine {self._dialect.engine!r} cannot evaluate a condition with shifts,"
                text += f" arithmetic or registers of more than {_MOST_BITS} bits"
                raise Unsupported(text, hint=self._dialect.elsewhere)
        return stack[0]

    def _value(self, operand: int, width: int) -> int | bool | None:
        """Value of a constant; None if it is wider than its stated width."""
        value = int.from_bytes(self._circuit.constants[operand], "little")
        if not width:
            return value != 0
        return value if value >> width == 0 and width <= _MOST_BITS else None


def _conditions(circuit: Circuit) -> list[list[tuple[int, int, int]]]:
    """The tokens of each expression, without its END."""
    results: list[list[tuple[int, int, int]]] = [[]]
    flat = circuit.conditions.tolist()
    for at in range(0, len(flat), 3):
        token, operand, width = flat[at : at + 3]
        if token == ir.END:
            results.append([])
        else:
            results[-1].append((token, operand, width))
    return results[:-1]
