"""Plans of sweeps, and pairs of gates."""

from __future__ import annotations

import numpy as np
import plain_sweeps
import pytest
from arrays import Arrays
from gate_by_gate import State, one_by_one
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_circuits import unitary_circuits
from reference import apply, matrix

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.simulate import counts_of, simulate
from simulators.statevector.planning.planner import (
    OperationRange,
    SegmentContext,
    SegmentPlan,
    fuse_segment,
    plan_segment,
    tile_program,
)
from simulators.statevector.planning.tables import (
    KIND,
    LANE_WIRES,
    OUTER_MASK,
    PERMUTE_ROWS,
    PHASE,
    REAL,
    ROW_OTHER,
    ROW_VALUE,
)

WIDTH = 9  # the least: many passes, with few qubits


def planned(circuit: Circuit, ends: SegmentContext, width: int = WIDTH) -> SegmentPlan:
    return plan_segment(circuit, OperationRange(0, circuit.ops.size, 0, 0), ends, width)


def carried_out(made: SegmentPlan, circuit: Circuit, state: State) -> State:
    return plain_sweeps.run(made.sweeps, made.floats(circuit, circuit.params), state)


def start(num_qubits: int, zero: bool) -> State:
    state = np.zeros(1 << num_qubits, complex)
    state[0] = 1.0
    if not zero:
        rng = np.random.default_rng(5)
        state = rng.normal(size=state.size) + 1j * rng.normal(size=state.size)
        state /= np.linalg.norm(state)
    return state


def probs(state: State, qubits: list[int]) -> NDArray[np.float64]:
    """Probabilities of these qubits' outcomes."""
    n = state.size.bit_length() - 1
    table = (np.abs(state) ** 2).reshape((2,) * n)
    names = {n - 1 - q for q in qubits}
    return table.sum(axis=tuple(k for k in range(n) if k not in names))


def kinds(made: SegmentPlan) -> list[int]:
    return made.sweeps.ops[:, KIND].tolist()


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(9, 11), zero=st.booleans())
def test_plan_equals_gate_by_gate_application(circuit: Circuit, zero: bool) -> None:
    state = start(circuit.num_qubits, zero)
    outcome = planned(circuit, SegmentContext(zero=zero))
    result = carried_out(outcome, circuit, state)
    np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(circuit=unitary_circuits(11, 11))
def test_one_fused_segment_is_divided_into_tiles_of_several_widths(circuit: Circuit) -> None:
    state = start(circuit.num_qubits, zero=False)
    where = OperationRange(0, circuit.ops.size, 0, 0)
    segment = fuse_segment(circuit, where, SegmentContext(), WIDTH - LANE_WIRES)
    for width in (WIDTH, WIDTH + 2):
        result = carried_out(tile_program(segment, width), circuit, state)
        np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(9, 10), measured=st.sets(st.integers(0, 8), min_size=1))
def test_omitted_operations_do_not_change_measured_probabilities(
    circuit: Circuit, measured: set[int]
) -> None:
    state = start(circuit.num_qubits, True)
    mask = sum(1 << qubit for qubit in measured)
    outcome = planned(circuit, SegmentContext(zero=True, measured=mask))
    result = probs(carried_out(outcome, circuit, state), sorted(measured))
    expected = probs(one_by_one(circuit, state), sorted(measured))
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_unitary_matrices_act_on_their_qubits() -> None:
    rng = np.random.default_rng(2)
    arrays = Arrays(11, 0)
    for number in range(30):
        width = 1 + number % 3
        square = rng.normal(size=(2, 1 << width, 1 << width))
        unitary, _ = np.linalg.qr(square[0] + 1j * square[1] * (number % 2))
        wires = rng.permutation(11)[:width].tolist()
        arrays.unitary(unitary, wires)
        arrays.add("ry", [wires[0]], (), [0.3]).add("cx", rng.permutation(11)[:2].tolist())
    circuit, state = arrays.circuit(), start(11, False)
    result = planned(circuit, SegmentContext(), 10)
    index = np.arange(state.size)
    expected, position = state, 0
    for op, count in zip(circuit.ops.tolist(), circuit.table.rows[circuit.ops, 1], strict=True):
        wires = tuple(circuit.qubits[position : position + count].tolist())
        position += int(count)
        name = circuit.table.names[op]
        if name == "unitary":
            data = circuit.matrices[circuit.table.matrix[op]]
            gate = np.frombuffer(data, complex).reshape(1 << count, 1 << count)
        else:
            gate = matrix(name, (0.3,) if name == "ry" else (), int(count))
        expected = apply(expected, gate, wires)
    np.testing.assert_allclose(carried_out(result, circuit, state), expected, atol=1e-12)
    assert index.size == expected.size


