"""Execution of one component for one binding: any width, any output, static or dynamic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.ir import Circuit, num_words, record_words
from simulators.engine import PURE, Request, RunOptions
from simulators.errors import TooManyBranches
from simulators.execution import pauli_sums
from simulators.execution.outputs import (
    Batch,
    FinalState,
    PauliStrings,
    SeedKey,
    basis_indices,
    collect,
)
from simulators.execution.parts import ProgramCache
from simulators.execution.requests import check_outputs, refuse_gradient
from simulators.execution.sampling import Distribution
from simulators.results import BindingResult
from simulators.statevector import outputs
from simulators.statevector.backend.protocol import (
    Ensemble,
    GradientFunction,
    StateBackend,
    StateHandle,
)
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic.branches import Branches, Tags
from simulators.statevector.dynamic.interpreter import Interpreter
from simulators.statevector.program import Program

CARD = builtin_card("statevector")
SHOTS_AT_ONCE = 1 << 20
_OF_CLBITS = {"counts", "memory", "probabilities"}
_WORDS_AT_ONCE = 1 << 22  # words of all records of a group: 32 MiB


def shots_at_once(circuit: Circuit) -> int:
    """Number of shots whose records are held at once."""
    return min(SHOTS_AT_ONCE, max(1, _WORDS_AT_ONCE // record_words(circuit)))


class ComponentRun(FinalState):
    """Final state of one component for one binding: one state, or the branches of a dynamic
    circuit. It is evolved once for all outputs if that changes none of them."""

    def __init__(
        self,
        states: StateBackend,
        circuit: Circuit,
        schedules: ProgramCache[Program],
        params: NDArray[np.float64],
        request: Request,
        key: tuple[int, int],
        options: RunOptions,
    ) -> None:
        self._states = states
        self.num_qubits = circuit.num_qubits
        self._circuit = circuit
        self._schedules = schedules
        self._params = params
        self._request = request
        self._key = key
        self._options = options
        self._words = num_words(circuit.num_clbits)
        self._final: dict[bool, Branches] = {}  # final branches of programs without branching
        self._peak = 1
        self._gradients: GradientFunction | None = None

    def result(self) -> BindingResult:
        """Compute all outputs of the request; refuses undefined outputs by name."""
        asked, request = self._request.outputs, self._request
        layout = self._schedule(False).layout
        is_pure = not set(asked).isdisjoint(PURE)
        collapses = is_pure and self._schedule(True).layout.branching
        self._check(request, layout, collapses=collapses)
        if "gradient" in asked:
            refuse_gradient(request, branches=self._schedule(True).layout.branching)
            pauli_sums.terms(request.observables, self.num_qubits)  # before any work is planned
            self._gradients = self._states.plan_gradients(
                self._circuit, self._params, request.observables
            )
        seen = self._schedule(True).layout if "expectation" in asked else layout
        return collect(self, MeasurementLayouts(layout, seen), request, self._key)

    def _check(self, request: Request, layout: MeasurementLayout, *, collapses: bool) -> None:
        """Raise Unsupported for undefined outputs."""
        check_outputs(CARD, request, layout.measures, collapses=collapses)

    def _schedule(self, keep: bool) -> Program:
        """Program for outputs of clbits, or (`keep`) of the final state. Without branching, and if
        an output needs the state, all outputs use that of one state."""
        plain = self._schedules.of(self._circuit, keep=False)
        if not keep and set(self._request.outputs) <= _OF_CLBITS:
            return plain
        seen = self._schedules.of(self._circuit, keep=True)
        if plain.layout.branching or seen.layout.branching:
            return seen if keep else plain
        return plain if plain.full else seen

    def _state(self, keep: bool) -> StateHandle:
        """Final state of a program without branching, evolved once."""
        final = self._final_branch(keep)
        return final.ensemble.state(int(final.states[0]))

    def _final_branch(self, keep: bool) -> Branches:
        """Final state of a program without branching, as a branch."""
        plan = self._schedule(keep)
        shared = keep and plan is not self._schedule(False)
        if shared not in self._final:
            ensemble = self._ensemble(plan)
            walk = self._walk(plan, ensemble)
            self._states.add_sweeps(walk.passes)
            options = self._options
            # Digest, file search and single passes would cost a short run a third of its time.
            kept = options.checkpoint_dir and walk.may_last(options.checkpoint_every_s)
            start = self._start(ensemble, np.ones(1), walk.way() if kept else None)
            self._final[shared] = walk.start(start)
        return self._final[shared]

    def _ensemble(self, program: Program) -> Ensemble:
        branching = program.layout.branching
        return self._states.ensemble(self.num_qubits, self._options, branching=branching)

    def _start(self, ensemble: Ensemble, tags: Tags, way: Evolution | None = None) -> Branches:
        """Branch with all rows at the start."""
        return Branches.single(ensemble, self._first(ensemble, way), self._records(tags.size), tags)

    def _first(self, ensemble: Ensemble, way: Evolution | None) -> int:
        """Initial state of all rows."""
        return ensemble.zero(way)

    def _records(self, rows: int) -> NDArray[np.uint64]:
        """Initial clbits of the rows."""
        return np.zeros((rows, self._words), np.uint64)

    def _walk(self, plan: Program, ensemble: Ensemble) -> Interpreter:
        return Interpreter(ensemble, self._circuit, plan, self._params, self._key, self._options)

    def _exactly(self, keep: bool) -> Branches:
        """Final branches with weighted records."""
        plan = self._schedule(keep)
        if not plan.layout.branching:
            final = self._final_branch(keep)
            return Branches.single(
                final.ensemble, int(final.states[0]), self._records(1), np.ones(1)
            )
        ensemble = self._ensemble(plan)
        walk = self._walk(plan, ensemble)
        branches = walk.start(self._start(ensemble, np.ones(1)))
        self._peak = max(self._peak, walk.peak)
        return branches

    def _groups(self, keep: bool, shots: range) -> Iterator[Branches]:
        """Final branches of these shots, a group of shots at a time.

        A group that would need more states than the limit is halved and run again: a shot's
        outcomes depend on its number alone. One shot needs one state.
        """
        plan = self._schedule(keep)
        size = shots_at_once(self._circuit)
        stack = [(k, min(k + size, shots.stop)) for k in range(shots.start, shots.stop, size)]
        stack.reverse()
        walk: Interpreter | None = None
        ensemble: Ensemble
        if plan.layout.branching:
            ensemble = self._ensemble(plan)
            walk = self._walk(plan, ensemble)  # computes all coefficients of a binding
        while stack:
            first, last = stack.pop()
            tags = np.arange(first, last)
            if walk is None:
                final = self._final_branch(keep)
                records = self._records(tags.size)
                yield Branches.single(final.ensemble, int(final.states[0]), records, tags)
                continue
            ensemble.clear()
            try:
                branches = walk.start(self._start(ensemble, tags))
            except TooManyBranches:
                middle = (first + last) // 2
                if middle == first:
                    raise
                stack += [(middle, last), (first, middle)]
                continue
            self._peak = max(self._peak, walk.peak)
            yield branches

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """See `FinalState`."""
        if "memory" in self._request.outputs:
            step = shots_at_once(self._circuit)
            for first in range(0, shots, step):
                entry = self.records(range(first, min(first + step, shots)))
                if self._states.is_root:
                    yield entry, None
            return
        program = self._schedule(False)
        for branches in self._groups(False, range(shots)):
            alike = len(branches) == 1 and bool((branches.records == branches.records[:1]).all())
            records = outputs.sample(program, key, branches, ordered=not alike)
            if self._states.is_root:
                yield records, None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        if self._schedule(False).layout.measures:
            return self.distribution()
        return outputs.over_qubits(self._exactly(True), self.num_qubits)

    def distribution(self) -> Distribution:
        """The exact distribution over the classical records."""
        return outputs.over_clbits(self._schedule(False), self._exactly(False))

    def statevector(self) -> NDArray[np.complexfloating] | None:
        """See `FinalState`."""
        return self._states.gather_statevector(self._state(True))

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating] | None:
        """See `FinalState`; ranks send the chosen amplitudes alone."""
        return self._states.amplitudes(self._state(True), basis_indices(bits))

    def records(self, shots: range) -> NDArray[np.uint64]:
        """Classical records of these shots, in order; in the first process only."""
        entry = np.zeros((len(shots), self._words), np.uint64)
        schedule = self._schedule(False)
        for branches in self._groups(False, shots):
            place = branches.shots_or_weights.astype(np.int64, copy=False) - shots.start
            entry[place] = outputs.sample(schedule, self._key, branches, ordered=True)
        return entry

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        return outputs.values_exact(self._exactly(True), strings)

    def sampled_expectations(
        self, strings: PauliStrings, shots: int, key: SeedKey
    ) -> NDArray[np.float64]:
        """See `FinalState`."""
        sums = np.zeros(len(strings))
        for branches in self._groups(True, range(shots)):
            outputs.add_signs(key, branches, strings, sums)
        return sums / shots

    def gradients(self) -> NDArray[np.float64]:
        """See `FinalState`."""
        assert self._gradients is not None
        return self._gradients(self._state(True), "statevector" in self._request.outputs)

    @property
    def remark(self) -> str:  # type: ignore[override]  # grows as branches do
        """Number of branches, if the circuit branches."""
        if not self._schedule(False).layout.branching:
            return ""
        return f"{self._peak} branch{'es' if self._peak > 1 else ''}"
