"""Values in OpenQASM 3 text. Imports Qiskit and its importer.

Values are bits and registers selected by index, and conditions as expressions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from openqasm3 import ast
from qiskit.circuit import Clbit
from qiskit.circuit.classical import expr, types
from qiskit_qasm3_import import types as importer_types
from qiskit_qasm3_import.exceptions import ConversionError, raise_from_node
from qiskit_qasm3_import.expression import ValueResolver

from simenv.model import MAX_CLBITS

_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"&&": expr.logic_and, "||": expr.logic_or}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": expr.equal, "!=": expr.not_equal, "<": expr.less, "<=": expr.less_equal,
    ">": expr.greater, ">=": expr.greater_equal,
}  # fmt: skip
_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "&": expr.bit_and, "|": expr.bit_or, "^": expr.bit_xor,
    "<<": expr.shift_left, ">>": expr.shift_right,
    "+": expr.add, "-": expr.sub, "*": expr.mul, "/": expr.div,
}  # fmt: skip


_CONSTANTS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv,
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
INT_BITS = 64  # width of an `int` without a size
_SHIFTS = ("<<", ">>")  # the operands may differ in width
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "arccos": math.acos, "arcsin": math.asin, "arctan": math.atan, "ceiling": math.ceil,
    **{name: getattr(math, name) for name in ("cos", "exp", "floor", "log", "sin", "sqrt", "tan")},
}  # fmt: skip


_REFUSED = {
    "DurationOf": "'durationof'",
    "SizeOf": "'sizeof'",
    "ArrayLiteral": "an array",
    "ImaginaryLiteral": "an imaginary number",
}


class VariableType(importer_types.Type):  # type: ignore[misc]
    """Type of a variable, for the importer, which has none for variables."""

    def pretty(self) -> str:
        return "variable"


class IntType(VariableType):
    """Type of an `int`. Qiskit has no signed numbers: an int only holds what a `switch` selects by,
    and is never negative."""

    def pretty(self) -> str:
        return "int"


class Resolver(ValueResolver):  # type: ignore[misc]
    """The importer's resolver with functions of constants, and with checks of indices."""

    def generic_visit(self, node: Any, context: Any = None) -> Any:
        settings = _REFUSED.get(type(node).__name__)
        if settings is None:
            return super().generic_visit(node, context)
        raise ConversionError(f"{settings} is not carried", node)

    def visit_FunctionCall(self, node: Any) -> Any:  # noqa: N802
        function = _FUNCTIONS.get(node.name.name)
        values = [self.visit(argument)[0] for argument in node.arguments]
        if function is None or not all(isinstance(value, int | float) for value in values):
            raise ConversionError(
                f"{node.name.name!r} is no function of constants known here", node
            )
        try:
            return float(function(*values)), importer_types.Float(const=True)
        except (ArithmeticError, ValueError, TypeError) as error:
            settings = ", ".join(map(str, values))
            raise ConversionError(f"{node.name.name}({settings}): {error}", node) from error

    def _index_collection(self, collection: Any, kind: Any, indexer: Any, base: Any) -> Any:
        is_range = (
            isinstance(indexer, list)
            and len(indexer) == 1
            and isinstance(indexer[0], ast.RangeDefinition)
        )
        if not is_range or not isinstance(
            kind, importer_types.BitArray | importer_types.QubitArray
        ):
            self._check_index(collection, indexer, base)
            return super()._index_collection(collection, kind, indexer, base)
        size = len(collection)
        step = self._bound(indexer[0].step, 1)
        if step == 0:
            raise_from_node(base, "a range with step 0")
        first = self._bound(indexer[0].start, 0 if step > 0 else size - 1)
        last = self._bound(indexer[0].end, size - 1 if step > 0 else 0)
        first, last = (end + size if end < 0 else end for end in (first, last))
        for end in (first, last):
            _check_range(end, size, base)
        picked = [collection[k] for k in range(first, last + (1 if step > 0 else -1), step)]
        return picked, type(kind)(len(picked))

    def _check_index(self, collection: Any, indexer: Any, base: Any) -> None:
        nodes = indexer if isinstance(indexer, list) else indexer.values
        for node in nodes:
            value, _ = self.visit(node)
            if isinstance(value, int) and hasattr(collection, "__len__"):
                size = len(collection)
                _check_range(value + size if value < 0 else value, size, base)

    def _bound(self, node: Any, default: int) -> int:
        if node is None:
            return default
        value, kind = self.visit(node)
        if not isinstance(kind, importer_types.Int | importer_types.Uint) or not kind.const:
            raise_from_node(node, "the ends of a range must be constant integers")
        return int(value)


