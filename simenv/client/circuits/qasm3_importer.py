"""Importer of OpenQASM 3 for untrusted text, with its control flow. Imports Qiskit and its
importer.

First the loops, switches, variables and constants of OpenQASM 3, and refusals of other constructs.
Invariant: a loop whose variable is used is unrolled with the variable as a constant, which may
appear wherever a constant may; the operations are counted before it is unrolled. An error names the
refused construct as the language does.

Differences of the importer from its base class: every error has a place; gates are expanded when
they are encoded, not at each call; the operations are counted first; parameters of a gate are bound
in the order of their declaration; ranges beyond their register are refused; conditions may be
expressions.
"""

from __future__ import annotations

import copy
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from openqasm3 import ast
from qiskit import ClassicalRegister
from qiskit.circuit import Clbit, Gate, Instruction, Qubit
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import CPhaseGate, IGate, MCPhaseGate, PhaseGate
from qiskit_qasm3_import import types as importer_types
from qiskit_qasm3_import.converter import ConvertVisitor
from qiskit_qasm3_import.data import Scope, Symbol
from qiskit_qasm3_import.exceptions import ConversionError
from qiskit_qasm3_import.state import LocalScope, State

from simenv.client.circuits import (
    foreign_outputs,
    parser_hints,
    qasm2,
    qasm3_values,
    qasm3_volume,
    text_checks,
)
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import MAX_CLBITS, MAX_QUBITS

