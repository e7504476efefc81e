"""Counts of circuits with noise: strong damping, paths through the engine, a million shots."""

from __future__ import annotations

import numpy as np
import pytest
from noisy import Exact, after_gates, p_value, program
from noisy_runs import DYNAMIC, LEAST_P, RATIOS, device_noise, dynamic_noise, layers, run

from noise_models.channel import depolarizing, relaxation
from noise_models.readout import Readout, ReadoutGroup
from simulators.engine import RunOptions
from simulators.simulate import counts_of
from simulators.trajectories.locations import locate


def test_norm_based_channels_have_the_exact_distribution() -> None:
    """Strong damping, at whose locations nothing is drawn before the run."""
    circuit = layers(4, 3, np.random.default_rng(4)).circuit()
    damping = depolarizing(3e-3, 1).then(relaxation(1_000, 10, 19.5))
    noise = program(
        after_gates(circuit, lambda row: [(row.qubits, damping)] if row.name == "u" else [])
    )
    located = locate(circuit, noise)
    assert located is not None
    assert (located.errors.probabilities == 1.0).any()
    assert p_value(Exact(circuit, noise).probs, counts_of(run(circuit, noise, 100_000))) > LEAST_P


def test_shots_are_independent_of_the_number_of_states_held() -> None:
    circuit = DYNAMIC["loop"]().circuit()
    noise = dynamic_noise(circuit, 1.0)
    result = run(circuit, noise, 2_000)
    few = run(circuit, noise, 2_000, options=RunOptions(max_branches=8))
    assert (few.outcomes, few.counts) == (result.outcomes, result.counts)


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0.0, 0.15])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("seed", range(5))
def test_a_million_shots_match_exact_distribution(seed: int, ratio: float, angle: float) -> None:
    """Correlated readout, coherent errors and relaxation together."""
    random = np.random.default_rng(100 + seed)
    circuit = layers(5, 4, random).circuit()
    confusion = random.dirichlet(np.ones(4), 4).T * 0.1 + 0.9 * np.eye(4)
    readout = Readout(
        random.uniform(0, 0.05, 5), random.uniform(0, 0.1, 5), (ReadoutGroup((4, 2), confusion),)
    )
    noise = program(device_noise(circuit, ratio, angle), readout)
    counts = counts_of(run(circuit, noise, 1_000_000, seed=seed))
    assert p_value(Exact(circuit, noise).probs, counts) > LEAST_P


@pytest.mark.parametrize("num_qubits", [2, 8, 9])
def test_counts_do_not_depend_on_the_path_through_the_engine(num_qubits: int) -> None:
    circuit = layers(num_qubits, 3, np.random.default_rng(num_qubits)).circuit()
    noise = program(device_noise(circuit, 1.9, 0.1))
    assert counts_of(run(circuit, noise, 500, small=False)) == counts_of(run(circuit, noise, 500))
