"""General path: its plan, cached by structure, and the rows of a request on any backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.catalog import COUNTS_QUBITS, SMALL_QUBITS, builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit, num_words
from simulators.circuit.passes.components import Subcircuit, extract, partition
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.engine import BINDINGS, COMPONENTS, SAMPLED, BindingResult, EngineResult, Request
from simulators.execution import outputs, part_caches, requests
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey, collect
from simulators.execution.packing import tally
from simulators.execution.part_caches import ProgramCache, part_request
from simulators.execution.requests import BindingRun, EngineRun
from simulators.execution.sampling import Distribution
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.backend.reductions import ROUNDING_FLOOR
from simulators.statevector.dynamic.branches import check_records
from simulators.statevector.execute import ComponentRun, shots_at_once
from simulators.statevector.planning.planner import quarter_turns
from simulators.statevector.program import Program, SweepTraits, build_program

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
        return build_program(
            circuit,
            keep=keep,
            precision=precision,
            operations=None if part is None else part.operations,
            apart=apart,
            traits=SweepTraits(tile_wires, _turns(circuit)),
        )

    return ProgramCache(make, lambda circuit: _turns(circuit).tobytes())


def _turns(circuit: Circuit) -> NDArray[np.int8]:
    """Quarter turns of the parameters that are the same in all runs of a plan: none of a small
    circuit, whose program has no sweeps."""
    if circuit.num_qubits <= SMALL_QUBITS:
        return np.empty(0, np.int8)
    result = quarter_turns(circuit.params)
    result[circuit.slots[0::2]] = -1
    return result


class ComponentPlan(msgspec.Struct, frozen=True, eq=False):
    """Component of a circuit with its cached programs; `part`: its place in the circuit, None if it
    is all of it."""

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
        self._parts: part_caches.SupportCache[tuple[tuple[Subcircuit, ProgramCache[Program]], ...]]
        self._parts = part_caches.SupportCache()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the parts and programs made so far."""
        whole = 0 if self._whole is None else self._whole.memory_bytes
        parts = itertools.chain.from_iterable(self._parts.values())
        return whole + sum(part.memory_bytes + each.memory_bytes for part, each in parts)

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


# Combination of the results of independent components.
#
# The components run one after the other, so one state is held at a time. Bits of a shot are joined;
# probabilities and expectation values are multiplied.

CARD = builtin_card("statevector")


