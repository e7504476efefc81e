"""Plan of a circuit with noise: its active part, its errors, and the method of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS, builtin_card, state_bytes
from simulators.circuit.analysis.measurements import MeasurementLayouts, has_mid_circuit_ops
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import Subcircuit
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.circuit.passes.noisy_cone import active_part
from simulators.control import RunControl, ThreadPool
from simulators.engine import Request, RunOptions
from simulators.execution.outputs import SeedKey, collect
from simulators.execution.parts import SupportCache, part_request
from simulators.execution.readout import ReadoutStage
from simulators.execution.requests import bind, check_outputs, num_bindings
from simulators.results import EngineResult
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.noisy.programs import noisy_programs
from simulators.statevector.noisy.runs import BranchRun, PatternRun
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories.pauli_frames import FrameRules
from simulators.statevector.trajectories.sampler import TrajectorySampler
from simulators.statevector.trajectories.states import SCRATCH_STATES, TrajectoryStates
from simulators.statevector.trajectories.walks import Walks
from simulators.trajectories.locations import DRAW_COST, NoisyCircuit, locate
from simulators.trajectories.outcomes import refuse_outputs

if TYPE_CHECKING:
    from simulators.statevector.distributed.error_agreement import ErrorAgreement

CARD = builtin_card("statevector")
FRAMES_FROM = 8  # qubits: for narrower states a run costs less than the search for its class
_LOCATION_BYTES, _OP_BYTES = 1100, 200  # approximate bytes of a plan: a pair has 15 errors
_DRAW_PASSES = 0.2  # for a wide circuit: a draw adds two passes to about ten
_STATES_OF_A_RANK = 4  # with fewer states, prefixes are run again and again


class NoisyPart:
    """Part of a circuit that some outputs depend on, with its noise."""

    def __init__(
        self,
        part: Subcircuit,
        noise: NoiseProgram,
        options: RunOptions,
        small: bool,
        keep: bool,
        tile_wires: int,
    ) -> None:
        """Set up. `small`: see `StatevectorEngine`; `keep`: an output needs the final state;
        `tile_wires`: see `TrajectorySampler`."""
        self.part = part
        self.noise = noise
        self._precision = options.precision
        circuit = part.circuit
        self.layouts = MeasurementLayouts.of(circuit)
        self._readout = ReadoutStage.of(self.layouts.clbits, noise.readout, part.operations)
        self.programs = noisy_programs(noise, options.precision, part.operations)
        self.located: NoisyCircuit | None = None
        self._sampler: TrajectorySampler | None = None
        roles = np.empty(circuit.ops.size, np.int64)
        if not circuit.conditions_data and not has_mid_circuit_ops(circuit, roles, keep=keep):
            wide = not small or circuit.num_qubits > SMALL_QUBITS
            cost = circuit.ops.size * _DRAW_PASSES if wide else DRAW_COST
            self.located = locate(circuit, noise, draw_cost=cost)
        self._rules: FrameRules | None = None
        if self.located is not None:
            if circuit.num_qubits >= FRAMES_FROM:
                self._rules = FrameRules.of(self.located.circuit)
            self._sampler = TrajectorySampler(
                self.located.circuit,
                self.located.table,
                options,
                small=small,
                tile_wires=tile_wires,
            )

    def local(
        self,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
        ranks: ErrorAgreement | None = None,
        states: TrajectoryStates | None = None,
    ) -> EngineResult:
        """Run all rows in this process, or in ranks that call this together. `states`: of another
        device."""
        from simulators.statevector.backend.local import LocalBackend

        with ThreadPool(1 if states else options.threads, control) as thread_pool:
            if self._sampler is None or self.located is None:
                backend = states.backend if states else LocalBackend(thread_pool, control)
                return self.branched(backend, circuit, request, options)
            memory_bytes, max_states = options.memory_bytes, 0
            if states is not None:
                width = self.part.circuit.num_qubits
                max_states = max(1, states.backend.max_live_states(width, options) - SCRATCH_STATES)
            walks: Walks = self._sampler.open(
                thread_pool, control, max_states, memory_bytes=memory_bytes, states=states
            )
            if ranks is not None:
                from simulators.statevector.distributed.rank_walks import RankWalks

                walks = RankWalks(walks, self._sampler.shared_before, ranks)
            results = []
            width, errors = self.part.circuit.num_qubits, self.located.errors
            for params, own, key in self._rows(circuit, request):
                run = PatternRun(self._sampler, errors, walks, params, width, self._rules)
                results.append(collect(run, self.layouts, own, key, self._readout))
            self._sampler.forget_segments()
            return EngineResult.joined(results)

    def fits(self, memory_bytes: int, neighbours: int) -> bool:
        """Return whether error patterns can be drawn and a rank has memory for a few states.

        `memory_bytes`: of a rank; 0: the ranks of a machine share a quarter of its memory.
        """
        if self._sampler is None:
            return False
        room = memory_bytes or PHYSICAL_BYTES // (4 * neighbours)
        size = state_bytes(self.part.circuit.num_qubits, self._precision)
        return _STATES_OF_A_RANK * size <= room

    def branched(
        self, states: StateBackend, circuit: Circuit, request: Request, options: RunOptions
    ) -> EngineResult:
        """Run all rows by splitting branches."""
        return EngineResult.joined(
            [
                BranchRun(
                    states,
                    self.part,
                    self.programs,
                    params,
                    own,
                    key,
                    options,
                    self.noise.readout,
                ).result()
                for params, own, key in self._rows(circuit, request)
            ]
        )

    def _rows(
        self, circuit: Circuit, request: Request
    ) -> Iterator[tuple[NDArray[np.float64], Request, SeedKey]]:
        """Parameters, request and key of each row."""
        own = part_request(self.part, request, circuit.num_qubits)
        for row in range(num_bindings(circuit, request)):
            params = bind(circuit, request, row)[self.part.params]
            yield params, own, (request.seed, request.binding + row)


class NoisyPlan:
    """Plan of one structure with its noise: a part for each kind of request."""

    is_noisy = True

    def __init__(
        self,
        circuit: Circuit,
        noise: NoiseProgram,
        options: RunOptions,
        *,
        small: bool,
        tile_wires: int = 0,
    ) -> None:
        """Set up. `small`, `tile_wires`: see `NoisyPart`."""
        # Estimate for one kind of request; set at once, since a cache reads it once.
        self.memory_bytes = _LOCATION_BYTES * len(noise.locations) + _OP_BYTES * circuit.ops.size
        self._noise = noise
        self._options = options
        self._small = small
        self._tile_wires = tile_wires
        self._parts: SupportCache[NoisyPart] = SupportCache()

    def part(self, circuit: Circuit, request: Request) -> NoisyPart:
        """Part that is run for a request. Raises Unsupported for outputs that trajectories cannot
        give."""
        measures = bool(circuit.clbits_data)
        check_outputs(CARD, request, measures)
        refuse_outputs(request)
        keep = "expectation" in request.outputs

        def make(support: OutputSupport | None) -> NoisyPart:
            part, noise = active_part(circuit, self._noise, support)
            return NoisyPart(part, noise, self._options, self._small, keep, self._tile_wires)

        return self._parts.of(circuit, request, make, keep)
