"""Outputs under noise: estimated with their standard errors, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from noisy import after_gates, program

from noise_models.channel import depolarizing, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl
from simulators.engine import PauliSum, Request, RunOptions
from simulators.errors import Unsupported
from simulators.results import EngineResult
from simulators.statevector.engine import StatevectorEngine

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