_SHOWN_CHARS = 100
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
    "EndStatement": ("'end'", "put the rest of the program into an else"),
}
_TYPES = {
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
        self.counter: qasm3_volume.Counter  # set before the first visit
        self._written = 0  # operations of unrolled loops
        self._passes = 0

    def generic_visit(self, node: Any, context: Any = None) -> Any:
        settings = _REFUSED.get(type(node).__name__)
        if settings is None:
            return super().generic_visit(node, context)
        raise ProgramError(f"{settings[0]} is not carried", hint=settings[1])

    def visit_Pragma(self, node: Any, _context: Any) -> Any:  # noqa: N802
        text = f"the pragma {node.command[:_SHOWN_CHARS]!r} is not carried"
        raise ProgramError(text, hint=foreign_outputs.pragma_hint(node.command))

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
            message = f"an output of type {_type_name(node.type)!r} is not carried"
            hint = "store it in a bit register, which is an output anyway"
            raise ProgramError(message, hint=hint)
        declared = ast.ClassicalDeclaration(node.type, node.identifier, None)
        declared.span = node.span
        result: State = self.visit_ClassicalDeclaration(declared, context)
        return result

    def visit_ClassicalDeclaration(self, node: Any, context: State) -> State:  # noqa: N802
        if isinstance(node.type, ast.BoolType | ast.UintType | ast.IntType):
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
        declared = context.symbol_table.get(node.identifier.name, node).data
        if qasm3_volume.is_named_measurement(first):
            return self._measure_by_name(first, declared, context)
        variable = expr.lift(declared)
        context.circuit.store(
            variable,
            qasm3_values.as_type(qasm3_values.assigned(first, context), variable.type, first),
        )
        return context

    def _variable(self, node: Any, context: State) -> State:
        kind: Any = types.Bool()
        if not isinstance(node.type, ast.BoolType):
            size, name = node.type.size, _type_name(node.type)
            unsized = qasm3_values.INT_BITS if name == "int" else _UINT_BITS
            width = unsized if size is None else self._constant_int(size, context)
            if not 0 < width <= MAX_CLBITS:
                raise ProgramError(f"a {name} of {width} bits; 1 to {MAX_CLBITS} are carried")
            kind = types.Uint(width)
        variable = expr.Var.new(context.unique_name(node.identifier.name), kind)
        if node.init_expression is None:
            context.circuit.add_uninitialized_var(variable)
        else:
            first = qasm3_values.assigned(node.init_expression, context)
            if isinstance(node.type, ast.IntType):
                _check_sign(first, kind)
            context.circuit.add_var(variable, qasm3_values.as_type(first, kind, node))
        signed = isinstance(node.type, ast.IntType)
        declared = qasm3_values.IntType() if signed else qasm3_values.VariableType()
        symbol = Symbol(node.identifier.name, variable, declared, context.scope, node)
        context.symbol_table.insert(symbol)
        return context

    def visit_ClassicalAssignment(self, node: Any, context: State) -> State:  # noqa: N802
        if node.op.name == "=" and qasm3_volume.is_named_measurement(node.rvalue):
            stored = self._resolve_carg(node.lvalue, context)
            return self._measure_by_name(node.rvalue, stored, context)
        target = self._lvalue(node.lvalue, context)
        value = node.rvalue
        if node.op.name != "=":
            value = ast.BinaryExpression(ast.BinaryOperator[node.op.name[:-1]], node.lvalue, value)
            value.lhs = _as_expression(node.lvalue)
            value.span = value.lhs.span = node.span
        new = qasm3_values.assigned(value, context)
        if isinstance(node.lvalue, ast.Identifier):
            symbol = context.symbol_table.get(node.lvalue.name, node)
            if isinstance(symbol.type, qasm3_values.IntType):
                _check_sign(new, target.type)
        context.circuit.store(target, qasm3_values.as_type(new, target.type, node))
        return context

    def _measure_by_name(self, node: Any, stored: Any, context: State) -> State:
        """Append a measurement with a name of its own, written as a function of its qubits."""
        measured = self._resolve_qarg(node.arguments[0], context)
        single = isinstance(measured, Qubit), isinstance(stored, Clbit)
        qubits = [measured] if single[0] else list(measured)
        clbits = [stored] if single[1] else list(stored)
        if len(set(single)) > 1 or len(qubits) != len(clbits):
            raise ProgramError(f"{node.name.name} of {len(qubits)} qubits into {len(clbits)} bits")
        for qubit, clbit in zip(qubits, clbits, strict=True):
            context.circuit.append(Instruction(node.name.name, 1, 1, []), [qubit], [clbit])
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
        if isinstance(symbol.type, qasm3_values.IntType):
            raise ProgramError(f"a bit of the int {name!r}", hint="use uint[n]")
        indices = node.indices
        if len(indices) != 1 or not isinstance(indices[0], list) or len(indices[0]) != 1:
            raise ProgramError("an assignment to several bits picked by index is not carried")
        index = qasm3_values.assigned(indices[0][0], context)
        if isinstance(index, int):
            width = getattr(variable.type, "width", 0)
            index += width if index < 0 else 0
            if not 0 <= index < width:
                raise ProgramError(f"index {index} is out of range for {name!r} of {width} bits")
            if isinstance(data, ClassicalRegister):
                return expr.lift(data[index])
        return expr.index(variable, index)

    def visit_SwitchStatement(self, node: Any, context: State) -> State:  # noqa: N802
        target = qasm3_values.switched(node.target, context)
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
            message = "a loop over the elements of a register or an array is not carried"
            raise ProgramError(message, hint="loop over its indices")
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
            message = f"{self.counter.location(node)}a loop of more than 2**62 passes"
            raise LimitExceededError(message, hint="use fewer passes")
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
        if self._written > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations(self.counter.location(node))
        if self._passes > _MAX_PASSES:
            raise LimitExceededError(
                f"{self.counter.location(node)}loops of more than {_MAX_PASSES} passes in all that"
                " must be written out",
                hint="a loop whose variable is not used in its body is carried as a loop",
            )

    def _constant_int(self, node: Any, context: State) -> int:
        value, kind = self._resolve_generic(node, context, strict=True)
        if not qasm3_values.is_constant(kind) or isinstance(value, float):
            raise ProgramError("a constant integer is wanted here")
        return int(value)


def _check_sign(value: Any, kind: Any) -> None:
    """Raise ProgramError for an unsigned expression with the bits of an int, or more."""
    width = value.bit_length() if isinstance(value, int) else getattr(value.type, "width", 0)
    if width >= kind.width:
        message = f"{width} bits in an int of {kind.width}, which might become negative"
        raise ProgramError(message, hint=f"use int[{width + 1}]")


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


_MAX_POWER_QUBITS = 6  # `pow` is computed from the gate's matrix
_PLACE = re.compile(r"(\d+),(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ParsedQasm3:
    """A circuit, and the places of its instructions in the text."""

    circuit: Any
    starts: tuple[int, ...]  # number of instructions before each top-level statement
    places: tuple[tuple[int, int], ...]  # line and column of each statement

    def position(self, instruction: int) -> tuple[int, int]:
        """Return line and column of the statement that made the n-th instruction."""
        return self.places[max(bisect_right(self.starts, instruction) - 1, 0)]


def convert(source: text_checks.SourceText, tree: Any) -> ParsedQasm3:
    """Convert a syntax tree to a circuit."""
    converter = _Converter(source)
    converter.counter = qasm3_volume.check_volume(tree, source)
    state = converter.convert(tree)
    return ParsedQasm3(state.circuit, tuple(converter.starts), tuple(converter.places))


class _Template:
    """A gate statement: a definition with its parameters in the order of their declaration."""

    __slots__ = ("circuit", "name", "order")

    def __init__(self, name: str, circuit: Any, order: tuple[Any, ...]) -> None:
        self.name = name
        self.circuit = circuit
        self.order = order

    def __call__(self, *values: Any) -> Any:
        if len(values) != len(self.order):
            message = f"{self.name!r} takes {len(self.order)} parameters, but got {len(values)}"
            raise ConversionError(message)
        return _DefinedGate(self, values)


class _DefinedGate(Gate):  # type: ignore[misc]
    """A use of a template. By `_gates` an DefinitionExpander recognizes gates of one kind."""

    def __init__(self, template: _Template, values: Any) -> None:
        self._gates = template
        super().__init__(template.name, template.circuit.num_qubits, list(values))

    def _define(self) -> None:
        template = self._gates
        values = dict(zip(template.order, self.params, strict=True))
        self._definition = (
            template.circuit.assign_parameters(values) if values else template.circuit
        )

    def __deepcopy__(self, _memo: Any = None) -> _DefinedGate:
        return _DefinedGate(self._gates, self.params)


class _Converter(FlowVisitor):
    def __init__(self, source: text_checks.SourceText) -> None:
        super().__init__()
        self.starts: list[int] = []
        self.places: list[tuple[int, int]] = []
        self._source = source

    def visit(self, node: Any, context: Any = None) -> Any:
        if not isinstance(node, ast.Statement | ast.Pragma):
            return super().visit(node, context)
        try:
            return super().visit(node, context)
        except (RecursionError, MemoryError):
            raise
        except SimenvError as error:
            if not getattr(error, "line", 0) and isinstance(error, ProgramError):
                text_checks.relocate(error, self._source.name, *_start(node))
            raise
        except Exception as error:
            raise self._refusal(node, error) from error

    def visit_Program(self, node: Any, context: Any) -> Any:  # noqa: N802
        for statement in node.statements:
            self.starts.append(len(context.circuit._data))
            self.places.append(_start(statement))
            context = self.visit(statement, context)
        return context

    def _refusal(self, node: Any, error: Exception) -> ProgramError:
        text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
        line, column = _start(node)
        result = _PLACE.fullmatch(text) if isinstance(error, ConversionError) else None
        if result:
            text = result.group(3)
            line, column = int(result.group(1)), self._column(result)
        return ProgramError(
            text_checks.location(self._source.name, line, column) + text,
            hint=parser_hints.hint(self._source, text, parser_hints.STDGATES, qasm2.GATE_NAMES),
            line=line,
            column=column,
        )

    def _column(self, match: re.Match[str]) -> int:
        """Return the column of a message, which counts from the begin of its line or of the whole
        text (errors about names)."""
        text, line, column = self._source.text, int(match.group(1)), int(match.group(2))
        start = 0
        for _ in range(line - 1):
            start = text.find("\n", start) + 1
        end = text.find("\n", start)
        name = re.search(r"'([^']+)'", match.group(3))
        if column >= start and (
            (end >= 0 and start + column > end) or (name and text.startswith(name.group(1), column))
        ):
            column -= start
        return column + 1

    def visit_Include(self, node: Any, context: Any) -> Any:  # noqa: N802
        context = super().visit_Include(node, context)
        # The base class has `u` in its place, which a device with a native `id` does not execute.
        context.symbol_table.get("id", node).data = IGate
        return context

    def visit_QubitDeclaration(self, node: Any, context: Any) -> Any:  # noqa: N802
        self._check_bits(node, node.size, "qubits", context.circuit.num_qubits, MAX_QUBITS, context)
        return super().visit_QubitDeclaration(node, context)

    def visit_ClassicalDeclaration(self, node: Any, context: Any) -> Any:  # noqa: N802
        if isinstance(node.type, ast.BitType):
            have = context.circuit.num_clbits
            self._check_bits(node, node.type.size, "clbits", have, MAX_CLBITS, context)
        return super().visit_ClassicalDeclaration(node, context)

    def _check_bits(
        self, node: Any, size: Any, kind: str, have: int, limit: int, context: State
    ) -> None:
        bits = 1 if size is None else int(self._resolve_constant_int(size, context))
        if have + bits > limit:
            prefix = text_checks.location(self._source.name, *_start(node))
            raise text_checks.too_many_bits(kind, have + bits, limit, prefix)

    def visit_QuantumGateDefinition(self, node: Any, context: Any) -> Any:  # noqa: N802
        context = super().visit_QuantumGateDefinition(node, context)
        symbol = context.symbol_table.get(node.name.name, node)
        definition = symbol.data._definition
        by_name = {parameter.name: parameter for parameter in definition.parameters}
        order = tuple(by_name[argument.name] for argument in node.arguments)
        symbol.data = _Template(node.name.name, definition, order)
        return context

    def visit_QuantumGate(self, node: Any, context: Any) -> Any:  # noqa: N802
        for modifier in node.modifiers:
            self._check_modifier(modifier, len(node.qubits), context)
        gate = context.symbol_table.get(node.name.name, node)
        parameters = getattr(gate.type, "n_classical", None) if gate else None
        count = len(parameters) if isinstance(parameters, list) else parameters
        if count is not None and count != len(node.arguments):
            message = f"{node.name.name!r} takes {count} parameters, but got {len(node.arguments)}"
            raise ProgramError(message)
        return super().visit_QuantumGate(node, context)

    def visit_QuantumPhase(self, node: Any, context: Any) -> Any:  # noqa: N802
        """Append a phase: each control adds a qubit, and powers multiply the angle."""
        angle = self._resolve_angle(node.argument, context)
        negated: list[bool] = []  # for each control, in the order of the qubits
        names = ast.GateModifierName
        for modifier in node.modifiers:
            if modifier.modifier is names.inv:
                angle = -angle
            elif modifier.modifier is names.pow:
                angle = self._power(angle, modifier, context)
            else:
                more = self._controls(modifier, context)
                if not 0 < more <= MAX_QUBITS - len(negated):
                    raise ProgramError(f"{more} controls of 'gphase'")
                negated += [modifier.modifier is names.negctrl] * more
        if len(negated) != len(node.qubits):
            given = f"{len(negated)} controls of 'gphase', which is given {len(node.qubits)} qubits"
            raise ProgramError(given, hint="each control adds one qubit")
        if not negated:
            context.circuit.global_phase += angle
            return context
        gate = {1: PhaseGate, 2: CPhaseGate}.get(len(negated))
        phase = gate(angle) if gate else MCPhaseGate(angle, len(negated) - 1)
        operands = [self._resolve_qarg(each, context) for each in node.qubits]
        for qubits in self._broadcast_gate(operands, node):
            flipped = [qubit for qubit, flip in zip(qubits, negated, strict=True) if flip]
            for qubit in flipped:
                context.circuit.x(qubit)
            context.circuit.append(phase, qubits, [])
            for qubit in flipped:
                context.circuit.x(qubit)
        return context

    def _power(self, angle: Any, modifier: Any, context: State) -> Any:
        """Return the angle of a power of a phase: for a fraction the principal value."""
        exponent = float(self._resolve_constant_float(modifier.argument, context))
        if exponent.is_integer():
            return angle * exponent
        if not isinstance(angle, int | float):
            raise ProgramError(f"the power {exponent} of a phase with a free parameter")
        return math.remainder(angle, math.tau) * exponent

    def _controls(self, modifier: Any, context: State) -> int:
        if modifier.argument is None:
            return 1
        return int(self._resolve_constant_int(modifier.argument, context))

    def _check_modifier(self, modifier: Any, width: int, context: State) -> None:
        if modifier.modifier is ast.GateModifierName.pow:
            if width > _MAX_POWER_QUBITS:
                raise ProgramError(
                    f"'pow' of a gate on {width} qubits; at most {_MAX_POWER_QUBITS} are carried",
                    hint="write the gate that often, or define its power",
                )
        elif modifier.modifier is not ast.GateModifierName.inv:
            controls = self._controls(modifier, context)
            if not 0 < controls < max(width, 2):
                raise ProgramError(f"{controls} controls of a gate that is given {width} qubits")

    def _apply_gate_modifier(self, modifier: Any, gate: Any, context: Any) -> Any:
        names = ast.GateModifierName
        if modifier.modifier not in (names.ctrl, names.negctrl):
            return super()._apply_gate_modifier(modifier, gate, context)
        controls = self._controls(modifier, context)
        state = (1 << controls) - 1 if modifier.modifier is names.ctrl else 0
        return gate.control(controls, ctrl_state=state, annotated=False)

    def _resolve_angle(self, node: Any, context: Any) -> Any:
        value = super()._resolve_angle(node, context)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ProgramError(f"the angle is {value}", hint="angles must be finite numbers")
        return value

    def _resolve_generic(self, node: Any, context: Any, strict: bool) -> Any:
        return qasm3_values.Resolver(context, strict).resolve(node)

    def _resolve_condition(self, node: Any, context: Any) -> Any:
        return qasm3_values.condition(node, context)


def _start(node: Any) -> tuple[int, int]:
    if node.span is None:
        return 1, 1
    return node.span.start_line, node.span.start_column + 1
