"""Random and unusual PUBs."""

from typing import Any

import numpy as np
import pytest
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr, types
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers import BindingsArray
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp

from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler

PARAMETERS = [Parameter(name) for name in "cab"]  # not in the order of their names


def shape(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.choice([1, 2, 3, 4], size=rng.integers(0, 4)).tolist())


def part(rng: np.random.Generator, target: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that broadcasts to another one."""
    kept = target[(rng.integers(0, len(target) + 1) if rng.random() < 0.4 else 0) :]
    return tuple(1 if rng.random() < 0.3 else size for size in kept)


def rotated(rng: np.random.Generator) -> QuantumCircuit:
    circuit = QuantumCircuit(3, metadata={"number": int(rng.integers(9))})
    for layer in range(2):
        for qubit in rng.permutation(3).tolist():
            parameter = PARAMETERS[rng.integers(3)] if layer else PARAMETERS[qubit]
            circuit.ry(parameter, qubit) if layer else circuit.rx(2 * parameter + 0.1, qubit)
        circuit.cx(0, 1)
        circuit.cz(1, 2)
    return circuit


def observable(rng: np.random.Generator) -> Any:
    labels = ["".join(rng.choice(list("IXYZ"), 3)) for _ in range(3)]
    weights = rng.normal(size=3)
    kind = rng.integers(5)
    if kind == 0:
        return labels[0]
    if kind == 1:
        return Pauli(labels[0])
    if kind == 2:
        return dict(zip(labels, weights.tolist(), strict=True))
    if kind == 3:
        return SparseObservable.from_list([(labels[0], 0.5), ("ZZI", -1.5)])
    return SparsePauliOp(labels, weights)


def observables(rng: np.random.Generator, size: tuple[int, ...]) -> Any:
    listed = np.empty(size, object)
    for place in np.ndindex(*size):
        listed[place] = observable(rng)
    nested = listed.tolist()
    return ObservablesArray.coerce(nested) if rng.random() < 0.5 else nested


def bindings(rng: np.random.Generator, values: np.ndarray) -> Any:
    """Values [..., 3] of the parameters in the order of their names, in several forms."""
    kind = rng.integers(3)
    if kind == 0:
        return values
    settings = {("a", "b"): values[..., :2], ("c",): values[..., 2:]}
    return settings if kind == 1 else BindingsArray(settings, shape=values.shape[:-1])


@pytest.mark.parametrize("seed", range(30))
def test_estimates_of_random_shapes_equal_reference(seed: int, ideal: SimenvBackend) -> None:
    rng = np.random.default_rng(seed)
    pubs = []
    for _ in range(3):
        size = shape(rng)
        values = rng.uniform(-3, 3, (*part(rng, size), 3))
        pubs.append((rotated(rng), observables(rng, part(rng, size)), bindings(rng, values)))
    expected = StatevectorEstimator().run(pubs).result()
    result = SimenvEstimator(ideal).run(pubs).result()
    assert result.metadata["version"] == expected.metadata["version"] == 2
    for actual, reference in zip(result, expected, strict=True):
        assert list(actual.data) == list(reference.data)
        assert actual.data.shape == reference.data.shape
        for name in reference.data:
            field = actual.data[name]
            assert type(field) is type(reference.data[name])
            assert (field.shape, field.dtype) == (reference.data[name].shape, np.float64)
            np.testing.assert_allclose(field, reference.data[name], atol=1e-12)
        assert actual.metadata == {**reference.metadata, "shots": 0}


@pytest.mark.parametrize("seed", range(30))
def test_bits_of_random_shapes_equal_reference(seed: int, ideal: SimenvBackend) -> None:
    rng = np.random.default_rng(seed)
    pubs = []
    for _ in range(3):
        registers = [
            ClassicalRegister(int(size), f"r{number}")
            for number, size in enumerate(rng.integers(1, 12, rng.integers(1, 4)))
        ]
        circuit = QuantumCircuit(QuantumRegister(3), *registers, metadata={"seed": seed})
        for qubit in range(3):
            circuit.rx(PARAMETERS[qubit], qubit)
        for clbit in rng.permutation(circuit.num_clbits)[:6].tolist():
            circuit.measure(rng.integers(3), clbit)
        values = rng.choice([0.0, np.pi], (*shape(rng), 3))  # outcomes without chance
        pubs.append((circuit, bindings(rng, values), int(rng.integers(1, 9))))
    expected = StatevectorSampler().run(pubs).result()
    result = SimenvSampler(ideal).run(pubs).result()
    for actual, reference in zip(result, expected, strict=True):
        assert list(actual.data) == list(reference.data)
        assert (actual.data.shape, actual.metadata) == (reference.data.shape, reference.metadata)
        assert dict(actual.data) == dict(reference.data)
        reversed_names = list(actual.data)[::-1]
        joined, outcome = (item.join_data(reversed_names) for item in (actual, reference))
        assert joined == outcome
        assert (joined.shape, joined.num_bits, joined.num_shots) == (
            outcome.shape, outcome.num_bits, outcome.num_shots,
        )  # fmt: skip
        assert joined.get_counts() == outcome.get_counts()


def read_into(name: str) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1, name))
    circuit.measure(0, 0)
    return circuit


@pytest.mark.parametrize("name", ["keys", "values", "items", "size", "ndim", "shape", "__class__"])
def test_register_no_result_can_have_is_refused_by_name(name: str, ideal: SimenvBackend) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        StatevectorSampler().run([read_into(name)]).result()
    error = fails(expected.type, "", SimenvSampler(ideal).run, [read_into("c"), read_into(name)])
    text = f"{expected.value}: rename the register {name!r} of circuit 1"
    assert str(error) == text


@pytest.mark.parametrize("precision", [0.0, 0.1])
def test_estimates_without_qubits_are_coefficients(precision: float, ideal: SimenvBackend) -> None:
    empty = QuantumCircuit(global_phase=Parameter("x"))
    pub = (empty, [SparsePauliOp([""], [2.5]), SparsePauliOp([""], [-1.0])], [[[0.3]], [[0.4]]])
    plain = (QuantumCircuit(), {"": 0.5})
    expected = StatevectorEstimator().run([pub, plain]).result()
    result = SimenvEstimator(ideal).run([pub, plain], precision=precision).result()
    for actual, reference in zip(result, expected, strict=True):
        assert actual.data.evs.shape == reference.data.evs.shape
        np.testing.assert_array_equal(actual.data.evs, reference.data.evs)
        np.testing.assert_array_equal(actual.data.stds, 0.0)


@pytest.mark.filterwarnings("ignore:.*no output classical registers:UserWarning")
def test_samples_without_qubits_are_zeros(ideal: SimenvBackend) -> None:
    bits, empty = SimenvSampler(ideal).run([QuantumCircuit(0, 2), QuantumCircuit()]).result()
    assert bits.data.c.get_counts() == {"00": 1024}
    assert len(empty.data) == 0


def boxed() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    with circuit.box():
        circuit.x(0)
    return circuit


def with_input() -> QuantumCircuit:
    variable = expr.Var.new("angle", types.Uint(2))
    circuit = QuantumCircuit(1, 1, inputs=[variable])
    with circuit.if_test(expr.equal(variable, 2)):
        circuit.x(0)
    return circuit


def stretched() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.delay(circuit.add_stretch("wait"), 0)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "text"),
    [
        (boxed(), "control flow 'box'"),
        (with_input(), "input variable 'angle'"),
        (stretched(), "duration in an expression or stretch"),
    ],
)
def test_refused_pub_is_numbered(circuit: QuantumCircuit, text: str, ideal: SimenvBackend) -> None:
    before = ideal.client.queue(done=True)[0]
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvEstimator(ideal).run(
            [(QuantumCircuit(), {"": 1.0}), (read_into("c"), "Z"), (circuit, "Z")]
        )
    circuit.measure(0, 0)
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvSampler(ideal).run([QuantumCircuit(1, 1), read_into("c"), circuit])
    fails(QiskitError, f"circuit 1: .*{text}", ideal.run, [read_into("c"), circuit])
    assert ideal.client.queue(done=True)[0] == before
