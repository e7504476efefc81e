"""Gradients agree with those of default.qubit, whatever the method."""

from typing import Any

import numpy as np
import pytest
from failing import fails

qml = pytest.importorskip("pennylane")
pnp = pytest.importorskip("pennylane.numpy")

# default.qubit's own backpropagation drops imaginary parts.
pytestmark = pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")

ANSATZ = pnp.array([0.4, -0.7, 1.1], requires_grad=True)
EVERY_METHOD = ("best", "adjoint", "parameter-shift", "finite-diff", "hadamard")


def ansatz(x: Any) -> None:
    """Every kind of angle: with factors, several of a gate, fixed, and two of one parameter."""
    qml.RX(x[0], 0)
    qml.Rot(x[1], 0.2, x[2], wires=1)
    qml.CNOT([0, 1])
    qml.IsingXX(x[0], [0, 1])
    qml.CRZ(x[1], [0, 2])
    qml.RY(2 * x[2], 2)
    qml.PhaseShift(x[2], 1)


def energy(x: Any) -> Any:
    ansatz(x)
    return qml.expval(qml.Hamiltonian([0.5, 1.5, -0.2], [qml.X(0) @ qml.Z(1), qml.Y(2), qml.X(1)]))


def two_values(x: Any) -> Any:
    ansatz(x)
    return qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Y(2))


def reference(circuit: Any, wires: int = 3) -> Any:
    return qml.QNode(circuit, qml.device("default.qubit", wires=wires))


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_gradient_is_that_of_default_qubit(method: str, device: Any) -> None:
    more = {"aux_wire": 3} if method == "hadamard" else {}
    node = qml.QNode(energy, device(4), diff_method=method, gradient_kwargs=more)
    result = qml.grad(node)(ANSATZ)
    wanted = qml.grad(reference(energy))(ANSATZ)
    np.testing.assert_allclose(result, wanted, atol=1e-6 if method == "finite-diff" else 1e-10)


@pytest.mark.parametrize("method", ["best", "parameter-shift"])
def test_jacobian_of_several_values(method: str, device: Any) -> None:
    def stacked(node: Any) -> Any:
        return lambda x: pnp.stack(node(x))

    result = qml.jacobian(stacked(qml.QNode(two_values, device(3), diff_method=method)))(ANSATZ)
    wanted = qml.jacobian(stacked(reference(two_values)))(ANSATZ)
    np.testing.assert_allclose(result, wanted, atol=1e-10)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: qml.SingleExcitation(x, [0, 1]),
        lambda x: qml.IsingXY(x, [0, 1]),
        lambda x: qml.DoubleExcitation(x, [0, 1, 2, 3]),
        lambda x: qml.PauliRot(x, "XYZ", [0, 1, 2]),
        lambda x: qml.MultiRZ(x, [0, 1, 2]),
        lambda x: qml.CRX(x, [1, 0]),
        lambda x: qml.U3(x, 0.2 * x, x**2, wires=1),
        lambda x: qml.U2(x, 0.2 * x, wires=1),
        lambda x: qml.ctrl(qml.PhaseShift(x, 2), control=[0, 1]),
        lambda x: qml.adjoint(qml.Rot(x, 0.3, x, wires=1)),
        lambda x: qml.GlobalPhase(x),
    ],
    ids=["excitation", "xy", "double", "rot", "multirz", "crx", "u3", "u2", "mcp", "adj", "phase"],
)
def test_adjoint_gradient_of_one_gate(operation: Any, device: Any) -> None:
    def circuit(x: Any) -> Any:
        for wire in range(4):
            qml.RY(0.3 + wire, wire)
        operation(x)
        qml.CNOT([0, 1])
        return qml.expval(qml.X(0) @ qml.Y(1) + 0.4 * qml.Z(2) @ qml.X(3))

    at = pnp.array(0.8, requires_grad=True)
    result = qml.grad(qml.QNode(circuit, device(4), diff_method="adjoint"))(at)
    np.testing.assert_allclose(result, qml.grad(reference(circuit, 4))(at), atol=1e-10)


def test_values_and_gradients_come_of_one_task_each_tape(device: Any) -> None:
    dev = device(3)
    with dev.tracker:
        qml.grad(qml.QNode(energy, dev))(ANSATZ)
    assert dev.tracker.totals["execute_and_derivative_batches"] == 1
    assert "batches" not in dev.tracker.totals
    (newest, *_) = dev.client.queue(done=True, limit=1)[1]
    result = dev.client.task(newest.id).result()
    assert result.has("expectations")
    assert result.has("gradients")


