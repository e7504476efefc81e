"""Final states under noise, for one binding: trajectories by patterns, or by splitting branches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.noise import Readout
from simulators.circuit.passes.components import Subcircuit
from simulators.engine import Request, RunOptions
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey, collect
from simulators.execution.parts import ProgramCache
from simulators.execution.readout import ReadoutStage
from simulators.execution.sampling import gather
from simulators.results import BindingResult
from simulators.statevector import outputs
from simulators.statevector.backend.protocol import Ensemble, StateBackend
from simulators.statevector.dynamic.interpreter import Interpreter
from simulators.statevector.execute import ComponentRun
from simulators.statevector.program import Program
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.statevector.trajectories.sampler import TrajectorySampler
from simulators.statevector.trajectories.walks import Observables, Walks
from simulators.trajectories.error_patterns import row_work
from simulators.trajectories.outcomes import Moments, shot_blocks
from simulators.trajectories.pattern_sampling import (
    ErrorTable,
    draw_patterns,
    sort_places,
)


class PatternRun(FinalState):
    """Trajectories of a circuit that measures at its end only."""

    def __init__(
        self,
        sampler: TrajectorySampler,
        errors: ErrorTable,
        walks: Walks,
        params: NDArray[np.float64],
        num_qubits: int,
        rules: FrameRules | None,
    ) -> None:
        """Set up. `rules`: patterns whose final states differ by a Pauli only are run once by these
        rules; None: each is run."""
        self.num_qubits = num_qubits
        self._rules = rules
        self._sampler = sampler
        self._errors = errors
        self._walks = walks
        self._params = params
        self._patterns = 0

    def _blocks(self, shots: int, key: SeedKey) -> Iterator[tuple[int, int]]:
        self._walks.bind(self._params, key)
        yield from shot_blocks(self._errors, shots)

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        places, before = self._sampler.places, self._sampler.operations_before
        for first, last in self._blocks(shots, key):
            if self._rules is None:
                patterns = draw_patterns(self._errors, first, last, key, places)
                final_x = frames = None
            else:
                drawn = draw_patterns(self._errors, first, last, key, np.arange(places.size))
                carried = carry(drawn, self._sampler.table, self._rules, places)
                patterns, final_x, frames = carried.patterns, carried.final_x, carried.frames
            rows = sort_places(patterns, places.size)
            self._patterns += int(np.count_nonzero(row_work(rows, before)))
            entry = self._walks.indices(rows, first, final_x)
            if frames is not None:
                entry ^= frames
            yield gather(entry, self._sampler.source), None

    def estimates(
        self, strings: PauliStrings, request: Request, key: SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        del strings
        observables = Observables.of(request.observables, self.num_qubits)
        moments = Moments(observables.count)
        places = self._sampler.places
        for first, last in self._blocks(request.shots, key):
            rows = sort_places(draw_patterns(self._errors, first, last, key, places), places.size)
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
        part: Subcircuit,
        programs: ProgramCache[Program],
        params: NDArray[np.float64],
        request: Request,
        key: tuple[int, int],
        options: RunOptions,
        readout: Readout | None,
    ) -> None:
        super().__init__(states, part.circuit, programs, params, request, key, options)
        self._numbers = part.operations
        self._recorded = readout

    def result(self) -> BindingResult:
        """Compute all outputs of the request."""
        layouts = MeasurementLayouts(self._layout(False), self._layout(True))
        readout = ReadoutStage.of(layouts.clbits, self._recorded, self._numbers)
        return collect(self, layouts, self._request, self._key, readout)

    def _layout(self, keep: bool) -> MeasurementLayout:
        return self._schedules.of(self._circuit, keep=keep).layout

    def _schedule(self, keep: bool) -> Program:
        return self._schedules.of(self._circuit, keep=keep)

    def _walk(self, plan: Program, ensemble: Ensemble) -> Interpreter:
        return Interpreter(
            ensemble,
            self._circuit,
            plan,
            self._params,
            self._key,
            self._options,
            self._recorded,
        )

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        program = self._schedule(False)
        for branches in self._groups(False, range(shots)):
            records = outputs.sample(program, key, branches, ordered=True)
            if self._states.is_root:
                yield records[np.argsort(branches.shots_or_weights)], None

    def estimates(
        self, strings: PauliStrings, request: Request, key: SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        del key
        owners = np.repeat(
            np.arange(len(request.observables)), [len(item.labels) for item in request.observables]
        )
        weights = np.concatenate([item.coefficients for item in request.observables])
        moments = Moments(len(request.observables))
        for branches in self._groups(True, range(request.shots)):
            states = branches.ensemble.states
            entry = np.empty((len(branches), len(request.observables)))
            for k, state in enumerate(branches.states.tolist()):
                each = states.expectations(branches.ensemble.state(state), strings)
                entry[k] = np.bincount(owners, weights * each, len(request.observables))
            order = np.argsort(branches.shots_or_weights)
            moments.add(entry[branches.branch_of[order]])
        return moments.estimates()
