"""A Program as a QuantumCircuit: the way back, for Qiskit's transpiler and for people.

Invariant: packing the result gives the program again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from simenv.client.circuits.limits import MAX_BLOCKS, MAX_OPERATIONS
from simenv.client.circuits.names import names
from simenv.client.circuits.reading import Operation, array, check_sizes, operations
from simenv.errors import ProgramError, SimenvError
from simenv.model import Program, Token


def to_qiskit(program: Program) -> Any:
    """The circuit. Slots are parameters `p0`, `p1`...; qubits one register `q`.

    ProgramError if the program's arrays do not fit one another or an operation is unknown.
    """
    check_sizes(program)
    try:
        return _built(program)
    except SimenvError:
        raise
    except Exception as error:
        text = str(getattr(error, "message", "")) or str(error)
        raise ProgramError(f"the program makes no circuit: {text}") from error


def _built(program: Program) -> Any:
    from qiskit.circuit import Clbit, Parameter, QuantumCircuit

    registers = [
        names().ClassicalRegister(size, name) if name else [Clbit() for _ in range(size)]
        for name, size in program.registers
    ]
    circuit = QuantumCircuit(program.num_qubits)
    for register in registers:
        if isinstance(register, list):
            circuit.add_bits(register)
        else:
            circuit.add_register(register)
    reader = _ConditionReader(program, registers, circuit.clbits)
    parameters = [Parameter(f"p{slot}") for slot in range(min(program.num_slots, MAX_OPERATIONS))]
    _Builder(circuit, reader, parameters).run(program)
    return circuit


class _Builder:
    """Appends operations; Qiskit's own context managers hold the blocks that are open."""

    def __init__(self, circuit: Any, reader: _ConditionReader, parameters: list[Any]) -> None:
        self._circuit = circuit
        self._reader = reader
        self._parameters = parameters
        self._open: list[tuple[Any, Any]] = []  # (block, the context that makes its else)

    def run(self, program: Program) -> None:
        for operation in operations(program):
            self._add(operation)
        if self._open:
            raise ProgramError("an if without an end")

    def _add(self, operation: Operation) -> None:
        circuit, name = self._circuit, operation.name
        if name == "if":
            if len(self._open) == MAX_BLOCKS:
                raise ProgramError(f"blocks are nested more than {MAX_BLOCKS} deep")
            block = circuit.if_test(self._reader.next())
            self._open.append((block, block.__enter__()))
        elif name == "else":
            block, otherwise = self._close("else")
            otherwise.__enter__()
            self._open.append((otherwise, None))
        elif name == "end":
            self._close("end")
        else:
            values = [
                self._parameters[slot] if slot >= 0 else value
                for value, slot in zip(operation.params, operation.slots, strict=True)
            ]
            made = _instruction(operation, values)
            circuit.append(
                made,
                [circuit.qubits[qubit] for qubit in operation.qubits],
                [circuit.clbits[clbit] for clbit in operation.clbits],
            )

    def _close(self, marker: str) -> tuple[Any, Any]:
        if not self._open or (marker == "else" and self._open[-1][1] is None):
            raise ProgramError(f"an {marker!r} without an if")
        block, otherwise = self._open.pop()
        block.__exit__(None, None, None)
        return block, otherwise


def _instruction(operation: Operation, values: list[Any]) -> Any:
    """The instruction of Qiskit behind a name."""
    known = names()
    width = len(operation.qubits)
    makers: dict[str, Callable[..., Any]] = {
        "measure": known.Measure,
        "reset": known.Reset,
        "barrier": lambda: known.Barrier(width),
        "delay": lambda duration: known.Delay(duration, unit="ns"),
        "delay_dt": lambda duration: known.Delay(_whole(duration), unit="dt"),
        "mcx": lambda: known.MCXGate(width - 1),
        "mcphase": lambda angle: known.MCPhaseGate(angle, width - 1),
    }
    make = makers.get(operation.name) or _standard().get(operation.name)
    if make is None:
        raise ProgramError(f"the operation {operation.name!r} is unknown")
    made = make(*values)
    if (made.num_qubits, made.num_clbits) != (width, len(operation.clbits)):
        raise ProgramError(f"no {operation.name!r} has {width} qubits")
    return made


def _whole(duration: Any) -> Any:
    return int(duration) if isinstance(duration, float) else duration


@cache
def _standard() -> dict[str, Any]:
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}


class _ConditionReader:
    """The expressions of a program, one after the other."""

    def __init__(self, program: Program, registers: list[Any], clbits: list[Any]) -> None:
        self._tokens = array(program.conditions, "i")
        self._registers = registers
        self._clbits = clbits
        self._constants = [int.from_bytes(value, "little") for value in program.constants]
        self._at = 0

    def next(self) -> Any:
        """The next condition. ProgramError if its tokens make none."""
        stack: list[Any] = []
        try:
            while True:
                token, operand, width = self._tokens[self._at : self._at + 3]
                self._at += 3
                if token == Token.END:
                    break
                self._push(stack, Token(token), operand, width)
            (result,) = stack
        except (IndexError, ValueError, TypeError) as error:
            raise ProgramError(f"a condition's tokens make no expression ({error})") from error
        return result

    def _push(self, stack: list[Any], token: Token, operand: int, width: int) -> None:
        from qiskit.circuit.classical import expr, types

        kind = types.Uint(width) if width else types.Bool()
        if operand < 0:
            raise IndexError(operand)
        if token == Token.CLBIT:
            stack.append(expr.Var(self._clbits[operand], types.Bool()))
        elif token == Token.REGISTER:
            register = self._registers[operand]
            if isinstance(register, list):
                raise ValueError("loose bits are no register")
            stack.append(expr.Var(register, kind))
        elif token == Token.VALUE:
            value = self._constants[operand]
            stack.append(expr.Value(value if width else bool(value), kind))
        elif token == Token.CAST:
            stack.append(expr.Cast(stack.pop(), kind))
        elif token in (Token.BIT_NOT, Token.LOGIC_NOT):
            stack.append(expr.Unary(expr.Unary.Op[token.name], stack.pop(), kind))
        else:
            right, left = stack.pop(), stack.pop()
            if token == Token.INDEX:
                stack.append(expr.Index(left, right, kind))
            else:
                stack.append(expr.Binary(expr.Binary.Op[token.name], left, right, kind))