def test_shifted_broadcast_and_second_derivatives(device: Any) -> None:
    dev = device(3)
    qml.grad(qml.QNode(energy, dev, diff_method="parameter-shift"))(ANSATZ)
    (newest, *_) = dev.client.queue(done=True, limit=1)[1]
    # four terms for CRZ, two for each of the six other angles
    assert len(dev.client.task(newest.id).results()) == 16

    def summed(node: Any) -> Any:
        return lambda x: pnp.sum(node(x))

    at = pnp.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0.9, 1.0, 1.1, 1.2]])
    result = qml.grad(summed(qml.QNode(energy, device(3))))(at)
    np.testing.assert_allclose(result, qml.grad(summed(reference(energy)))(at), atol=1e-10)
    node = qml.QNode(energy, device(3), diff_method="parameter-shift", max_diff=2)
    wanted = qml.jacobian(qml.grad(reference(energy)))(ANSATZ)
    np.testing.assert_allclose(qml.jacobian(qml.grad(node))(ANSATZ), wanted, atol=1e-8)


@pytest.mark.parametrize("measured", ["probs", "var"])
def test_best_method_of_other_measurements_is_a_shift(measured: str, device: Any) -> None:
    def circuit(x: Any) -> Any:
        ansatz(x)
        return qml.probs(wires=[1]) if measured == "probs" else qml.var(qml.X(1))

    result = qml.jacobian(qml.QNode(circuit, device(3)))(ANSATZ)
    np.testing.assert_allclose(result, qml.jacobian(reference(circuit))(ANSATZ), atol=1e-10)


def test_adjoint_of_a_measurement_without_one_is_refused(device: Any) -> None:
    def circuit(x: Any) -> Any:
        ansatz(x)
        return qml.probs(wires=[1])

    node = qml.QNode(circuit, device(3), diff_method="adjoint")
    fails(qml.exceptions.QuantumFunctionError, "adjoint", qml.jacobian(node), ANSATZ)


def test_gradients_by_coefficients_or_shots(device: Any) -> None:
    def circuit(weights: Any) -> Any:
        ansatz([0.1, 0.2, 0.3])
        return qml.expval(qml.dot(weights, [qml.X(0), qml.Z(1)]))

    at = pnp.array([0.5, -0.3], requires_grad=True)
    result = qml.grad(qml.QNode(circuit, device(3), diff_method="parameter-shift"))(at)
    np.testing.assert_allclose(result, qml.grad(reference(circuit))(at), atol=1e-10)
    node = qml.set_shots(qml.QNode(energy, device(3)), 200_000)
    wanted = qml.grad(reference(energy))(ANSATZ)
    # a shift of 0.5 * (a - b), 2.2 the sum of the coefficients, at most four shifts a parameter
    sigma = 2.2 * 4 / np.sqrt(200_000)
    assert np.max(np.abs(qml.grad(node)(ANSATZ) - wanted)) < 5 * sigma


def test_optimizer_finds_the_ground_state(device: Any) -> None:
    @qml.qnode(device(1))
    def circuit(x: Any) -> Any:
        qml.RX(x[0], 0)
        qml.RY(x[1], 0)
        return qml.expval(qml.Z(0))

    at = pnp.array([0.3, 0.4], requires_grad=True)
    optimizer = qml.GradientDescentOptimizer(0.4)
    for _ in range(40):
        at = optimizer.step(circuit, at)
    assert circuit(at) == pytest.approx(-1.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:Differentiating with respect to the input:UserWarning")
@pytest.mark.parametrize("method", ["best", "parameter-shift"])
def test_gradient_by_coefficients_of_an_observable(method: str, device: Any) -> None:
    def circuit(coefficients: Any) -> Any:
        qml.RX(0.3, 0)
        return qml.expval(qml.Hamiltonian(coefficients, [qml.Z(0), qml.Y(0)]))

    at = pnp.array([1.0, 2.0], requires_grad=True)
    result = qml.grad(qml.QNode(circuit, device(1), diff_method=method))(at)
    np.testing.assert_allclose(result, [np.cos(0.3), -np.sin(0.3)], atol=1e-10)
    adjoint = qml.QNode(circuit, device(1), diff_method="adjoint")
    with pytest.raises(qml.exceptions.QuantumFunctionError, match="adjoint"):
        qml.grad(adjoint)(at)
    energy = qml.QNode(circuit, device(1))(at)  # trainable, but nothing is differentiated
    np.testing.assert_allclose(energy, np.cos(0.3) - 2 * np.sin(0.3), atol=1e-10)


def test_gradient_by_the_matrix_of_an_observable_is_refused(device: Any) -> None:
    def circuit(scale: Any) -> Any:
        qml.RX(0.4, 0)
        matrix = pnp.array([[1.0, 0.3], [0.3, -1.0]], requires_grad=False)
        return qml.expval(qml.Hermitian(scale * matrix, 0))

    at = pnp.array(0.5, requires_grad=True)
    for method in ("best", "parameter-shift", "finite-diff"):
        node = qml.QNode(circuit, device(1), diff_method=method)
        with pytest.raises(qml.exceptions.DeviceError, match="matrix of Hermitian"):
            qml.grad(node)(at)
