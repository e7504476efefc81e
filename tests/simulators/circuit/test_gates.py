"""Gates, expressions, schedules, and checks against a device."""

import math

import numpy as np
import pytest
from arrays import Arrays, Token
from qiskit import QuantumCircuit
from qiskit._accelerate.circuit import StandardGate
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford
from reference import matrix

from simenv.client.circuits import load
from simenv.model import Token as WireToken
from simulators.circuit import ir
from simulators.circuit.analysis.measurements import ORDINARY, TERMINAL
from simulators.circuit.analysis.profiler import profile
from simulators.circuit.device_check import DeviceLimits, refusal
from simulators.circuit.expressions import expressions_of
from simulators.circuit.gates import ANY, GATES, OTHERS, unitary
from simulators.circuit.ir import Circuit
from simulators.circuit.schedule import Method, Schedule, schedule
from simulators.circuit.validation.admission import validation_error

RNG = np.random.default_rng(1)
STANDARD = {gate.name: gate for gate in StandardGate.all_gates()}


def test_all_qiskit_standard_gates_are_known() -> None:
    assert set(STANDARD) <= set(GATES)
    assert not set(GATES) & set(OTHERS)


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_gate_arity_equals_qiskit(name: str) -> None:
    gate, item = GATES[name], STANDARD[name]
    assert gate.params == item.num_params
    assert gate.qubits in (item.num_qubits, ANY)


@pytest.mark.parametrize("name", sorted(GATES))
def test_gate_matrix_equals_qiskit_and_diagonal_flag_is_correct(name: str) -> None:
    gate = GATES[name]
    for width in (1, 2, 3, 5) if gate.qubits == ANY else (gate.qubits,):
        params = tuple(RNG.uniform(-6, 6, gate.params))
        result = unitary(name, params, width)
        np.testing.assert_allclose(result, matrix(name, params, width), atol=1e-12)
        assert gate.diagonal == (np.count_nonzero(result - np.diag(np.diag(result))) == 0)


@pytest.mark.parametrize("name", sorted(set(GATES) - {"global_phase"}))
def test_clifford_flag_agrees_with_qiskit(name: str) -> None:
    gate = GATES[name]
    width = 4 if gate.qubits == ANY else gate.qubits
    operator = unitary(name, (0.7, 0.4, -0.9, 0.3)[: gate.params], width)
    if gate.clifford:
        Clifford.from_matrix(operator)
    else:
        with pytest.raises(QiskitError):
            Clifford.from_matrix(operator)


@pytest.mark.parametrize("name", sorted(GATES))
def test_leading_qubits_are_controls(name: str) -> None:
    gate = GATES[name]
    width = 4 if gate.qubits == ANY else gate.qubits
    controls = width - 1 if gate.controls == ANY else gate.controls
    result = unitary(name, tuple(RNG.uniform(1, 2, gate.params)), width)
    for index in range(1 << width):
        if index & (1 << controls) - 1 != (1 << controls) - 1:
            assert result[index, index] == 1.0
            assert np.count_nonzero(result[index]) == 1


SIZES = (("a", 4), ("b", 4), ("wide", 300), ("", 2))
A, B, WIDE = (ir.REGISTER, 0, 4), (ir.REGISTER, 1, 4), (ir.REGISTER, 2, 300)


def value(tokens: tuple[Token, ...], bits: int, constants: tuple[int, ...] = ()) -> bool:
    arrays = Arrays(1, 310, SIZES)
    for constant in constants:
        arrays.value(constant)
    circuit = arrays.begin(*tokens).add("end").circuit()
    assert validation_error(circuit) == ""
    (condition,) = expressions_of(circuit)
    entries = [bits >> (64 * k) & (2**64 - 1) for k in range(5)]
    (result,) = condition.truths(np.array([entries], np.uint64)).tolist()
    assert result == bool(condition.evaluate(bits))
    return bool(result)


def test_token_numbers_equal_those_of_wire_format() -> None:
    table = {token.name: getattr(ir, token.name) for token in WireToken}
    assert table == {token.name: token.value for token in WireToken}


@pytest.mark.parametrize(
    ("token", "left", "right", "expected"),
    [
        (ir.BIT_AND, 12, 10, 8), (ir.BIT_OR, 12, 10, 14), (ir.BIT_XOR, 12, 10, 6),
        (ir.ADD, 12, 10, 6), (ir.SUB, 3, 10, 9), (ir.MUL, 7, 7, 1), (ir.DIV, 13, 4, 3),
        (ir.DIV, 13, 0, 0), (ir.SHIFT_LEFT, 5, 2, 4), (ir.SHIFT_LEFT, 5, 15, 0),
        (ir.SHIFT_RIGHT, 13, 2, 3), (ir.SHIFT_RIGHT, 13, 9, 0),
    ],
)  # fmt: skip
def test_arithmetic_wraps_at_the_width(token: int, left: int, right: int, expected: int) -> None:
    tokens = (A, B, (token, 0, 4), (ir.VALUE, 0, 4), (ir.EQUAL, 0, 0))
    assert value(tokens, left | right << 4, (expected,))
    assert not value(tokens, left | right << 4, (expected ^ 1,))


