"""PUBs at the limits of what Qiskit's primitives take, with Qiskit's own as the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr, types
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp

import simenv
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler


@pytest.fixture(scope="module")
def ideal() -> Iterator[SimenvBackend]:
    with simenv.local(workers=1) as client:
        yield SimenvBackend(env=client)


def read_into(name: str) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1, name))
    circuit.measure(0, 0)
    return circuit


@pytest.mark.parametrize("name", ["keys", "values", "items", "size", "ndim", "shape", "__class__"])
def test_register_that_a_result_cannot_have_is_refused_by_name(
    name: str, ideal: SimenvBackend
) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        StatevectorSampler().run([read_into(name)]).result()
    with pytest.raises(expected.type) as caught:
        SimenvSampler(ideal).run([read_into("c"), read_into(name)])
    text = f"{expected.value}: rename the register {name!r} of circuit 1"
    assert str(caught.value) == text


@pytest.mark.parametrize("precision", [0.0, 0.1])
def test_estimates_without_qubits_are_sums_of_coefficients(
    precision: float, ideal: SimenvBackend
) -> None:
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
def test_circuits_that_are_not_carried_are_refused_with_number_of_their_pub(
    circuit: QuantumCircuit, text: str, ideal: SimenvBackend
) -> None:
    before = ideal.client.queue(done=True)[0]
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvEstimator(ideal).run(
            [(QuantumCircuit(), {"": 1.0}), (read_into("c"), "Z"), (circuit, "Z")]
        )
    circuit.measure(0, 0)
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvSampler(ideal).run([QuantumCircuit(1, 1), read_into("c"), circuit])
    with pytest.raises(QiskitError, match=f"circuit 1: .*{text}"):
        ideal.run([read_into("c"), circuit])
    assert ideal.client.queue(done=True)[0] == before
