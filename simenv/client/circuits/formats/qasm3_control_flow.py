"""Loops, switches, variables and constants of OpenQASM 3, and refusals of other constructs.

Invariant: a loop whose variable is used is unrolled with the variable as a constant, which may
appear wherever a constant may; the operations are counted before it is unrolled. An error names the
refused construct as the language does. Imports Qiskit and the importer: only `qasm3_importer`
imports this.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from openqasm3 import ast
from qiskit.circuit import ClassicalRegister, Clbit
from qiskit.circuit.classical import expr, types
from qiskit_qasm3_import import types as importer_types
from qiskit_qasm3_import.converter import ConvertVisitor
from qiskit_qasm3_import.data import Scope, Symbol
from qiskit_qasm3_import.state import LocalScope, State

from simenv.client.circuits.common.text_checks import MAX_OPERATIONS, too_many_operations
from simenv.client.circuits.formats.qasm3_size import Counter
from simenv.client.circuits.formats.qasm3_values import (
    VariableType,
    as_type,
    assigned,
    is_constant,
    read,
)
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS

_UINT_BITS = 32  # width of a `uint` without a size
_MAX_PASSES = 10_000  # passes of all unrolled loops: the importer takes about 0.3 ms for one

_REFUSED = {
    "SubroutineDefinition": ("a subroutine ('def')", "write it as a gate, or in its place"),
    "ReturnStatement": ("'return'", "there are no subroutines"),
    "ExternDeclaration": ("'extern'", "compute it before, or write it as expressions"),
    "ExpressionStatement": ("a call or expression as a statement", "assign it, or write it out"),
    "CalibrationGrammarDeclaration": ("'defcalgrammar'", "pulses are not simulated"),
    "CalibrationDefinition": ("'defcal'", "pulses are not simulated"),
    "CalibrationStatement": ("'cal'", "pulses are not simulated"),
    "Box": ("'box'", "take the operations out of it"),
    "Pragma": ("'pragma'", "remove it"),
    "EndStatement": ("'end'", "put the rest of the program into an else"),
}
_TYPES = {
    "IntType": ("int", "use uint[n]"),
    "FloatType": ("float", "declare it const, or as input"),
    "AngleType": ("angle", "declare it const, or as input"),
    "ComplexType": ("complex", "write the real parts"),
    "DurationType": ("duration", "write the durations where they are used"),
    "StretchType": ("stretch", "write the durations as numbers"),
    "ArrayType": ("array", "use one variable for each element"),
}


class FlowVisitor(ConvertVisitor):  # type: ignore[misc]
    """The part of the converter for classical statements."""

    def __init__(self) -> None:
        super().__init__()
        self.counter: Counter  # set before the first visit
        self._written = 0  # operations of unrolled loops
        self._passes = 0

    def generic_visit(self, node: Any, context: Any = None) -> Any:
        settings = _REFUSED.get(type(node).__name__)
        if settings is None:
            return super().generic_visit(node, context)
        raise ProgramError(f"{settings[0]} is not carried", hint=settings[1])

    def visit_Box(self, node: Any, context: Any) -> Any:  # noqa: N802
        return self.generic_visit(node, context)

    def visit_ConstantDeclaration(self, node: Any, context: State) -> State:  # noqa: N802
        name, declared_type = node.identifier.name, node.type
        value: Any
        if isinstance(declared_type, ast.IntType | ast.UintType):
            value, kind = (
                self._constant_int(node.init_expression, context),
                importer_types.Int(const=True),
            )
        elif isinstance(declared_type, ast.FloatType | ast.AngleType):
            value = float(self._resolve_constant_float(node.init_expression, context))
            kind = importer_types.Float(const=True)
        elif isinstance(declared_type, ast.BoolType):
            value = bool(self._resolve_generic(node.init_expression, context, strict=True)[0])
            kind = importer_types.Bool(const=True)
        else:
            raise ProgramError(f"a constant of type {_type_name(declared_type)!r} is not carried")
        context.symbol_table.insert(Symbol(name, value, kind, context.scope, node))
        return context

    def visit_IODeclaration(self, node: Any, context: State) -> State:  # noqa: N802
        if node.io_identifier is not ast.IOKeyword.output:
            return super().visit_IODeclaration(node, context)
        if not isinstance(node.type, ast.BitType):
            raise ProgramError(
                f"an output of type {_type_name(node.type)!r} is not carried",
                hint="store it in a bit register, which is an output anyway",
            )
        declared = ast.ClassicalDeclaration(node.type, node.identifier, None)
        declared.span = node.span
        result: State = self.visit_ClassicalDeclaration(declared, context)
        return result

    def visit_ClassicalDeclaration(self, node: Any, context: State) -> State:  # noqa: N802
        if isinstance(node.type, ast.BoolType | ast.UintType):
            return self._variable(node, context)
        if not isinstance(node.type, ast.BitType):
            name, hint = _TYPES.get(type(node.type).__name__, (_type_name(node.type), ""))
            raise ProgramError(f"a variable of type {name!r} is not carried", hint=hint)
        first = node.init_expression
        if first is None or isinstance(first, ast.QuantumMeasurement):
            return super().visit_ClassicalDeclaration(node, context)
        bare = copy.copy(node)
        bare.init_expression = None
        context = super().visit_ClassicalDeclaration(bare, context)
        variable = expr.lift(context.symbol_table.get(node.identifier.name, node).data)
        context.circuit.store(variable, as_type(assigned(first, context), variable.type, first))
        return context

    def _variable(self, node: Any, context: State) -> State:
        kind: Any = types.Bool()
        if isinstance(node.type, ast.UintType):
            size = node.type.size
            width = _UINT_BITS if size is None else self._constant_int(size, context)
            if not 0 < width <= MAX_CLBITS:
                raise ProgramError(f"a uint of {width} bits; 1 to {MAX_CLBITS} are carried")
            kind = types.Uint(width)
        variable = expr.Var.new(context.unique_name(node.identifier.name), kind)
        if node.init_expression is None:
            context.circuit.add_uninitialized_var(variable)
        else:
            first = as_type(assigned(node.init_expression, context), kind, node)
            context.circuit.add_var(variable, first)
        symbol = Symbol(node.identifier.name, variable, VariableType(), context.scope, node)
        context.symbol_table.insert(symbol)
        return context

    def visit_ClassicalAssignment(self, node: Any, context: State) -> State:  # noqa: N802
        target = self._lvalue(node.lvalue, context)
        value = node.rvalue
        if node.op.name != "=":
            value = ast.BinaryExpression(ast.BinaryOperator[node.op.name[:-1]], node.lvalue, value)
            value.lhs = _as_expression(node.lvalue)
            value.span = value.lhs.span = node.span
        context.circuit.store(target, as_type(assigned(value, context), target.type, node))
        return context

    def _lvalue(self, node: Any, context: State) -> Any:
        name = node.name.name if isinstance(node, ast.IndexedIdentifier) else node.name
        symbol = context.symbol_table.get(name, node)
        data = getattr(symbol, "data", None)
        if not isinstance(data, expr.Var | Clbit | ClassicalRegister):
            raise ProgramError(f"{name!r} is no variable and no bit, so nothing is stored in it")
        variable = expr.lift(data)
        if isinstance(node, ast.Identifier):
            return variable
        indices = node.indices
        if len(indices) != 1 or not isinstance(indices[0], list) or len(indices[0]) != 1:
            raise ProgramError("an assignment to several bits picked by index is not carried")
        index = assigned(indices[0][0], context)
        if isinstance(index, int):
            width = getattr(variable.type, "width", 0)
            index += width if index < 0 else 0
            if not 0 <= index < width:
                raise ProgramError(f"index {index} is out of range for {name!r} of {width} bits")
            if isinstance(data, ClassicalRegister):
                return expr.lift(data[index])
        return expr.index(variable, index)

    def visit_SwitchStatement(self, node: Any, context: State) -> State:  # noqa: N802
        target = read(node.target, context)
        if isinstance(target, int):
            raise ProgramError("a 'switch' on a constant", hint="write the case alone")
        with context.circuit.switch(target) as case:
            for labels, block in node.cases:
                values = [self._constant_int(label, context) for label in labels]
                with case(*values):
                    self._statements(block.statements, context)
            if node.default is not None:
                with case(case.DEFAULT):
                    self._statements(node.default.statements, context)
        return context

    def visit_ForInLoop(self, node: Any, context: State) -> State:  # noqa: N802
        values = self._indices(node, context)
        name = node.identifier.name
        if not _mentions(node.block, name):
            if values:
                with context.circuit.for_loop(range(len(values))):
                    self._statements(node.block, context)
            return context
        self._check_written(node, len(values))
        if not _jumps(node.block):
            for value in values:
                self._pass(node, value, context)
            return context
        # A loop over numbered passes, which break and continue can leave.
        kind = types.Uint(max(1, len(values).bit_length()))
        number = expr.Var.new(context.unique_name("pass"), kind)
        context.circuit.add_var(number, expr.lift(0, kind))
        loop, switch = context.circuit.for_loop(range(len(values))), context.circuit.switch
        with loop, switch(number) as case:
            for k, value in enumerate(values):
                with case(k):
                    context.circuit.store(number, expr.lift(k + 1, kind))
                    self._pass(node, value, context)
        return context

    def _indices(self, node: Any, context: State) -> Sequence[int]:
        declared = node.set_declaration
        if not isinstance(node.type, ast.IntType | ast.UintType):
            raise ProgramError(f"a loop variable of type {_type_name(node.type)!r} is not carried")
        if isinstance(declared, ast.DiscreteSet):
            return [self._constant_int(value, context) for value in declared.values]
        if not isinstance(declared, ast.RangeDefinition):
            raise ProgramError(
                "a loop over the elements of a register or an array is not carried",
                hint="loop over its indices",
            )
        if declared.start is None or declared.end is None:
            raise ProgramError("a loop over a range needs its start and its end")
        start, end = (
            self._constant_int(value, context) for value in (declared.start, declared.end)
        )
        step = 1 if declared.step is None else self._constant_int(declared.step, context)
        if not step:
            raise ProgramError("a range with step 0")
        entry = range(start, end + (1 if step > 0 else -1), step)
        if (end - start) // step >= 1 << 62:
            raise LimitExceededError(
                f"{self.counter.location(node)}a loop of more than 2**62 passes",
                hint="use fewer passes",
            )
        return entry

    def _pass(self, node: Any, value: int, context: State) -> None:
        kind = importer_types.Int(const=True)
        with LocalScope(context) as inner:
            inner.symbol_table.insert(Symbol(node.identifier.name, value, kind, Scope.LOCAL, node))
            self._statements(node.block, inner)

    def _statements(self, statements: Iterable[Any], context: State) -> None:
        with LocalScope(context) as inner:
            for statement in statements:
                self.visit(statement, inner)

    def _check_written(self, node: Any, passes: int) -> None:
        self._passes += passes
        self._written += passes * self.counter.cost(node.block)
        if self._written > MAX_OPERATIONS:
            raise too_many_operations(self.counter.location(node))
        if self._passes > _MAX_PASSES:
            raise LimitExceededError(
                f"{self.counter.location(node)}loops of more than {_MAX_PASSES} passes in all that"
                " must be written out",
                hint="a loop whose variable is not used in its body is carried as a loop",
            )

    def _constant_int(self, node: Any, context: State) -> int:
        value, kind = self._resolve_generic(node, context, strict=True)
        if not is_constant(kind) or isinstance(value, float):
            raise ProgramError("a constant integer is wanted here")
        return int(value)


def _as_expression(node: Any) -> Any:
    """Return the left side of an assignment as an expression."""
    if isinstance(node, ast.Identifier):
        return copy.copy(node)
    entry = node.name
    for index in node.indices:
        entry = ast.IndexExpression(entry, index)
        entry.span = node.span
    return entry


def _type_name(node: Any) -> str:
    return type(node).__name__.removesuffix("Type").lower()


def _children(node: Any) -> Iterable[Any]:
    for value in vars(node).values() if isinstance(node, ast.QASMNode) else node:
        if isinstance(value, ast.QASMNode | list | tuple):
            yield value


def _mentions(node: Any, name: str) -> bool:
    """Return whether an identifier occurs in these statements."""
    if isinstance(node, ast.Identifier):
        return bool(node.name == name)
    return any(_mentions(child, name) for child in _children(node))


def _jumps(node: Any) -> bool:
    """Return whether a loop's body has a `break` or `continue` of this loop."""
    if isinstance(node, ast.BreakStatement | ast.ContinueStatement):
        return True
    if isinstance(node, ast.ForInLoop | ast.WhileLoop):
        return False
    return any(map(_jumps, _children(node)))
