"""The importer of OpenQASM 3 for untrusted text.

Differences from its base class: every error has a place; gates are expanded when they are encoded,
not at each call; the operations are counted first; parameters of a gate are bound in the order of
their declaration; ranges beyond their register are refused; conditions may be expressions. Imports
Qiskit and the importer: only `qasm3` imports this, when there is a text to read.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from openqasm3 import ast
from qiskit.circuit import Gate
from qiskit.circuit.library import IGate
from qiskit_qasm3_import.exceptions import ConversionError
from qiskit_qasm3_import.state import State

from simenv.client.circuits.common.text_checks import SourceText, location, relocate, too_many_bits
from simenv.client.circuits.formats.qasm3_control_flow import FlowVisitor
from simenv.client.circuits.formats.qasm3_size import check_volume
from simenv.client.circuits.formats.qasm3_values import Resolver, condition
from simenv.errors import ProgramError, SimenvError
from simenv.model import MAX_CLBITS, MAX_QUBITS

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


def convert(source: SourceText, tree: Any) -> ParsedQasm3:
    """Convert a syntax tree to a circuit."""
    converter = _Converter(source)
    converter.counter = check_volume(tree, source)
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
            raise ConversionError(
                f"{self.name!r} takes {len(self.order)} parameters, but got {len(values)}"
            )
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
    def __init__(self, source: SourceText) -> None:
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
                relocate(error, self._source.name, *_start(node))
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
            location(self._source.name, line, column) + text, line=line, column=column
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
            prefix = location(self._source.name, *_start(node))
            raise too_many_bits(kind, have + bits, limit, prefix)

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
            raise ProgramError(
                f"{node.name.name!r} takes {count} parameters, but got {len(node.arguments)}"
            )
        return super().visit_QuantumGate(node, context)

    def visit_QuantumPhase(self, node: Any, context: Any) -> Any:  # noqa: N802
        for modifier in node.modifiers:
            self._check_modifier(modifier, len(node.qubits), context)
        return super().visit_QuantumPhase(node, context)

    def _check_modifier(self, modifier: Any, width: int, context: State) -> None:
        if modifier.modifier is ast.GateModifierName.pow:
            if width > _MAX_POWER_QUBITS:
                raise ProgramError(
                    f"'pow' of a gate on {width} qubits; at most {_MAX_POWER_QUBITS} are carried",
                    hint="write the gate that often, or define its power",
                )
        elif modifier.modifier is not ast.GateModifierName.inv:
            controls = 1
            if modifier.argument is not None:
                controls = int(self._resolve_constant_int(modifier.argument, context))
            if not 0 < controls < max(width, 2):
                raise ProgramError(f"{controls} controls of a gate that is given {width} qubits")

    def _apply_gate_modifier(self, modifier: Any, gate: Any, context: Any) -> Any:
        names = ast.GateModifierName
        if modifier.modifier not in (names.ctrl, names.negctrl):
            return super()._apply_gate_modifier(modifier, gate, context)
        controls = 1
        if modifier.argument is not None:
            controls = int(self._resolve_constant_int(modifier.argument, context))
        state = (1 << controls) - 1 if modifier.modifier is names.ctrl else 0
        return gate.control(controls, ctrl_state=state, annotated=False)

    def _resolve_angle(self, node: Any, context: Any) -> Any:
        value = super()._resolve_angle(node, context)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ProgramError(f"the angle is {value}", hint="angles must be finite numbers")
        return value

    def _resolve_generic(self, node: Any, context: Any, strict: bool) -> Any:
        return Resolver(context, strict).resolve(node)

    def _resolve_condition(self, node: Any, context: Any) -> Any:
        return condition(node, context)


def _start(node: Any) -> tuple[int, int]:
    if node.span is None:
        return 1, 1
    return node.span.start_line, node.span.start_column + 1
