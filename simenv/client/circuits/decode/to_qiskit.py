"""Conversion of a Program to a QuantumCircuit, for Qiskit's transpiler and for users.

Invariant: packing the result gives the program again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from simenv.client.circuits.common.text_checks import MAX_BLOCKS, MAX_OPERATIONS
from simenv.client.circuits.decode.operations import (
    DecodedOperation,
    ExpressionReader,
    check_sizes,
    operations,
)
from simenv.errors import ProgramError, SimenvError
from simenv.model import MARKERS, Program
from simenv.transpiler import qiskit_runtime
from simenv.transpiler.qiskit_runtime import names


def to_qiskit(program: Program) -> Any:
    """Convert a program to a QuantumCircuit.

    Slots become parameters `p0`, `p1`...; variables `v0`, `v1`...; qubits one register `q`. Raises
    ProgramError if the arrays of the program do not agree or an operation is unknown.
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
    qiskit_runtime.qiskit()
    from qiskit.circuit import Clbit, Parameter, QuantumCircuit
    from qiskit.circuit.classical import expr, types

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
    variables = [
        expr.Var.new(f"v{number}", types.Uint(width) if width else types.Bool())
        for number, width in enumerate(program.variables)
    ]
    for variable in variables:
        circuit.add_uninitialized_var(variable)
    reader = ExpressionReader(program, registers, circuit.clbits, variables)
    parameters = [Parameter(f"p{slot}") for slot in range(min(program.num_slots, MAX_OPERATIONS))]
    _Builder(circuit, reader, parameters).run(program)
    return circuit


class _Block:
    """An open block, with the context managers of Qiskit that hold it."""

    __slots__ = ("case", "inner", "kind", "outer")

    def __init__(self, kind: str, outer: Any) -> None:
        self.kind = kind
        self.outer = outer  # the context of the block
        self.inner: Any = None  # of an `if` the context of its else; of a `switch` that of the case
        self.case: Any = None  # of a `switch` the factory of cases

    def close(self) -> None:
        if self.case is not None and self.inner is not None:
            self.inner.__exit__(None, None, None)
        self.outer.__exit__(None, None, None)


class _Builder:
    """Builder that appends operations to a circuit."""

    def __init__(self, circuit: Any, reader: ExpressionReader, parameters: list[Any]) -> None:
        self._circuit = circuit
        self._reader = reader
        self._parameters = parameters
        self._open: list[_Block] = []

    def run(self, program: Program) -> None:
        for operation in operations(program):
            self._add(operation)
        if self._open:
            raise ProgramError("a block without an end")

    def _add(self, operation: DecodedOperation) -> None:
        circuit, name = self._circuit, operation.name
        if name in MARKERS:
            self._mark(name)
        elif name == "store":
            circuit.store(*self._reader.store())
        else:
            values = [
                self._parameters[slot] if slot >= 0 else value
                for value, slot in zip(operation.params, operation.slots, strict=True)
            ]
            circuit.append(
                _instruction(operation, values),
                [circuit.qubits[qubit] for qubit in operation.qubits],
                [circuit.clbits[clbit] for clbit in operation.clbits],
            )

    def _mark(self, name: str) -> None:
        if name in ("break", "continue"):
            if not any(block.kind in ("while", "for") for block in self._open):
                raise ProgramError(f"a {name!r} outside of a loop")
            getattr(self._circuit, f"{name}_loop")()
        elif name == "else":
            block = self._last("if")
            if block.inner is None:
                raise ProgramError("an 'else' without an if")
            block.outer.__exit__(None, None, None)
            block.outer, block.inner = block.inner, None
            block.outer.__enter__()
        elif name in ("case", "default"):
            self._case(name)
        elif name == "end":
            if not self._open:
                raise ProgramError("an 'end' without a block")
            self._open.pop().close()
        else:
            self._begin(name)

    def _begin(self, name: str) -> None:
        if len(self._open) == MAX_BLOCKS:
            raise ProgramError(f"blocks are nested more than {MAX_BLOCKS} deep")
        circuit, reader = self._circuit, self._reader
        if name == "for":
            block = _Block(name, circuit.for_loop(range(reader.integers()[0])))
        else:
            makers = {"if": circuit.if_test, "while": circuit.while_loop, "switch": circuit.switch}
            block = _Block(name, makers[name](reader.value()))
        entered = block.outer.__enter__()
        if name == "if":
            block.inner = entered
        elif name == "switch":
            block.case = entered
        self._open.append(block)

    def _case(self, name: str) -> None:
        block = self._last("switch")
        if block.inner is not None:
            block.inner.__exit__(None, None, None)
        labels = self._reader.integers() if name == "case" else [block.case.DEFAULT]
        block.inner = block.case(*labels)
        block.inner.__enter__()

    def _last(self, kind: str) -> _Block:
        if not self._open or self._open[-1].kind != kind:
            raise ProgramError(f"a marker outside of its {kind!r}")
        return self._open[-1]


def _instruction(operation: DecodedOperation, values: list[Any]) -> Any:
    """Return the instruction of Qiskit for an operation."""
    classes = names()
    width = len(operation.qubits)
    makers: dict[str, Callable[..., Any]] = {
        "measure": classes.Measure,
        "reset": classes.Reset,
        "barrier": lambda: classes.Barrier(width),
        "delay": lambda duration: classes.Delay(duration, unit="ns"),
        "delay_dt": lambda duration: classes.Delay(_as_int(duration), unit="dt"),
        "mcx": lambda: classes.MCXGate(width - 1),
        "mcphase": lambda angle: classes.MCPhaseGate(angle, width - 1),
        "unitary": lambda: classes.UnitaryGate(_matrix(operation)),
    }
    make = makers.get(operation.name) or _standard().get(operation.name)
    if make is None:
        raise ProgramError(f"the operation {operation.name!r} is unknown")
    built = make(*values)
    if (built.num_qubits, built.num_clbits) != (width, len(operation.clbits)):
        raise ProgramError(f"no {operation.name!r} has {width} qubits")
    return built


def _matrix(operation: DecodedOperation) -> Any:
    import numpy as np

    size = 1 << len(operation.qubits)
    return np.frombuffer(operation.matrix, "<c16").reshape(size, size)


def _as_int(duration: Any) -> Any:
    return int(duration) if isinstance(duration, float) else duration


@cache
def _standard() -> dict[str, Any]:
    from qiskit.circuit.library import get_standard_gate_name_mapping

    return {name: type(gate) for name, gate in get_standard_gate_name_mapping().items()}
