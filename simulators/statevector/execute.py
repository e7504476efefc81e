"""Execution of one component, and the outputs of its final state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.ir import Circuit, num_words, record_words
from simulators.engine import OPERATIONS, PURE, SHOTS, BindingResult, Request
from simulators.errors import TooManyBranches
from simulators.execution import outputs
from simulators.execution.packing import tally, write
from simulators.execution.part_caches import ProgramCache
from simulators.execution.philox import uniforms
from simulators.execution.requests import BindingRun, check_outputs, refuse_gradient
from simulators.execution.sampling import Distribution
from simulators.statevector.backend import protocol
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic.branches import Branches, Tags, check_records
from simulators.statevector.dynamic.evolution import EnsembleEvolution
from simulators.statevector.program import Program

# Outputs of final states: counts, exact distributions, expectation values.
#
# Over MPI ranks only the root rank holds the results; the others take part in the sums.


def sample(
    program: Program, key: tuple[int, int], branches: Branches, *, ordered: bool
) -> NDArray[np.uint64]:
    """Records of all shots after the final measurements; in any order unless `ordered`."""
    records = branches.records.copy()
    source = program.layout.source
    if (source >= 0).any():
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        draws = protocol.ShotDraws(key, shots, program.draw, ordered)
        indices = branches.ensemble.sample(branches.states, branches.branch_of, draws)
        write(records, indices, source)
    return records


def over_clbits(program: Program, branches: Branches) -> Distribution:
    source = program.layout.source
    read = source >= 0
    wires = np.unique(source[read])
    source = np.where(read, np.searchsorted(wires, source), -1)
    total: Distribution = branches.records[:0], np.zeros(0)
    states = branches.ensemble.states
    for state, records, tags in branches.each():
        values, probs = states.distribution(branches.ensemble.state(state), wires)
        check_records(values.size * tags.size)
        if not states.is_root:
            continue
        records = np.repeat(records, values.size, axis=0)
        write(records, np.tile(values, tags.size), source)
        result = tally(records, np.outer(tags, probs / probs.sum()).ravel())
        if len(total[0]):
            result = tally(*(np.concatenate(pair) for pair in zip(total, result, strict=True)))
        total = result
    return total


def over_qubits(branches: Branches, num_qubits: int) -> Distribution:
    wires = np.arange(num_qubits)
    ensemble, states = branches.ensemble, branches.ensemble.states
    if len(branches) == 1:
        values, probs = states.distribution(ensemble.state(int(branches.states[0])), wires)
        return values.astype(np.uint64).reshape(-1, 1), probs / probs.sum()
    table = np.zeros(1 << num_qubits if states.is_root else 0)
    for state, _, tags in branches.each():
        values, probs = states.distribution(ensemble.state(state), wires)
        if states.is_root:
            table[values] += probs / probs.sum() * tags.sum()
    values = np.flatnonzero(table)
    return values.astype(np.uint64).reshape(-1, 1), table[values]


def values_exact(branches: Branches, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Expectation value of each string over the mixture of branches."""
    ensemble = branches.ensemble
    values = np.zeros(len(strings))
    for state, _, tags in branches.each():
        values += tags.sum() * ensemble.states.expectations(ensemble.state(state), strings)
    return values


def add_signs(
    key: tuple[int, int],
    branches: Branches,
    strings: list[tuple[int, int]],
    into: NDArray[np.float64],
) -> None:
    """Add to into[t] the sum over the branches' shots of string t's sampled values, +1 or -1."""
    ensemble = branches.ensemble
    for state, _, tags in branches.each():
        values = ensemble.states.expectations(ensemble.state(state), strings)
        if not ensemble.states.is_root:
            continue
        shots = tags.astype(np.int64, copy=False)
        draws = np.empty(shots.size)
        for t, value in enumerate(values.tolist()):
            uniforms(*key, outputs.FIRST_TERM + t, shots, draws)
            into[t] += 2.0 * np.count_nonzero(draws < 0.5 * (1.0 + value)) - shots.size


# Execution of one component for one binding: any width, any output, static or dynamic.

CARD = builtin_card("statevector")
SHOTS_AT_ONCE = 1 << 20
_OF_CLBITS = {"counts", "memory", "probabilities"}
_WORDS_AT_ONCE = 1 << 22  # words of all records of a group: 32 MiB


