"""Gates and loops of packed circuits."""

import struct

import branches as br
import circuit_judge
import drawing
import drawing_loops
import engine_judge
import numpy as np
import pytest
from failing import fails
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from interpreter import python
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Delay, Instruction, Parameter, library
from qiskit.circuit.classical import expr, types
from qiskit.quantum_info import Clifford, Operator, Statevector, random_unitary

from simenv.client.circuits import load, to_qiskit
from simenv.client.circuits.control_flow import MAX_WRITTEN_OUT
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import Program, decode_program

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)
BYTE = types.Uint(8)


@QUICK
@given(drawing_loops.looped())
def test_outcomes_of_loops_agree_with_reference_simulation(circuit: QuantumCircuit) -> None:
    try:
        expected = br.distribution(circuit_judge.run(circuit))
    except circuit_judge.Endless:
        assume(False)
    assert engine_judge.exact(circuit) == pytest.approx(expected, abs=1e-9)


@QUICK
@given(drawing_loops.looped())
def test_loops_are_unchanged_after_conversion_to_qiskit_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


def test_outcomes_of_loops_agree_with_aer() -> None:
    """A second opinion where Aer has one (it knows no nested loops, for one): each outcome within
    5.5 sigma of its probability."""
    aer = pytest.importorskip("qiskit_aer")
    shots, judged = 1000, []

    @QUICK
    @given(drawing_loops.looped(simple=True))
    def compare(circuit: QuantumCircuit) -> None:
        done = aer.AerSimulator(seed_simulator=1).run(circuit, shots=shots).result()
        assume(done.success)
        judged.append(circuit)
        odds = engine_judge.exact(circuit)
        for key, count in done.get_counts().items():
            p = odds.get(int(key.replace(" ", ""), 2), 0.0)
            assert p > 1e-9, (key, odds)
            assert abs(count - shots * p) <= 5.5 * (shots * p * (1 - p)) ** 0.5 + 1e-6, (key, odds)

    compare()
    assert len(judged) >= 30


@pytest.mark.parametrize("indices", [range(2, 9, 3), range(9, 2, -3), range(5, 5), range(256)])
def test_loop_range_is_iterated_completely(indices: range) -> None:
    circuit = QuantumCircuit(1)
    circuit.add_register(ClassicalRegister(8, "total"), ClassicalRegister(1, "c"))
    index = expr.Var.new("k", BYTE)
    with circuit.for_loop(indices, index):
        circuit.store(circuit.cregs[0], expr.add(circuit.cregs[0], index))
    circuit.measure(0, 8)
    assert engine_judge.exact(circuit) == {sum(indices) % 256: 1.0}
    assert load(circuit).program.names.count("for") == bool(indices)


@pytest.mark.parametrize("indices", [range(-1, 3), range(250, 260), (0, 256), range(3, -2, -1)])
def test_loop_index_that_does_not_fit_its_variable_is_refused(indices: object) -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(indices, expr.Var.new("k", BYTE)):
        circuit.x(0)
    fails(ProgramError, r"\(for_loop\): the loop variable 'k' has 8 bits", load, circuit)


def test_loops_are_packed_as_loops_within_limits() -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(range(MAX_WRITTEN_OUT + 1)) as angle:
        circuit.rx(angle, 0)
    fails(LimitExceededError, "must be written out", load, circuit)
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(range(10**12)) as angle:
        circuit.rx(angle, 0)
    fails(LimitExceededError, "more than 1000000 operations", load, circuit)
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(range(0, 10**18, 3)):
        circuit.x(0)
    circuit.measure(0, 0)
    program = load(circuit).program
    assert program.names == ("for", "x", "end", "measure")
    assert int.from_bytes(program.constants[0], "little") == (10**18 + 2) // 3


def test_variables_of_loops_are_their_own() -> None:
    circuit = QuantumCircuit(1, 1)
    angle = Parameter("a")
    with circuit.for_loop(range(1, 4)) as index:
        circuit.rx(index * angle, 0)
    loaded = load(circuit)
    assert (loaded.parameters, loaded.bind([[0.5]]).tolist()) == (("a",), [[0.5, 1.0, 1.5]])
    # Two variables of one name in two blocks are two.
    circuit = QuantumCircuit(1, 2)
    for number in range(2):
        with circuit.if_test((circuit.clbits[1], False)):
            inner = circuit.add_var("v", expr.lift(number, BYTE))
            circuit.store(circuit.clbits[0], expr.equal(inner, 1))
    circuit.measure(0, 1)
    assert (engine_judge.exact(circuit), load(circuit).program.variables) == ({1: 1.0}, (8, 8))


def test_switch_on_bit_takes_matching_case() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    with circuit.switch(circuit.clbits[0]) as case:
        with case(False):
            circuit.h(1)
        with case(True):
            circuit.x(1)
    circuit.measure(1, 1)
    assert engine_judge.exact(circuit) == {3: 1.0}


def params(program: Program) -> tuple[float, ...]:
    return struct.unpack(f"<{len(program.params) // 8}d", program.params)


def of(gate: Instruction, width: int = 0) -> QuantumCircuit:
    circuit = QuantumCircuit(max(width, gate.num_qubits))
    circuit.append(gate, range(gate.num_qubits)[::-1])
    return circuit