@pytest.mark.parametrize(
    ("token", "truth"),
    [
        (ir.EQUAL, (0, 1, 0)), (ir.NOT_EQUAL, (1, 0, 1)), (ir.LESS, (1, 0, 0)),
        (ir.LESS_EQUAL, (1, 1, 0)), (ir.GREATER, (0, 0, 1)), (ir.GREATER_EQUAL, (0, 1, 1)),
    ],
)  # fmt: skip
def test_comparisons_of_registers_are_correct(token: int, truth: tuple[int, int, int]) -> None:
    entries = [value((A, B, (token, 0, 0)), left | 7 << 4) for left in (6, 7, 8)]
    assert entries == [bool(x) for x in truth]


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_logic_operators_on_clbits_are_correct(left: int, right: int) -> None:
    bits = left << 308 | right << 309
    one, two = (ir.CLBIT, 308, 0), (ir.CLBIT, 309, 0)
    assert value((one, two, (ir.LOGIC_AND, 0, 0)), bits) == (left and right)
    assert value((one, two, (ir.LOGIC_OR, 0, 0)), bits) == (left or right)
    assert value((one, two, (ir.BIT_XOR, 0, 0)), bits) == (left != right)
    assert value((one, two, (ir.EQUAL, 0, 0)), bits) == (left == right)
    assert value((one, (ir.LOGIC_NOT, 0, 0)), bits) != left
    assert value((one, (ir.BIT_NOT, 0, 0)), bits) != left


def test_casts_bit_not_and_index_are_correct() -> None:
    assert value((A, (ir.CAST, 0, 0)), 4)
    assert not value((A, (ir.CAST, 0, 0)), 16)
    assert not value((A, (ir.CAST, 0, 2), (ir.CAST, 0, 0)), 12)
    assert value((A, (ir.BIT_NOT, 0, 4), (ir.VALUE, 0, 4), (ir.EQUAL, 0, 0)), 5, (10,))
    assert value((A, (ir.VALUE, 0, 8), (ir.INDEX, 0, 0)), 4, (2,))
    assert not value((A, (ir.VALUE, 0, 8), (ir.INDEX, 0, 0)), 4, (200,))
    boolean = ((ir.CLBIT, 0, 0), (ir.CAST, 0, 4), B, (ir.EQUAL, 0, 0))
    assert value(boolean, 1 | 1 << 4)


def test_values_wider_than_64_bits_are_exact() -> None:
    number = 3**180
    equal = (WIDE, (ir.VALUE, 0, 300), (ir.EQUAL, 0, 0))
    assert value(equal, number << 8, (number,))
    assert not value(equal, number << 8, (number ^ 1 << 280,))
    doubled = (WIDE, WIDE, (ir.ADD, 0, 300), (ir.VALUE, 0, 300), (ir.EQUAL, 0, 0))
    assert value(doubled, number << 8, (2 * number % 2**300,))


def test_constant_wider_than_register_is_not_truncated() -> None:
    equal = (A, (ir.VALUE, 0, 4), (ir.EQUAL, 0, 0))
    assert not value(equal, 3, (19,))
    assert value((A, (ir.VALUE, 0, 4), (ir.LESS, 0, 0)), 3, (19,))


def test_expression_is_evaluated_for_each_record() -> None:
    arrays = Arrays(1, 310, SIZES)
    (condition,) = expressions_of(arrays.begin(*arrays.equals(1, 5)).add("end").circuit())
    rng = np.random.default_rng(0)
    records = rng.integers(0, 2**63, (500, 5)).astype(np.uint64)
    expected = (records[:, 0] >> np.uint64(4) & np.uint64(15)) == 5
    assert (condition.truths(records) == expected).all()
    assert expected.any()


LINE = ((0, 1), (2, 1))  # one direction each


def device(**changes: object) -> DeviceLimits:
    table: dict[str, object] = {
        "dynamic": False, "gates": {"rz": 1, "sx": 1, "cz": 2},
        "places": {"cz": [3 * first + second for first, second in LINE]}, **changes,
    }  # fmt: skip
    return DeviceLimits(
        "ibis", 3, reason=lambda name, qubits: f"no {name} on {qubits}", **table,  # type: ignore[arg-type]
    )  # fmt: skip