def test_plan_is_valid_for_any_parameter_values() -> None:
    rng = np.random.default_rng(3)
    arrays = Arrays(11, 0)
    for q in rng.integers(0, 10, 60).tolist():
        arrays.add("u", [q], (), [0.1, 0.2, 0.3]).add("rzz", [q, q + 1], (), [0.4])
        arrays.add("rx", [q], (), [0.5]).add("cp", [q, 10 - q if q != 5 else 0], (), [0.6])
    circuit, state = arrays.circuit(), start(11, True)
    outcome = planned(circuit, SegmentContext(zero=True))
    for special in (None, 0.0, np.pi, -np.pi / 2):
        params = rng.uniform(-4, 4, circuit.params.size)
        if special is not None:
            params[rng.random(params.size) < 0.5] = special
        other = Arrays(11, 0)
        other.__dict__.update(arrays.__dict__ | {"params": params.tolist()})
        result = plain_sweeps.run(outcome.sweeps, outcome.floats(circuit, params), state)
        np.testing.assert_allclose(result, one_by_one(other.circuit(), state), atol=1e-12)


def test_circuits_of_equal_structure_have_equal_plans() -> None:
    def build(shift: float) -> SegmentPlan:
        arrays = Arrays(20, 0)
        rng = np.random.default_rng(4)
        for _ in range(200):
            one, two = rng.permutation(20)[:2].tolist()
            arrays.add("rx", [one], (), [shift]).add("cx", [one, two])
        return planned(arrays.circuit(), SegmentContext(zero=True), 14)

    one, two = build(0.1), build(0.7)
    for name in ("starts", "places", "live", "ops", "terms"):
        assert (getattr(one.sweeps, name) == getattr(two.sweeps, name)).all()


def test_swaps_on_zero_state_need_no_operations() -> None:
    arrays = Arrays(20, 0).add("ry", [0], (), [0.3])
    for q in range(10):
        arrays.add("swap", [q, 19 - q])
    circuit = arrays.circuit()
    result = planned(circuit, SegmentContext(zero=True), 14)
    assert kinds(result) == [REAL + 1]
    assert 19 in result.sweeps.places[0]
    assert set(kinds(planned(circuit, SegmentContext(), 14))) <= {0, PERMUTE_ROWS, REAL + 1}


def test_phase_layer_needs_at_most_one_operation_per_sweep() -> None:
    arrays = Arrays(20, 0)
    for q in range(20):
        arrays.add("h", [q])
    for q in range(19):
        arrays.add("rzz", [q, q + 1], (), [0.3])
        arrays.add("rz", [q], (), [0.3])
    result = planned(arrays.circuit(), SegmentContext(), 14)
    assert kinds(result).count(PHASE) <= len(result.sweeps.live) == 2


def test_rotations_between_phases_become_real() -> None:
    arrays = Arrays(14, 0)
    for _ in range(3):
        for q in range(14):
            arrays.add("rx", [q], (), [0.3])
        for q in range(13):
            arrays.add("rzz", [q, q + 1], (), [0.3])
    result = kinds(planned(arrays.circuit(), SegmentContext(zero=True, measured=1), 14))
    assert REAL + 1 in result
    assert not {1, 2, 3} & set(result)


@pytest.mark.parametrize("qubits", [9, 12])
def test_multi_controlled_x_is_planned_correctly(qubits: int) -> None:
    arrays = Arrays(qubits, 0).add("mcx", list(range(qubits))).add("mcx", [8, 3, 1, 0, 7, 2, 5])
    circuit, state = arrays.circuit(), start(qubits, False)
    result = planned(circuit, SegmentContext())
    np.testing.assert_allclose(
        carried_out(result, circuit, state), one_by_one(circuit, state), atol=1e-12
    )


