"""Counts, readout and requests of circuits with noise."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program
from noisy_runs import (
    DYNAMIC,
    LEAST_P,
    RATIOS,
    device_noise,
    dynamic_noise,
    layers,
    run,
    run_branched,
)

from noise_models.channel import Readout, ReadoutGroup, depolarizing, from_unitary, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of
from simulators.statevector.engine import StatevectorEngine
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


SUMS = (PauliSum(("ZZI", "IIX", "III"), np.array([1.0, 0.5, 0.25])), PauliSum(("ZIX",), np.ones(1)))


def _circuit() -> Circuit:
    arrays = Arrays(3, 0)
    for qubit in range(3):
        arrays.add("ry", [qubit], (), [0.0])
        arrays.free(qubit)
    arrays.add("cx", [0, 1]).add("cx", [1, 2])
    return arrays.add("rx", [0], (), [0.7]).circuit()


def _noise(circuit: Circuit) -> NoiseProgram:
    pair = depolarizing(0.1, 2)
    damping = relaxation(300, 2, 3.5)
    return program(
        after_gates(
            circuit,
            lambda row: [(row.qubits, pair), (row.qubits[:1], damping)] if row.name == "cx" else [],
        )
    )


def _run(circuit: Circuit, request: Request, options: RunOptions | None = None) -> EngineResult:
    options = options or RunOptions()
    engine = StatevectorEngine()
    plan = engine.plan(circuit, _noise(circuit), options)
    return engine.run(plan, circuit, request, options, RunControl())


@pytest.mark.parametrize(
    ("outputs", "shots", "message"),
    [
        (("expectation", "gradient"), 0, "a gradient of a circuit with noise"),
        (("expectation",), 0, "an exact result of a circuit with noise"),
        (("counts",), 10, "measures nothing"),
    ],
)
def test_outputs_that_trajectories_cannot_give_are_refused(
    outputs: tuple[str, ...], shots: int, message: str
) -> None:
    sums = SUMS if "expectation" in outputs else ()
    with pytest.raises(Unsupported, match=message):
        _run(_circuit(), Request(shots, 1, outputs, sums, np.ones((1, 3))))