def native() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 3, global_phase=1.0)
    circuit.sx(0)
    circuit.cz(0, 1)
    circuit.barrier()
    circuit.delay(100, 1, "ns")
    circuit.rz(0.5, 2)
    circuit.cz(2, 1)
    circuit.measure(range(3), range(3))
    return circuit


def problem(circuit: QuantumCircuit, limits: DeviceLimits) -> str:
    program = load(circuit).program
    packed = Circuit.from_program(program)
    return refusal(packed, profile(packed, ("counts",), ()), limits)[0]


def test_native_circuit_on_coupled_qubits_is_executed() -> None:
    assert problem(native(), device()) == ""


def test_gate_that_is_not_native_is_named_with_its_qubit() -> None:
    circuit = native()
    circuit.h(2)
    result = problem(circuit, device(dynamic=True))
    assert "(h on qubit 2)" in result
    assert "native gate of device ibis" in result


def test_native_name_on_other_number_of_qubits_is_refused() -> None:
    assert "(cz on qubits 0, 1)" in problem(native(), device(gates={"rz": 1, "sx": 1, "cz": 3}))


def test_uncoupled_pair_is_named() -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.sx(1)
    circuit.cz(0, 2)
    circuit.measure(0, 0)
    assert "operation 1 (cz on qubits 0, 2)" in problem(circuit, device())
    assert problem(circuit, device(places={})) == ""


def test_pair_in_other_direction_is_refused() -> None:
    circuit = QuantumCircuit(3, 1)
    circuit.cz(1, 2)
    circuit.measure(0, 0)
    assert "no cz on (1, 2)" in problem(circuit, device())


@pytest.mark.parametrize("name", ["sx", "measure", "delay"])
def test_operation_is_refused_on_a_qubit_that_does_not_have_it(name: str) -> None:
    places = {name: [1, 2]}
    circuit = QuantumCircuit(3, 1)
    circuit.sx(1)
    circuit.delay(10, 2, "ns")
    circuit.measure(1, 0)
    assert problem(circuit, device(places=places)) == ""
    circuit = native()
    circuit.delay(10, 0, "dt")
    assert f"no {name} on (0,)" in problem(circuit, device(places=places))


def test_angle_beyond_the_limits_of_a_gate_is_refused() -> None:
    angles = {"rzz": ((0.0, math.pi / 2),)}
    limits = device(gates={"rzz": 2}, places={}, angles=angles)
    for angle, fits in ((0.3, True), (math.pi / 2, True), (-0.3, False), (1.6, False)):
        circuit = QuantumCircuit(2)
        circuit.rzz(0.3, 0, 1)
        circuit.rzz(angle, 0, 1)
        result = problem(circuit, limits)
        assert (result == "") is fits
        assert fits or "operation 1 (rzz on qubits 0, 1)" in result


def test_width_beyond_device_is_refused_with_both_numbers() -> None:
    circuit = QuantumCircuit(4, 1)
    circuit.measure(0, 0)
    assert "4 qubits; device ibis has 3" in problem(circuit, device())


@pytest.mark.parametrize("dynamic", [False, True])
def test_circuit_with_measurement_on_the_way_needs_dynamic_device(dynamic: bool) -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.sx(0)
    circuit.reset(0)
    circuit.measure(0, 1)
    result = problem(circuit, device(dynamic=dynamic))
    assert ("before a circuit's end" in result) is not dynamic


def conditional() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.sx(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.sx(2)
        with circuit.if_test((circuit.clbits[1], 1)):
            circuit.sx(1)
    circuit.sx(0)
    circuit.measure(1, 1)
    return circuit


def looped() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 1)
    with circuit.for_loop(range(2)):
        circuit.sx(2)
    circuit.measure(0, 0)
    return circuit


def measured_again(reset: bool) -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.sx(1)
    circuit.reset(1) if reset else circuit.measure(1, 0)
    circuit.sx(1)
    circuit.measure(1, 1)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "words"),
    [
        (conditional(), "operation 2 (if on qubits 1, 2): device ibis has no"),
        (looped(), "operation 0 (for on qubit 2): device ibis has no"),
        (measured_again(reset=True), "operation 1 (reset on qubit 1): device ibis has no"),
        (measured_again(reset=False), "operation 1 (measure on qubit 1): device ibis has no"),
    ],
    ids=["if", "for", "reset", "measure"],
)
def test_operation_of_dynamic_device_is_named(circuit: QuantumCircuit, words: str) -> None:
    assert problem(circuit, device()).startswith(words)
    assert problem(circuit, device(dynamic=True)) == ""


NS = {"x": 10.0, "cx": 100.0, "measure": 1000.0, "reset": 500.0, "delay": 70.0}


