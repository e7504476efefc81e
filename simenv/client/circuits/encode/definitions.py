"""Expansion of operations that a Program has no name for into their definitions.

Invariant: the number of operations of a gate is known before any of them is written, and is counted
once for each kind of gate, so that definitions which double at every level are refused at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simenv.client.circuits.common.text_checks import (
    MAX_NESTING,
    MAX_OPERATIONS,
    too_many_operations,
)
from simenv.errors import ProgramError, SimenvError
from simenv.transpiler.limits import least_operations
from simenv.transpiler.qiskit_runtime import names

if TYPE_CHECKING:
    from simenv.client.circuits.encode.standard_gates import StandardGateUse

_MOST_COMPARED = 64  # operations of a definition that is compared with a standard gate
_READERS = ("qiskit.qasm2.", "simenv.client.circuits.")  # modules of gates that come from text


@dataclass(frozen=True, slots=True)
class DefinitionBody:
    """A definition."""

    operation: Any  # referenced, so that its id, which may be the key, is not reused
    items: list[Any]
    qubits: list[Any]
    clbits: list[Any]
    phase: Any


class DefinitionExpander:
    """The definitions of one circuit. `is_plain`: returns whether an operation needs none."""

    __slots__ = ("_bodies", "_is_plain", "_sizes", "_standard")

    def __init__(self, is_plain: Callable[[Any], bool]) -> None:
        self._is_plain = is_plain
        self._bodies: dict[Any, DefinitionBody] = {}
        self._sizes: dict[Any, int] = {}
        self._standard: dict[Any, tuple[Any, StandardGateUse | None]] = {}

    def body(self, operation: Any) -> DefinitionBody:
        """Return the definition of an operation. Raises ProgramError if it is opaque or its
        definition cannot be computed."""
        key = _key(operation)
        body = self._bodies.get(key)
        if body is None:
            circuit = _definition(operation)
            data = circuit._data
            body = DefinitionBody(
                operation, list(data), data.qubits, data.clbits, circuit.global_phase
            )
            self._bodies[key] = body
        return body

    def size(self, operation: Any, depth: int = 0) -> int:
        """Return the number of operations in the full expansion. Raises LimitExceededError."""
        family, _ = _key(operation)
        cached = self._sizes.get(family)
        if cached is not None:
            return cached
        check_depth(depth, operation.name)
        total = least_operations(operation)
        if total > MAX_OPERATIONS:  # before its definition is computed
            raise too_many_operations()
        total = 1
        for item in self.body(operation).items:
            total += self._item(item, depth)
            if total > MAX_OPERATIONS:
                raise too_many_operations()
        self._sizes[family] = total
        return total

    def standard(self, operation: Any) -> StandardGateUse | None:
        """Return the standard gate that an operation defines by its name; None: it is another one,
        or its definition is too long for a comparison."""
        from simenv.client.circuits.encode.standard_gates import standard_gate_use

        key = _key(operation)
        if key not in self._standard:
            is_short = self.size(operation) <= _MOST_COMPARED
            result = standard_gate_use(operation) if is_short else None
            self._standard[key] = operation, result  # the operation: see DefinitionBody
        return self._standard[key][1]

    def _item(self, item: Any, depth: int) -> int:
        if self._is_plain(item):
            return 1
        if not item.is_control_flow():
            return self.size(item.operation, depth + 1)
        check_depth(depth, item.name)
        blocks = (inner for block in _blocks(item.operation) for inner in block._data)
        return 3 + sum(self._item(inner, depth + 1) for inner in blocks)


def _blocks(operation: Any) -> Any:
    return getattr(operation, "blocks", ())


def check_depth(depth: int, name: str) -> None:
    """Raise ProgramError if definitions or blocks are nested too deeply."""
    if depth >= MAX_NESTING:
        raise ProgramError(
            f"{name!r} is nested more than {MAX_NESTING} definitions deep",
            hint="define the gate from fewer layers (circuit.decompose() takes one away)",
        )


def _key(operation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the kind of an operation and, if the definition depends on them, its parameters."""
    # Gates read from text are new objects for each use, with a lazy definition; those of one
    # statement share the table of gates they were read against.
    table = getattr(operation, "_gates", None)
    fresh = table and operation._definition is None
    if fresh and type(operation).__module__.startswith(_READERS):
        return (operation.name, id(table)), tuple(operation.params)
    return id(operation), ()


def _definition(operation: Any) -> Any:
    """Return the definition as a circuit, made by Qiskit. Raises ProgramError."""
    name = operation.name
    try:
        circuit = getattr(operation, "definition", None)
        if circuit is None:
            circuit = _synthesized(operation)
    except (SimenvError, RecursionError, MemoryError):
        raise
    except Exception as error:
        text = getattr(error, "message", "") or str(error) or type(error).__name__
        raise ProgramError(
            f"the definition of {name!r} cannot be made: {text}",
            hint="check its parameters, or give it a definition of standard gates",
        ) from error
    if circuit is None:
        raise ProgramError(
            f"{name!r} is opaque: it has no definition to expand",
            hint="give it a definition of standard gates, or remove it",
        )
    return circuit


def _synthesized(operation: Any) -> Any:
    """Synthesize an abstract operation, such as a Clifford, with Qiskit; None if Qiskit cannot."""
    if type(operation) in (names().Instruction, names().Gate):
        return None
    from qiskit.transpiler.passes import HighLevelSynthesis

    circuit = names().QuantumCircuit(operation.num_qubits, operation.num_clbits)
    circuit.append(operation, circuit.qubits, circuit.clbits)
    result = HighLevelSynthesis()(circuit)
    return None if any(item.name == operation.name for item in result._data) else result
