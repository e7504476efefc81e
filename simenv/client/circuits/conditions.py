"""Conditions of `if` between Qiskit's forms and the postfix tokens of a Program.

Invariant: of a condition only Bool and Uint are carried, over clbits and whole registers; a
register that is not laid out as one in the program is spelled out bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from simenv.client.circuits.names import names
from simenv.client.circuits.tape import Tape
from simenv.errors import ProgramError
from simenv.model import Token

_WAY_OUT = "conditions may use clbits, registers, and Bool and Uint expressions of them"


class ConditionWriter:
    """Writes conditions to a tape; `registers` finds the number of a register by its clbits."""

    __slots__ = ("_registers", "_tape")

    def __init__(self, tape: Tape, registers: dict[tuple[int, ...], int]) -> None:
        self._tape = tape
        self._registers = registers

    def write(self, condition: Any, clbit_of: Callable[[Any], int]) -> None:
        """One condition and its END. `clbit_of` gives the program's number of a clbit."""
        if isinstance(condition, tuple):
            target, value = condition
            self._comparison(target, value, clbit_of)
        else:
            self._expression(condition, clbit_of)
        self._tape.token(Token.END)
        self._tape.check()

    def _comparison(self, target: Any, value: Any, clbit_of: Callable[[Any], int]) -> None:
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
        number = self._registers.get(bits)
        width = len(bits)
        if number is not None:
            tape.token(Token.REGISTER, number, width)
            return
        for place, bit in enumerate(bits):
            tape.token(Token.CLBIT, bit)
            tape.token(Token.CAST, 0, width)
            if place:
                tape.value(place, width.bit_length())
                tape.token(Token.SHIFT_LEFT, 0, width)
                tape.token(Token.BIT_OR, 0, width)

    def _expression(self, node: Any, clbit_of: Callable[[Any], int]) -> None:
        kind = type(node).__name__
        tape = self._tape
        if kind == "Var":
            self._variable(node, clbit_of)
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
        else:
            _refuse(f"an expression of kind {kind!r}")

    def _variable(self, node: Any, clbit_of: Callable[[Any], int]) -> None:
        variable = node.var
        if isinstance(variable, names().Clbit):
            self._tape.token(Token.CLBIT, clbit_of(variable))
            return
        if not isinstance(variable, names().ClassicalRegister):
            _refuse(f"the variable {getattr(node, 'name', variable)!r}")
        bits = tuple(map(clbit_of, variable))
        if not bits:
            _refuse(f"the empty register {variable.name!r}")
        self._register(bits)


def _width(kind: Any) -> int:
    name = type(kind).__name__
    if name == "Bool":
        return 0
    if name != "Uint":
        _refuse(f"a value of type {name}")
    return int(kind.width)


def _token(op: Any) -> Token:
    token = Token.__members__.get(op.name)
    if token is None:
        _refuse(f"the operator {op.name!r}")
    return token


def _refuse(what: str) -> NoReturn:
    raise ProgramError(f"{what} in a condition is not carried", hint=_WAY_OUT)
