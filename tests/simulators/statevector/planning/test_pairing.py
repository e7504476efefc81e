"""Real matrices of one wire each go two by two, past what has nothing to do with them."""

import numpy as np
import plain_sweeps
import pytest
from arrays import Arrays

from simulators.statevector.planning import planner
from simulators.statevector.planning.tables import KIND, LANE_WIRES, REAL, OperationRange

N = 10


def planned(arrays: Arrays) -> planner.SegmentPlan:
    circuit = arrays.circuit()
    where = OperationRange(0, circuit.ops.size, 0, 0)
    return planner.plan_segment(circuit, where, planner.SegmentContext(), N)


def kinds(found: planner.SegmentPlan) -> list[int]:
    return found.sweeps.ops[:, KIND].astype(int).tolist()


def test_real_matrices_of_single_qubits_are_paired() -> None:
    arrays = Arrays(N, 0)
    for qubit in range(LANE_WIRES, LANE_WIRES + 4):
        arrays.add("ry", [qubit], (), [0.1 + 0.2 * qubit])
    assert kinds(planned(arrays)) == [REAL + 2] * 2


def test_odd_or_controlled_real_matrix_is_not_paired() -> None:
    arrays = Arrays(N, 0)
    for qubit in (5, 6, 7):
        arrays.add("ry", [qubit], (), [0.1])
    arrays.add("cry", [5, 8], (), [0.4])
    result = kinds(planned(arrays))
    assert (result.count(REAL + 2), result.count(REAL + 1)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "qubits", "joined"),
    [
        ("cx", [7, 8], True),
        ("cx", [6, 7], True),  # the first goes on to the second
        ("cx", [5, 7], True),  # the second comes to the first
        ("cx", [5, 6], False),
        ("cz", [5, 6], True),  # all three become one matrix
    ],
)
def test_real_matrices_are_paired_only_past_commuting_operations(
    name: str, qubits: list[int], joined: bool
) -> None:
    """On one row bit, then something, then on another: the state is that of the gates in turn."""
    arrays = Arrays(N, 0)
    arrays.add("ry", [5], (), [0.3])
    arrays.add(name, qubits)
    arrays.add("ry", [6], (), [0.7])
    result = planned(arrays)
    circuit = arrays.circuit()
    rng = np.random.default_rng(1)
    state = rng.normal(size=1 << N) + 1j * rng.normal(size=1 << N)
    done = plain_sweeps.run(result.sweeps, result.floats(circuit, circuit.params), state.copy())
    expected = turned(state, 5, 0.3)
    expected = entangled(expected, name, *qubits)
    expected = turned(expected, 6, 0.7)
    assert np.abs(done - expected).max() < 1e-12
    assert (REAL + 2 in kinds(result)) is joined


def turned(state: np.ndarray, qubit: int, angle: float) -> np.ndarray:
    parts = state.reshape(-1, 2, 1 << qubit)
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    both = np.stack((c * parts[:, 0] - s * parts[:, 1], s * parts[:, 0] + c * parts[:, 1]), axis=1)
    return np.asarray(both.reshape(-1))


def entangled(state: np.ndarray, name: str, control: int, target: int) -> np.ndarray:
    index = np.arange(state.size)
    result = (index >> control & 1).astype(bool)
    if name == "cz":
        return np.where(result & (index >> target & 1).astype(bool), -state, state)
    return np.where(result, state[index ^ (1 << target)], state)
