"""Outputs under noise: estimated with their standard errors, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from arrays import Arrays
from noisy import Exact, after_gates, program
from reference import apply, matrix

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


def _bound(circuit: Circuit, values: np.ndarray) -> Circuit:
    arrays = Arrays(3, 0)
    for qubit, value in enumerate(values.tolist()):
        arrays.add("ry", [qubit], (), [value])
    arrays.add("cx", [0, 1]).add("cx", [1, 2])
    return arrays.add("rx", [0], (), [0.7]).circuit()


def _run(circuit: Circuit, request: Request, options: RunOptions | None = None) -> EngineResult:
    options = options or RunOptions()
    engine = StatevectorEngine()
    plan = engine.plan(circuit, _noise(circuit), options)
    return engine.run(plan, circuit, request, options, RunControl())


def _mean(label: str, rho: np.ndarray) -> float:
    columns = rho.T
    for qubit, letter in enumerate(reversed(label)):
        if letter != "I":
            gate = matrix(letter.lower(), (), 1)
            columns = np.array([apply(column, gate, (qubit,)) for column in columns])
    return float(np.trace(columns).real)


def test_expectation_values_agree_with_density_matrix_within_their_standard_errors() -> None:
    circuit = _circuit()
    table = np.random.default_rng(1).uniform(0, 3, (3, 3))
    shots = 40_000
    result = _run(circuit, Request(shots, 5, ("expectation",), SUMS, table))
    values = np.frombuffer(result.expectations).reshape(3, 2, 2)
    for row, means in zip(table, values, strict=True):
        bound = _bound(circuit, row)
        rho = Exact(bound, _noise(bound)).rho
        for item, (value, error) in zip(SUMS, means.tolist(), strict=True):
            exact = sum(
                c * _mean(label, rho)
                for label, c in zip(item.labels, item.coefficients, strict=True)
            )
            assert 1e-5 < error < 2 / shots**0.5
            assert abs(value - exact) < 5 * error


def test_expectation_values_do_not_depend_on_number_of_threads() -> None:
    circuit, table = _circuit(), np.ones((1, 3))
    request = Request(3_000, 5, ("expectation",), SUMS, table)
    result = _run(circuit, request)
    assert _run(circuit, request, RunOptions(threads=3)).expectations == result.expectations


@pytest.mark.parametrize(
    ("outputs", "shots", "message"),
    [
        (("statevector",), 10, "a statevector of a circuit with noise"),
        (("expectation", "gradient"), 0, "a gradient of a circuit with noise"),
        (("probabilities",), 0, "exact probabilities of a circuit with noise"),
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
