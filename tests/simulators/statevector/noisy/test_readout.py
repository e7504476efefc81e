"""Readout error after trajectories: at the end, on the way, correlated, and after a demoted one."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, p_value, program
from noisy_runs import LEAST_P, device_noise, layers, run, run_branched

from noise_models.channel import depolarizing, from_unitary
from noise_models.readout import Readout, ReadoutGroup
from simulators.simulate import counts_of

P01 = np.array([0.02, 0.1, 0.0, 0.05])
P10 = np.array([0.07, 0.0, 0.03, 0.2])
CONFUSION = np.random.default_rng(5).dirichlet(np.ones(4), 4).T * 0.3 + 0.7 * np.eye(4)


@pytest.mark.parametrize("groups", [(), (ReadoutGroup((3, 1), CONFUSION),)])
def test_readout_error_at_the_end_has_the_exact_distribution(
    groups: tuple[ReadoutGroup, ...],
) -> None:
    circuit = layers(4, 2, np.random.default_rng(3)).circuit()
    noise = program(device_noise(circuit, 1.5), Readout(P01, P10, groups))
    exact = Exact(circuit, noise)
    assert p_value(exact.probs, counts_of(run(circuit, noise, 100_000))) > LEAST_P
    assert p_value(exact.probs, counts_of(run_branched(circuit, noise, 10_000))) > LEAST_P


def test_channel_on_a_measured_qubit_and_another_one_acts_after_the_measurement() -> None:
    """The measurement cannot wait then, and its bit flips once."""
    arrays = Arrays(2, 2).add("h", [0]).add("measure", [0], [0]).add("ry", [1], (), [0.4])
    circuit = arrays.add("measure", [1], [1]).circuit()
    turn = np.kron(np.array([[0, 1], [1, 0]]), np.diag([0, 1])) + np.kron(
        np.eye(2), np.diag([1, 0])
    )
    pair = from_unitary(turn.astype(complex)).then(depolarizing(0.1, 2))
    noise = program([(2, (0, 1), pair)], Readout(P01[:2] + 0.1, P10[:2]))
    counts = counts_of(run(circuit, noise, 20_000))
    assert p_value(Exact(circuit, noise).probs, counts) > LEAST_P
