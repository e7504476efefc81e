"""Counts of circuits with noise on each path through the engine."""

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program
from noisy_runs import DYNAMIC, LEAST_P, device_noise, dynamic_noise, layers, run

from noise_models.channel import Readout, depolarizing, from_unitary, relaxation
from simulators.simulate import counts_of
from simulators.trajectories.locations import locate


def test_norm_based_channels_have_the_exact_distribution() -> None:
    """Strong damping, at whose locations nothing is drawn before the run."""
    circuit = layers(4, 3, np.random.default_rng(4)).circuit()
    damping = depolarizing(3e-3, 1).then(relaxation(1_000, 10, 19.5))
    noise = program(after_gates(circuit, lambda r: [(r.qubits, damping)] if r.name == "u" else []))
    located = locate(circuit, noise)
    assert located is not None
    assert (located.errors.probabilities == 1.0).any()
    assert p_value(Exact(circuit, noise).probs, counts_of(run(circuit, noise, 100_000))) > LEAST_P


def test_shots_are_independent_of_the_number_of_states_held() -> None:
    circuit = DYNAMIC["loop"]().circuit()
    noise = dynamic_noise(circuit, 1.0)
    result = run(circuit, noise, 2_000)
    few = run(circuit, noise, 2_000, max_branches=8)
    assert (few.outcomes, few.counts) == (result.outcomes, result.counts)


@pytest.mark.parametrize("num_qubits", [2, 8, 9])
def test_counts_do_not_depend_on_the_path_through_the_engine(num_qubits: int) -> None:
    circuit = layers(num_qubits, 3, np.random.default_rng(num_qubits)).circuit()
    noise = program(device_noise(circuit, 1.9, 0.1))
    assert counts_of(run(circuit, noise, 500, small=False)) == counts_of(run(circuit, noise, 500))


def test_channel_on_a_measured_qubit_and_another_one_acts_after_the_measurement() -> None:
    """The measurement cannot wait then, and its bit flips once."""
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).add("ry", [1], (), [0.4])
    circuit = arrays.add("measure", [1], [1]).circuit()
    turn = np.kron(np.array([[0, 1], [1, 0]]), np.diag([0, 1])) + np.kron(
        np.eye(2), np.diag([1, 0])
    )
    pair = from_unitary(turn.astype(complex)).then(depolarizing(0.1, 2))
    noise = program([(2, (0, 1), pair)], Readout(np.array([0.12, 0.2]), np.array([0.07, 0.0])))
    counts = counts_of(run(circuit, noise, 20_000))
    assert p_value(Exact(circuit, noise).probs, counts) > LEAST_P
