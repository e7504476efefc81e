"""Number of the operations of OpenQASM 3 text, counted in its syntax tree before any is made.

Invariant: the number is an upper bound of what the importer makes. Sizes that are no integer
literals count as the largest register.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from openqasm3 import ast

from simenv.client.circuits import text_checks
from simenv.errors import LimitExceededError
from simenv.model import MAX_QUBITS, is_measurement


def is_named_measurement(node: Any) -> TypeGuard[ast.FunctionCall]:
    """Return whether an expression is a measurement with a name of its own, such as
    `measure_2(q[0])`, of which the device has the definition."""
    return (
        isinstance(node, ast.FunctionCall)
        and is_measurement(node.name.name)
        and len(node.arguments) == 1
    )


_CONTROL_WEIGHT = 10  # estimated operations of a controlled operation
_POWER_BASE = 4  # a power is synthesized from a matrix, with 4**qubits operations
_BLOCKS = ("if_block", "else_block", "block", "body")


def check_volume(tree: Any, source: text_checks.SourceText) -> Counter:
    """Count the operations. Raises LimitExceededError at the statement that exceeds the limit. Each
    loop is counted as one pass; `Counter.cost` of the result gives the operations of a pass."""
    counter = Counter(source)
    counter.statements(tree.statements)
    return counter


class Counter:
    """Counter of operations, with the widths of registers and the sizes of gates seen so far."""

    def __init__(self, source: text_checks.SourceText) -> None:
        self._source = source
        self._widths: dict[str, int] = {}
        self._gates: dict[str, int] = {}
        self._operations = 0
        self._operands = 0

    def cost(self, nodes: list[Any]) -> int:
        """Return the operations of one pass through these statements, without loops within them."""
        before = self._operations, self._operands
        self._operations = self._operands = 0
        self.statements([node for node in nodes if not isinstance(node, ast.ForInLoop)])
        result = max(1, self._operations, self._operands)
        self._operations, self._operands = before
        return result

    def statements(self, nodes: list[Any]) -> None:
        """Count the operations of statements."""
        for node in nodes:
            if isinstance(node, ast.QuantumGateDefinition):
                self._definition(node)
                continue
            self._declaration(node)
            for block in _BLOCKS:
                inner = getattr(node, block, None)
                if isinstance(inner, list):
                    self.statements(inner)
            if isinstance(node, ast.SwitchStatement):
                for case in [*(body for _, body in node.cases), node.default]:
                    self.statements(case.statements if case else [])
            self._count(node)

    def _definition(self, node: Any) -> None:
        before = self._operations, self._operands
        self.statements(node.body)
        self._gates[node.name.name] = max(self._operations - before[0], 1)
        self._operations, self._operands = before

    def _declaration(self, node: Any) -> None:
        if isinstance(node, ast.QubitDeclaration):
            self._widths[node.qubit.name] = _size(node.size)
        elif isinstance(node, ast.ClassicalDeclaration) and isinstance(node.type, ast.BitType):
            self._widths[node.identifier.name] = _size(node.type.size)
        elif isinstance(node, ast.AliasStatement):
            self._widths[node.target.name] = self._width(node.value)

    def _count(self, node: Any) -> None:
        weight = 1
        operands: list[Any]
        if isinstance(node, ast.QuantumGate):
            weight = self._gates.get(node.name.name, 1)
            operands = list(node.qubits)
        elif isinstance(node, ast.QuantumPhase | ast.QuantumBarrier | ast.DelayInstruction):
            operands = list(node.qubits)
        elif isinstance(node, ast.QuantumReset):
            operands = [node.qubits]
        elif isinstance(node, ast.QuantumMeasurementStatement):
            operands = [node.measure.qubit]
        elif isinstance(node, ast.ClassicalAssignment) and is_named_measurement(node.rvalue):
            operands = node.rvalue.arguments
        elif isinstance(node, ast.ClassicalDeclaration):
            built = node.init_expression
            operands = [built.qubit] if isinstance(built, ast.QuantumMeasurement) else []
            if is_named_measurement(built):
                operands = built.arguments
        else:
            return
        if isinstance(node, ast.QuantumPhase):
            weight += 2 * len(operands)  # the gates around negated controls
        for modifier in getattr(node, "modifiers", ()):
            weight = _modified(weight, modifier, len(operands))
        widths = [self._width(operand) for operand in operands]
        sets = 1 if isinstance(node, ast.QuantumBarrier) else max(widths, default=1)
        self._operations += sets * weight
        self._operands += sum(widths) if sets == 1 else sets * len(widths)
        if self._operations > text_checks.MAX_OPERATIONS:
            raise self._located(node, text_checks.too_many_operations)
        if self._operands > text_checks.MAX_OPERANDS:
            raise self._located(node, text_checks.too_many_operands)

    def location(self, node: Any) -> str:
        """Return the prefix of a message about this node."""
        line, column = (node.span.start_line, node.span.start_column + 1) if node.span else (1, 1)
        return text_checks.location(self._source.name, line, column)

    def _located(self, node: Any, refusal: Any) -> LimitExceededError:
        refused: LimitExceededError = refusal(self.location(node))
        return refused

    def _width(self, node: Any) -> int:
        """Return an upper bound of the number of bits of an operand."""
        if isinstance(node, ast.Identifier):
            return self._widths.get(node.name, 1)
        if isinstance(node, ast.Concatenation):
            return self._width(node.lhs) + self._width(node.rhs)
        if isinstance(node, ast.IndexExpression):
            return 1 if _selects_one_bit(node.index) else self._width(node.collection)
        if isinstance(node, ast.IndexedIdentifier):
            return 1 if any(map(_selects_one_bit, node.indices)) else self._width(node.name)
        return MAX_QUBITS


def _selects_one_bit(index: Any) -> bool:
    return (
        isinstance(index, list)
        and len(index) == 1
        and not isinstance(index[0], ast.RangeDefinition | ast.DiscreteSet)
    )


def _size(node: Any) -> int:
    if node is None:
        return 1
    return int(node.value) if isinstance(node, ast.IntegerLiteral) else MAX_QUBITS


def _modified(weight: int, modifier: Any, width: int) -> int:
    if modifier.modifier is ast.GateModifierName.pow:
        return int(max(weight, _POWER_BASE ** min(width, 12)))
    if modifier.modifier is ast.GateModifierName.inv or weight == 1:
        return weight
    return weight * _CONTROL_WEIGHT
