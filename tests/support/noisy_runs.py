"""Circuits with the noise of a device, and their counts by the statevector engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from arrays import Arrays
from noisy import Located, after_gates
from reference import Operation

from noise_models.channel import Channel, depolarizing, from_unitary, relaxation
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.control import RunControl, ThreadPool
from simulators.engine import Request, RunOptions
from simulators.results import EngineResult
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.engine import StatevectorEngine

LEAST_P = 1e-3
RATIOS = (0.5, 1.0, 1.9, 2.0)  # T2 / T1


def layers(num_qubits: int, count: int, random: np.random.Generator) -> Arrays:
    """Gates on one and on two qubits at random, then all qubits measured."""
    arrays = Arrays(num_qubits, num_qubits)
    for layer in range(count):
        for qubit in range(num_qubits):
            arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
        for qubit in range(layer % 2, num_qubits - 1, 2):
            name = ("cx", "cz", "swap")[int(random.integers(3))]
            arrays.add(name, [qubit, qubit + 1])
    for qubit in range(num_qubits):
        arrays.add("measure", [qubit], [qubit])
    return arrays


def device_noise(circuit: Circuit, ratio: float, angle: float = 0.0) -> list[Located]:
    """Depolarizing noise, relaxation and coherent errors after each gate."""
    result = depolarizing(0.01, 1).then(relaxation(300, 10, 10 * ratio, 0.02))
    slow, fast = relaxation(300, 20, 20 * ratio), relaxation(300, 10, 10 * ratio)
    pair = depolarizing(0.03, 2)
    coherent = from_unitary(np.diag([1, 1, 1, np.exp(1j * angle)]))

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name == "u":
            return [(row.qubits, result)]
        if len(row.qubits) != 2:
            return []
        first, second = row.qubits
        entries = [(row.qubits, pair), ((first,), fast), ((second,), slow)]
        return [*entries, ((second, first), coherent)] if angle else entries

    return after_gates(circuit, rule)


def run(
    circuit: Circuit,
    noise: NoiseProgram,
    shots: int,
    *,
    seed: int = 1,
    options: RunOptions | None = None,
    small: bool = True,
) -> EngineResult:
    """Counts by the engine."""
    options = options or RunOptions()
    engine = StatevectorEngine(small=small)
    plan = engine.plan(circuit, noise, options)
    return engine.run(plan, circuit, Request(shots, seed), options, RunControl())


def run_branched(
    circuit: Circuit, noise: NoiseProgram, shots: int, *, seed: int = 1
) -> EngineResult:
    """The same by splitting branches."""
    options, request, control = RunOptions(), Request(shots, seed), RunControl()
    part = StatevectorEngine().plan(circuit, noise, options).part(circuit, request)
    with ThreadPool(1, control) as thread_pool:
        return part.branched(LocalBackend(thread_pool, control), circuit, request, options)
