"""Values of an `if`'s condition for many classical records at once.

Integers are Python's, so registers of any width are exact. An expression is evaluated once for
each distinct setting of the clbits it reads, and remembered. A Uint of width w wraps at 2**w; a
constant wider than its width keeps its value (it equals no register); division by zero yields 0; a
bit beyond the width reads 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import tokens as tk
from simulators.circuit.ir import Circuit, register_starts

_TWO: dict[int, Callable[[int, int], int]] = {
    tk.BIT_AND: operator.and_,
    tk.BIT_OR: operator.or_,
    tk.BIT_XOR: operator.xor,
    tk.LOGIC_AND: operator.and_,
    tk.LOGIC_OR: operator.or_,
    tk.EQUAL: operator.eq,
    tk.NOT_EQUAL: operator.ne,
    tk.LESS: operator.lt,
    tk.LESS_EQUAL: operator.le,
    tk.GREATER: operator.gt,
    tk.GREATER_EQUAL: operator.ge,
    tk.ADD: operator.add,
    tk.SUB: operator.sub,
    tk.MUL: operator.mul,
    tk.DIV: lambda left, right: left // right if right else 0,
    tk.SHIFT_RIGHT: lambda left, right: left >> min(right, left.bit_length()),
    tk.INDEX: lambda left, right: (left >> min(right, left.bit_length())) & 1,
}


class Condition:
    """One expression of a circuit; remembers the values it has found."""

    def __init__(
        self, tokens: list[tuple[int, int, int]], starts: list[int], constants: tuple[int, ...]
    ) -> None:
        self._tokens = tokens
        self._starts = starts
        self._constants = constants
        self._known: dict[bytes, bool] = {}
        self._read = 0  # the clbits it reads, as a mask
        for token, operand, width in tokens:
            if token == tk.CLBIT:
                self._read |= 1 << operand
            elif token == tk.REGISTER:
                self._read |= ((1 << width) - 1) << starts[operand]

    def of(self, records: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Its value for each record: uint64 [records, words] to bool [records]."""
        words = records.shape[1]
        mask = np.frombuffer(self._read.to_bytes(8 * words, "little"), np.uint64)
        seen = np.ascontiguousarray(records & mask)
        rows = seen.view(np.dtype((np.void, 8 * words))).ravel()
        found, inverse = np.unique(rows, return_inverse=True)
        return np.array([self._value(row.tobytes()) for row in found], bool)[inverse]

    def _value(self, row: bytes) -> bool:
        value = self._known.get(row)
        if value is None:
            value = self._known[row] = bool(self.evaluate(int.from_bytes(row, "little")))
        return value

    def evaluate(self, clbits: int) -> int:
        """Its value (0 or 1) for the classical bits, clbit c in bit c."""
        stack: list[int] = []
        for token, operand, width in self._tokens:
            if token == tk.CLBIT:
                stack.append((clbits >> operand) & 1)
            elif token == tk.REGISTER:
                stack.append((clbits >> self._starts[operand]) & ((1 << width) - 1))
            elif token == tk.VALUE:
                value = self._constants[operand]
                stack.append(value if width else int(value != 0))
            elif token == tk.CAST:
                value = stack.pop()
                stack.append(value & ((1 << width) - 1) if width else int(value != 0))
            elif token in (tk.BIT_NOT, tk.LOGIC_NOT):
                stack.append(stack.pop() ^ ((1 << (width or 1)) - 1))
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(_apply(token, left, right, width))
        return stack[0]


def _apply(token: int, left: int, right: int, width: int) -> int:
    if token == tk.SHIFT_LEFT:
        return (left << right) & ((1 << width) - 1) if right < width else 0
    value = int(_TWO[token](left, right))
    return value & ((1 << width) - 1) if tk.ADD <= token <= tk.DIV else value


def conditions_of(circuit: Circuit) -> tuple[Condition, ...]:
    """The circuit's conditions in order: the k-th belongs to the k-th `if`."""
    starts = register_starts(circuit).tolist()
    constants = tuple(int.from_bytes(value, "little") for value in circuit.constants)
    found: list[Condition] = []
    tokens: list[tuple[int, int, int]] = []
    flat = circuit.conditions.tolist()
    for at in range(0, len(flat), 3):
        token, operand, width = flat[at : at + 3]
        if token == tk.END:
            found.append(Condition(tokens, starts, constants))
            tokens = []
        else:
            tokens.append((token, operand, width))
    return tuple(found)
