"""Trajectories of matrix product states: exact distributions, and the seed contract."""

import numpy as np
import pytest
from arrays import Arrays
from noisy import after_gates, program
from noisy_runs import device_noise, layers, run

from noise_models.channel import Readout, ReadoutGroup, depolarizing, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult
from simulators.simulate import counts_of, simulate


def _run(circuit: Circuit, noise: NoiseProgram, shots: int, **given: object) -> EngineResult:
    return simulate(circuit, shots=shots, engine="mps", noise=noise, **{"seed": 1, **given})  # type: ignore[call-overload,no-any-return]


def _readout(random: np.random.Generator, num_qubits: int) -> Readout:
    confusion = random.dirichlet(np.ones(4), 4).T * 0.1 + 0.9 * np.eye(4)
    flips = random.uniform(0, 0.05, num_qubits), random.uniform(0, 0.1, num_qubits)
    return Readout(*flips, (ReadoutGroup((num_qubits - 1, 1), confusion),))


def _case(ratio: float, angle: float, seed: int = 0) -> tuple[Circuit, NoiseProgram]:
    random = np.random.default_rng(seed + int(10 * ratio))
    arrays = Arrays(4, 4)
    arrays.add("h", [3]).add("cx", [3, 0]).add("ccx", [0, 3, 2])  # between distant qubits
    for layer in range(2):
        for qubit in range(4):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        arrays.add("cx", [layer, layer + 2]).add("cz", [3, 1])
    circuit = arrays.measure(range(4)).circuit()
    located = [*device_noise(circuit, ratio, angle), (-1, (2,), depolarizing(0.1, 1))]
    return circuit, program(located, _readout(random, 4))


def test_outcomes_are_those_of_the_statevector_engine_for_a_seed() -> None:
    circuit, noise = _case(1.9, 0.1)
    result, outcome = counts_of(_run(circuit, noise, 3_000)), counts_of(run(circuit, noise, 3_000))
    differ = sum(abs(result.get(k, 0) - outcome.get(k, 0)) for k in {*result, *outcome})
    assert differ <= 2 * 3  # rounding moves a shot at the edge of two outcomes


def test_a_shot_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, noise = _case(2.0, 0.0)
    result = _run(circuit, noise, 600)
    monkeypatch.setattr("simulators.tensornetwork.mps.engine.MOST_STATES", 1)
    monkeypatch.setattr("simulators.trajectories.pattern_sampling.SHOTS_AT_ONCE", 70)
    parted = _run(circuit, noise, 600)
    assert (result.outcomes, result.counts) == (parted.outcomes, parted.counts)


def test_a_bounded_bond_is_reported_as_truncation() -> None:
    random = np.random.default_rng(3)
    circuit = layers(8, 10, random).circuit()
    noise = program([(0, (0,), depolarizing(0.01, 1)), (20, (4,), relaxation(300, 60, 60))])
    full = _run(circuit, noise, 20)
    cut = _run(circuit, noise, 20, settings=(("bond", 4),))
    assert full.truncation == 0.0
    assert 1e-3 < cut.truncation < 1.0
    assert cut.remark.startswith("bond 4,")


@pytest.mark.parametrize("num_qubits", [40, 100])
def test_wide_chain_has_the_probabilities_of_its_errors(num_qubits: int) -> None:
    """Each qubit of a register of X is flipped by a known probability."""
    arrays = Arrays(num_qubits, num_qubits)
    for qubit in range(num_qubits):
        arrays.add("x", [qubit])
    circuit = arrays.measure(range(num_qubits)).circuit()
    decay = relaxation(1_000, 10, 10)
    located = after_gates(
        circuit, lambda row: [(row.qubits, decay)] if row.name == "x" and row.qubits[0] > 1 else []
    )
    shots = 200
    counts = counts_of(_run(circuit, program(located), shots))
    ones = sum(outcome.bit_count() * count for outcome, count in counts.items())
    p = float(np.exp(-0.1))
    mean = shots * (2 + (num_qubits - 2) * p)
    assert abs(ones - mean) < 5 * np.sqrt(shots * (num_qubits - 2) * p * (1 - p))
    assert all(outcome & 3 == 3 for outcome in counts)
