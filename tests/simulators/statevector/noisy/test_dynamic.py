"""Noise in circuits that measure, reset and branch on the way: exact distributions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from arrays import Arrays
from noisy import Exact, after_gates, p_value, program
from noisy_runs import LEAST_P, RATIOS, run
from reference import Operation

from noise_models.channel import Channel, depolarizing, relaxation, tensor
from noise_models.readout import Readout
from simulators.circuit import tokens as tk
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import RunOptions
from simulators.simulate import counts_of

SHOTS = 20_000


def _noise(circuit: Circuit, ratio: float, readout: Readout | None = None) -> NoiseProgram:
    """Noise after gates, measurements and resets, idle noise in blocks."""
    result = depolarizing(0.02, 1).then(relaxation(300, 5, 5 * ratio))
    idle = relaxation(500, 5, 5 * ratio, 0.05)
    pair = depolarizing(0.05, 2).then(tensor(idle, idle))
    n = circuit.num_qubits

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name in ("measure", "reset"):
            return [((q,), idle) for q in range(n)]
        if row.name in ("if", "else", "end", "for"):
            return [((0,), idle)]
        return [(row.qubits, result if len(row.qubits) == 1 else pair)] if row.qubits else []

    return program(after_gates(circuit, rule), readout)


def _bit(clbit: int) -> tuple[int, int, int]:
    return (tk.CLBIT, clbit, 0)


def _teleportation() -> Arrays:
    arrays = Arrays(3, 3).add("u", [0], (), [1.0, 0.4, 0.2]).add("h", [1]).add("cx", [1, 2])
    arrays.add("cx", [0, 1]).add("h", [0]).add("measure", [0], [0]).add("measure", [1], [1])
    arrays.begin(_bit(1)).add("x", [2]).add("end")
    arrays.begin(_bit(0)).add("z", [2]).add("else").add("s", [2]).add("end")
    return arrays.add("ry", [2], (), [0.3]).add("measure", [2], [2])


def _resets() -> Arrays:
    arrays = Arrays(3, 3).add("reset", [0]).add("h", [0]).add("cx", [0, 1]).add("reset", [0])
    arrays.add("ry", [0], (), [0.8]).add("cx", [0, 2]).add("measure", [1], [1]).add("x", [1])
    return (
        arrays.add("measure", [1], [2]).add("reset", [1]).add("cz", [1, 2]).add("measure", [2], [0])
    )


def _loop() -> Arrays:
    arrays = Arrays(2, 2).add("ry", [0], (), [0.9]).repeat(3)
    arrays.add("cx", [0, 1]).add("measure", [1], [1])
    arrays.begin(_bit(1)).add("ry", [0], (), [1.1]).add("reset", [1]).add("end")
    return arrays.add("h", [1]).add("end").add("measure", [0], [0])


CIRCUITS = {"teleportation": _teleportation, "resets": _resets, "loop": _loop}


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", CIRCUITS)
def test_counts_of_dynamic_circuit_match_exact_distribution(name: str, ratio: float) -> None:
    circuit = CIRCUITS[name]().circuit()
    noise = _noise(circuit, ratio)
    counts = counts_of(run(circuit, noise, SHOTS, seed=int(10 * ratio)))
    assert p_value(Exact(circuit, noise).probs, counts) > LEAST_P


def test_shots_are_independent_of_the_number_of_states_held() -> None:
    circuit = _loop().circuit()
    noise = _noise(circuit, 1.0)
    result = run(circuit, noise, 2_000)
    few = run(circuit, noise, 2_000, options=RunOptions(max_branches=8))
    assert (few.outcomes, few.counts) == (result.outcomes, result.counts)
