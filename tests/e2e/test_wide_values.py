"""Expectation values of 127 noisy qubits through the client, Qiskit's estimator and PennyLane."""

import math

import numpy as np
import pennylane as qml
import pytest
from failing import fails
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import SparsePauliOp

from simenv.client.client import Client
from simenv.errors import TaskFailedError
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator

DEVICE, WIDTH = "superconducting-heavy-hex", 127


@pytest.fixture(scope="module")
def backend(env: Client) -> SimenvBackend:
    return SimenvBackend(DEVICE, env)


@pytest.fixture(scope="module")
def circuit(backend: SimenvBackend) -> QuantumCircuit:
    """Two kicks and one layer of pairs on all qubits, in native gates."""
    result = QuantumCircuit(WIDTH)
    for step in range(2):
        result.rx(0.6, range(WIDTH))
        for pair in backend.target["rzz"] if not step else ():
            if pair[0] < pair[1]:
                result.rzz(math.pi / 2, *pair)
    return transpile(result, backend, optimization_level=1, initial_layout=list(range(WIDTH)))


@pytest.fixture(scope="module")
def every_z() -> list[SparsePauliOp]:
    return [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], WIDTH) for q in range(WIDTH)]


def test_values_of_all_interfaces_agree(
    env: Client, backend: SimenvBackend, circuit: QuantumCircuit, every_z: list[SparsePauliOp]
) -> None:
    one = env.run(circuit, observables=every_z, shots=None, device=DEVICE)
    assert one.engine == "pauli"
    assert one.remark
    values, errors = np.array(one.expectations), np.array(one.std_errors)
    assert (errors <= 1e-3).all()
    found = SimenvEstimator(backend).run([(circuit, [every_z])], precision=0.0).result()[0].data
    both = np.hypot(errors, found.stds[0])
    assert (np.abs(found.evs[0] - values) <= 5.0 * both + 1e-9).all()

    device = qml.device("simenv", wires=WIDTH, env=env, device=DEVICE)

    @qml.qnode(device)
    def kicked() -> list[object]:
        for step in range(2):
            for qubit in range(WIDTH):
                qml.RX(0.6, qubit)
            for pair in backend.target["rzz"] if not step else ():
                if pair[0] < pair[1]:
                    qml.IsingZZ(math.pi / 2, pair)
        return [qml.expval(qml.Z(q)) for q in range(0, WIDTH, 20)]

    assert (np.abs(np.array(kicked(), float) - values[::20]) <= 5.0 * errors[::20] + 5e-3).all()


def test_route_says_that_strings_are_cut_and_with_which_error(
    env: Client, circuit: QuantumCircuit, every_z: list[SparsePauliOp]
) -> None:
    result = env.run(circuit, observables=every_z, shots=None, device=DEVICE)
    assert "127 strings, which are cut" in result.engine_reason
    assert "a stated error of at most 0.001" in result.engine_reason


def test_values_of_few_are_exact(
    env: Client, circuit: QuantumCircuit, every_z: list[SparsePauliOp]
) -> None:
    """The light cone of one <Z> is narrow."""
    result = env.run(circuit, observables=every_z[:1], shots=None, device=DEVICE)
    assert result.engine == "densitymatrix"
    named = env.run(circuit, observables=every_z[:1], shots=None, device=DEVICE, engine="pauli")
    assert abs(named.expectations[0] - result.expectations[0]) <= 3.0 * named.std_errors[0] + 1e-9


def test_refusal_says_what_would_help(env: Client, circuit: QuantumCircuit) -> None:
    wide = [SparsePauliOp("Z" * WIDTH)]
    options = {"tolerance": 1e-12, "strings": 1_024}
    task = env.submit(
        circuit, observables=wide, shots=None, device=DEVICE, engine="pauli",
        options=options,
    )  # fmt: skip
    assert fails(TaskFailedError, "uncertified=1", task.result, timeout_s=60).reason == "truncation"
    found = env.run(
        circuit, observables=wide, shots=None, device=DEVICE, engine="pauli",
        options={**options, "uncertified": 1},
    )  # fmt: skip
    assert "converged: unknown" in found.remark


def test_error_of_sampled_values_is_at_most_that_of_the_shots(
    env: Client, circuit: QuantumCircuit, every_z: list[SparsePauliOp]
) -> None:
    exact = env.run(circuit, observables=every_z[:2], shots=None, device=DEVICE)
    sampled = env.run(circuit, observables=every_z[:2], shots=4_000, device=DEVICE, seed=5)
    for value, error, truth in zip(
        sampled.expectations, sampled.std_errors, exact.expectations, strict=True
    ):
        # Averages over trajectories have less: each has its exact value.
        assert 0.0 < error <= 1.1 * math.sqrt((1.0 - truth**2) / 4_000)
        assert abs(value - truth) <= 5.0 * error
