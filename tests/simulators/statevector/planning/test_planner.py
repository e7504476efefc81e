"""Plans of large states, carried out in plain numpy, against gates applied one by one."""

import numpy as np
import plain_sweeps
import pytest
from arrays import Arrays
from gate_by_gate import State, one_by_one
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from random_circuits import unitary_circuits
from reference import apply, matrix

from simulators.circuit.ir import Circuit
from simulators.statevector.planning import planner, tables as t
from simulators.statevector.planning.tables import OperationRange

WIDTH = 9  # the least: many passes, with few qubits


def planned(
    circuit: Circuit, ends: planner.SegmentContext, width: int = WIDTH
) -> planner.SegmentPlan:
    rows = OperationRange(0, circuit.ops.size, 0, 0)
    return planner.plan_segment(circuit, rows, ends, width)


def carried_out(made: planner.SegmentPlan, circuit: Circuit, state: State) -> State:
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


def kinds(made: planner.SegmentPlan) -> list[int]:
    return made.sweeps.ops[:, t.KIND].tolist()


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(9, 11), zero=st.booleans())
def test_plan_equals_gate_by_gate_application(circuit: Circuit, zero: bool) -> None:
    state = start(circuit.num_qubits, zero)
    outcome = planned(circuit, planner.SegmentContext(zero=zero))
    result = carried_out(outcome, circuit, state)
    np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(circuit=unitary_circuits(11, 11))
def test_one_fused_segment_is_divided_into_tiles_of_several_widths(circuit: Circuit) -> None:
    state = start(circuit.num_qubits, zero=False)
    where = OperationRange(0, circuit.ops.size, 0, 0)
    segment = planner.fuse_segment(circuit, where, planner.SegmentContext(), WIDTH - t.LANE_WIRES)
    for width in (WIDTH, WIDTH + 2):
        result = carried_out(planner.tile_program(segment, width), circuit, state)
        np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


@settings(derandomize=True, deadline=None)
@given(circuit=unitary_circuits(9, 10), measured=st.sets(st.integers(0, 8), min_size=1))
def test_omitted_operations_keep_the_probabilities(circuit: Circuit, measured: set[int]) -> None:
    state = start(circuit.num_qubits, True)
    mask = sum(1 << qubit for qubit in measured)
    outcome = planned(circuit, planner.SegmentContext(zero=True, measured=mask))
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
    result = planned(circuit, planner.SegmentContext(), 10)
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
    outcome = planned(circuit, planner.SegmentContext(zero=True))
    for special in (None, 0.0, np.pi, -np.pi / 2):
        params = rng.uniform(-4, 4, circuit.params.size)
        if special is not None:
            params[rng.random(params.size) < 0.5] = special
        other = Arrays(11, 0)
        other.__dict__.update(arrays.__dict__ | {"params": params.tolist()})
        result = plain_sweeps.run(outcome.sweeps, outcome.floats(circuit, params), state)
        np.testing.assert_allclose(result, one_by_one(other.circuit(), state), atol=1e-12)


def test_circuits_of_equal_structure_have_equal_plans() -> None:
    def build(shift: float) -> planner.SegmentPlan:
        arrays = Arrays(20, 0)
        rng = np.random.default_rng(4)
        for _ in range(200):
            one, two = rng.permutation(20)[:2].tolist()
            arrays.add("rx", [one], (), [shift]).add("cx", [one, two])
        return planned(arrays.circuit(), planner.SegmentContext(zero=True), 14)

    one, two = build(0.1), build(0.7)
    for name in ("starts", "places", "live", "ops", "terms"):
        assert (getattr(one.sweeps, name) == getattr(two.sweeps, name)).all()


def test_swaps_on_zero_state_need_no_operations() -> None:
    arrays = Arrays(20, 0).add("ry", [0], (), [0.3])
    for q in range(10):
        arrays.add("swap", [q, 19 - q])
    circuit = arrays.circuit()
    result = planned(circuit, planner.SegmentContext(zero=True), 14)
    assert kinds(result) == [t.REAL + 1]
    assert 19 in result.sweeps.places[0]
    result = planned(circuit, planner.SegmentContext(), 14)
    assert set(kinds(result)) <= {0, t.PERMUTE_ROWS, t.REAL + 1}


