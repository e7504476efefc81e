"""Collection of outputs from a final state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.examples import bell
from simulators.circuit.noise import Readout
from simulators.engine import PauliSum, Request
from simulators.errors import Unsupported
from simulators.execution.outputs import Batch, CountedState, FinalState, PauliStrings, collect
from simulators.execution.readout import ReadoutStage
from simulators.simulate import counts_of

CIRCUIT = bell()
LAYOUTS = MeasurementLayouts.of(CIRCUIT)


class Fixed(FinalState):
    """Two batches of records; every Pauli string has the expectation value 0.5."""

    num_qubits = 2
    truncation = 0.25
    remark = "fixed"

    def sample(self, shots: int, key: tuple[int, int]) -> Iterator[Batch]:
        yield np.array([[3], [0], [3]], np.uint64), None
        yield np.array([[0]], np.uint64), np.array([shots - 3])

    def expectations(self, strings: PauliStrings) -> np.ndarray:
        return np.full(len(strings), 0.5)


def test_batches_are_added_and_remarks_are_taken_over() -> None:
    result = collect(Fixed(), LAYOUTS, Request(10, 1), (1, 0))
    assert counts_of(result) == {0: 8, 3: 2}
    assert (result.truncation, result.remark) == (0.25, "fixed")
    assert result.probabilities == b""


def test_expectation_values_are_exact_without_shots_and_sampled_with_them() -> None:
    observables = (PauliSum(("ZZ", "ZI"), np.array([1.0, 2.0])),)
    exact = collect(Fixed(), LAYOUTS, Request(0, 1, ("expectation",), observables), (1, 0))
    assert exact.expectations == ((1.5, 0.0),)
    drawn = collect(Fixed(), LAYOUTS, Request(100, 1, ("expectation",), observables), (1, 0))
    value, error = drawn.expectations[0]
    assert value != 1.5
    assert abs(value - 1.5) < 5 * error


def test_x_on_a_measured_qubit_is_refused_before_the_state_is_evaluated() -> None:
    request = Request(0, 1, ("expectation",), (PauliSum(("IX",), np.ones(1)),))
    with pytest.raises(Unsupported, match="measures at its end"):
        collect(FinalStateOfTwo(), LAYOUTS, request, (1, 0))


class FinalStateOfTwo(FinalState):
    num_qubits = 2


def test_readout_error_changes_counts_of_all_batches_and_no_expectation_value() -> None:
    readout = ReadoutStage.of(LAYOUTS.clbits, Readout(np.ones(2), np.zeros(2)))
    observables = (PauliSum(("ZZ",), np.ones(1)),)
    request = Request(10, 1, ("counts", "expectation"), observables)
    result = collect(Fixed(), LAYOUTS, request, (1, 0), readout)
    assert counts_of(result) == {3: 10}
    assert result.expectations == collect(Fixed(), LAYOUTS, request, (1, 0)).expectations


def test_outcomes_counted_by_a_device_are_packed_in_ascending_order() -> None:
    result = collect(CountedState(CIRCUIT, {3: 4, 0: 6}, "device"), LAYOUTS, Request(10, 1), (1, 0))
    assert (result.outcomes, result.remark) == (b"\x00\x03", "device")
    assert np.frombuffer(result.counts, np.uint32).tolist() == [6, 4]
