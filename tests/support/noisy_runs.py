"""Circuits with the noise of a device, and their counts by the statevector engine."""

from collections.abc import Sequence

import engine_runs
import numpy as np
from arrays import Arrays
from noisy import Located, after_gates, program
from reference import Operation

from noise_models.channel import Channel, Readout, depolarizing, from_unitary, relaxation, tensor
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Request, RunControl, RunOptions, ThreadPool
from simulators.execution.requests import EngineRun
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
            arrays.add(("cx", "cz", "swap")[int(random.integers(3))], [qubit, qubit + 1])
    return arrays.measure(range(num_qubits))


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


def dynamic_noise(circuit: Circuit, ratio: float, readout: Readout | None = None) -> NoiseProgram:
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


def bit(clbit: int) -> tuple[int, int, int]:
    return (ir.CLBIT, clbit, 0)


def teleportation() -> Arrays:
    arrays = Arrays(3, 3).add("u", [0], (), [1.0, 0.4, 0.2]).add("h", [1]).add("cx", [1, 2])
    arrays.add("cx", [0, 1]).add("h", [0]).add("measure", [0], [0]).add("measure", [1], [1])
    arrays.begin(bit(1)).add("x", [2]).add("end")
    arrays.begin(bit(0)).add("z", [2]).add("else").add("s", [2]).add("end")
    return arrays.add("ry", [2], (), [0.3]).add("measure", [2], [2])


def resets() -> Arrays:
    arrays = Arrays(3, 3).add("reset", [0]).add("h", [0]).add("cx", [0, 1]).add("reset", [0])
    arrays.add("ry", [0], (), [0.8]).add("cx", [0, 2]).add("measure", [1], [1]).add("x", [1])
    arrays.add("measure", [1], [2]).add("reset", [1])
    return arrays.add("cz", [1, 2]).add("measure", [2], [0])


def loop() -> Arrays:
    arrays = Arrays(2, 2).add("ry", [0], (), [0.9]).repeat(3)
    arrays.add("cx", [0, 1]).add("measure", [1], [1])
    arrays.begin(bit(1)).add("ry", [0], (), [1.1]).add("reset", [1]).add("end")
    return arrays.add("h", [1]).add("end").add("measure", [0], [0])


DYNAMIC = {"teleportation": teleportation, "resets": resets, "loop": loop}


def run(
    circuit: Circuit, noise: NoiseProgram, shots: int, *, seed: int = 1, small: bool = True,
    **options: object,
) -> EngineResult:  # fmt: skip
    """Counts by the engine."""
    engine = StatevectorEngine(small=small)
    return engine_runs.run(engine, circuit, Request(shots, seed), noise, **options)


def run_branched(
    circuit: Circuit, noise: NoiseProgram, shots: int, *, seed: int = 1
) -> EngineResult:
    """The same by splitting branches."""
    options, request, control = RunOptions(), Request(shots, seed), RunControl()
    part = StatevectorEngine().plan(circuit, noise, options).part(circuit, request)
    with ThreadPool(1, control) as thread_pool:
        run = EngineRun(circuit, request, options, control)
        return part.branched(LocalBackend(thread_pool, control), run)
