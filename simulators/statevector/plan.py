"""Execution plan of the general path, cached by structure. The import loads no planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simulators.catalog import COUNTS_QUBITS, SMALL_QUBITS
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.components import Subcircuit, extract, partition
from simulators.circuit.passes.light_cone import OutputSupport, output_support
from simulators.engine import PauliSum, Request

if TYPE_CHECKING:
    from simulators.statevector.program import Program

# Most operations of circuits beyond SMALL_QUBITS whose counts are computed in one compiled call: a
# plan takes longer than it saves. Larger circuits are worth it, and worth threads.
_COUNTED_OPERATIONS = 4_096
_KEPT = 4  # cached reductions of one circuit, the oldest evicted


def compiled_qubits(circuit: Circuit) -> int:
    """Largest width at which counts of this circuit are computed in one compiled call, unless it
    branches. Beyond SMALL_QUBITS, a circuit with parameters is not: its counts must not depend on
    the number of rows of a task."""
    has_matrices = bool((circuit.table.rows[:, 0] == UNITARY).any())
    if circuit.num_slots or has_matrices or circuit.ops.size > _COUNTED_OPERATIONS:
        return SMALL_QUBITS
    return COUNTS_QUBITS


class ProgramCache:
    """Programs of one structure, or of a part of one, made when first needed."""

    def __init__(
        self,
        precision: str = "double",
        part: Subcircuit | None = None,
        *,
        apart: bool = False,
        tile_wires: int = 0,
    ) -> None:
        """Set up. `apart`: the part is one of several; `tile_wires`: see `planner.tile_width`."""
        self._precision = precision
        self._tile_wires = tile_wires
        self._part = part
        self._apart = apart
        self._made: dict[bool, Program] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of its two programs, though the second is made when it is needed."""
        return 2 * max((item.memory_bytes for item in self._made.values()), default=0)

    def of(self, circuit: Circuit, *, keep: bool) -> Program:
        """Program of the structure; see `program.build_program`."""
        if keep not in self._made:
            from simulators.statevector.program import build_program  # small circuits do without

            op_ids = None if self._part is None else self._part.operations
            self._made[keep] = build_program(
                circuit,
                keep=keep,
                precision=self._precision,
                operations=op_ids,
                apart=self._apart,
                tile_wires=self._tile_wires,
            )
        return self._made[keep]


class ComponentPlan(msgspec.Struct, frozen=True, eq=False):
    """Component of a circuit with its cached programs; `part`: its place in the circuit, None
    if it is all of it."""

    circuit: Circuit
    programs: ProgramCache
    part: Subcircuit | None = None

    def request(self, request: Request, num_qubits: int) -> Request:
        """Convert a request for the whole circuit to one for this component."""
        if self.part is None:
            return request
        if "expectation" not in request.outputs:
            return msgspec.structs.replace(request, observables=())
        sums = tuple(
            PauliSum(self.part.labels(item.labels, num_qubits), item.coefficients)
            for item in request.observables
        )
        return msgspec.structs.replace(request, observables=sums)


class ExecutionPlan:
    """Plan of the general path: the components of circuits of one structure, by requested
    outputs."""

    def __init__(self, precision: str = "double", tile_wires: int = 0) -> None:
        """Set up. `tile_wires`: see `planner.tile_width`."""
        self._precision = precision
        self._tile_wires = tile_wires
        self._whole = ProgramCache(precision, tile_wires=tile_wires)
        self._made: dict[OutputSupport, tuple[tuple[Subcircuit, ProgramCache], ...]] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of the parts and programs for one kind of request."""
        built = [
            sum(part.memory_bytes + each.memory_bytes for part, each in own)
            for own in self._made.values()
        ]
        return max([self._whole.memory_bytes, *built])

    def as_one_component(self, circuit: Circuit) -> tuple[ComponentPlan, ...]:
        """Whole circuit as one component."""
        return (ComponentPlan(circuit, self._whole),)

    def components(self, circuit: Circuit, request: Request) -> tuple[ComponentPlan, ...]:
        """Components of a circuit to run, at least one."""
        labels = [label for item in request.observables for label in item.labels]
        return self._of(circuit, output_support(request.outputs, labels, circuit))

    def prepare(
        self, circuit: Circuit, most_qubits: int, compiled_qubits: int = SMALL_QUBITS
    ) -> None:
        """Make the programs for counts of components of at most `most_qubits` qubits. A single
        component of at most `compiled_qubits` mostly needs none, unless it has conditions."""
        pieces = self._of(circuit, output_support(("counts",), (), circuit))
        is_compiled = len(pieces) == 1 and not circuit.conditions_data
        least = compiled_qubits if is_compiled else -1
        for piece in pieces:
            if least < piece.circuit.num_qubits <= most_qubits:
                piece.programs.of(piece.circuit, keep=False)

    def _programs(self, part: Subcircuit, *, apart: bool) -> ProgramCache:
        return ProgramCache(self._precision, part, apart=apart, tile_wires=self._tile_wires)

    def _of(self, circuit: Circuit, wanted: OutputSupport | None) -> tuple[ComponentPlan, ...]:
        if wanted is None:
            return self.as_one_component(circuit)
        if wanted not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            parts = extract(circuit, partition(circuit, wanted))
            several = len(parts) > 1
            self._made[wanted] = tuple(
                (part, self._programs(part, apart=several)) for part in parts
            )
        result = self._made[wanted]
        if not result:
            return self.as_one_component(circuit)
        return tuple(ComponentPlan(part.of(circuit), schedules, part) for part, schedules in result)
