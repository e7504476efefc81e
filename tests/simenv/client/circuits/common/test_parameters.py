"""Parameters and chains that the readers of circuits share."""

from typing import Any

import numpy as np
import pytest
from failing import fails
from interpreter import python
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterExpression, ParameterVector

from simenv.client.circuits import PackedCircuit, load
from simenv.client.circuits.parameters import chain
from simenv.errors import OptionError, ProgramError
from simenv.model import Program

X, Y = Parameter("x"), Parameter("y")
V = ParameterVector("v", 11)


def rotations(*angles: Any) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    for angle in angles:
        circuit.rx(angle, 0)
    return circuit


def loaded(*angles: Any) -> PackedCircuit:
    return load(rotations(*angles))


def test_parameters_are_in_order_and_expressions_share_slots() -> None:
    result = loaded(X, 2 * X + Y, X, Y + 2 * X, 0.5, Y)
    assert (result.program.num_slots, result.parameters) == (3, ("x", "y"))
    assert result.bind([1.0, 10.0]).tolist() == [[1.0, 12.0, 10.0]]
    result = loaded(V[10], V[2], Y, X)  # Qiskit sorts names as text, elements of vectors as numbers
    circuit = rotations(V[10], V[2], Y, X)
    assert result.parameters == tuple(parameter.name for parameter in circuit.parameters)
    values = dict(zip(circuit.parameters, (1.0, 2.0, 3.0, 4.0), strict=True))
    expected = [values[V[10]], values[V[2]], values[Y], values[X]]
    assert result.bind([1.0, 2.0, 3.0, 4.0]).tolist() == [expected]


def test_rows_of_table_are_bindings() -> None:
    result = loaded(X, X * Y)
    table = np.array([[1, 2], [3, 4], [5, 6]])
    assert result.bind(table).tolist() == [[1, 2], [3, 12], [5, 30]]
    assert result.bind(table.tolist()).dtype == np.float64
    assert result.bind(np.asfortranarray(table.astype(np.float32))).tolist() == [
        [1, 2],
        [3, 12],
        [5, 30],
    ]


@pytest.mark.parametrize(
    "bindings",
    [
        {X: 1.0, Y: [2.0, 3.0]},
        {"x": [1.0, 1.0], "y": (2.0, 3.0)},
        {Y: np.array([2.0, 3.0]), "x": np.float32(1.0)},
    ],
)
def test_mapping_binds_parameters_by_name_or_object(bindings: Any) -> None:
    assert loaded(Y, X).bind(bindings).tolist() == [[2.0, 1.0], [3.0, 1.0]]


def test_parameter_vector_is_key_of_mapping() -> None:
    vector = ParameterVector("w", 2)
    result = loaded(vector[1], vector[0], X)
    assert result.bind({vector: [1.0, 2.0], X: 3.0}).tolist() == [[2.0, 1.0, 3.0]]
    table = {vector: [[1.0, 2.0], [4.0, 5.0]], X: 3.0}
    assert result.bind(table).tolist() == [[2.0, 1.0, 3.0], [5.0, 4.0, 3.0]]
    fails(OptionError, "'w' has 2 elements", result.bind, {vector: [1.0], X: 3.0})


@pytest.mark.parametrize(
    ("bindings", "told"),
    [
        ([1.0], "shape (1,); the circuit has 2"),
        ([[1.0, 2.0, 3.0]], "shape (1, 3); the circuit has 2"),
        (np.zeros((0, 2)), "shape (0, 2)"),
        (np.zeros((1, 1, 2)), "shape (1, 1, 2)"),
        (5.0, "shape ()"),
        (None, "no value for 'x', 'y'"),
        ({}, "no value for 'x', 'y'"),
        ({"x": 1.0}, "no value for 'y'"),
        ({"x": 1.0, "y": 2.0, "z": 3.0}, "no parameter 'z'"),
        ({"x": 1.0, X: 2.0, "y": 3.0}, "'x' is given twice"),
        ({"x": [1.0, 2.0], "y": [1.0, 2.0, 3.0]}, "'x' has 2, 'y' has 3"),
        ({"x": [], "y": 1.0}, "'x' has 0"),
        ({"x": [[1.0]], "y": 1.0}, "shape (1, 1)"),
        ({5: 1.0}, "neither a parameter nor a name"),
        ([[1.0, 2.0], [3.0, float("nan")]], "binding 1: parameter 'y' is nan"),
        ({"x": float("inf"), "y": 0.0}, "binding 0: parameter 'x' is inf"),
        ([1j, 2.0], "not an array of real numbers"),
        (["one", "two"], "not an array of real numbers"),
        ([[1.0], [1.0, 2.0]], "not an array of real numbers"),
        ({"x": 1 + 0j, "y": 1.0}, "not an array of real numbers"),
    ],
)
def test_values_that_do_not_fit_are_refused(bindings: Any, told: str) -> None:
    assert told in fails(OptionError, "", loaded(X, Y).bind, bindings).message


@pytest.mark.parametrize(
    ("expression", "value"), [(1 / X, 0.0), (X.log(), 0.0), (X.log(), -1.0), (X**0.5, -1.0)]
)
def test_expression_not_finite_is_refused(expression: ParameterExpression, value: float) -> None:
    fails(ProgramError, "binding 1: the expression", loaded(expression).bind, [[1.0], [value]])