def test_phases_between_two_cx_become_phase_gadgets() -> None:
    arrays = Arrays(11, 0)
    rng = np.random.default_rng(7)
    for layer in range(3):
        for q in rng.permutation(10).tolist():
            pair = [q, q + 1] if layer else [q + 1, q]
            arrays.add("cx", pair).add("rz", [pair[1]], (), [0.3 + q]).add("t", [pair[1]])
            arrays.add("rz", [pair[0]], (), [0.2]).add("cx", pair)
        for q in range(11):
            arrays.add("rx", [q], (), [0.4])
    circuit, state = arrays.circuit(), start(11, False)
    result = planned(circuit, SegmentContext())
    maps = result.sweeps.ops[result.sweeps.ops[:, KIND] == PERMUTE_ROWS]
    assert not maps[:, OUTER_MASK].any()
    assert not (maps[:, ROW_VALUE] & maps[:, ROW_OTHER]).any()  # swaps of rows alone
    assert PHASE in kinds(result)
    np.testing.assert_allclose(
        carried_out(result, circuit, state), one_by_one(circuit, state), atol=1e-12
    )


@pytest.mark.parametrize("between", ["x", "cx", "rzz", "other", "rxx"])
def test_plan_is_correct_with_operation_between_two_cx(between: str) -> None:
    arrays = Arrays(9, 0).add("ry", [7], (), [0.3]).add("cx", [7, 2]).add("p", [2], (), [0.7])
    if between == "x":
        arrays.add("x", [7])
    elif between == "cx":
        arrays.add("cx", [2, 5])
    elif between == "rzz":
        arrays.add("rzz", [2, 4], (), [0.5])
    elif between == "other":
        arrays.add("cx", [4, 2])
    else:
        arrays.add("rxx", [7, 2], (), [0.9])
    arrays.add("cx", [7, 2]).add("rxx", [7, 2], (), [0.1]).add("h", [5])
    circuit, state = arrays.circuit(), start(9, False)
    result = carried_out(planned(circuit, SegmentContext()), circuit, state)
    np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


LEAST = 13


def zero(num_qubits: int) -> np.ndarray:
    state = np.zeros(1 << num_qubits, complex)
    state[0] = 1.0
    return state


@settings(derandomize=True, deadline=None, max_examples=40)
@given(circuit=unitary_circuits(LEAST, 14), threads=st.integers(1, 3))
def test_planned_statevector_equals_gate_by_gate_application(
    circuit: Circuit, threads: int
) -> None:
    expected = one_by_one(circuit, zero(circuit.num_qubits))
    for precision, value in (("double", 1e-12), ("single", 1e-5)):
        result = simulate(
            circuit, shots=0, outputs=("statevector",), precision=precision, threads=threads
        )
        np.testing.assert_allclose(result.row(0).statevector, expected, atol=value)


def entangled(num_qubits: int) -> Arrays:
    arrays = Arrays(num_qubits, num_qubits)
    rng = np.random.default_rng(1)
    for _ in range(3):
        for q in range(num_qubits):
            arrays.add("u", [q], (), rng.uniform(-3, 3, 3).tolist())
        for q in rng.permutation(num_qubits - 1).tolist():
            arrays.add("cx", [q, q + 1])
        arrays.add("swap", [0, num_qubits - 1]).add("swap", [2, 7])
    return arrays


def test_samples_match_exact_distribution_and_are_equal_for_2_threads() -> None:
    """A hundred thousand shots against the exact distribution, at five sigma."""
    arrays = entangled(LEAST)
    probs = np.abs(one_by_one(arrays.circuit(), zero(LEAST))) ** 2
    for q in range(LEAST):
        arrays.add("measure", [q], [LEAST - 1 - q])
    shots = 100_000
    result = counts_of(simulate(arrays.circuit(), shots=shots, seed=5).row(0))
    for q in range(LEAST):
        ones = sum(actual for value, actual in result.items() if value >> (LEAST - 1 - q) & 1)
        p = probs[np.arange(probs.size) >> q & 1 == 1].sum()
        assert abs(ones - shots * p) < 5 * np.sqrt(shots * p * (1 - p))
    exact = simulate(arrays.circuit(), shots=0, outputs=("probabilities",)).row(0)
    assert abs(np.frombuffer(exact.probabilities).sum() - 1) < 1e-12
    two = counts_of(simulate(arrays.circuit(), shots=shots, seed=5, threads=2).row(0))
    assert result == two