def _check_range(index: int, size: int, base: Any) -> None:
    if not 0 <= index < size:
        raise_from_node(base, f"index {index} is out of range for a register of {size}")


def condition(node: Any, context: Any) -> Any:
    """Return the Bool expression of an `if` or a `while`."""
    return _bool(read(node, context), node)


def is_constant(kind: Any) -> bool:
    """Return whether this is the importer's type of a constant number or truth value."""
    return bool(getattr(kind, "const", False)) and not isinstance(kind, importer_types.Duration)


def assigned(node: Any, context: Any) -> Any:
    """Return an assigned value: an expression of Qiskit, or a Python number for a constant."""
    try:
        value, kind = Resolver(context, True).resolve(node)
    except ConversionError:
        return read(node, context)
    if isinstance(node, ast.BitstringLiteral) or not is_constant(kind):
        return read(node, context)
    if isinstance(value, float):
        raise_from_node(node, "a floating-point number in an assignment is not carried")
    return value


def as_type(value: Any, kind: Any, node: Any) -> Any:
    """Convert a value to a Bool or a Uint of some width; Uints are truncated, numbers must fit."""
    if isinstance(value, bool | int):
        if isinstance(kind, types.Bool):
            return expr.Value(bool(value), kind)
        if not 0 <= value < 1 << kind.width:
            raise_from_node(node, f"{value} does not fit into {kind.width} bits without a sign")
        return expr.Value(int(value), kind)
    return value if value.type == kind else expr.cast(value, kind)


def switched(node: Any, context: Any) -> Any:
    """Return the target of a `switch`, which alone may be an `int`."""
    if isinstance(node, ast.Identifier):
        symbol = context.symbol_table.get(node.name, node)
        if isinstance(symbol.type, IntType):
            return symbol.data
    return read(node, context)


def read(node: Any, context: Any) -> Any:
    """Return an expression of Qiskit; a Python int for an integer literal, which has no width."""
    if isinstance(node, ast.BooleanLiteral):
        return expr.Value(node.value, types.Bool())
    if isinstance(node, ast.BitstringLiteral):
        return expr.Value(node.value, types.Uint(node.width))
    if isinstance(node, ast.UnaryExpression):
        operand = read(node.expression, context)
        if node.op.name == "!":
            return expr.logic_not(_bool(operand, node))
        if node.op.name == "-" and isinstance(operand, int):
            return -operand
        if node.op.name == "~" and isinstance(operand, expr.Expr):
            return expr.bit_not(operand)
        raise_from_node(node, f"the operator {node.op.name!r} is not carried in a condition")
    if isinstance(node, ast.BinaryExpression):
        return _binary(node, read(node.lhs, context), read(node.rhs, context))
    if isinstance(node, ast.Cast):
        return _cast(node, read(node.argument, context))
    return _leaf(node, context)


def _binary(node: Any, left: Any, right: Any) -> Any:
    name = node.op.name
    if name in _LOGIC:
        return _LOGIC[name](_bool(left, node), _bool(right, node))
    for value in (left, right):
        if isinstance(value, int) and value < 0:
            raise_from_node(node, "a negative number in a condition; registers are unsigned")
    if name in _SHIFTS:
        left, right = _shifted(left), _bits_of(right)
    elif isinstance(left, int) and isinstance(right, int):
        return _constant(name, left, right, node)
    else:
        left, right = _matched(left, right), _matched(right, left)
    make = _COMPARE.get(name) or _COMBINE.get(name)
    if make is None:
        raise ConversionError(f"the operator {name!r} is not carried in a condition", node)
    return make(left, right)