def scheduled(
    circuit: Circuit, method: Method = "alap", *, final: tuple[int, ...] = (), latency: float = 0.0
) -> Schedule:
    names = [circuit.table.names[row] for row in circuit.ops.tolist()]
    roles = np.full(len(names), ORDINARY)
    roles[list(final)] = TERMINAL
    durations = np.array([NS.get(name, 0.0) for name in names])
    return schedule(circuit, durations, method, feed_forward_ns=latency, roles=roles)


def idle(found: Schedule) -> list[tuple[int, int, float]]:
    return list(
        zip(
            found.idle_after.tolist(), found.idle_qubit.tolist(), found.idle_ns.tolist(),
            strict=True,
        )
    )  # fmt: skip


def test_alap_delays_and_asap_hurries() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).add("x", [1]).add("cx", [0, 1]).circuit()
    late, early = scheduled(circuit), scheduled(circuit, "asap")
    assert late.start_ns.tolist() == [10.0, 0.0, 10.0, 20.0]
    assert early.start_ns.tolist() == [0.0, 0.0, 10.0, 20.0]
    assert late.duration_ns == early.duration_ns == 120.0
    assert idle(late) == []
    assert idle(early) == [(2, 0, 10.0)]


def test_time_before_a_qubits_first_operation_is_not_idle() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("barrier", [0, 1]).add("cx", [0, 1]).circuit()
    for method in ("alap", "asap"):
        assert idle(scheduled(circuit, method)) == []


def test_a_barrier_holds_back_its_qubits() -> None:
    circuit = Arrays(2, 0).add("x", [1]).add("cx", [1, 0]).add("barrier", [0, 1])
    circuit.add("x", [0]).add("cx", [1, 0])
    result = scheduled(circuit.circuit())
    assert result.start_ns.tolist() == [0.0, 10.0, 110.0, 110.0, 120.0]
    assert idle(result) == [(3, 1, 10.0)]


def test_qubits_idle_until_the_end_unless_they_were_measured() -> None:
    circuit = Arrays(3, 1).add("x", [0]).add("x", [1]).add("barrier", [0, 1, 2])
    circuit.add("measure", [0], [0])
    result = scheduled(circuit.circuit(), final=(3,))
    assert idle(result) == [(3, 1, 1000.0)]
    assert result.duration_ns == 1010.0


def test_a_delay_takes_its_time_and_is_no_idle_time_itself() -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).add("delay", [0], params=[70.0])
    circuit.add("cx", [0, 1])
    result = scheduled(circuit.circuit(), "asap")
    assert result.duration_ns == 180.0
    assert idle(result) == [(2, 1, 70.0)]


def test_a_block_starts_after_the_latency_of_the_bits_it_reads() -> None:
    circuit = Arrays(2, 1).add("x", [1]).add("measure", [0], [0]).begin((ir.CLBIT, 0, 0))
    circuit.add("x", [1]).add("end").add("x", [1])
    result = scheduled(circuit.circuit(), "asap", latency=300.0)
    assert result.start_ns.tolist() == [0.0, 0.0, 1300.0, 0.0, 0.0, 1310.0]
    assert (1, 1, 1290.0) in idle(result)
    assert result.duration_ns == 1320.0


def test_other_qubits_wait_for_the_longest_branch() -> None:
    circuit = Arrays(2, 1).add("x", [0]).add("x", [1]).add("measure", [0], [0])
    circuit.begin((ir.CLBIT, 0, 0)).add("x", [1]).add("else").add("x", [1]).add("x", [1])
    circuit.add("end").add("cx", [0, 1])
    result = scheduled(circuit.circuit())
    assert result.start_ns[-1] == 1030.0
    assert (8, 0, 20.0) in idle(result)


def test_qubits_idle_inside_a_branch() -> None:
    circuit = Arrays(2, 1).add("measure", [0], [0]).begin((ir.CLBIT, 0, 0))
    circuit.add("x", [0]).add("x", [1]).add("x", [1]).add("cx", [0, 1]).add("end")
    result = scheduled(circuit.circuit())
    assert (1, 0, 10.0) in idle(result), "in a branch, time counts from its start"
    assert result.start_ns[5] == 20.0


@pytest.mark.parametrize("method", ["alap", "asap"])
def test_passes_of_a_for_loop_follow_one_another(method: Method) -> None:
    circuit = Arrays(2, 0).add("x", [0]).add("x", [1]).repeat(5).add("x", [0]).add("end")
    circuit.add("cx", [0, 1])
    result = scheduled(circuit.circuit(), method)
    assert (result.duration_ns, result.start_ns[-1]) == (10.0 + 50.0 + 100.0, 60.0)