@pytest.mark.parametrize(
    "expression",
    [3 * X - Y / 7 + 0.1, X * Y, X.sin() + Y.exp(), (X - 100).sign(), X.abs() * 2, X**2 / 3, X / X],
)
def test_bound_value_is_independent_of_batch_size(expression: ParameterExpression) -> None:
    result = loaded(expression, X, Y)
    table = np.random.default_rng(5).normal(size=(1000, 2)) * 200
    together = result.bind(table)
    for row in range(0, 1000, 97):
        assert result.bind(table[row]).tobytes() == together[row].tobytes()
        bound = expression.bind_all(
            {p: table[row, int(p == Y)].item() for p in expression.parameters}
        )
        assert together[row, 0] == pytest.approx(bound, rel=1e-12)


def test_hidden_parameters_and_values_of_none_are_refused() -> None:
    assert (loaded(1.0).bind(None).shape, loaded(1.0).bind({}).shape) == ((1, 0), (1, 0))
    fails(OptionError, "no parameter 'x'", loaded(1.0).bind, {"x": 1.0})
    fails(OptionError, "0 parameters", loaded(1.0).bind, [1.0])
    gate = Gate("hidden", 1, [])
    gate.definition = rotations(X)
    circuit = QuantumCircuit(1)
    circuit.append(gate, [0])
    fails(ProgramError, "'x' in a gate's definition is no parameter", load(circuit).bind, None)


def test_programs_are_bound_by_order_or_name_of_their_parameters() -> None:
    circuit = QuantumCircuit(1, 1, global_phase=X + 1)
    circuit.append(rotations(Y / 2).to_gate(), [0])
    with circuit.if_test((0, True)):
        circuit.rz(V[0], 0)
    document = load(circuit)
    assert document.parameters == ("v[0]", "x", "y")
    assert document.bind([1.0, 2.0, 3.0]).tolist() == [[3.0, 1.5, 1.0]]
    packed = loaded(X, Y * 2).program
    again = load(packed)
    assert isinstance(packed, Program)
    assert (again.parameters, again.bind([3.0, 4.0]).tolist()) == (("p0", "p1"), [[3.0, 4.0]])
    assert again.bind({"p1": 4.0, "p0": [3.0, 5.0]}).tolist() == [[3.0, 4.0], [5.0, 4.0]]


PROGRAM = """
import sys, threading
from simenv.client.circuits import load

TEXT = (
    'OPENQASM 2.0;\\ninclude "qelib1.inc";\\n'
    'gate g a { h a; }\\nqreg q[1];\\ncreg c[1];\\ng q[0];\\n'
)
widths = []
assert "qiskit" not in sys.modules
for _ in range(20):
    threads = [
        threading.Thread(target=lambda: widths.append(load(TEXT).program.num_qubits))
        for _ in range(int(sys.argv[1]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert widths == [1] * 20 * int(sys.argv[1]), widths
assert [t.name for t in threading.enumerate()].count("simenv-qiskit") == 1
"""


@pytest.mark.parametrize("at_once", [1, 4])
def test_circuits_are_loaded_in_short_lived_threads(at_once: int) -> None:
    done = python("-c", PROGRAM, str(at_once), check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


A, B = Parameter("a"), Parameter("b")
VECTOR = ParameterVector("v", 3)


def turned(*angles: object) -> PackedCircuit:
    circuit = QuantumCircuit(len(angles))
    for qubit, angle in enumerate(angles):
        circuit.ry(angle, qubit)
    return load(circuit)


def matrix(loaded: PackedCircuit, values: np.ndarray) -> np.ndarray:
    """d slots / d parameters, as the chain rule has it."""
    result = chain(loaded.slots, values)
    if result is None:
        return np.eye(len(loaded.parameters))
    dense = np.zeros((loaded.program.num_slots, result.parameters))
    places = np.frombuffer(result.slots, "<i4"), np.frombuffer(result.columns, "<i4")
    dense[places] = np.frombuffer(result.factors)
    return dense


@pytest.mark.parametrize(
    "angles",
    [
        (A, B), (B, A, 2 * A), (A + 0.5 * B, -A, B - 1.5),
        (VECTOR[2], VECTOR[0] - VECTOR[1], VECTOR[1]), (A * B, A.sin(), A**2 / (2 + B)), (A, A, A),
        (3 * A, 3 * A),
    ],
)  # fmt: skip
def test_chain_rule_agrees_with_finite_differences(angles: tuple[object, ...]) -> None:
    loaded = turned(*angles)
    values = np.random.default_rng(1).uniform(0.3, 1.5, len(loaded.parameters))
    result = matrix(loaded, values)
    for k in range(len(values)):
        at = np.zeros(len(values))
        at[k] = 1e-5
        slope = (loaded.bind(values + at) - loaded.bind(values - at))[0] / 2e-5
        np.testing.assert_allclose(result[:, k], slope, atol=1e-9)


def test_chain_rule_is_for_linear_expressions_and_finite_derivatives() -> None:
    assert chain(turned(VECTOR[0], VECTOR[1], VECTOR[2]).slots, np.zeros(3)) is None
    fails(OptionError, "several bindings", chain, turned(A * A, A).slots, np.ones((2, 1)))
    result = chain(turned(2 * A, A).slots, np.ones((2, 1)))
    assert np.frombuffer(result.factors).tolist() == [2.0, 1.0]
    fails(ProgramError, "no finite derivative", chain, turned(A**0.5, A).slots, np.zeros(1))