def _constant(name: str, left: int, right: int, node: Any) -> Any:
    """Return the result of an operator of two constant numbers."""
    function = _CONSTANTS.get(name)
    if function is None or (name == "/" and not right):
        raise ConversionError(f"{name!r} of two constants in a condition", node)
    value = function(left, right)
    if value.bit_length() > MAX_CLBITS:
        raise_from_node(node, f"a constant of {value.bit_length()} bits; {MAX_CLBITS} are carried")
    return expr.Value(value, types.Bool()) if isinstance(value, bool) else value


def _shifted(value: Any) -> Any:
    """Return what is shifted as a Uint; a constant has the width of an int."""
    if isinstance(value, int):
        return expr.Value(value, types.Uint(max(INT_BITS, value.bit_length())))
    return _bits_of(value)


def _bits_of(value: Any) -> Any:
    """Return a bit as a register of one bit, and other values as they are."""
    is_bit = isinstance(value, expr.Var) and isinstance(value.var, Clbit)
    return expr.cast(value, types.Uint(1)) if is_bit else value


def _matched(value: Any, other: Any) -> Any:
    """Convert a value to the type of the other operand: 0 and 1 to Bool next to a Bool, and a Uint
    to the width of a larger number."""
    if isinstance(value, int) and value in (0, 1) and isinstance(other.type, types.Bool):
        return expr.Value(bool(value), types.Bool())
    bits = other.bit_length() if isinstance(other, int) else 0
    if bits and isinstance(value.type, types.Uint) and value.type.width < bits:
        return expr.cast(value, types.Uint(bits))
    return value


def _cast(node: Any, value: Any) -> Any:
    if isinstance(node.type, ast.BoolType):
        return _bool(value, node)
    if isinstance(node.type, ast.UintType | ast.BitType):
        size = node.type.size
        width = size.value if isinstance(size, ast.IntegerLiteral) else 0
        if isinstance(value, int) and 0 <= value < 1 << min(width, 65_535):
            return expr.Value(value, types.Uint(width))
        if width > 0 and isinstance(value, expr.Expr):
            return expr.cast(value, types.Uint(width))
    raise_from_node(node, "a cast in a condition must be to bool, bit[n] or uint[n]")


def _leaf(node: Any, context: Any) -> Any:
    try:
        value, kind = Resolver(context, True).resolve(node)
    except ConversionError:
        if not isinstance(node, ast.IndexExpression) or not isinstance(node.index, list):
            raise
        if len(node.index) != 1 or isinstance(node.index[0], ast.RangeDefinition):
            raise
        target, index = read(node.collection, context), read(node.index[0], context)
        if isinstance(index, int) and not isinstance(getattr(target, "type", None), types.Uint):
            raise
        return expr.index(target, index)
    if isinstance(kind, IntType):
        raise_from_node(
            node,
            "an int in an expression is not carried, only as the target of a switch: use uint[n]",
        )
    if isinstance(kind, VariableType):
        return value
    if isinstance(value, bool):
        return expr.Value(value, types.Bool())
    if isinstance(kind, importer_types.Int | importer_types.Uint):
        return int(value)
    if isinstance(value, Clbit):
        return expr.lift(value)
    if not isinstance(kind, importer_types.BitArray):
        raise_from_node(node, f"a value of type {kind.pretty()!r} in a condition")
    return _bits(value) if isinstance(value, list | tuple) else expr.lift(value)


def _bits(bits: Any) -> Any:
    """Return a Uint of bits selected from registers; the first is the lowest."""
    kind = types.Uint(len(bits))
    result = expr.cast(expr.lift(bits[0]), kind)
    for shift, bit in enumerate(bits[1:], start=1):
        moved = expr.shift_left(expr.cast(expr.lift(bit), kind), shift)
        result = expr.bit_or(result, moved)
    return result


def _bool(value: Any, node: Any) -> Any:
    if isinstance(value, expr.Expr):
        return value if isinstance(value.type, types.Bool) else expr.cast(value, types.Bool())
    raise_from_node(node, "a condition must be a bit, a register or a comparison")
