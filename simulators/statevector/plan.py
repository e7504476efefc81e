"""Execution plan of the general path, cached by structure. The import loads no planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simulators.catalog import COUNTS_QUBITS, SMALL_QUBITS
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.components import Subcircuit, extract, partition
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.engine import Request
from simulators.execution.requests import ProgramCache, SupportCache, part_request

if TYPE_CHECKING:
    from simulators.statevector.program import Program

# Most operations of circuits beyond SMALL_QUBITS whose counts are computed in one compiled call: a
# plan takes longer than it saves. Larger circuits are worth it, and worth threads.
_COUNTED_OPERATIONS = 4_096


def compiled_qubits(circuit: Circuit) -> int:
    """Largest width at which counts of this circuit are computed in one compiled call, unless it
    branches. Beyond SMALL_QUBITS, a circuit with parameters is not: its counts must not depend on
    the number of rows of a task."""
    has_matrices = bool((circuit.table.rows[:, 0] == UNITARY).any())
    if circuit.num_slots or has_matrices or circuit.ops.size > _COUNTED_OPERATIONS:
        return SMALL_QUBITS
    return COUNTS_QUBITS


def program_cache(
    precision: str = "double",
    part: Subcircuit | None = None,
    *,
    apart: bool = False,
    tile_wires: int = 0,
) -> ProgramCache[Program]:
    """Programs of a structure or of a part of one. `apart`: the part is one of several;
    `tile_wires`: see `planner.tile_width`."""

    def make(circuit: Circuit, keep: bool) -> Program:
        from simulators.statevector.program import build_program  # small circuits do without

        return build_program(
            circuit,
            keep=keep,
            precision=precision,
            operations=None if part is None else part.operations,
            apart=apart,
            tile_wires=tile_wires,
        )

    return ProgramCache(make)


class ComponentPlan(msgspec.Struct, frozen=True, eq=False):
    """Component of a circuit with its cached programs; `part`: its place in the circuit, None
    if it is all of it."""

    circuit: Circuit
    programs: ProgramCache[Program]
    part: Subcircuit | None = None

    def request(self, request: Request, num_qubits: int) -> Request:
        """Convert a request for the whole circuit to one for this component."""
        return request if self.part is None else part_request(self.part, request, num_qubits)


class ExecutionPlan:
    """Plan of the general path: the components of circuits of one structure, by requested
    outputs."""

    def __init__(self, precision: str = "double", tile_wires: int = 0) -> None:
        """Set up. `tile_wires`: see `planner.tile_width`."""
        self._precision = precision
        self._tile_wires = tile_wires
        self._whole: ProgramCache[Program] | None = None
        self._parts: SupportCache[tuple[tuple[Subcircuit, ProgramCache[Program]], ...]]
        self._parts = SupportCache()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the parts and programs for one kind of request."""
        built = [
            sum(part.memory_bytes + each.memory_bytes for part, each in own)
            for own in self._parts.values()
        ]
        return max([0 if self._whole is None else self._whole.memory_bytes, *built])

    def as_one_component(self, circuit: Circuit) -> tuple[ComponentPlan, ...]:
        """Whole circuit as one component."""
        if self._whole is None:
            self._whole = program_cache(self._precision, tile_wires=self._tile_wires)
        return (ComponentPlan(circuit, self._whole),)

    def components(self, circuit: Circuit, request: Request) -> tuple[ComponentPlan, ...]:
        """Components of a circuit to run, at least one."""
        parts = self._parts.of(circuit, request, lambda support: self._divided(circuit, support))
        if not parts:
            return self.as_one_component(circuit)
        return tuple(ComponentPlan(part.of(circuit), programs, part) for part, programs in parts)

    def prepare(
        self, circuit: Circuit, most_qubits: int, compiled_qubits: int = SMALL_QUBITS
    ) -> None:
        """Make the programs for counts of components of at most `most_qubits` qubits. A single
        component of at most `compiled_qubits` mostly needs none, unless it has conditions."""
        pieces = self.components(circuit, Request(1, 0))
        is_compiled = len(pieces) == 1 and not circuit.conditions_data
        least = compiled_qubits if is_compiled else -1
        for piece in pieces:
            if least < piece.circuit.num_qubits <= most_qubits:
                piece.programs.of(piece.circuit, keep=False)

    def _divided(
        self, circuit: Circuit, support: OutputSupport | None
    ) -> tuple[tuple[Subcircuit, ProgramCache[Program]], ...]:
        """Components with their programs; (): the circuit is run as it is."""
        parts = extract(circuit, partition(circuit, support))
        apart = len(parts) > 1
        return tuple(
            (part, program_cache(self._precision, part, apart=apart, tile_wires=self._tile_wires))
            for part in parts
        )
