"""Execution of one component for one binding: any width, any output, static or dynamic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import CARDS
from simulators.circuit.ir import Circuit, record_words, words
from simulators.engine import Request, RunOptions
from simulators.errors import TooManyBranches, Unsupported
from simulators.execution import pauli_sums
from simulators.execution.requests import check_outputs, refuse_gradient
from simulators.execution.sampling import pack
from simulators.results import BindingResult
from simulators.statevector import outputs
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.dynamic.branches import Branches
from simulators.statevector.dynamic.ensemble import Ensemble, SeparateStates
from simulators.statevector.dynamic.interpreter import Interpreter
from simulators.statevector.dynamic.stacked_states import MOST_QUBITS, StackedStates
from simulators.statevector.gradient import adjoint
from simulators.statevector.plan import ProgramCache
from simulators.statevector.program import Program
from simulators.statevector.state import State

CARD = next(entry for entry in CARDS if entry.name == "statevector")
SHOTS_AT_ONCE = 1 << 20
_OF_CLBITS = {"counts", "probabilities"}
_WORDS_AT_ONCE = 1 << 22  # of all records of a group: 32 MiB


def shots_at_once(circuit: Circuit) -> int:
    """Number of shots whose records are held at once."""
    return min(SHOTS_AT_ONCE, max(1, _WORDS_AT_ONCE // record_words(circuit)))


class ComponentRun:
    """All outputs of one binding."""

    def __init__(
        self,
        states: StateBackend,
        circuit: Circuit,
        schedules: ProgramCache,
        params: NDArray[np.float64],
        request: Request,
        key: tuple[int, int],
        options: RunOptions,
    ) -> None:
        self._states = states
        self._circuit = circuit
        self._schedules = schedules
        self._params = params
        self._request = request
        self._key = key
        self._options = options
        self._words = words(circuit.num_clbits)
        self._final: dict[bool, Branches] = {}  # of schedules without branching
        self._peak = 1

    def result(self) -> BindingResult:
        """Everything the request asks for; refuses what makes no sense, by name."""
        asked = self._request.outputs
        circuit, request = self._circuit, self._request
        measures = self._schedule(False).measures
        collapses = "statevector" in asked and self._schedule(True).branching
        check_outputs(CARD, request, measures, collapses=collapses)
        if "gradient" in asked:
            refuse_gradient(request, branches=self._schedule(True).branching)
        strings = pauli_sums.terms(request.observables, circuit.num_qubits)
        way = self._backwards() if "gradient" in asked else None
        expectations: tuple[tuple[float, float], ...] = ()
        if "expectation" in asked:
            measured = sum(1 << qubit for qubit in self._schedule(True).final_qubits)
            pauli_sums.refuse_collapsed(request.observables, strings, measured)
            means = self._means(strings)
            expectations = pauli_sums.estimates(request.observables, means, request.shots)
        outcomes, width, counts = self._counts() if "counts" in asked else (b"", 0, b"")
        values, value_width, odds = b"", 0, b""
        if "probabilities" in asked:
            values, value_width, odds = self._probabilities(measures)
        state = (
            self._states.gather_statevector(self._state(True)) if "statevector" in asked else None
        )
        gradients = None if way is None else self._gradients(way, strings)
        return BindingResult(
            outcome_width=width,
            outcomes=outcomes,
            counts=counts,
            probability_outcomes=values,
            probability_width=value_width,
            probabilities=odds,
            statevector=state,
            expectations=expectations,
            remark=self.remark,
            gradients=gradients,
        )

    def _schedule(self, keep: bool) -> Program:
        """With `keep`, that of a state that is looked at. Where nothing branches, and it is looked
        at, all outputs are those of one state."""
        plain = self._schedules.of(self._circuit, keep=False)
        if not keep and set(self._request.outputs) <= _OF_CLBITS:
            return plain
        seen = self._schedules.of(self._circuit, keep=True)
        if plain.branching or seen.branching:
            return seen if keep else plain
        return plain if plain.whole else seen

    def _state(self, keep: bool) -> State:
        """The final state of a schedule without branching, evolved once."""
        final = self._final_branch(keep)
        return final.ensemble.state(int(final.states[0]))

    def _final_branch(self, keep: bool) -> Branches:
        """The same as a branch."""
        plan = self._schedule(keep)
        shared = keep and plan is not self._schedule(False)
        if shared not in self._final:
            ensemble = self._ensemble(plan)
            walk = self._walk(plan, ensemble)
            self._states.add_sweeps(walk.passes)
            options = self._options
            # Its digest, files looked for and passes one by one would cost a short run a third.
            kept = options.checkpoint_dir and walk.may_last(options.checkpoint_every_s)
            state = ensemble.zero(walk.way() if kept else None)
            records = np.zeros((1, self._words), np.uint64)
            start = Branches.single(ensemble, state, records, np.ones(1))
            self._final[shared] = walk.start(start)
        return self._final[shared]

    def _ensemble(self, plan: Program) -> Ensemble:
        """Ensemble of the states of a program: narrow ones of many branches are rows of one
        array."""
        num_qubits = self._circuit.num_qubits
        if plan.branching and num_qubits <= MOST_QUBITS and isinstance(self._states, LocalBackend):
            return StackedStates(self._states, num_qubits, self._options)
        return SeparateStates(self._states, num_qubits, self._options)

    def _walk(self, plan: Program, ensemble: Ensemble) -> Interpreter:
        return Interpreter(ensemble, self._circuit, plan, self._params, self._key, self._options)

    def _exactly(self, keep: bool) -> Branches:
        """Final branches with weighted records."""
        plan = self._schedule(keep)
        records = np.zeros((1, self._words), np.uint64)
        if not plan.branching:
            final = self._final_branch(keep)
            return Branches.single(final.ensemble, int(final.states[0]), records, np.ones(1))
        ensemble = self._ensemble(plan)
        walk = self._walk(plan, ensemble)
        branches = walk.start(Branches.single(ensemble, ensemble.zero(), records, np.ones(1)))
        self._peak = max(self._peak, walk.peak)
        return branches

    def _groups(self, keep: bool, shots: range) -> Iterator[Branches]:
        """Final branches of these shots, a group of shots at a time.

        A group that would need more states than there may be is halved and begun again: a shot's
        outcomes depend on its number alone. One shot needs one state.
        """
        plan = self._schedule(keep)
        size = shots_at_once(self._circuit)
        stack = [(k, min(k + size, shots.stop)) for k in range(shots.start, shots.stop, size)]
        stack.reverse()
        walk: Interpreter | None = None
        ensemble: Ensemble
        if plan.branching:
            ensemble = self._ensemble(plan)
            walk = self._walk(plan, ensemble)  # it computes all numbers of a binding
        while stack:
            first, last = stack.pop()
            tags = np.arange(first, last)
            records = np.zeros((last - first, self._words), np.uint64)
            if walk is None:
                final = self._final_branch(keep)
                yield Branches.single(final.ensemble, int(final.states[0]), records, tags)
                continue
            ensemble.clear()
            try:
                branches = walk.start(Branches.single(ensemble, ensemble.zero(), records, tags))
            except TooManyBranches:
                middle = (first + last) // 2
                if middle == first:
                    raise
                stack += [(middle, last), (first, middle)]
                continue
            self._peak = max(self._peak, walk.peak)
            yield branches

    def _counts(self) -> tuple[bytes, int, bytes]:
        found = outputs.Tally(self._words)
        for branches in self._groups(False, range(self._request.shots)):
            outputs.count(self._schedule(False), self._key, branches, found)
        return found.counts(self._circuit.num_clbits)

    def _probabilities(self, measures: bool) -> tuple[bytes, int, bytes]:
        if not measures:
            branches = self._exactly(True)
            values, odds = outputs.over_qubits(branches, self._circuit.num_qubits)
            records = values.astype(np.uint64).reshape(-1, 1)
            return *pack(records, self._circuit.num_qubits), odds.tobytes()
        return self.distribution().odds(self._circuit.num_clbits)

    def distribution(self) -> outputs.Tally:
        """The exact distribution over the classical records."""
        found = outputs.Tally(self._words)
        outputs.exact(self._schedule(False), self._exactly(False), found)
        return found

    def records(self, shots: range) -> NDArray[np.uint64]:
        """The classical records of these shots, in their order; of the first process alone."""
        found = np.zeros((len(shots), self._words), np.uint64)
        schedule = self._schedule(False)
        for branches in self._groups(False, shots):
            place = branches.shots_or_weights.astype(np.int64, copy=False) - shots.start
            found[place] = outputs.sampled(schedule, self._key, branches, ordered=True)
        return found

    def values(self, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        """The exact mean of each Pauli string."""
        return outputs.values_exact(self._exactly(True), strings)

    def _means(self, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        """The mean of each string: exact, or of as many samples as there are shots."""
        if not self._request.shots:
            return self.values(strings)
        sums = np.zeros(len(strings))
        for branches in self._groups(True, range(self._request.shots)):
            outputs.add_signs(self._key, branches, strings, sums)
        return sums / self._request.shots

    def _backwards(self) -> adjoint.AdjointPlan:
        """The way back through the circuit; its passes are expected from the begin."""
        if not isinstance(self._states, LocalBackend):
            raise Unsupported(
                "gradients over several ranks", hint="ranks=1, where a worker holds two states"
            )
        way = adjoint.plan_adjoint(self._circuit, self._params)
        self._states.add_sweeps(way.passes * len(self._request.observables))
        return way

    def _gradients(
        self, way: adjoint.AdjointPlan, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """Gradient of each observable by each slot: float64 [observables, slots]."""
        assert isinstance(self._states, LocalBackend)
        return adjoint.gradients(
            self._states,
            way,
            self._state(True),
            self._request.observables,
            strings,
            keep="statevector" in self._request.outputs,
        )

    @property
    def remark(self) -> str:
        """Number of branches, where the circuit branches."""
        if not self._schedule(False).branching:
            return ""
        return f"{self._peak} branch{'es' if self._peak > 1 else ''}"
