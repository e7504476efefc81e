"""Density matrix engine: exact results of circuits with noise.

The state of the qubits that the outputs depend on is a real vector in the Pauli basis; gates and
the channels that follow them are fused, so noise costs nothing beyond its gates. Measurements
before the end split the state by the recorded outcome, exactly. Results need no trajectories:
probabilities and expectation values are exact, and counts are drawn from the exact distribution.
Counts of parts that no gate and no channel connects are drawn part by part, so their number has no
limit.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators import engine
from simulators.catalog import builtin_card
from simulators.circuit.analysis import measurements
from simulators.circuit.gates import MEASURE, RESET
from simulators.circuit.ir import Circuit, bell, feed_forward
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit, active_part, split
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.circuit.passes.wire_reuse import with_shared_wires
from simulators.compiler import kernel
from simulators.densitymatrix.execute import Branches, CombinedState, ExactEvolution, MixedState
from simulators.densitymatrix.plain_part import PlainPart, fits, plain_counts, plain_part
from simulators.densitymatrix.program import Program, build_program
from simulators.dynamic.liveness import output_mask
from simulators.engine import (
    OPERATIONS,
    SAMPLED,
    EngineResult,
    Request,
    RunControl,
    RunOptions,
    ThreadPool,
)
from simulators.execution import circuit_checks, outputs, part_caches, requests
from simulators.execution.detuned import DetunedPlan
from simulators.execution.flagged import FlaggedPlan
from simulators.execution.outputs import FinalState, collect
from simulators.execution.readout import ReadoutStage

CARD = builtin_card("densitymatrix")
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


class _Part:
    """Part of a circuit for one set of outputs: circuit, noise and programs."""

    def __init__(self, part: Subcircuit, noise: NoiseProgram, outputs: tuple[str, ...]) -> None:
        self.part, self.noise = part, noise
        own = self.part.circuit
        clbits = measurements.measurement_layout(own, noise)
        state = clbits
        if "expectation" in outputs:
            state = measurements.measurement_layout(own, noise, keep=True)
        self.layouts = measurements.MeasurementLayouts(clbits, state)
        self.readout = ReadoutStage.of(
            self.layouts.clbits, self.noise.readout, self.part.operations
        )
        self.components = self._components(outputs)
        self._programs = part_caches.ProgramCache(self._build)

    def _components(self, outputs: tuple[str, ...]) -> tuple[_Part, ...]:
        """Unconnected parts, if only counts or memory of measurements at the end are requested; ():
        the circuit is run as one."""
        if not SAMPLED.issuperset(outputs) or self.part.circuit.conditions_data:
            return ()
        own = self.part.circuit
        codes = own.table.rows[:, 0][own.ops]
        roles = self.layouts.clbits.roles
        if (((codes == MEASURE) | (codes == RESET)) & (roles != measurements.TERMINAL)).any():
            return ()
        pieces = split(self.part, self.noise)
        if len(pieces) == 1:
            return ()
        return tuple(_Part(part, noise, outputs) for part, noise in pieces)

    @property
    def num_qubits(self) -> int:
        return self.part.circuit.num_qubits

    @property
    def width(self) -> int:
        """Qubits of the widest state."""
        return max((each.num_qubits for each in self.components), default=self.num_qubits)

    @property
    def draw(self) -> int:
        """Draw number of its outcomes, as one of several components: 1 + its first terminal
        measurement."""
        places = self.layouts.clbits.operations
        mine = self.part.operations[places[places >= 0]]
        return 1 + int(mine.min()) if mine.size else 0

    def program(self, *, keep: bool) -> Program:
        """The program for outputs of clbits, or (`keep`) of the final state."""
        roles = self.layouts.state.roles
        own = self.part.circuit
        reads = (own.table.rows[:, 0][own.ops] == MEASURE) & (roles != measurements.TERMINAL)
        alike = np.array_equal(roles, self.layouts.clbits.roles) and not reads.any()
        return self._programs.of(own, keep=keep and not alike)

    def _build(self, circuit: Circuit, keep: bool) -> Program:
        layout = self.layouts.state if keep else self.layouts.clbits
        earlier = np.flatnonzero(layout.source < 0).tolist()  # others are read at the end
        live = 0 if keep else output_mask(circuit) & sum(1 << clbit for clbit in earlier)
        return build_program(circuit, self.noise, layout, live)

    @property
    def num_operations(self) -> int:
        """Number of operations of the circuit."""
        return self.part.circuit.ops.size

    def own_params(self, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters of the part among those of the whole circuit."""
        return params[self.part.params]

    def request(self, request: Request, num_qubits: int) -> Request:
        """Convert a request for the whole circuit to one for this part."""
        return part_caches.part_request(self.part, request, num_qubits)

    @property
    def memory_bytes(self) -> int:
        pieces = sum(each.memory_bytes for each in self.components)
        own = self.part.memory_bytes + self.noise.locations.nbytes
        return own + self._programs.memory_bytes + pieces


