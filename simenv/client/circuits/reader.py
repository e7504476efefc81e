"""A Program's expressions as Qiskit's: the way back of `expressions`.

Invariant: tokens that make no expression are refused, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from simenv.client.circuits.reading import array
from simenv.errors import ProgramError
from simenv.model import Program, Token

Result = TypeVar("Result")


class ExpressionReader:
    """The expressions of a program, one after the other."""

    def __init__(
        self, program: Program, registers: list[Any], clbits: list[Any], variables: list[Any]
    ) -> None:
        """`registers`: of Qiskit, or lists of loose clbits; `variables`: of Qiskit."""
        self._tokens = array(program.conditions, "i")
        self._registers = registers
        self._clbits = clbits
        self._variables = variables
        self._constants = [int.from_bytes(value, "little") for value in program.constants]
        self._at = 0

    def value(self) -> Any:
        """The next expression, of one value."""
        return self._next(self._value)

    def numbers(self) -> list[int]:
        """The next expression, of constants alone."""
        return self._next(self._numbers)

    def store(self) -> tuple[Any, Any]:
        """The next expression: what is stored into, and what."""
        return self._next(self._store)

    def _next(self, read: Callable[[list[tuple[int, int, int]]], Result]) -> Result:
        tokens: list[tuple[int, int, int]] = []
        try:
            while True:
                token, operand, width = self._tokens[self._at : self._at + 3]
                self._at += 3
                if token == Token.END:
                    return read(tokens)
                if operand < 0 or not 0 <= width < 1 << 16:
                    raise IndexError(operand)
                tokens.append((token, operand, width))
        except (IndexError, ValueError, TypeError) as error:
            raise ProgramError(f"an expression's tokens make none ({error})") from error

    def _numbers(self, tokens: list[tuple[int, int, int]]) -> list[int]:
        if not tokens or any(token != Token.VALUE for token, _, _ in tokens):
            raise ValueError("no constants")
        return [self._constants[operand] for _, operand, _ in tokens]

    def _value(self, tokens: list[tuple[int, int, int]]) -> Any:
        stack: list[Any] = []
        for token, operand, width in tokens:
            self._push(stack, Token(token), operand, width)
        (result,) = stack
        return result

    def _store(self, tokens: list[tuple[int, int, int]]) -> tuple[Any, Any]:
        token, operand, width = tokens.pop()
        place = {
            Token.SET_CLBIT: Token.CLBIT,
            Token.SET_REGISTER: Token.REGISTER,
            Token.SET_VARIABLE: Token.VARIABLE,
        }.get(Token(token))
        if place is None:
            raise ValueError("nothing is stored")
        return self._value([(place, operand, width)]), self._value(tokens)

    def _push(self, stack: list[Any], token: Token, operand: int, width: int) -> None:
        from qiskit.circuit.classical import expr, types

        kind = types.Uint(width) if width else types.Bool()
        if token == Token.CLBIT:
            stack.append(expr.Var(self._clbits[operand], types.Bool()))
        elif token == Token.REGISTER:
            register = self._registers[operand]
            if isinstance(register, list):
                raise ValueError("loose bits are no register")
            stack.append(expr.Var(register, kind))
        elif token == Token.VARIABLE:
            stack.append(self._variables[operand])
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
