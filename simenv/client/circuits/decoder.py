"""Decoding of a Program: its arrays, and its conversion to a QuantumCircuit.

Arrays are decoded to operations, and to expressions as those of Qiskit. Invariant: every index is
checked here, so that callers need no checks; tokens that are no expression are refused.

The QuantumCircuit is for Qiskit's transpiler and for users. Invariant: packing it gives the program
again, byte for byte, if it has no labels; gates have theirs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from simenv import model
from simenv.client.circuits.text_checks import MAX_BLOCKS, MAX_OPERATIONS
from simenv.errors import ProgramError, SimenvError
from simenv.transpiler import qiskit_runtime
from simenv.transpiler.qiskit_runtime import names


@dataclass(frozen=True, slots=True)
class DecodedOperation:
    """One operation. `slots[k]` is the slot of parameter k, -1 if `params[k]` is its value.
    `matrix`: complex128 [2**qubits, 2**qubits] of a `unitary`, row by row."""

    name: str
    qubits: tuple[int, ...]
    clbits: tuple[int, ...]
    params: tuple[float, ...]
    slots: tuple[int, ...]
    matrix: bytes = b""
    label: str = ""  # in noise models, where it is not the name


def operations(program: model.Program) -> Iterator[DecodedOperation]:
    """Iterate over the operations in order. Raises ProgramError if the arrays do not agree."""
    arities = array(program.arities, "H", 3 * len(program.names))
    qubits = array(program.qubits, "H")
    clbits = array(program.clbits, "H")
    params = array(program.params, "d")
    slots = _slots(program, len(params))
    matrices = _matrices(program, arities)
    labels = _labels(program)
    q = c = p = 0
    for at, row in enumerate(array(program.ops, "H")):
        if row >= len(program.names):
            raise ProgramError(f"operation {at} is row {row} of a table of {len(program.names)}")
        num_qubits, num_clbits, num_params = arities[3 * row : 3 * row + 3]
        operation = DecodedOperation(
            program.names[row],
            tuple(qubits[q : q + num_qubits]),
            tuple(clbits[c : c + num_clbits]),
            tuple(params[p : p + num_params]),
            tuple(slots.get(p + k, -1) for k in range(num_params)),
            matrices.get(row, b""),
            labels.get(row, ""),
        )
        q, c, p = q + num_qubits, c + num_clbits, p + num_params
        if max(q - len(qubits), c - len(clbits), p - len(params)) > 0:
            raise ProgramError(f"operation {at} ({operation.name}): its arrays end too early")
        _check_bits(operation, at, program)
        yield operation
    if (q, c, p) != (len(qubits), len(clbits), len(params)):
        raise ProgramError("the arrays are longer than the operations need")


def check_sizes(program: model.Program) -> None:
    """Raise ProgramError for another format, or for impossible numbers of bits."""
    if program.format != model.PROGRAM_FORMAT:
        text = f"a program of format {program.format}; this reads {model.PROGRAM_FORMAT}"
        raise ProgramError(text)
    sizes = [size for _, size in program.registers]
    if min(sizes, default=0) < 0 or sum(sizes) != program.num_clbits:
        raise ProgramError(f"registers of {sizes[:9]} bits for {program.num_clbits} clbits")
    if not (0 <= program.num_qubits <= model.MAX_QUBITS and program.num_clbits <= model.MAX_CLBITS):
        raise ProgramError(f"{program.num_qubits} qubits and {program.num_clbits} clbits")
    widths = program.variables
    if len(widths) > model.MAX_VARIABLES or not all(
        0 <= width <= model.MAX_CLBITS for width in widths
    ):
        raise ProgramError(f"{len(widths)} variables of up to {max(widths)} bits")


def array(data: bytes, kind: str, length: int | None = None) -> Sequence[int]:
    """Decode little-endian numbers (`H`, `i` or `d`). Raises ProgramError for another length."""
    size = struct.calcsize(f"<{kind}")
    if len(data) % size or (length is not None and len(data) != size * length):
        raise ProgramError(f"{len(data)} bytes are no array of {length or 'some'} {kind!r}")
    return struct.unpack(f"<{len(data) // size}{kind}", data)


def _slots(program: model.Program, num_params: int) -> dict[int, int]:
    pairs = array(program.slots, "i")
    if len(pairs) % 2:
        raise ProgramError("the table of slots is no table of pairs")
    slots = dict(zip(pairs[::2], pairs[1::2], strict=True))
    for position, slot in slots.items():
        if not (0 <= position < num_params and 0 <= slot < program.num_slots):
            raise ProgramError(f"slot {slot} of parameter {position} does not exist")
    return slots


def _matrices(program: model.Program, arities: Sequence[int]) -> dict[int, bytes]:
    """Return the matrix of each row of the operation table that has one."""
    rows = [row for row, name in enumerate(program.names) if name == "unitary"]
    if len(rows) != len(program.matrices):
        raise ProgramError(f"{len(rows)} kinds of unitary, but {len(program.matrices)} matrices")
    for row, matrix in zip(rows, program.matrices, strict=True):
        width = arities[3 * row]
        if not 0 < width <= model.MAX_UNITARY_QUBITS or len(matrix) != 16 << 2 * width:
            raise ProgramError(f"a matrix of {len(matrix)} bytes for {width} qubits")
    return dict(zip(rows, program.matrices, strict=True))


def _labels(program: model.Program) -> dict[int, str]:
    """Return the label of each row of the operation table that has one."""
    if len(program.labels) not in (0, len(program.names)):
        raise ProgramError(f"{len(program.labels)} labels of {len(program.names)} operations")
    pairs = zip(program.names, program.labels, strict=False)
    return {row: label for row, (name, label) in enumerate(pairs) if label != name}


def _check_bits(operation: DecodedOperation, at: int, program: model.Program) -> None:
    if any(qubit >= program.num_qubits for qubit in operation.qubits) or any(
        clbit >= program.num_clbits for clbit in operation.clbits
    ):
        raise ProgramError(f"operation {at} ({operation.name}): a bit that does not exist")
    if operation.name in (*model.MARKERS, "store") and (
        operation.qubits or operation.clbits or operation.params
    ):
        raise ProgramError(f"operation {at}: the marker {operation.name!r} has operands")


Result = TypeVar("Result")


class ExpressionReader:
    """Reader of the expressions of a program, in order."""

    def __init__(
        self, program: model.Program, registers: list[Any], clbits: list[Any], variables: list[Any]
    ) -> None:
        """`registers`: of Qiskit, or lists of loose clbits; `variables`: of Qiskit."""
        self._tokens = array(program.conditions, "i")
        self._registers = registers
        self._clbits = clbits
        self._variables = variables
        self._constants = [int.from_bytes(value, "little") for value in program.constants]
        self._at = 0

    def value(self) -> Any:
        """Read the next expression, which has one value."""
        return self._next(self._value)

    def integers(self) -> list[int]:
        """Read the next expression, which consists of constants."""
        return self._next(self._read_constants)

    def store(self) -> tuple[Any, Any]:
        """Read the next expression; return the target of the store and the stored value."""
        return self._next(self._store)

    def _next(self, read: Callable[[list[tuple[int, int, int]]], Result]) -> Result:
        tokens: list[tuple[int, int, int]] = []
        try:
            while True:
                token, operand, width = self._tokens[self._at : self._at + 3]
                self._at += 3
                if token == model.Token.END:
                    return read(tokens)
                if operand < 0 or not 0 <= width < 1 << 16:
                    raise IndexError(operand)
                tokens.append((token, operand, width))
        except (IndexError, ValueError, TypeError) as error:
            raise ProgramError(f"an expression's tokens make none ({error})") from error

    def _read_constants(self, tokens: list[tuple[int, int, int]]) -> list[int]:
        if not tokens or any(token != model.Token.VALUE for token, _, _ in tokens):
            raise ValueError("no constants")
        return [self._constants[operand] for _, operand, _ in tokens]

    def _value(self, tokens: list[tuple[int, int, int]]) -> Any:
        stack: list[Any] = []
        for token, operand, width in tokens:
            self._push(stack, model.Token(token), operand, width)
        (result,) = stack
        return result

    def _store(self, tokens: list[tuple[int, int, int]]) -> tuple[Any, Any]:
        token, operand, width = tokens.pop()
        reference = {
            model.Token.SET_CLBIT: model.Token.CLBIT,
            model.Token.SET_REGISTER: model.Token.REGISTER,
            model.Token.SET_VARIABLE: model.Token.VARIABLE,
        }.get(model.Token(token))
        if reference is None:
            raise ValueError("nothing is stored")
        return self._value([(reference, operand, width)]), self._value(tokens)

    def _push(self, stack: list[Any], token: model.Token, operand: int, width: int) -> None:
        from qiskit.circuit.classical import expr, types

        kind = types.Uint(width) if width else types.Bool()
        if token == model.Token.CLBIT:
            stack.append(expr.Var(self._clbits[operand], types.Bool()))
        elif token == model.Token.REGISTER:
            register = self._registers[operand]
            if isinstance(register, list):
                raise ValueError("loose bits are no register")
            stack.append(expr.Var(register, kind))
        elif token == model.Token.VARIABLE:
            stack.append(self._variables[operand])
        elif token == model.Token.VALUE:
            value = self._constants[operand]
            stack.append(expr.Value(value if width else bool(value), kind))
        elif token == model.Token.CAST:
            stack.append(expr.Cast(stack.pop(), kind))
        elif token in (model.Token.BIT_NOT, model.Token.LOGIC_NOT):
            stack.append(expr.Unary(expr.Unary.Op[token.name], stack.pop(), kind))
        else:
            right, left = stack.pop(), stack.pop()
            if token == model.Token.INDEX:
                stack.append(expr.Index(left, right, kind))
            else:
                stack.append(expr.Binary(expr.Binary.Op[token.name], left, right, kind))


def to_qiskit(program: model.Program) -> Any:
    """Convert a program to a QuantumCircuit. Slots become parameters `p0`, `p1`...; variables `v0`,
    `v1`...; qubits one register `q`. Raises ProgramError if the arrays of the program do not agree
    or an operation is unknown."""
    check_sizes(program)
    try:
        return _built(program)
    except SimenvError:
        raise
    except Exception as error:
        text = str(getattr(error, "message", "")) or str(error)
        raise ProgramError(f"the program makes no circuit: {text}") from error


def _built(program: model.Program) -> Any:
    qiskit_runtime.qiskit()
    from qiskit import QuantumCircuit
    from qiskit.circuit import Clbit, Parameter
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

    def run(self, program: model.Program) -> None:
        for operation in operations(program):
            self._add(operation)
        if self._open:
            raise ProgramError("a block without an end")

    def _add(self, operation: DecodedOperation) -> None:
        circuit, name = self._circuit, operation.name
        if name in model.MARKERS:
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
    if make is None and model.is_measurement(operation.name):
        make = partial(classes.Instruction, operation.name, 1, 1, [])
    if make is None:
        raise ProgramError(f"the operation {operation.name!r} is unknown")
    built = make(*values)
    if (built.num_qubits, built.num_clbits) != (width, len(operation.clbits)):
        raise ProgramError(f"no {operation.name!r} has {width} qubits")
    if operation.label and operation.name not in model.NO_GATES:
        built = built.to_mutable()
        built.label = operation.label
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
