"""Errors that are carried to the end: the same distribution from fewer patterns."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program
from noisy_runs import LEAST_P, run

from noise_models.channel import Channel, depolarizing, relaxation
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.simulate import counts_of
from simulators.statevector.noisy import plan
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.trajectories.error_patterns import ErrorPatterns
from simulators.trajectories.noise_table import PAULI, NoiseTable, operators


def native(num_qubits: int, layers: int, random: np.random.Generator) -> Circuit:
    """Gates of devices, with a wide one at the beginning."""
    arrays = Arrays(num_qubits, num_qubits)
    for layer in range(layers):
        for q in range(num_qubits):
            arrays.add("rz", [q], (), [float(random.uniform(0, 6))]).add("sx", [q])
            arrays.add(("h", "s", "rx")[int(random.integers(2))], [q])
        for q in range(layer % 2, num_qubits - 1, 2):
            name = ("cz", "ecr", "cx", "rzz", "cp")[int(random.integers(5))]
            arrays.add(name, [q, q + 1], (), [0.4] * GATES[name].params)
        if layer == 0:
            arrays.add("ccx", [0, 1, 2])
    for q in range(num_qubits):
        arrays.add("measure", [q], [q])
    return arrays.circuit()


def _noise(circuit: Circuit, one: Channel) -> NoiseProgram:
    pair = depolarizing(0.05, 2)
    silent = {"measure", "ccx", "rz"}
    return program(
        after_gates(
            circuit,
            lambda row: (
                [] if row.name in silent else [(row.qubits, pair if len(row.qubits) == 2 else one)]
            ),
        )
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kraus", [False, True])
def test_carried_errors_have_the_exact_distribution(
    seed: int, kraus: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = native(4, 3, np.random.default_rng(seed))
    actual = relaxation(300, 10, 15, 0.02) if kraus else depolarizing(0.02, 1)
    noise = _noise(circuit, actual)
    output = run(circuit, noise, 100_000)
    monkeypatch.setattr(plan, "FRAMES_FROM", 0)
    outcome = run(circuit, noise, 100_000)
    assert p_value(Exact(circuit, noise).probs, counts_of(outcome)) > LEAST_P
    patterns = [int(result.remark.split()[0]) for result in (output, outcome)]
    assert patterns[1] < 0.8 * patterns[0]


def test_outcomes_do_not_depend_on_the_other_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on which member of a class is run."""
    monkeypatch.setattr(plan, "FRAMES_FROM", 0)
    circuit = native(4, 3, np.random.default_rng(7))
    noise = _noise(circuit, relaxation(300, 10, 15, 0.02))
    result = run(circuit, noise, 3_000)
    monkeypatch.setattr("simulators.trajectories.outcomes.SHOTS_AT_ONCE", 70)
    parts = run(circuit, noise, 3_000)
    assert (parts.outcomes, parts.counts) == (result.outcomes, result.counts)


def test_pauli_that_reaches_the_end_costs_no_pattern() -> None:
    circuit = Arrays(2, 0).add("ry", [0], (), [0.3]).add("cx", [0, 1]).add("t", [1]).circuit()
    rows = [
        (0, PAULI, 1, 0, 0, 0),  # X before cx: on both qubits after it, stopped by t on one
        (0, PAULI, 0, 1, 0, 0),  # Z: to the end
        (1, PAULI, 1, 0, 0, 0),  # X on qubit 0 after cx: to the end, where it inverts
        (1, PAULI, 2, 0, 0, 0),  # X on qubit 1 before t
    ]
    table = NoiseTable(np.array(rows), operators([]))
    patterns = ErrorPatterns(np.array([0, 1, 2, 3, 2, 3]), np.array([0, 1, 2, 3, 4, 6, 6]))
    result = carry(patterns, table, FrameRules.of(circuit), np.arange(4))
    sizes = np.diff(result.patterns.ends).tolist()
    assert sizes == [1, 0, 0, 1, 1, 0]  # the fifth is the fourth and an inverted bit
    assert result.patterns.entries.tolist() == [3, 3, 3]
    assert result.frames.tolist() == [1, 0, 1, 0, 1, 0]
    assert result.final_x.tolist() == [0, 0, 0, 0, 0, 0]