def test_phase_layer_needs_at_most_one_operation_per_sweep() -> None:
    arrays = Arrays(20, 0)
    for q in range(20):
        arrays.add("h", [q])
    for q in range(19):
        arrays.add("rzz", [q, q + 1], (), [0.3])
        arrays.add("rz", [q], (), [0.3])
    result = planned(arrays.circuit(), planner.SegmentContext(), 14)
    assert kinds(result).count(t.PHASE) <= len(result.sweeps.live) == 2


def test_rotations_between_phases_become_real() -> None:
    arrays = Arrays(14, 0)
    for _ in range(3):
        for q in range(14):
            arrays.add("rx", [q], (), [0.3])
        for q in range(13):
            arrays.add("rzz", [q, q + 1], (), [0.3])
    result = kinds(planned(arrays.circuit(), planner.SegmentContext(zero=True, measured=1), 14))
    assert t.REAL + 1 in result
    assert not {1, 2, 3} & set(result)


def test_phases_on_one_pair_with_matrices_between_become_one_matrix() -> None:
    arrays = Arrays(11, 0)
    rng = np.random.default_rng(7)
    for _ in range(2):
        order = rng.permutation(11).tolist()
        for a, b in ((order[0], order[1]), (order[2], order[3])):
            for name, angles in (("cz", ()), ("cp", (0.3,)), ("rzz", (0.4,))):
                arrays.add("u", [a], (), rng.uniform(-3, 3, 3).tolist()).add("h", [b])
                arrays.add(name, [a, b], (), angles).add("t", [a]).add("cz", [b, a])
    circuit, state = arrays.circuit(), start(11, False)
    result = planned(circuit, planner.SegmentContext())
    assert not {t.PHASE, t.DENSE + 1, t.REAL + 1, t.REAL + 2} & set(kinds(result))
    np.testing.assert_allclose(
        carried_out(result, circuit, state), one_by_one(circuit, state), atol=1e-12
    )


def test_phases_on_one_pair_without_matrices_between_stay_one_phase() -> None:
    arrays = Arrays(9, 0).add("h", [2]).add("h", [7])
    for angle in range(12):
        arrays.add("cp", [2, 7], (), [0.1 * angle]).add("rzz", [7, 2], (), [0.2])
    result = kinds(planned(arrays.circuit(), planner.SegmentContext()))
    assert result.count(t.PHASE) == 1
    assert not {t.DENSE + 1, t.DENSE + 2} & set(result)


PAIRS = ("rxx", "ryy", "rzx", "rzz", "ecr", "cz", "cx")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("zero", [True, False])
def test_plans_for_quarter_turns_equal_gate_by_gate_application(seed: int, zero: bool) -> None:
    """Circuits in native bases, most of their angles multiples of a quarter turn."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(10, 0)
    for _ in range(120):
        name = ("rx", "ry", "rz", "r", "u", "sx", "h")[int(rng.integers(7))]
        some = 0.5 * np.pi * rng.integers(-8, 9, 3) + rng.uniform(-3, 3, 3) * (rng.random(3) < 0.2)
        number = {"r": 2, "u": 3, "sx": 0, "h": 0}.get(name, 1)
        arrays.add(name, [int(rng.integers(10))], (), some[:number].tolist())
        pair = PAIRS[int(rng.integers(len(PAIRS)))]
        angles = [] if pair in ("ecr", "cz", "cx") else [float(some[0])]
        arrays.add(pair, rng.permutation(10)[:2].tolist(), (), angles)
    circuit, state = arrays.circuit(), start(10, zero)
    context = planner.SegmentContext(zero=zero, turns=planner.quarter_turns(circuit.params))
    result = carried_out(planned(circuit, context), circuit, state)
    np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


def native_cx(arrays: Arrays, control: int, target: int) -> None:
    """A CX as an ion trap's compiler writes it."""
    half = 0.5 * np.pi
    arrays.add("ry", [control], (), [half]).add("rxx", [control, target], (), [half])
    arrays.add("rx", [control], (), [-half]).add("rx", [target], (), [-half])
    arrays.add("ry", [control], (), [-half])