def test_expectations_and_probabilities_use_original_qubit_order() -> None:
    arrays = entangled(14)
    state = one_by_one(arrays.circuit(), zero(14))
    arrays.add("measure", [3], [0])
    observables = (PauliSum(("Z" + "I" * 12 + "X", "I" * 13 + "Y"), np.ones(2)),)
    result = simulate(
        arrays.circuit(),
        shots=0,
        outputs=("expectation", "probabilities"),
        observables=observables,
    ).row(0)
    z = np.where(np.arange(state.size) >> 13 & 1, -1.0, 1.0)
    x = np.arange(state.size) ^ 1
    sign = np.where(np.arange(state.size) & 1, 1j, -1j)
    value = np.vdot(state, z * state[x]) + np.vdot(state, sign * state[x])
    assert abs(result.expectations[0][0] - value.real) < 1e-12
    ones = (np.abs(state[np.arange(state.size) >> 3 & 1 == 1]) ** 2).sum()
    assert abs(np.frombuffer(result.probabilities)[1] - ones) < 1e-12


N = 10


def planned_pairs(arrays: Arrays) -> SegmentPlan:
    circuit = arrays.circuit()
    where = OperationRange(0, circuit.ops.size, 0, 0)
    return plan_segment(circuit, where, SegmentContext(), N)


def pair_kinds(found: SegmentPlan) -> list[int]:
    return found.sweeps.ops[:, KIND].astype(int).tolist()


def test_real_matrices_of_single_qubits_are_paired() -> None:
    arrays = Arrays(N, 0)
    for qubit in range(LANE_WIRES, LANE_WIRES + 4):
        arrays.add("ry", [qubit], (), [0.1 + 0.2 * qubit])
    result = pair_kinds(planned_pairs(arrays))
    assert result == [REAL + 2] * 2


def test_odd_or_controlled_real_matrix_is_not_paired() -> None:
    arrays = Arrays(N, 0)
    for qubit in (5, 6, 7):
        arrays.add("ry", [qubit], (), [0.1])
    arrays.add("cry", [5, 8], (), [0.4])
    result = pair_kinds(planned_pairs(arrays))
    assert (result.count(REAL + 2), result.count(REAL + 1)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "qubits", "joined"),
    [
        ("cx", [7, 8], True),
        ("cx", [6, 7], True),  # the first goes on to the second
        ("cx", [5, 7], True),  # the second comes to the first
        ("cx", [5, 6], False),
        ("cz", [5, 6], False),
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
    result = planned_pairs(arrays)
    circuit = arrays.circuit()
    rng = np.random.default_rng(1)
    state = rng.normal(size=1 << N) + 1j * rng.normal(size=1 << N)
    done = plain_sweeps.run(result.sweeps, result.floats(circuit, circuit.params), state.copy())
    expected = turned(state, 5, 0.3)
    expected = entangled_pairs(expected, name, *qubits)
    expected = turned(expected, 6, 0.7)
    assert np.abs(done - expected).max() < 1e-12
    assert (REAL + 2 in pair_kinds(result)) is joined


def turned(state: np.ndarray, qubit: int, angle: float) -> np.ndarray:
    parts = state.reshape(-1, 2, 1 << qubit)
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    both = np.stack((c * parts[:, 0] - s * parts[:, 1], s * parts[:, 0] + c * parts[:, 1]), axis=1)
    return np.asarray(both.reshape(-1))


def entangled_pairs(state: np.ndarray, name: str, control: int, target: int) -> np.ndarray:
    index = np.arange(state.size)
    result = (index >> control & 1).astype(bool)
    if name == "cz":
        return np.where(result & (index >> target & 1).astype(bool), -state, state)
    return np.where(result, state[index ^ (1 << target)], state)