@pytest.mark.parametrize("controls", [1, 2, 3, 4, 5, 20])
def test_wide_controlled_gates_are_packed_unexpanded(controls: int) -> None:
    gate = library.MCXGate(controls)
    assert load(of(gate)).program.names == {1: ("cx",), 2: ("ccx",)}.get(controls, ("mcx",))
    phase = load(of(library.MCPhaseGate(0.5, controls))).program
    assert (phase.names, params(phase)) == (("mcphase",), (0.5,))


def test_odd_classes_of_gates_are_packed_as_standard_ones() -> None:
    assert load(of(library.C4XGate())).program.names == ("mcx",)
    for gate in (
        library.CXGate().to_mutable(),
        library.CXGate(label="shown"),
        library.HGate().to_mutable(),
    ):
        assert load(of(gate)).program.names == (gate.name,)


@pytest.mark.parametrize("name", ["measure", "reset", "barrier", "delay", "if_else"])
def test_custom_instruction_with_builtin_name_is_expanded(name: str) -> None:
    body = QuantumCircuit(1, 1)
    body.x(0)
    impostor = Instruction(name, 1, 1, [])
    impostor.definition = body
    circuit = QuantumCircuit(1, 1)
    circuit.append(impostor, [0], [0])
    assert load(circuit).program.names == ("x",)


@pytest.mark.parametrize(
    "operation",
    [
        Clifford.from_label("HS"),
        library.PermutationGate([2, 0, 1]),
        library.QFTGate(3),
        library.Initialize([0.6, 0.8j]),
        library.UnitaryGate(np.eye(4)[[2, 0, 3, 1]]),
        library.HGate().control(2, annotated=True),
        library.QFTGate(2).inverse(annotated=True),
    ],
    ids=lambda operation: str(operation.name),
)  # fmt: skip
def test_abstract_operations_are_expanded_correctly(operation: Instruction) -> None:
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.append(operation, range(operation.num_qubits))
    expected = np.array([0.6, 0.8j])
    if not isinstance(operation, library.Initialize):
        expected = Operator(circuit).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(load(circuit).program), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("ps", 1e-3)]
)
def test_delays_are_packed_in_nanoseconds(unit: str, factor: float) -> None:
    theta = Parameter("theta")
    circuit = QuantumCircuit(1)
    circuit.append(Delay(3, unit=unit), [0])
    circuit.append(Delay(theta, unit=unit), [0])
    loaded = load(circuit)
    assert (loaded.program.names, params(loaded.program)) == (("delay",), (3 * factor, 0.0))
    assert loaded.bind([2.0]).tolist() == [[2.0 * factor]]


@pytest.mark.parametrize("width", [0, 1, 2, 5])
def test_unitary_matrix_acts_on_its_qubits(width: int) -> None:
    matrix = random_unitary(2**width, seed=width).data
    circuit = QuantumCircuit(6)
    circuit.h(range(6))
    circuit.append(library.UnitaryGate(matrix), [4, 1, 5, 0, 3][:width])
    circuit.append(library.DiagonalGate([1, 1j, -1, 1, 1, -1j, 1j, 1]), [2, 0, 3])
    program = load(circuit).program
    assert program.names.count("unitary") == bool(width)
    np.testing.assert_allclose(engine_judge.state(program), Statevector(circuit).data, atol=1e-12)


@QUICK
@given(drawing.circuits(dynamic=False))
def test_packed_static_circuit_has_statevector_of_qiskit(circuit: QuantumCircuit) -> None:
    expected = Operator(circuit).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(load(circuit).program), expected, atol=1e-9)


@QUICK
@given(drawing.circuits())
def test_packed_dynamic_circuit_has_outcomes_of_qiskit(circuit: QuantumCircuit) -> None:
    circuit = engine_judge.measured(circuit)
    engine_judge.assert_same(circuit, circuit)


@QUICK
@given(drawing.circuits())
def test_program_bytes_survive_conversion_to_qiskit_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert decode_program(loaded.packed) == loaded.program
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric())
def test_program_with_parameters_survives_conversion_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric(), st.lists(drawing.ANGLES, min_size=2, max_size=2))
def test_bound_parameters_equal_qiskit(circuit: QuantumCircuit, values: list[float]) -> None:
    given_values = values[: circuit.num_parameters]
    loaded = load(circuit)
    (row,) = loaded.bind([given_values] if given_values else None)
    expected = Operator(circuit.assign_parameters(given_values)).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(loaded.program, row), expected, atol=1e-9)


PROGRAM = """
import sys
from simenv.client.circuits import load, load_observables
load_observables("ZZ:0.5", 2)
{then}
print([name for name in ("qiskit", "numpy", "openqasm3") if name in sys.modules])
"""
REFUSED = """
from simenv.errors import SimenvError
for value in (None, "qreg q[1];", "OPENQASM 2.0; //" + "a" * 17_000_000):
    try:
        load(value)
    except SimenvError:
        continue
    raise SystemExit("taken")
"""


@pytest.mark.parametrize("then", ["", REFUSED], ids=["import", "refusal"])
def test_observables_and_refused_text_do_not_import_qiskit(then: str) -> None:
    assert python("-c", PROGRAM.format(then=then)).stdout.strip() == "[]"
