"""Mid-circuit measurements run as dynamic circuits, exactly and by shots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

qml = pytest.importorskip("pennylane")

SHOTS = 40_000
NATIVE = ("device", "tree-traversal", None)


def teleported(x: float) -> Any:
    """Conditions on one outcome, on several and on their sum; a reset."""
    qml.RX(x, 0)
    first = qml.measure(0, reset=True)
    qml.cond(first, qml.RY, qml.RX)(0.7, wires=1)
    second = qml.measure(1)
    qml.cond(first + second == 1, qml.X)(2)
    qml.cond(first & second, qml.RY)(x, wires=2)
    qml.cond(~second, qml.CNOT)([2, 0])
    return (
        qml.expval(qml.Z(0)),
        qml.expval(qml.X(1) @ qml.Z(2)),
        qml.probs(wires=[2, 0]),
        qml.expval(first),
        qml.var(first + 2 * second),
        qml.probs(op=[second, first]),
        qml.probs(op=first),
    )


def reference(circuit: Any, *arguments: Any) -> Any:
    return qml.QNode(circuit, qml.device("default.qubit"), mcm_method="deferred")(*arguments)


@pytest.mark.parametrize("method", NATIVE)
def test_exact_values_are_those_of_deferred_measurements(method: Any, device: Any) -> None:
    result = qml.QNode(teleported, device(3), mcm_method=method)(0.8)
    for value, other in zip(result, reference(teleported, 0.8), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-10)


@pytest.mark.parametrize("method", ["device", "tree-traversal", "deferred", None])
def test_single_expectation_value_after_a_measurement(method: Any, device: Any) -> None:
    def circuit(x: float) -> Any:
        qml.RX(x, 0)
        qml.cond(qml.measure(0), qml.RY)(0.7, wires=1)
        return qml.expval(qml.Z(1))

    node = qml.QNode(circuit, device(3), mcm_method=method)
    x = qml.numpy.array(0.8, requires_grad=True)
    assert node(x) == pytest.approx(reference(circuit, x))
    assert qml.grad(node)(x) == pytest.approx(qml.grad(lambda y: reference(circuit, y))(x))


@pytest.mark.parametrize("method", ["device", "one-shot", "tree-traversal", "deferred"])
def test_shots_have_the_distribution_of_deferred_measurements(method: str, device: Any) -> None:
    wires = 6 if method == "deferred" else 3
    node = qml.set_shots(qml.QNode(teleported, device(wires), mcm_method=method), SHOTS)
    for value, other in zip(node(0.8), reference(teleported, 0.8), strict=True):
        assert np.shape(value) == np.shape(other)
        assert np.max(np.abs(value - other)) < 5 * 3 / np.sqrt(SHOTS)  # values up to 3


def test_counts_and_samples_of_outcomes(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        first = qml.measure(0)
        qml.cond(first, qml.X)(1)
        second = qml.measure(1)
        return (
            qml.counts(first),
            qml.counts([first, second]),
            qml.sample([first, second]),
            qml.sample(first),
            qml.sample(wires=[1]),
            qml.counts(first + second, all_outcomes=True),
        )

    single, joint, samples, alone, wire, total = qml.set_shots(qml.QNode(circuit, device(2)), 400)()
    assert set(single) == {0.0, 1.0}
    assert set(joint) == {"00", "11"}
    assert samples.shape == (400, 2)
    assert np.array_equal(samples[:, 0], samples[:, 1])
    assert np.array_equal(samples[:, 0], alone)
    assert np.array_equal(samples[:, :1], wire)
    assert joint["11"] == samples[:, 0].sum() == single[1.0]
    assert total[1.0] == 0


def test_all_shots_of_a_dynamic_circuit_are_one_task(device: Any) -> None:
    dev = device(3)
    qml.set_shots(qml.QNode(teleported, dev), 1_000)(0.8)
    tasks = dev.client.queue(done=True, limit=4)[1]
    assert tasks[0].shots == 1_000


@pytest.mark.parametrize("shots", [None, SHOTS])
def test_postselection_keeps_the_wanted_outcomes_alone(shots: Any, device: Any) -> None:
    def circuit() -> Any:
        qml.RY(1.0, 0)
        qml.CNOT([0, 1])
        qml.RY(0.5, 1)
        first = qml.measure(0, postselect=1)
        return qml.expval(qml.Z(1)), qml.probs(wires=[1]), qml.expval(first), qml.var(qml.X(1))

    result = qml.set_shots(qml.QNode(circuit, device(2)), shots)()
    wanted = reference(circuit)
    outcome = np.sin(0.5) ** 2 * (shots or 1e24)
    for value, other in zip(result, wanted, strict=True):
        assert np.max(np.abs(value - other)) < 5 * 2 / np.sqrt(outcome)


def test_postselected_samples_are_fewer(device: Any) -> None:
    def circuit() -> Any:
        qml.RY(1.0, 0)
        first = qml.measure(0, postselect=1)
        return qml.sample(wires=[0]), qml.counts(wires=[0]), qml.sample(first)

    samples, counts, outcomes = qml.set_shots(qml.QNode(circuit, device(1)), 1_000)()
    assert 0 < len(samples) < 500
    assert samples.all()
    assert counts == {"1": len(samples)}
    assert len(outcomes) == len(samples)


def test_postselection_that_no_shot_passes_gives_nan(device: Any) -> None:
    def circuit() -> Any:
        first = qml.measure(0, postselect=1)
        qml.cond(first, qml.X)(0)
        return qml.expval(qml.Z(0)), qml.probs(wires=[0])

    mean, odds = qml.set_shots(qml.QNode(circuit, device(1)), 10)()
    assert np.isnan(mean)
    assert np.isnan(odds).all()


def test_state_after_deferred_measurements(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        first = qml.measure(0)
        qml.cond(first, qml.RY)(0.4, wires=1)
        return qml.purity([1]), qml.density_matrix([1])

    result = qml.QNode(circuit, device(3))()
    for value, other in zip(result, reference(circuit), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-10)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("method", ["parameter-shift", "adjoint", "best"])
def test_gradient_through_a_mid_circuit_measurement(method: str, device: Any) -> None:
    def circuit(x: Any) -> Any:
        qml.RX(x, 0)
        first = qml.measure(0)
        qml.cond(first, qml.RY)(0.4, wires=1)
        qml.RX(x, 1)
        return qml.expval(qml.Z(1))

    at = qml.numpy.array(0.8, requires_grad=True)
    result = qml.grad(qml.QNode(circuit, device(3), diff_method=method))(at)
    reference_node = qml.QNode(circuit, qml.device("default.qubit"), mcm_method="deferred")
    assert result == pytest.approx(float(qml.grad(reference_node)(at)), abs=1e-8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"postselect_mode": "fill-shots"}, "fill-shots"),
        ({"mcm_method": "single-branch-statistics"}, "single-branch-statistics"),
    ],
)
def test_ways_that_are_not_there_are_refused_by_name(
    options: dict[str, str], words: str, device: Any
) -> None:
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(**options))
    with pytest.raises(qml.exceptions.DeviceError, match=words):
        device(3).setup_execution_config(config)


def test_postselect_mode_counts_only_where_shots_are_postselected(device: Any) -> None:
    mode = "pad-invalid-samples"  # JAX's transformations set it for every tape with shots
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(postselect_mode=mode))
    kept, postselected = (
        qml.tape.QuantumScript([qml.ops.MidMeasure(0, postselect=value)], [qml.probs(wires=1)], 9)
        for value in (None, 1)
    )
    device(3).setup_execution_config(config, kept)
    with pytest.raises(qml.exceptions.DeviceError, match=mode):
        device(3).setup_execution_config(config, postselected)


def test_one_shot_method_needs_shots(device: Any) -> None:
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(mcm_method="one-shot"))
    tape = qml.tape.make_qscript(teleported)(0.8)
    with pytest.raises(qml.exceptions.DeviceError, match="needs shots"):
        device(3).setup_execution_config(config, tape)