def shots_at_once(circuit: Circuit) -> int:
    """Number of shots whose records are held at once."""
    return min(SHOTS_AT_ONCE, max(1, _WORDS_AT_ONCE // record_words(circuit)))


class ComponentRun(outputs.FinalState):
    """Final state of one component for one binding: one state, or the branches of a dynamic
    circuit. It is evolved once for all outputs if that changes none of them."""

    def __init__(
        self, states: protocol.StateBackend, schedules: ProgramCache[Program], run: BindingRun
    ) -> None:
        self._states = states
        self._schedules = schedules
        self._run = run
        self._circuit, self._request = run.circuit, run.request
        self.num_qubits = run.circuit.num_qubits
        self._words = num_words(run.circuit.num_clbits)
        self._final: dict[bool, Branches] = {}  # final branches of programs without branching
        self._peak = 1
        self._gradients: protocol.GradientFunction | None = None
        self._expected = False  # the shots of a circuit that branches, for the progress

    def result(self) -> BindingResult:
        """Compute all outputs of the request; refuses undefined outputs by name."""
        asked, request = self._request.outputs, self._request
        layout = self._schedule(False).layout
        is_pure = not set(asked).isdisjoint(PURE)
        collapses = is_pure and self._schedule(True).layout.branching
        self._check(request, layout, collapses=collapses)
        if "gradient" in asked:
            refuse_gradient(request, branches=self._schedule(True).layout.branching)
            outputs.terms(request.observables, self.num_qubits)  # before any work is planned
            self._gradients = self._states.plan_gradients(
                self._circuit, self._run.params, request.observables
            )
        seen = self._schedule(True).layout if "expectation" in asked else layout
        return outputs.collect(self, MeasurementLayouts(layout, seen), request, self._run.key)

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

    def _state(self, keep: bool) -> protocol.StateHandle:
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
            walk.expect_passes()
            options = self._run.options
            # Digest, file search and single passes would cost a short run a third of its time.
            kept = options.checkpoint_dir and walk.may_last(options.checkpoint_every_s)
            start = self._start(ensemble, np.ones(1), walk.way() if kept else None)
            self._final[shared] = walk.start(start)
        return self._final[shared]

    def _ensemble(self, program: Program) -> protocol.Ensemble:
        branching = program.layout.branching
        return self._states.ensemble(self.num_qubits, self._run.options, branching=branching)

    def _start(
        self, ensemble: protocol.Ensemble, tags: Tags, way: Evolution | None = None
    ) -> Branches:
        return Branches.single(ensemble, self._first(ensemble, way), self._records(tags.size), tags)

    def _first(self, ensemble: protocol.Ensemble, way: Evolution | None) -> int:
        """Initial state of all rows."""
        return ensemble.zero(way)

    def _records(self, rows: int) -> NDArray[np.uint64]:
        return np.zeros((rows, self._words), np.uint64)

    def _walk(self, plan: Program, ensemble: protocol.Ensemble) -> EnsembleEvolution:
        return EnsembleEvolution(ensemble, plan, self._run)

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
        control, number = self._run.control, self._circuit.ops.size
        control.expect(number, OPERATIONS)
        branches = walk.start(
            self._start(ensemble, np.ones(1)),
            lambda part: control.advance(OPERATIONS, part * number),
        )
        self._peak = max(self._peak, walk.peak)
        return branches

    def _groups(self, keep: bool, shots: range) -> Iterator[Branches]:
        """Final branches of these shots, a group of shots at a time. A group that would need more
        states than the limit is halved and run again: a shot's outcomes depend on its number alone.
        One shot needs one state."""
        plan = self._schedule(keep)
        size = shots_at_once(self._circuit)
        stack = [(k, min(k + size, shots.stop)) for k in range(shots.start, shots.stop, size)]
        stack.reverse()
        walk: EnsembleEvolution | None = None
        ensemble: protocol.Ensemble
        if plan.layout.branching:
            ensemble = self._ensemble(plan)
            walk = self._walk(plan, ensemble)  # computes all coefficients of a binding
            if not self._expected:
                self._run.control.expect(self._request.shots, SHOTS)
                self._expected = True
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
                branches = walk.start(
                    self._start(ensemble, tags), partial(self._shots_done, tags.size)
                )
            except TooManyBranches:
                middle = (first + last) // 2
                if middle == first:
                    raise
                stack += [(middle, last), (first, middle)]
                continue
            self._peak = max(self._peak, walk.peak)
            yield branches

    def _shots_done(self, shots: int, part: float) -> None:
        """Count a part of the work of these shots."""
        self._run.control.advance(SHOTS, shots * part)

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
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
            records = sample(program, key, branches, ordered=not alike)
            if self._states.is_root:
                yield records, None

    def probabilities(self) -> Distribution:
        if self._schedule(False).layout.measures:
            return self.distribution()
        return over_qubits(self._exactly(True), self.num_qubits)

    def distribution(self) -> Distribution:
        return over_clbits(self._schedule(False), self._exactly(False))

    def statevector(self) -> NDArray[np.complexfloating] | None:
        return self._states.gather_statevector(self._state(True))

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating] | None:
        """See `FinalState`; ranks send the chosen amplitudes alone."""
        return self._states.amplitudes(self._state(True), outputs.basis_indices(bits))

    def records(self, shots: range) -> NDArray[np.uint64]:
        """Classical records of these shots, in order; in the first process only."""
        entry = np.zeros((len(shots), self._words), np.uint64)
        schedule = self._schedule(False)
        for branches in self._groups(False, shots):
            place = branches.shots_or_weights.astype(np.int64, copy=False) - shots.start
            entry[place] = sample(schedule, self._run.key, branches, ordered=True)
        return entry

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        return values_exact(self._exactly(True), strings)

    def sampled_expectations(
        self, strings: outputs.PauliStrings, shots: int, key: outputs.SeedKey
    ) -> NDArray[np.float64]:
        sums = np.zeros(len(strings))
        for branches in self._groups(True, range(shots)):
            add_signs(key, branches, strings, sums)
        return sums / shots

    def gradients(self) -> NDArray[np.float64]:
        assert self._gradients is not None
        return self._gradients(self._state(True), "statevector" in self._request.outputs)

    @property
    def remark(self) -> str:  # type: ignore[override]  # grows as branches do
        """Number of branches, if the circuit branches."""
        if not self._schedule(False).layout.branching:
            return ""
        return f"{self._peak} branch{'es' if self._peak > 1 else ''}"