def test_turns_that_are_phases_need_no_matrix() -> None:
    """CX from one qubit to all others: in the basis of its axis the qubit only has phases."""
    arrays = Arrays(10, 0)
    for target in range(1, 10):
        native_cx(arrays, 0, target)
    circuit = arrays.circuit()
    any_angles = planned(circuit, planner.SegmentContext())
    context = planner.SegmentContext(turns=planner.quarter_turns(circuit.params))
    these = planned(circuit, context)
    assert len(these.sweeps.ops) < len(any_angles.sweeps.ops)
    for each in (these, any_angles):
        result = carried_out(each, circuit, start(10, False))
        np.testing.assert_allclose(result, one_by_one(circuit, start(10, False)), atol=1e-12)


def test_angles_that_differ_are_never_taken_for_equal_ones() -> None:
    """The sum a - b - c + d is 0 for evenly spaced angles, and for most that are nearly random."""
    arrays = Arrays(9, 0)
    for qubit in range(9):
        for name in ("rx", "z", "rx", "rx", "z", "rx"):
            angles = [0.3 + 0.1 * len(arrays.params) ** 2] if name == "rx" else []
            arrays.add(name, [qubit], (), angles)
    circuit, state = arrays.circuit(), start(9, False)
    for turns in (None, planner.quarter_turns(circuit.params)):
        context = planner.SegmentContext(turns=turns)
        result = carried_out(planned(circuit, context), circuit, state)
        np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)


def test_room_suffices_for_turns_between_phases() -> None:
    """Each turn of a RYY becomes a real rotation with phases of its own."""
    arrays = Arrays(14, 0)
    for layer in range(12):
        for qubit in range(layer % 2, 13, 2):
            arrays.add("ryy", [qubit, qubit + 1], (), [0.3])
        arrays.add("mcphase", range(14), (), [0.3])
        if layer % 3 == 0:
            for qubit in range(14):
                arrays.add("sx", [qubit])
    circuit = arrays.circuit()
    where = OperationRange(0, circuit.ops.size, 0, 0)
    gates = planner.fuse_segment(circuit, where, planner.SegmentContext(zero=True), 8).gates
    assert max(gates.pieces, gates.elements) <= gates.values.shape[1]


def test_quarter_turns_are_exact_multiples() -> None:
    angles = np.pi * np.array([0.0, 0.5, -0.5, 3.5, 4.0, 0.25]) + [0, 1e-15, 0, 0, 0, 0]
    assert planner.quarter_turns(angles).tolist() == [0, 1, 7, 7, 0, -1]
    assert planner.quarter_turns(np.array([1e-9, 0.5 * np.pi + 1e-12])).tolist() == [-1, -1]


@pytest.mark.parametrize("angle", [1e6 * np.pi, 1e12 * np.pi, -1e17, 1e300])
def test_large_angles_are_no_quarter_turns(angle: float) -> None:
    """Their rounding is larger than what is left out of a product."""
    assert planner.quarter_turns(np.array([angle])).tolist() == [-1]


@pytest.mark.parametrize("qubits", [9, 12])
def test_multi_controlled_x_is_planned_correctly(qubits: int) -> None:
    arrays = Arrays(qubits, 0).add("mcx", list(range(qubits))).add("mcx", [8, 3, 1, 0, 7, 2, 5])
    circuit, state = arrays.circuit(), start(qubits, False)
    result = planned(circuit, planner.SegmentContext())
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
    result = planned(circuit, planner.SegmentContext())
    maps = result.sweeps.ops[result.sweeps.ops[:, t.KIND] == t.PERMUTE_ROWS]
    assert not maps[:, t.OUTER_MASK].any()
    assert not (maps[:, t.ROW_VALUE] & maps[:, t.ROW_OTHER]).any()  # swaps of rows alone
    assert t.PHASE in kinds(result)
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
    result = carried_out(planned(circuit, planner.SegmentContext()), circuit, state)
    np.testing.assert_allclose(result, one_by_one(circuit, state), atol=1e-12)
