"""Encoding of Qiskit's classical expressions and control flow.

Expressions are encoded as postfix tokens of a Program. Invariant: only Bool and Uint are encoded,
over clbits, whole registers and variables; a register that is no register of the program is
composed bit by bit.

Control flow is encoded as markers of a Program: blocks, loops, break and continue. Invariant: a
loop is unrolled if its body depends on the index in a way that no expression can have (an angle, a
list of numbers); every other loop is encoded as a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from simenv.client.circuits.program_builder import ProgramBuilder
from simenv.client.circuits.text_checks import MAX_BLOCKS, MAX_OPERATIONS, too_many_operations
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS, MAX_VARIABLES, Token
from simenv.transpiler.qiskit_runtime import names

BitNumber = Callable[[Any], int]
Registers = dict[tuple[int, ...], int]  # numbers of registers by their clbits

_HINT = "expressions may use clbits, registers, and Bool and Uint variables"


class ExpressionWriter:
    """Writer of expressions, one for each operation that needs one."""

    __slots__ = ("_outside", "_registers", "_tape", "_variables")

    def __init__(self, tape: ProgramBuilder, registers: Registers, circuit: Any) -> None:
        self._tape = tape
        self._registers = registers
        self._variables: dict[Any, int] = {}  # numbers by Qiskit's `Var.var`
        self._outside = {v.var: "input" for v in circuit.iter_input_vars()}
        self._outside |= {v.var: "captured" for v in circuit.iter_captured_vars()}

    def condition(self, condition: Any, clbit_of: BitNumber) -> None:
        """Write the condition of an `if` or a `while`: a Bool."""
        if isinstance(condition, tuple):
            target, value = condition
            self._comparison(target, value, clbit_of)
        else:
            self._expression(condition, clbit_of)
        self._end()

    def target(self, target: Any, clbit_of: BitNumber) -> int:
        """Write the target of a `switch`; return its width."""
        if isinstance(target, names().Clbit):
            self._tape.token(Token.CLBIT, clbit_of(target))
            width = 0
        elif isinstance(target, names().ClassicalRegister):
            width = len(target)
            self._register(tuple(map(clbit_of, target)))
            if not width:
                self._tape.value(0, 0)
        else:
            width = _width(target.type)
            self._expression(target, clbit_of)
        self._end()
        return width

    def constants(self, values: Iterable[int], width: int) -> None:
        """Write one or more constants: labels of a `case`, or the number of passes of a `for`."""
        for value in values:
            self._tape.value(value, width)
        self._end()

    def assign(self, variable: int, width: int, value: int) -> None:
        """Write the expression of a `store` of a number into a variable."""
        self._tape.value(value, width)
        self._tape.token(Token.SET_VARIABLE, variable, width)
        self._end()

    def advance(self, variable: int, width: int, step: int) -> None:
        """Write the expression of a `store` that adds a step to a variable, modulo 2**width."""
        tape = self._tape
        tape.token(Token.VARIABLE, variable, width)
        tape.value(step % (1 << width), width)
        tape.token(Token.ADD, 0, width)
        tape.token(Token.SET_VARIABLE, variable, width)
        self._end()

    def read_target(self, variable: int, width: int) -> None:
        """Write a variable as the target of a `switch`."""
        self._tape.token(Token.VARIABLE, variable, width)
        self._end()

    def store(self, target: Any, value: Any, clbit_of: BitNumber) -> None:
        """Write the expression of a `store` of Qiskit."""
        if type(target).__name__ == "Index":
            self._store_bit(target, value, clbit_of)
        else:
            self._expression(value, clbit_of)
            self._set(target, clbit_of)
        self._end()

    def variable(self, variable: Any) -> tuple[int, int]:
        """Return number and width of a variable. Raises ProgramError for an input or captured
        one."""
        width = _width(variable.type, f"the variable {variable.name!r}")
        number = self._variables.get(variable.var)
        if number is None:
            if variable.var in self._outside:
                raise ProgramError(
                    f"the {self._outside[variable.var]} variable {variable.name!r} is not carried:"
                    " nothing gives its value",
                    hint="declare it with its value: circuit.add_var(...)",
                )
            number = self._variables[variable.var] = self.new(width)
        return number, width

    def new(self, width: int) -> int:
        """Add a variable; return its number. Raises LimitExceededError."""
        widths = self._tape.variables
        if len(widths) == MAX_VARIABLES or sum(widths) + len(widths) + width > MAX_CLBITS:
            message = f"more than {MAX_VARIABLES} variables, or {MAX_CLBITS} bits of them"
            raise LimitExceededError(message, hint="use fewer or narrower ones")
        widths.append(width)
        return len(widths) - 1

    def _end(self) -> None:
        self._tape.token(Token.END)
        self._tape.check()

    def _set(self, target: Any, clbit_of: BitNumber) -> None:
        """Write the token that stores into `target`, a Var of Qiskit."""
        tape = self._tape
        register = target.var
        if isinstance(register, names().Clbit):
            tape.token(Token.SET_CLBIT, clbit_of(register))
        elif isinstance(register, names().ClassicalRegister):
            number = self._registers.get(tuple(map(clbit_of, register)))
            if number is None:
                _refuse(f"a store into {register.name!r}, which is part of other registers,")
            if _width(target.type) != len(register):
                text = f"a store of {target.type} into {register.name!r} of {len(register)} bits"
                _refuse(text, f"expr.cast(value, types.Uint({len(register)}))")
            tape.token(Token.SET_REGISTER, number, len(register))
        else:
            number, width = self.variable(target)
            tape.token(Token.SET_VARIABLE, number, width)

    def _store_bit(self, element: Any, value: Any, clbit_of: BitNumber) -> None:
        """Write the store of a Bool into one bit: target & ~(1 << index) | value << index."""
        tape, target, index = self._tape, element.target, element.index
        if type(target).__name__ != "Var":
            _refuse("a store into a bit of a bit")
        register, number = target.var, getattr(index, "value", None)
        if isinstance(register, names().ClassicalRegister) and number is not None:
            self._expression(value, clbit_of)
            if not 0 <= number < len(register):
                raise ProgramError(f"bit {number} of {register.name!r}, which has {len(register)}")
            tape.token(Token.SET_CLBIT, clbit_of(register[number]))
            return
        width = _width(target.type)
        self._expression(target, clbit_of)
        tape.value(1, width)
        self._expression(index, clbit_of)
        tape.token(Token.SHIFT_LEFT, 0, width)
        tape.token(Token.BIT_NOT, 0, width)
        tape.token(Token.BIT_AND, 0, width)
        self._expression(value, clbit_of)
        tape.token(Token.CAST, 0, width)
        self._expression(index, clbit_of)
        tape.token(Token.SHIFT_LEFT, 0, width)
        tape.token(Token.BIT_OR, 0, width)
        self._set(target, clbit_of)

    def _comparison(self, target: Any, value: Any, clbit_of: BitNumber) -> None:
        tape = self._tape
        if isinstance(target, names().Clbit):
            tape.token(Token.CLBIT, clbit_of(target))
            if not value:
                tape.token(Token.LOGIC_NOT)
            return
        bits = tuple(map(clbit_of, target))
        width = len(bits)
        number = int(value)
        if number < 0 or number.bit_length() > width:
            tape.value(0, 0)  # it holds for no value of the register
        elif not width:
            tape.value(1, 0)
        else:
            self._register(bits)
            tape.value(number, width)
            tape.token(Token.EQUAL)

    def _register(self, bits: tuple[int, ...]) -> None:
        tape = self._tape
        width = len(bits)
        number = self._registers.get(bits) if width else None
        if number is not None:
            tape.token(Token.REGISTER, number, width)
            return
        for position, bit in enumerate(bits):
            tape.token(Token.CLBIT, bit)
            tape.token(Token.CAST, 0, width)
            if position:
                tape.value(position, width.bit_length())
                tape.token(Token.SHIFT_LEFT, 0, width)
                tape.token(Token.BIT_OR, 0, width)

    def _expression(self, node: Any, clbit_of: BitNumber) -> None:
        kind = type(node).__name__
        tape = self._tape
        if kind == "Var":
            self._read(node, clbit_of)
        elif kind == "Value":
            width = _width(node.type)
            tape.value(int(node.value), width)
        elif kind == "Cast":
            width = _width(node.type)
            self._expression(node.operand, clbit_of)
            tape.token(Token.CAST, 0, width)
        elif kind == "Unary":
            self._expression(node.operand, clbit_of)
            tape.token(_token(node.op), 0, _width(node.type))
        elif kind == "Binary":
            self._expression(node.left, clbit_of)
            self._expression(node.right, clbit_of)
            tape.token(_token(node.op), 0, _width(node.type))
        elif kind == "Index":
            self._expression(node.target, clbit_of)
            self._expression(node.index, clbit_of)
            tape.token(Token.INDEX)
        elif kind == "Stretch":
            _refuse(f"the stretch {node.name!r}")
        else:
            _refuse(f"an expression of kind {kind!r}")

    def _read(self, node: Any, clbit_of: BitNumber) -> None:
        register = node.var
        if isinstance(register, names().Clbit):
            self._tape.token(Token.CLBIT, clbit_of(register))
        elif isinstance(register, names().ClassicalRegister):
            bits = tuple(map(clbit_of, register))
            if not bits:
                _refuse(f"the empty register {register.name!r}")
            width = _width(node.type)
            if width < len(bits):
                text = f"the register {register.name!r} of {len(bits)} bits as {node.type}"
                _refuse(text, f"types.Uint({len(bits)}), or a wider one")
            self._register(bits)
            if width > len(bits):  # the other operand, or the target, has this width
                self._tape.token(Token.CAST, 0, width)
        else:
            self._tape.token(Token.VARIABLE, *self.variable(node))


def _width(kind: Any, subject: str = "a value") -> int:
    name = type(kind).__name__
    if name == "Bool":
        return 0
    if name != "Uint":
        _refuse(f"{subject} of type {name}")
    return int(kind.width)


def _token(op: Any) -> Token:
    token = Token.__members__.get(op.name)
    if token is None:
        _refuse(f"the operator {op.name!r}")
    return token


def _refuse(subject: str, hint: str = _HINT) -> NoReturn:
    raise ProgramError(f"{subject} is not carried", hint=hint)


MAX_WRITTEN_OUT = 65_536  # passes of one unrolled loop

Bits = tuple[list[int], list[int]]  # numbers of the qubits and clbits of a block
# Encodes a block's circuit, on these bits, at this depth.
Inside = Callable[[Any, Sequence[int], Sequence[int], int], None]


class BlockWriter:
    """Writer of the blocks of one circuit; `inside` encodes their content."""

    __slots__ = ("_expressions", "_inside", "_tape")

    def __init__(self, tape: ProgramBuilder, expressions: ExpressionWriter, inside: Inside) -> None:
        self._tape = tape
        self._expressions = expressions
        self._inside = inside

    def write(
        self, operation: Any, item: Any, qubit_of: BitNumber, clbit_of: BitNumber, depth: int
    ) -> None:
        """Encode one control-flow operation. Raises ProgramError for other kinds of blocks."""
        classes = names()
        if isinstance(operation, classes.BreakLoopOp):
            self._tape.marker("break")
            return
        if isinstance(operation, classes.ContinueLoopOp):
            self._tape.marker("continue")
            return
        if depth >= MAX_BLOCKS:
            raise ProgramError(f"blocks are nested more than {MAX_BLOCKS} deep")
        bits = list(map(qubit_of, item.qubits)), list(map(clbit_of, item.clbits))
        if isinstance(operation, classes.IfElseOp):
            self._if(operation, bits, clbit_of, depth)
        elif isinstance(operation, classes.WhileLoopOp):
            self._expressions.condition(operation.condition, clbit_of)
            self._tape.marker("while")
            self._inside(operation.blocks[0], *bits, depth + 1)
            self._tape.marker("end")
        elif isinstance(operation, classes.SwitchCaseOp):
            self._switch(operation, bits, clbit_of, depth)
        elif isinstance(operation, classes.ForLoopOp):
            indices, index, body = operation.params
            self._for(indices, index, body, bits, depth)
        else:
            hint = "take the operations out of the box, or use if, switch and loops"
            raise ProgramError(f"control flow {operation.name!r} is not carried", hint=hint)
        self._tape.check()

    def store(self, operation: Any, clbit_of: BitNumber) -> None:
        """Encode a `store` of Qiskit."""
        self._expressions.store(operation.lvalue, operation.rvalue, clbit_of)
        self._tape.marker("store")

    def _if(self, operation: Any, bits: Bits, clbit_of: BitNumber, depth: int) -> None:
        tape = self._tape
        self._expressions.condition(operation.condition, clbit_of)
        tape.marker("if")
        for number, block in enumerate(operation.blocks):
            rows = tape.marker("else") if number else 0
            before = len(tape.ops)
            self._inside(block, *bits, depth + 1)
            if number and len(tape.ops) == before:  # an empty else
                tape.unmark(rows)
        tape.marker("end")

    def _switch(self, operation: Any, bits: Bits, clbit_of: BitNumber, depth: int) -> None:
        tape = self._tape
        width = self._expressions.target(operation.target, clbit_of)
        tape.marker("switch")
        for labels, block in operation.cases_specifier():
            if any(label is names().CASE_DEFAULT for label in labels):
                tape.marker("default")
            else:
                self._expressions.constants(map(int, labels), width)
                tape.marker("case")
            self._inside(block, *bits, depth + 1)
        tape.marker("end")

    def _for(self, indices: Any, index: Any, body: Any, bits: Bits, depth: int) -> None:
        """Encode a for loop. `index`: None, a parameter, or a variable."""
        if not _length(indices):
            return
        is_parameter = isinstance(index, names().Parameter)
        if index is None or (is_parameter and index not in body.parameters):
            self._repeat(_length(indices))
            self._inside(body, *bits, depth + 1)
            self._tape.marker("end")
        elif not is_parameter and isinstance(indices, range):
            self._count(indices, index, body, bits, depth)
        else:
            self._write_out(indices, index, body, bits, depth)

    def _repeat(self, count: int) -> None:
        self._expressions.constants((count,), max(1, count.bit_length()))
        self._tape.marker("for")

    def _assign(self, variable: int, width: int, value: int) -> None:
        self._expressions.assign(variable, width, value)
        self._tape.marker("store")

    def _count(self, indices: range, index: Any, body: Any, bits: Bits, depth: int) -> None:
        """Encode a loop over a range with a variable, which is advanced at the begin of a pass."""
        count = _length(indices)
        variable, width = self._expressions.variable(index)
        last = indices.start + (count - 1) * indices.step
        _check_fits((indices.start, last), index, width)
        self._assign(variable, width, (indices.start - indices.step) % (1 << width))
        self._repeat(count)
        self._expressions.advance(variable, width, indices.step)
        self._tape.marker("store")
        self._inside(body, *bits, depth + 1)
        self._tape.marker("end")

    def _write_out(
        self, indices: Sequence[int], index: Any, body: Any, bits: Bits, depth: int
    ) -> None:
        count = _length(indices)
        if count * max(1, len(body._data)) > MAX_OPERATIONS:
            raise too_many_operations()
        if count > MAX_WRITTEN_OUT:
            raise LimitExceededError(
                f"a loop of {count} passes that must be written out; at most {MAX_WRITTEN_OUT} are",
                hint="its index is an angle or comes from a list; split the loop",
            )
        begin = self._begin_pass(indices, index, body)
        if not _jumps(body):
            for value in indices:
                self._inside(begin(value), *bits, depth + 1)
            return
        # A loop over numbered passes, which break and continue can leave.
        width = max(1, count.bit_length())
        number = self._expressions.new(width)
        self._assign(number, width, 0)
        self._repeat(count)
        self._expressions.read_target(number, width)
        self._tape.marker("switch")
        for k, value in enumerate(indices):
            self._expressions.constants((k,), width)
            self._tape.marker("case")
            self._assign(number, width, k + 1)
            self._inside(begin(value), *bits, depth + 1)
        self._tape.marker("end")
        self._tape.marker("end")

    def _begin_pass(self, indices: Iterable[int], index: Any, body: Any) -> Callable[[int], Any]:
        """Return a function from an index to the body of its pass. For a loop variable it also
        writes the assignment of the index."""
        if isinstance(index, names().Parameter):
            return lambda value: body.assign_parameters({index: value})
        variable, width = self._expressions.variable(index)
        _check_fits(indices, index, width)

        def begin(value: int) -> Any:
            self._assign(variable, width, value)
            return body

        return begin


def _length(indices: Any) -> int:
    """Return `len(indices)`, also for ranges that are longer than `len` permits."""
    if not isinstance(indices, range):
        return len(indices)
    step = indices.step
    return max(0, (indices.stop - indices.start + step - (1 if step > 0 else -1)) // step)


def _check_fits(values: Iterable[int], index: Any, width: int) -> None:
    for value in values:
        if not 0 <= value < 1 << width:
            raise ProgramError(
                f"the loop variable {index.name!r} has {width} bits, which do not hold {value}",
                hint="give it more bits, and numbers from 0 on",
            )


def is_jump(operation: Any) -> bool:
    """Return whether an operation is a break or a continue."""
    return isinstance(operation, names().BreakLoopOp | names().ContinueLoopOp)


def _jumps(body: Any) -> bool:
    """Return whether a loop's body has a break or a continue of this loop."""
    loops = names().ForLoopOp | names().WhileLoopOp
    for item in body._data:
        if item.is_standard_gate():
            continue
        operation = item.operation
        if is_jump(operation):
            return True
        inner = item.is_control_flow() and not isinstance(operation, loops)
        if inner and any(map(_jumps, operation.blocks)):
            return True
    return False
