"""Gradients from a circuit with expressions to the client's result, through a whole environment."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

import simenv
from simenv.cli.tasks.bundle import collect, load
from simenv.client.client import Client
from simenv.errors import OptionError

A, B = Parameter("a"), Parameter("b")
BOTH = ("expectation", "gradient")


def circuit() -> QuantumCircuit:
    """<ZI> = cos(2a + b) and <IX> = sin(a): each parameter in an expression."""
    quantum_circuit = QuantumCircuit(2)
    quantum_circuit.ry(A, 0)
    quantum_circuit.ry(2 * A + B, 1)
    return quantum_circuit


def slopes(a: float, b: float) -> list[list[float]]:
    return [[-2 * math.sin(2 * a + b), -math.sin(2 * a + b)], [math.cos(a), 0.0]]


def test_gradients_follow_parameters_and_are_saved_and_reread(env: Client, tmp_path: Path) -> None:
    values = {"b": 0.7, "a": 0.3}
    task = env.submit(
        circuit(), parameter_values=values, observables=["ZI", "IX"], outputs=BOTH, shots=None
    )
    result = task.result()
    np.testing.assert_allclose(result.gradients, slopes(0.3, 0.7), atol=1e-14)
    np.testing.assert_allclose(result.expectations, [math.cos(1.3), math.sin(0.3)], atol=1e-14)
    assert result.to_dict()["gradients"] == result.gradients.tolist()
    result.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as saved:
        np.testing.assert_array_equal(saved["gradients"], result.gradients)
    again = env.task(task.id).result()  # by its id alone, the circuit forgotten
    np.testing.assert_array_equal(again.gradients, result.gradients)
    with pytest.raises(OptionError, match="2 observables"):
        _ = result.gradient


def test_each_sweep_task_has_gradients_of_its_binding(env: Client, tmp_path: Path) -> None:
    bindings = np.random.default_rng(1).uniform(-3, 3, (70, 2))
    tasks = env.submit_many(
        (circuit(), bindings), observables=["ZI", "IX"], outputs=BOTH, shots=None
    )
    for task, (a, b) in zip(tasks, bindings.tolist(), strict=True):
        np.testing.assert_allclose(task.result().gradients, slopes(a, b), atol=1e-13)
    path = tmp_path / "one.json"
    tasks[69].result().save(path)
    assert json.loads(path.read_text())["gradients"] == tasks[69].result().gradients.tolist()


def test_gradient_of_weighted_pauli_sum_is_one_vector(env: Client) -> None:
    result = env.run(
        circuit(), parameter_values=[0.3, 0.7], observables={"ZI": 2.0, "IX": -1.0}, outputs=BOTH,
        shots=None,
    )  # fmt: skip
    both = np.array(slopes(0.3, 0.7))
    np.testing.assert_allclose(result.gradient, 2 * both[0] - both[1], atol=1e-14)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"shots": 100}, "shots=100"),
        ({"observables": None}, "expectation values of nothing"),
        ({"ranks": 2}, "ranks"),
        ({"engine": "aer"}, "no output 'gradient'"),
    ],
)
def test_other_gradient_is_refused(env: Client, wishes: dict[str, object], words: str) -> None:
    table = {
        "parameter_values": [0.1, 0.2], "observables": "ZZ", "outputs": BOTH, "shots": None,
        **wishes,
    }  # fmt: skip
    with pytest.raises(simenv.errors.SimenvError, match=words):
        env.submit(circuit(), **table)  # type: ignore[arg-type]


def test_gradient_without_parameters_or_through_measurement_is_refused(env: Client) -> None:
    with pytest.raises(OptionError, match="without free parameters"):
        env.submit(QuantumCircuit(2), observables="ZZ", outputs=BOTH, shots=None)
    moving = QuantumCircuit(1, 1)
    moving.ry(A, 0)
    moving.measure(0, 0)
    moving.h(0)
    with pytest.raises(OptionError, match="before its end"):
        env.submit(moving, parameter_values=[0.1], observables="Z", outputs=BOTH, shots=None)


def test_resubmitted_bundle_gives_same_gradients(env: Client, tmp_path: Path) -> None:
    task = env.submit(
        circuit(), parameter_values=[0.3, 0.7], observables=["ZI", "IX"], outputs=BOTH, shots=None
    )
    first = task.result()
    collect(env, task, tmp_path / "bundle")
    (again,) = env.history.resubmit(load(tmp_path / "bundle"))
    np.testing.assert_array_equal(again.result().gradients, first.gradients)
