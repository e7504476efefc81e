"""Forecasts of matrix product states with noise, against runs that were measured on one core."""

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from noisy import after_gates, program

from noise_models.build import build
from noise_models.channel import depolarizing, relaxation, tensor
from noise_models.library import load
from simulators import catalog
from simulators.catalog import CostQuery
from simulators.catalog.costs import BASE_BYTES
from simulators.chain.trial import choice_profile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.engine import Request
from simulators.tensornetwork.mps.engine import MpsEngine

MIB = 2**20
# Kind, qubits, steps, shots; seconds and MiB of a run. The cost model was made from the first five.
MEASURED = [
    ("kicked", 30, 2, 1_000, 1.57, 34),
    ("kicked", 30, 3, 1_000, 18.4, 580),
    ("brick", 100, 6, 1_000, 2.35, 96),
    ("ising", 40, 8, 1_000, 10.8, 504),
    ("qaoa", 40, 2, 1_000, 1.36, 124),
    ("kicked", 60, 2, 300, 8.8, 174),
    ("brick", 60, 10, 300, 4.95, 456),
    ("brick", 40, 12, 100, 3.5, 285),
    ("qaoa", 60, 3, 300, 15.8, 743),
]


@pytest.mark.parametrize(("kind", "qubits", "steps", "shots", "seconds", "mib"), MEASURED)
def test_forecast_is_within_a_factor_of_three_of_what_was_measured(
    kind: str, qubits: int, steps: int, shots: int, seconds: float, mib: float
) -> None:
    circuit = CIRCUITS[kind](qubits, steps)
    noise = attach_noise(circuit, build(load("fez"))) if kind == "kicked" else _noise(circuit)
    profile = choice_profile(circuit, ("counts",), engine="mps", noise=noise)
    assert profile.trial is not None
    card, ask = catalog.card("mps"), CostQuery(shots=shots)
    assert card is not None
    assert seconds / 3 < card.costs.seconds(profile, ask, 1) < 3 * seconds
    memory = card.costs.memory_bytes(profile, ask)
    assert mib * MIB + BASE_BYTES < 1.2 * memory
    assert card.costs.least_memory_bytes(profile, ask) < memory / 1.2


def test_light_cones_of_errors_are_what_trajectories_run() -> None:
    """A wide brickwork of few layers: a tenth of a circuit for each error."""
    narrow, wide = (_forecast(_brick(n, 6)) / n for n in (20, 200))
    assert wide < 2 * narrow
    assert _forecast(_brick(100, 12)) > 2 * _forecast(_brick(100, 6))


def _forecast(circuit: Circuit) -> float:
    profile = choice_profile(circuit, ("counts",), engine="mps", noise=_noise(circuit))
    card = catalog.card("mps")
    assert card is not None
    return card.costs.seconds(profile, CostQuery(shots=300), 1)


def _noise(circuit: Circuit) -> NoiseProgram:
    one = depolarizing(3e-4, 1).then(relaxation(35, 100, 80))
    slow = relaxation(300, 100, 80)
    pair = depolarizing(5e-3, 2).then(tensor(slow, slow))
    channels = {1: one, 2: pair}
    return program(
        after_gates(
            circuit,
            lambda row: [] if row.name == "measure" else [(row.qubits, channels[len(row.qubits)])],
        )
    )


def _brick(qubits: int, layers: int) -> Circuit:
    random, arrays = np.random.default_rng(1), Arrays(qubits, qubits)
    for layer in range(layers):
        for qubit in range(qubits):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, qubits - 1, 2):
            arrays.add("cz", [qubit, qubit + 1])
    return arrays.measure(range(qubits)).circuit()


def _ising(qubits: int, steps: int) -> Circuit:
    arrays = Arrays(qubits, qubits)
    for _ in range(steps):
        for qubit in range(qubits):
            arrays.add("rx", [qubit], (), [0.5])
        for first in (0, 1):
            for qubit in range(first, qubits - 1, 2):
                arrays.add("rzz", [qubit, qubit + 1], (), [0.4])
    return arrays.measure(range(qubits)).circuit()


def _qaoa(qubits: int, steps: int) -> Circuit:
    """On a ring."""
    arrays = Arrays(qubits, qubits)
    for qubit in range(qubits):
        arrays.add("h", [qubit])
    for step in range(steps):
        for first in (0, 1):
            for qubit in range(first, qubits, 2):
                arrays.add("rzz", [qubit, (qubit + 1) % qubits], (), [0.4 + 0.1 * step])
        for qubit in range(qubits):
            arrays.add("rx", [qubit], (), [0.7 - 0.1 * step])
    return arrays.measure(range(qubits)).circuit()


def _kicked(qubits: int, steps: int) -> Circuit:
    """On a part of a device that breadth-first search finds, in native gates."""
    couplings = sorted({(min(a, b), max(a, b)) for a, b in load("fez").coupling})
    found = [0]
    for qubit in found:
        near = sorted(a + b - qubit for a, b in couplings if qubit in (a, b))
        found += [each for each in near if each not in found][: qubits - len(found)]
    pairs = [pair for pair in couplings if {*pair} <= {*found}]
    arrays = Arrays(load("fez").num_qubits, qubits)
    for _ in range(steps):
        for qubit in found:
            for name, angle in (("rz", 0.5), ("sx", 0), ("rz", 1 + 0.6 / np.pi), ("sx", 0)):
                arrays.add(name, [qubit], (), [angle * np.pi] if name == "rz" else ())
            arrays.add("rz", [qubit], (), [np.pi / 2])
        for a, b in pairs:
            arrays.add("cz", [a, b])
            arrays.add("rz", [a], (), [np.pi / 2]).add("rz", [b], (), [np.pi / 2])
    for k, qubit in enumerate(found):
        arrays.add("measure", [qubit], [k])
    return arrays.circuit()


CIRCUITS = {"kicked": _kicked, "brick": _brick, "ising": _ising, "qaoa": _qaoa}


def test_bonds_are_tried_with_the_gates_that_noise_lets_matter() -> None:
    """Of one step of a kicked circuit, no outcome depends on the last gates on pairs without noise;
    with the noise of a device they run."""
    circuit = _kicked(40, 1)
    noise = attach_noise(circuit, build(load("fez")))
    plain, noisy = (
        choice_profile(circuit, ("counts",), engine="mps", noise=each) for each in (None, noise)
    )
    assert plain.trial is not None
    assert noisy.trial is not None
    result = run(MpsEngine(), circuit, Request(20, 1), noise)
    bond = int(result.remark.partition("bond ")[2].partition(",")[0])
    assert plain.trial.bond < bond <= noisy.trial.bond
