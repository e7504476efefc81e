"""Combination of the results of independent components.

The components run one after the other, so one state is held at a time. Bits of a shot are joined;
probabilities and expectation values are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import CARDS
from simulators.circuit.ir import Circuit, words
from simulators.engine import Request, RunOptions
from simulators.errors import TooManyBranches
from simulators.execution import pauli_sums
from simulators.execution.requests import check_outputs
from simulators.execution.sampling import tally
from simulators.results import BindingResult
from simulators.statevector import outputs
from simulators.statevector.backend.protocol import StateBackend
from simulators.statevector.backend.sampling import ROUNDING_FLOOR
from simulators.statevector.dynamic.branches import MAX_ROWS
from simulators.statevector.execute import ComponentRun, shots_at_once
from simulators.statevector.plan import ComponentPlan

CARD = next(entry for entry in CARDS if entry.name == "statevector")


class CombinedRun:
    """All outputs of one binding."""

    def __init__(
        self,
        states: StateBackend,
        circuit: Circuit,
        pieces: Sequence[ComponentPlan],
        params: NDArray[np.float64],
        request: Request,
        key: tuple[int, int],
        options: RunOptions,
    ) -> None:
        """`params`: of the whole circuit, with all slots filled."""
        self._states = states
        self._circuit = circuit
        self._pieces = pieces
        self._params = params
        self._request = request
        self._key = key
        self._options = options
        self._words = words(circuit.num_clbits)
        self._remarks: dict[str, None] = {}

    def result(self) -> BindingResult:
        """Everything the request asks for; refuses what makes no sense, by name."""
        request, circuit = self._request, self._circuit
        asked = request.outputs
        check_outputs(CARD, request, circuit.clbits_data != b"")
        strings = pauli_sums.terms(request.observables, circuit.num_qubits)
        counted = outputs.Tally(self._words)
        exact = outputs.Tally(self._words)
        exact.add(np.zeros((1, self._words), np.uint64), np.ones(1))
        means = np.ones(len(strings))
        shots = request.shots if "counts" in asked else 0
        size = shots_at_once(circuit)
        for first in range(0, max(1, shots), size):
            group = range(first, min(first + size, shots))
            records = np.zeros((len(group), self._words), np.uint64)
            for run, own in self._runs():
                if group:
                    records |= run.records(group)
                if "expectation" in asked and not first:
                    means *= _means(run, own)
                if "probabilities" in asked and not first:
                    self._multiply(exact, run.distribution())
                self._remarks[run.remark] = None
            if group and self._states.is_root:
                counted.add(records, None)
        if request.shots:
            means = pauli_sums.sampled(means, request.shots, self._key)
        return self._packed(counted, exact, means)

    def _runs(self) -> Iterator[tuple[ComponentRun, list[tuple[int, int]]]]:
        """A run of each part, of which the one before is forgotten; and what the strings are on
        its qubits."""
        for piece in self._pieces:
            assert piece.part is not None
            width = piece.circuit.num_qubits
            request = piece.request(self._request, self._circuit.num_qubits)
            run = ComponentRun(
                self._states.for_width(width),
                piece.circuit,
                piece.programs,
                self._params[piece.part.params],
                request,
                self._key,
                self._options,
            )
            yield run, pauli_sums.terms(request.observables, width)

    def _multiply(self, exact: outputs.Tally, other: outputs.Tally) -> None:
        """The distribution of the bits of both."""
        if not self._states.is_root:
            return
        if len(exact.records) * len(other.records) > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        records = (exact.records[:, None] | other.records[None, :]).reshape(-1, self._words)
        odds = np.outer(exact.sums, other.sums).ravel()
        likely = odds > ROUNDING_FLOOR[self._options.precision]
        exact.records, exact.sums = tally(records[likely], odds[likely])

    def _packed(
        self, counted: outputs.Tally, exact: outputs.Tally, means: NDArray[np.float64]
    ) -> BindingResult:
        request, clbits = self._request, self._circuit.num_clbits
        asked = request.outputs
        empty = b"", 0, b""
        outcomes, width, counts = counted.counts(clbits) if "counts" in asked else empty
        values, value_width, odds = exact.odds(clbits) if "probabilities" in asked else empty
        expectations: tuple[tuple[float, float], ...] = ()
        if "expectation" in asked:
            expectations = pauli_sums.estimates(request.observables, means, request.shots)
        return BindingResult(
            outcome_width=width,
            outcomes=outcomes,
            counts=counts,
            probability_outcomes=values,
            probability_width=value_width,
            probabilities=odds,
            expectations=expectations,
            remark=", ".join(remark for remark in self._remarks if remark),
        )


def _means(run: ComponentRun, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Expectation value of each string; most strings act on few components."""
    place: dict[tuple[int, int], list[int]] = {}
    for number, string in enumerate(strings):
        if string != (0, 0):
            place.setdefault(string, []).append(number)
    found = np.ones(len(strings))
    if place:
        for value, numbers in zip(run.values(list(place)).tolist(), place.values(), strict=True):
            found[numbers] = value
    return found
