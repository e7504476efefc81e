"""Rows of a request, and the combination of independent components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS, builtin_card
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.ir import num_words
from simulators.engine import SAMPLED, BindingResult, EngineResult
from simulators.execution import outputs
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey, collect
from simulators.execution.requests import BindingRun, EngineRun, check_outputs
from simulators.execution.sampling import Distribution, tally
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.backend.reductions import ROUNDING_FLOOR
from simulators.statevector.dynamic.branches import check_records
from simulators.statevector.execute import ComponentRun, shots_at_once
from simulators.statevector.plan import ComponentPlan, ExecutionPlan

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
        check_outputs(CARD, request, circuit.clbits_data != b"")
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
        for piece in self._pieces:
            assert piece.part is not None
            width = piece.circuit.num_qubits
            request = piece.request(self._run.request, self.num_qubits)
            params = self._run.params[piece.part.params]
            run = replace(self._run, circuit=piece.circuit, params=params, request=request)
            states = self._states.for_width(width)
            yield (
                ComponentRun(states, piece.programs, run),
                outputs.terms(request.observables, width),
            )

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
    """Run row after row on the general path."""
    results = []
    for run in map(job.row, range(job.number)):
        if len(job.pieces) > 1:
            results.append(CombinedRun(states, job.pieces, run).result())
        else:
            results.append(ComponentRun(states, job.pieces[0].programs, run).result())
    return EngineResult.joined(results)
