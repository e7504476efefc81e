"""Encoding of Qiskit's classical expressions as postfix tokens of a Program.

Invariant: only Bool and Uint are encoded, over clbits, whole registers and variables; a register
that is no register of the program is composed bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from simenv.client.circuits.encode.program_builder import ProgramBuilder
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS, MAX_VARIABLES, Token
from simenv.transpiler.qiskit_runtime import names

ClbitNumber = Callable[[Any], int]
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

    def condition(self, condition: Any, clbit_of: ClbitNumber) -> None:
        """Write the condition of an `if` or a `while`: a Bool."""
        if isinstance(condition, tuple):
            target, value = condition
            self._comparison(target, value, clbit_of)
        else:
            self._expression(condition, clbit_of)
        self._end()

    def target(self, target: Any, clbit_of: ClbitNumber) -> int:
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

    def store(self, target: Any, value: Any, clbit_of: ClbitNumber) -> None:
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
            raise LimitExceededError(
                f"more than {MAX_VARIABLES} variables, or {MAX_CLBITS} bits of them",
                hint="use fewer or narrower ones",
            )
        widths.append(width)
        return len(widths) - 1

    def _end(self) -> None:
        self._tape.token(Token.END)
        self._tape.check()

    def _set(self, target: Any, clbit_of: ClbitNumber) -> None:
        """Write the token that stores into `target`, a Var of Qiskit."""
        tape = self._tape
        register = target.var
        if isinstance(register, names().Clbit):
            tape.token(Token.SET_CLBIT, clbit_of(register))
        elif isinstance(register, names().ClassicalRegister):
            number = self._registers.get(tuple(map(clbit_of, register)))
            if number is None:
                _refuse(f"a store into {register.name!r}, which is part of other registers,")
            tape.token(Token.SET_REGISTER, number, len(register))
        else:
            number, width = self.variable(target)
            tape.token(Token.SET_VARIABLE, number, width)

    def _store_bit(self, element: Any, value: Any, clbit_of: ClbitNumber) -> None:
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

    def _comparison(self, target: Any, value: Any, clbit_of: ClbitNumber) -> None:
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

    def _expression(self, node: Any, clbit_of: ClbitNumber) -> None:
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

    def _read(self, node: Any, clbit_of: ClbitNumber) -> None:
        register = node.var
        if isinstance(register, names().Clbit):
            self._tape.token(Token.CLBIT, clbit_of(register))
        elif isinstance(register, names().ClassicalRegister):
            bits = tuple(map(clbit_of, register))
            if not bits:
                _refuse(f"the empty register {register.name!r}")
            self._register(bits)
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


def _refuse(subject: str) -> NoReturn:
    raise ProgramError(f"{subject} is not carried", hint=_HINT)
