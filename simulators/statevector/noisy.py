"""Plan of a circuit with noise: its active part, its errors, and the method of its run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators import engine
from simulators.catalog import SMALL_QUBITS, builtin_card, state_bytes
from simulators.circuit.analysis import measurements
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram, Readout
from simulators.circuit.passes.components import Subcircuit, active_part
from simulators.circuit.passes.leakage_flags import has_flags, unflagged
from simulators.circuit.passes.light_cone import OutputSupport
from simulators.circuit.passes.wire_reuse import with_shared_wires
from simulators.execution import outputs, part_caches, requests
from simulators.execution.packing import gather
from simulators.execution.readout import ReadoutStage
from simulators.statevector import execute
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.backend.protocol import Ensemble, StateBackend
from simulators.statevector.dynamic.evolution import EnsembleEvolution
from simulators.statevector.execute import ComponentRun
from simulators.statevector.program import Flag, Instruction, Noise, Program, Unitary, build_program
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.statevector.trajectories.states import SCRATCH_STATES, TrajectoryStates
from simulators.statevector.trajectories.walks import (
    Observables,
    ParamSets,
    TrajectorySampler,
    Walks,
)
from simulators.trajectories import locations, pattern_order, pattern_sampling, shot_blocks
from simulators.trajectories.noise_table import ErrorPatterns, SortedPatterns, row_work

if TYPE_CHECKING:
    from simulators.statevector.distributed.executor import ErrorAgreement

# Final states under noise, for one binding: trajectories by patterns, or by splitting branches.


class PatternRun(outputs.FinalState):
    """Trajectories of a circuit that measures at its end only."""

    def __init__(
        self,
        sampler: TrajectorySampler,
        located: locations.NoisyCircuit,
        walks: Walks,
        params: NDArray[np.float64],
        num_qubits: int,
        rules: FrameRules | None,
        sets: tuple[ParamSets, NDArray[np.int64]] | None = None,
    ) -> None:
        """Set up. `rules`: patterns whose final states differ by a Pauli only are run once by these
        rules; None: each is run. `sets`: of parameters, and the set of each shot."""
        self.num_qubits = num_qubits
        self._sets = sets
        self._rules = rules
        self._sampler = sampler
        self._errors, self._flags = located.errors, located.flags
        self._walks = walks
        self._params = params
        self._patterns = 0

    def _blocks(self, shots: int, key: outputs.SeedKey) -> Iterator[tuple[int, int]]:
        if self._sets is None:
            self._walks.bind(self._params, key)
        else:
            self._walks.bind(self._params, key, self._sets[0])
        self._walks.control.expect(shots, engine.TRAJECTORIES)
        more = 0.0 if self._flags is None else self._flags.mean_inserts
        for block in shot_blocks.shot_blocks(self._errors, shots, more):
            self._walks.control.check()
            yield block

    def _sets_of(self, first: int, last: int) -> NDArray[np.int64] | None:
        return None if self._sets is None else self._sets[1][first:last]

    def _drawn(self, first: int, last: int, key: outputs.SeedKey) -> ErrorPatterns:
        places = self._sampler.places
        result = pattern_sampling.draw_patterns(self._errors, first, last, key, places)
        if self._flags is None:
            return result
        return self._flags.extended(result, first, key, places, self._walks.control)

    def _sorted(self, patterns: ErrorPatterns, first: int, last: int) -> SortedPatterns:
        rows = pattern_order.sort_places(patterns, self._sampler.places.size)
        sets = self._sets_of(first, last)
        return rows if sets is None else rows.of_sets(sets)

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        places, before = self._sampler.places, self._sampler.operations_before
        for first, last in self._blocks(shots, key):
            if self._rules is None:
                patterns = self._drawn(first, last, key)
                final_x = frames = None
            else:
                drawn = pattern_sampling.draw_patterns(
                    self._errors, first, last, key, np.arange(places.size)
                )
                carried = carry(
                    drawn, self._sampler.table, self._rules, places, self._sets_of(first, last)
                )
                patterns, final_x, frames = carried.patterns, carried.final_x, carried.frames
            rows = self._sorted(patterns, first, last)
            self._patterns += int(np.count_nonzero(row_work(rows, before)))
            entry = self._walks.indices(rows, first, final_x)
            if frames is not None:
                entry ^= frames
            yield gather(entry, self._sampler.source), None

    def estimates(
        self, strings: outputs.PauliStrings, request: engine.Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        del strings
        observables = Observables.of(request.observables, self.num_qubits)
        moments = shot_blocks.Moments(observables.count)
        for first, last in self._blocks(request.shots, key):
            patterns = self._drawn(first, last, key)
            rows = self._sorted(patterns, first, last)
            moments.add(self._walks.values(rows, first, observables))
        return moments.estimates()

    @property
    def remark(self) -> str:  # type: ignore[override]  # known once it has run
        """Number of distinct error patterns."""
        return f"{self._patterns} error patterns" if self._patterns else ""


class BranchRun(ComponentRun):
    """Trajectories by splitting branches: any circuit, any backend."""

    def __init__(
        self,
        states: StateBackend,
        programs: part_caches.ProgramCache[Program],
        run: requests.BindingRun,
        op_ids: NDArray[np.int64],
        readout: Readout | None,
        *,
        leaks: bool = False,
    ) -> None:
        """Set up. `op_ids`: numbers of the operations in the whole circuit; `leaks`: qubits leak, a
        flag of each is a bit of the shot."""
        super().__init__(states, programs, run)
        self._numbers, self._leaks = op_ids, leaks
        self._recorded = readout
        self._recorded_in_whole = readout
        if readout is not None and readout.own:
            own = {int(op_ids[k]): flips for k, flips in readout.own.items()}
            self._recorded_in_whole = replace(readout, own=own)

    def result(self) -> engine.BindingResult:
        layouts = measurements.MeasurementLayouts(self._layout(False), self._layout(True))
        readout = ReadoutStage.of(layouts.clbits, self._recorded, self._numbers)
        return outputs.collect(self, layouts, self._request, self._run.key, readout)

    def _layout(self, keep: bool) -> measurements.MeasurementLayout:
        return self._schedules.of(self._circuit, keep=keep).layout

    def _schedule(self, keep: bool) -> Program:
        return self._schedules.of(self._circuit, keep=keep)

    def _walk(self, plan: Program, ensemble: Ensemble) -> EnsembleEvolution:
        recorded = self._recorded_in_whole
        return EnsembleEvolution(ensemble, plan, self._run, recorded, flags=self._leaks)

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        program = self._schedule(False)
        for branches in self._groups(False, range(shots)):
            records = execute.sample(program, key, branches, ordered=True)
            if self._states.is_root:
                yield records[np.argsort(branches.shots_or_weights)], None

    def estimates(
        self, strings: outputs.PauliStrings, request: engine.Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        del key
        owners, weights = outputs.owners_and_weights(request.observables)
        moments = shot_blocks.Moments(len(request.observables))
        measured = [(0, 0), *strings] if self._leaks else strings
        for branches in self._groups(True, range(request.shots)):
            states = branches.ensemble.states
            entry = np.empty((len(branches), len(request.observables)))
            for k, state in enumerate(branches.states.tolist()):
                each = states.expectations(branches.ensemble.state(state), measured)
                if self._leaks:  # the norm is not kept
                    each = each[1:] / each[0]
                entry[k] = np.bincount(owners, weights * each, len(request.observables))
            order = np.argsort(branches.shots_or_weights)
            moments.add(entry[branches.branch_of[order]])
        return moments.estimates()


# Programs of circuits whose noise splits branches: dynamic circuits, and states over ranks.


def noisy_programs(
    noise: NoiseProgram, precision: str, op_ids: NDArray[np.int64]
) -> part_caches.ProgramCache[Program]:
    """Programs of one structure with its noise. `op_ids`: numbers of the operations in the whole
    circuit."""

    def make(circuit: Circuit, keep: bool) -> Program:
        layout = measurements.measurement_layout(circuit, noise, keep=keep)
        return build_program(
            circuit,
            keep=keep,
            precision=precision,
            operations=op_ids,
            layout=replace(layout, branching=True),  # by its noise
            noise=instructions(noise),
        )

    return part_caches.ProgramCache(make)


def instructions(noise: NoiseProgram) -> dict[int, list[Instruction]]:
    """Channels as instructions, by the operation they follow."""
    entries: dict[int, list[Instruction]] = {}
    for error in locations.located_steps(noise):
        sequence = entries.setdefault(error.after, [])
        if isinstance(error, locations.LocatedFlag):
            stays = None
            if error.leak:  # the mean of the norms of |0> and |1> stays 1
                kept = np.sqrt(np.array([1.0, 1.0 - error.leak]) / (1.0 - 0.5 * error.leak))
                stays = _placed(np.diag(kept), (error.qubit,))
            leaked = None if error.leaked is None else _noise(error.leaked)
            sequence.append(Flag(error, stays, leaked))
            continue
        if error.unitary is not None:
            sequence.append(Unitary(_placed(error.unitary, error.qubits)))
        if error.probability:
            sequence.append(_noise(error))
    return entries


def _noise(error: locations.LocatedError) -> Noise:
    """Errors with their Paulis in the form of the states."""
    basis = paulis(len(error.qubits))
    return Noise(error, tuple(_placed(basis[k], error.qubits) for k in error.paulis))


def _placed(matrix: NDArray[np.complex128], qubits: tuple[int, ...]) -> PlacedMatrix:
    data = np.ascontiguousarray(matrix, np.complex128).tobytes()
    return place(by_columns(data, len(qubits)), list(qubits))


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
        options: engine.RunOptions,
        small: bool,
        keep: bool,
        tile_wires: int,
    ) -> None:
        """Set up. `small`: see `StatevectorEngine`; `keep`: an output needs the final state;
        `tile_wires`: see `TrajectorySampler`. Qubits that leak have their flags in the shots."""
        self._leaks = leaks = has_flags(noise)
        if leaks:
            part, noise = unflagged(part, noise)
        self.part = part
        self.noise = noise
        self._precision = options.precision
        circuit = part.circuit
        self.layouts = measurements.MeasurementLayouts.of(circuit, noise)
        self._readout = ReadoutStage.of(self.layouts.clbits, noise.readout, part.operations)
        self.programs = noisy_programs(noise, options.precision, part.operations)
        self.located: locations.NoisyCircuit | None = None
        self._sampler: TrajectorySampler | None = None
        layout = self.layouts.state if keep else self.layouts.clbits
        if not circuit.conditions_data and not layout.branching:
            wide = not small or circuit.num_qubits > SMALL_QUBITS
            cost = circuit.ops.size * _DRAW_PASSES if wide else locations.DRAW_COST
            self.located = locations.locate(circuit, noise, draw_cost=cost, flags=leaks)
        self._rules: FrameRules | None = None
        if self.located is not None:
            if circuit.num_qubits >= FRAMES_FROM and not leaks:
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
        run: requests.EngineRun,
        ranks: ErrorAgreement | None = None,
        states: TrajectoryStates | None = None,
    ) -> engine.EngineResult:
        """Run all rows in this process, or in ranks that call this together. `states`: of another
        device."""
        from simulators.statevector.backend.local import LocalBackend

        options, control = run.options, run.control
        with engine.ThreadPool(1 if states else options.threads, control) as thread_pool:
            if self._sampler is None or self.located is None:
                backend = states.backend if states else LocalBackend(thread_pool, control)
                return self.branched(backend, run)
            memory_bytes, max_states = options.memory_bytes, 0
            if states is not None:
                width = self.part.circuit.num_qubits
                max_states = max(1, states.backend.max_live_states(width, options) - SCRATCH_STATES)
            walks: Walks = self._sampler.open(
                thread_pool, control, max_states, memory_bytes=memory_bytes, states=states
            )
            if ranks is not None:
                from simulators.statevector.distributed.communicator import RankWalks

                walks = RankWalks(walks, self._sampler.shared_before, ranks)
            results = []
            width, located = self.part.circuit.num_qubits, self.located
            for row in self._rows(run):
                state = PatternRun(
                    self._sampler, located, walks, row.params, width, self._rules, self._sets(run)
                )
                results.append(
                    outputs.collect(state, self.layouts, row.request, row.key, self._readout)
                )
            self._sampler.forget_segments()
            return engine.EngineResult.joined(results)

    def _sets(self, run: requests.EngineRun) -> tuple[ParamSets, NDArray[np.int64]] | None:
        """Parameters of this part that differ from shot to shot, and the set of each shot."""
        given = run.request.shot_values
        if given is None:
            return None
        params, slots = run.circuit.slots[0::2], run.circuit.slots[1::2]
        number = np.full(run.circuit.num_slots, -1)
        number[given.slots] = np.arange(given.slots.size)
        place = np.full(run.circuit.params.size, -1)
        place[self.part.params] = np.arange(self.part.params.size)
        mine = (number[slots] >= 0) & (place[params] >= 0)
        each = number[slots[mine]]
        own = ParamSets(given.values, place[params[mine]], given.columns[each], given.factors[each])
        return own, given.set_of

    def fits(self, memory_bytes: int, neighbours: int) -> bool:
        """Return whether error patterns can be drawn and a rank has memory for a few states.
        `memory_bytes`: of a rank; 0: the ranks of a machine share a quarter of its memory."""
        if self._sampler is None:
            return False
        room = memory_bytes or PHYSICAL_BYTES // (4 * neighbours)
        size = state_bytes(self.part.circuit.num_qubits, self._precision)
        return _STATES_OF_A_RANK * size <= room

    def branched(self, states: StateBackend, run: requests.EngineRun) -> engine.EngineResult:
        """Run all rows by splitting branches."""
        op_ids, readout = self.part.operations, self.noise.readout
        results = []
        for row in self._rows(run):
            each = BranchRun(states, self.programs, row, op_ids, readout, leaks=self._leaks)
            results.append(each.result())
        return engine.EngineResult.joined(results)

    def _rows(self, run: requests.EngineRun) -> Iterator[requests.BindingRun]:
        own = part_caches.part_request(self.part, run.request, run.circuit.num_qubits)
        for row in run.rows():
            params = row.params[self.part.params]
            yield replace(row, circuit=self.part.circuit, params=params, request=own)


class NoisyPlan:
    """Plan of one structure with its noise: a part for each kind of request."""

    is_noisy = True

    def __init__(
        self,
        circuit: Circuit,
        noise: NoiseProgram,
        options: engine.RunOptions,
        *,
        small: bool,
        tile_wires: int = 0,
    ) -> None:
        """Set up. `small`, `tile_wires`: see `NoisyPart`."""
        # Estimate for one kind of request.
        self.memory_bytes = _LOCATION_BYTES * len(noise.locations) + _OP_BYTES * circuit.ops.size
        self._noise = noise
        self._options = options
        self._small = small
        self._tile_wires = tile_wires
        self._parts: part_caches.SupportCache[NoisyPart] = part_caches.SupportCache()

    def part(self, circuit: Circuit, request: engine.Request) -> NoisyPart:
        """Part that is run for a request. Raises Unsupported for outputs that trajectories cannot
        give."""
        measures = bool(circuit.clbits_data)
        requests.check_outputs(CARD, request, measures)
        shot_blocks.refuse_outputs(request)
        keep = "expectation" in request.outputs

        def make(support: OutputSupport | None) -> NoisyPart:
            part, noise = active_part(circuit, self._noise, support)
            if support is not None and not support.levels:
                part, noise = with_shared_wires(part, noise)
            return NoisyPart(part, noise, self._options, self._small, keep, self._tile_wires)

        return self._parts.of(circuit, request, make, keep)