class CombinedRun(FinalState):
    """Final state of all components, for one binding."""

    def __init__(
        self, states: StateBackend, pieces: Sequence[ComponentPlan], run: BindingRun
    ) -> None:
        """Set up. `run`: of the whole circuit."""
        self.num_qubits = run.circuit.num_qubits
        self._states = states
        self._pieces = pieces
        self._run = run
        self._words = num_words(run.circuit.num_clbits)
        self._group = shots_at_once(run.circuit)
        self._remarks: dict[str, None] = {}

    def result(self) -> BindingResult:
        """Compute all outputs of the request. Raises Unsupported for undefined outputs."""
        circuit, request = self._run.circuit, self._run.request
        requests.check_outputs(CARD, request, circuit.clbits_data != b"")
        return collect(self, MeasurementLayouts.of(circuit), request, self._run.key)

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:  # noqa: ARG002  # its own
        for first in range(0, shots, self._group):
            records = self._joint.records
            if first:
                group = range(first, min(first + self._group, shots))
                records = np.zeros((len(group), self._words), np.uint64)
                for run, _ in self._runs():
                    records |= run.records(group)
            if self._states.is_root:
                yield records, None

    def probabilities(self) -> Distribution:
        return self._joint.distribution

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:  # noqa: ARG002  # its own
        return self._joint.means

    @property
    def remark(self) -> str:  # type: ignore[override]  # grows as components run
        """Remarks of the components."""
        return ", ".join(remark for remark in self._remarks if remark)

    @cached_property
    def _joint(self) -> _Joint:
        """All outputs, from one pass over the components: each is evolved once."""
        request = self._run.request
        asked = request.outputs
        group = range(min(self._group, 0 if SAMPLED.isdisjoint(asked) else request.shots))
        records = np.zeros((len(group), self._words), np.uint64)
        distribution: Distribution = np.zeros((1, self._words), np.uint64), np.ones(1)
        means = np.ones(sum(len(item.labels) for item in request.observables))
        for run, strings in self._runs():
            if group:
                records |= run.records(group)
            if "expectation" in asked:
                place: dict[tuple[int, int], list[int]] = {}  # most strings act on few components
                for number, string in enumerate(strings):
                    if string != (0, 0):
                        place.setdefault(string, []).append(number)
                values = run.expectations(list(place)).tolist() if place else []
                own = np.ones(len(strings))
                for value, indices in zip(values, place.values(), strict=True):
                    own[indices] = value
                means *= own
            if "probabilities" in asked:
                distribution = self._product(distribution, run.distribution())
            self._remarks[run.remark] = None
        return _Joint(records, distribution, means)

    def _runs(self) -> Iterator[tuple[ComponentRun, PauliStrings]]:
        """Run of each component, with the Pauli strings on its qubits; one state is held at a
        time."""
        sizes = [
            float(piece.circuit.ops.size << piece.circuit.num_qubits) for piece in self._pieces
        ]
        for number in self._run.control.divide(sizes, COMPONENTS):
            piece = self._pieces[number]
            assert piece.part is not None
            width = piece.circuit.num_qubits
            request = piece.request(self._run.request, self.num_qubits)
            params = self._run.params[piece.part.params]
            run = replace(self._run, circuit=piece.circuit, params=params, request=request)
            states = self._states.for_width(width)
            strings = outputs.terms(request.observables, width)
            yield ComponentRun(states, piece.programs, run), strings

    def _product(self, left: Distribution, right: Distribution) -> Distribution:
        """Joint distribution of independent records."""
        if not self._states.is_root:
            return left
        check_records(len(left[0]) * len(right[0]))
        records = (left[0][:, None] | right[0][None, :]).reshape(-1, self._words)
        probs = np.outer(left[1], right[1]).ravel()
        likely = probs > ROUNDING_FLOOR[self._run.options.precision]
        return tally(records[likely], probs[likely])


class _Joint(NamedTuple):
    records: NDArray[np.uint64]  # of the first group of shots
    distribution: Distribution
    means: NDArray[np.float64]


# Rows of a request on the general path, on any backend of states.


class RequestExecution(EngineRun, frozen=True, eq=False):
    """One run, and the components of the circuit."""

    pieces: tuple[ComponentPlan, ...]
    number: int  # rows of bindings

    @classmethod
    def of(cls, plan: ExecutionPlan, run: EngineRun, number: int) -> RequestExecution:
        """Execution of the support of the outputs; a small circuit is run as a whole."""
        circuit, request = run.circuit, run.request
        if circuit.num_qubits <= SMALL_QUBITS:
            pieces = plan.as_one_component(circuit)
        else:
            pieces = plan.components(circuit, request)
            if len(pieces) == 1:
                request = pieces[0].request(request, circuit.num_qubits)
                circuit = pieces[0].circuit
        return cls(circuit, request, run.options, run.control, pieces, number)

    @property
    def widest(self) -> int:
        """Qubits of the widest state it holds."""
        return max([piece.circuit.num_qubits for piece in self.pieces])


def run_rows(states: StateBackend, job: RequestExecution) -> EngineResult:
    results = []
    for run in map(job.row, job.control.divide(job.number, BINDINGS)):
        if len(job.pieces) > 1:
            results.append(CombinedRun(states, job.pieces, run).result())
        else:
            results.append(ComponentRun(states, job.pieces[0].programs, run).result())
    return EngineResult.joined(results)
