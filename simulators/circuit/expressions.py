"""Evaluation of classical expressions for many classical records at once.

Integers are Python's, so registers and variables of any width are exact. An expression is evaluated
once for each distinct setting of the bits it reads, and cached. A Uint of width w wraps at 2**w; a
constant wider than its width keeps its value (it equals no register) until it is stored; division
by zero yields 0; a bit beyond the width reads 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import ir
from simulators.circuit.ir import Circuit, register_starts, variable_starts

_SPAN = 10  # bits within this span are counted in a table, not sorted
_REMEMBERED = 1 << 16  # cached values; the cache is cleared when it is full

_TWO: dict[int, Callable[[int, int], int]] = {
    ir.BIT_AND: operator.and_, ir.BIT_OR: operator.or_, ir.BIT_XOR: operator.xor,
    ir.LOGIC_AND: operator.and_, ir.LOGIC_OR: operator.or_, ir.EQUAL: operator.eq,
    ir.NOT_EQUAL: operator.ne, ir.LESS: operator.lt, ir.LESS_EQUAL: operator.le,
    ir.GREATER: operator.gt, ir.GREATER_EQUAL: operator.ge, ir.ADD: operator.add,
    ir.SUB: operator.sub, ir.MUL: operator.mul,
    ir.DIV: lambda left, right: left // right if right else 0,
    ir.SHIFT_RIGHT: lambda left, right: left >> min(right, left.bit_length()),
    ir.INDEX: lambda left, right: (left >> min(right, left.bit_length())) & 1,
}  # fmt: skip


class Expression:
    """One expression of a circuit, with a cache of its values. `tokens`: without the store; tokens
    of bits hold the first bit in a record and the number of bits. `target`: first bit and number of
    bits of the stored value."""

    def __init__(
        self,
        tokens: list[tuple[int, int, int]],
        constants: tuple[int, ...],
        target: tuple[int, int] | None = None,
    ) -> None:
        self.target = target
        self._tokens = tokens
        self._constants = constants
        self._known: dict[bytes, int] = {}
        mask = 0  # the bits it reads
        for token, first, width in tokens:
            if token in (ir.CLBIT, ir.REGISTER, ir.VARIABLE):
                mask |= ((1 << width) - 1) << first
        self.reads = mask
        size = (mask.bit_length() + 63) // 64
        parts = np.frombuffer(mask.to_bytes(8 * size, "little"), np.uint64)
        self._columns = np.flatnonzero(parts)
        self._mask = parts[self._columns]
        word = int(self._mask[0]) if self._columns.size else 1
        low = (word & -word).bit_length() - 1
        self._low = np.uint64(low)
        self._span = word.bit_length() - low

    @property
    def labels(self) -> tuple[int, ...]:
        """Values of an expression that consists of one or more constants."""
        return tuple(self._constant(operand, width) for _, operand, width in self._tokens)

    def values(self, records: NDArray[np.uint64]) -> tuple[list[int], NDArray[np.intp]]:
        """Values for the distinct settings of the bits, and for each record the index of its
        setting. `records`: uint64 [records, words], at least one."""
        if not self._columns.size:
            return [self._value(b"")], np.zeros(len(records), np.intp)
        seen = records[:, self._columns] & self._mask
        if self._columns.size == 1:
            keys = seen[:, 0]
            if self._span <= _SPAN:
                return self._tabulated((keys >> self._low).view(np.int64))
            result, inverse = np.unique(keys, return_inverse=True)
        else:
            full = np.dtype((np.void, seen.itemsize * seen.shape[1]))
            rows = np.ascontiguousarray(seen).view(full).ravel()
            result, inverse = np.unique(rows, return_inverse=True)
        return [self._value(row.tobytes()) for row in result], inverse

    def _tabulated(self, keys: NDArray[np.int64]) -> tuple[list[int], NDArray[np.intp]]:
        """Compute `values` for bits within _SPAN: keys[record] is a small number."""
        present = np.bincount(keys, minlength=1 << self._span) > 0
        number = np.cumsum(present) - 1
        result = np.flatnonzero(present).astype(np.uint64) << self._low
        return [self._value(row.tobytes()) for row in result], number[keys]

    def truths(self, records: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Value of a Bool for each record: bool [records]."""
        values, inverse = self.values(records)
        return np.array(values, bool)[inverse]

    def store(self, records: NDArray[np.uint64]) -> None:
        """Store the value in each record."""
        assert self.target is not None  # of a `store`
        first, width = self.target
        values, inverse = self.values(records)
        at = 0
        while at < width:
            word, bit = divmod(first + at, 64)
            count = min(64 - bit, width - at)
            mask = (1 << count) - 1
            parts = np.array([((value >> at) & mask) << bit for value in values], np.uint64)
            column = records[:, word]
            column &= ~np.uint64(mask << bit)
            column |= parts[inverse]
            at += count

    def _value(self, row: bytes) -> int:
        value = self._known.get(row)
        if value is None:
            bits = 0
            for k, column in enumerate(self._columns.tolist()):
                bits |= int.from_bytes(row[8 * k : 8 * k + 8], "little") << (64 * column)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            value = self._known[row] = self.evaluate(bits)
        return value

    def _constant(self, operand: int, width: int) -> int:
        value = self._constants[operand]
        return value if width else int(value != 0)

    def evaluate(self, bits: int) -> int:
        """Value for one record, bit b in bit b; a Bool is 0 or 1."""
        stack: list[int] = []
        for token, operand, width in self._tokens:
            if token in (ir.CLBIT, ir.REGISTER, ir.VARIABLE):
                stack.append((bits >> operand) & ((1 << width) - 1))
            elif token == ir.VALUE:
                stack.append(self._constant(operand, width))
            elif token == ir.CAST:
                value = stack.pop()
                stack.append(value & ((1 << width) - 1) if width else int(value != 0))
            elif token in (ir.BIT_NOT, ir.LOGIC_NOT):
                stack.append(stack.pop() ^ ((1 << (width or 1)) - 1))
            else:
                right, left = stack.pop(), stack.pop()
                stack.append(_apply(token, left, right, width))
        return stack[0]


def _apply(token: int, left: int, right: int, width: int) -> int:
    if token == ir.SHIFT_LEFT:
        return (left << right) & ((1 << width) - 1) if right < width else 0
    value = int(_TWO[token](left, right))
    return value & ((1 << width) - 1) if ir.ADD <= token <= ir.DIV else value


def expressions_of(circuit: Circuit) -> tuple[Expression, ...]:
    """The circuit's expressions in order: the k-th belongs to the k-th operation that owns one."""
    registers = register_starts(circuit).tolist()
    variables = variable_starts(circuit)
    constants = tuple(int.from_bytes(value, "little") for value in circuit.constants)
    results: list[Expression] = []
    tokens: list[tuple[int, int, int]] = []
    target: tuple[int, int] | None = None
    flat = circuit.conditions.tolist()
    for at in range(0, len(flat), 3):
        token, operand, width = flat[at : at + 3]
        if token == ir.END:
            results.append(Expression(tokens, constants, target))
            tokens, target = [], None
            continue
        if token in (ir.CLBIT, ir.SET_CLBIT):
            width = 1
        elif token in (ir.REGISTER, ir.SET_REGISTER):
            operand = registers[operand]
        elif token in (ir.VARIABLE, ir.SET_VARIABLE):
            operand, width = variables[operand], max(1, width)
        if token >= ir.SET_CLBIT:
            target = operand, width
        else:
            tokens.append((token, operand, width))
    return tuple(results)