class DensityMatrixPlan:
    """Plan of a structure with its noise: a part for each set of outputs."""

    def __init__(self, noise: NoiseProgram | None) -> None:
        self._noise = noise or _NO_NOISE
        self._parts: part_caches.SupportCache[_Part | PlainPart] = part_caches.SupportCache()

    @property
    def memory_bytes(self) -> int:
        return self._noise.locations.nbytes + sum(p.memory_bytes for p in self._parts.values())

    def part(self, circuit: Circuit, request: Request) -> _Part | PlainPart:
        outputs = request.outputs

        def make(support: OutputSupport | None) -> _Part | PlainPart:
            plain = plain_part(circuit, self._noise, outputs)
            if plain is not None:
                return plain
            part, noise = active_part(circuit, self._noise, support)
            if support is not None and not support.levels:
                part, noise = with_shared_wires(part, noise)
            return _Part(part, noise, outputs)

        sampled = SAMPLED.issuperset(outputs)
        return self._parts.of(circuit, request, make, sampled, "expectation" in outputs)


class DensityMatrixEngine:
    """Exact density matrices in memory."""

    name = "densitymatrix"

    def worth_caching(self, circuit: Circuit) -> bool:  # noqa: ARG002  # as the protocol has it
        return True

    def plan(
        self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions
    ) -> engine.Plan:
        circuit_checks.check_request(CARD, circuit, noise, options, reduced=True)
        if noise is not None and noise.leakage is not None:
            return FlaggedPlan(self, circuit, noise, options)
        if noise is not None and noise.detunings is not None:
            return DetunedPlan(self, circuit, noise, options)
        return DensityMatrixPlan(noise)

    def run(
        self,
        plan: engine.Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if isinstance(plan, DetunedPlan | FlaggedPlan):
            return plan.run(self, circuit, request, options, control)
        if not isinstance(plan, DensityMatrixPlan):
            raise TypeError(f"a plan of {type(plan).__name__}, not of this engine")
        requests.check_run(circuit, options)
        rows = requests.EngineRun(circuit, request, options, control).rows()
        requests.check_outputs(CARD, request, circuit.clbits_data != b"")
        outputs.terms(request.observables, circuit.num_qubits)
        part = plan.part(circuit, request)
        circuit_checks.check_width(CARD, part.width)
        if isinstance(part, PlainPart) and fits(part, request.outputs):
            return EngineResult.joined([plain_counts(part, row) for row in rows])
        own = part.request(request, circuit.num_qubits)
        results = []
        with ThreadPool(options.threads, control) as pool:
            for row in rows:
                if part.components:
                    pieces = [(_state(piece, row, pool), piece.draw) for piece in part.components]
                    state: FinalState = CombinedState(part.num_qubits, pieces)
                else:
                    state = _state(part, row, pool)
                results.append(collect(state, part.layouts, own, row.key, part.readout))
        return EngineResult.joined(results)

    def warm_up(self) -> None:
        """Run small circuits through every kernel, if all are compiled: a first task compiles only
        those that it needs."""
        if not all(each.is_stored for each in kernel.kernels("attachment", "noise")):
            return
        options = RunOptions()
        for circuit in (bell(), feed_forward()):
            plan = self.plan(circuit, None, options)
            request = Request(16, 1, ("counts", "probabilities", "expectation"), (_ZZ,))
            self.run(plan, circuit, request, options, RunControl())


def _state(part: _Part | PlainPart, run: requests.BindingRun, pool: ThreadPool) -> MixedState:
    """The final state of a part; `run`: of the whole circuit."""
    bound, width = replace(run, params=part.own_params(run.params)), part.num_qubits
    control, number = run.control, part.num_operations
    control.expect(number, OPERATIONS)

    def progress(share: float) -> None:
        control.advance(OPERATIONS, number * share)

    def evolve(keep: bool) -> Branches:
        evolution = ExactEvolution(part.program(keep=keep), bound, pool)
        return evolution.run(progress)

    return MixedState(width, part.layouts.clbits, evolve, max(2, width))


_ZZ = engine.PauliSum(("ZZ",), np.ones(1))
