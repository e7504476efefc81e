"""Circuits on graphs with noise, and counts of engine `sweep` against the exact distributions."""

import itertools
from collections.abc import Sequence

import numpy as np
from arrays import Arrays
from engine_runs import probabilities, run
from noisy import Located, after_gates, p_value, program
from reference import Operation

from noise_models.channel import Channel, Readout, depolarizing, from_unitary, relaxation, tensor
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import BindingResult, Request
from simulators.execution.packing import unpack
from simulators.tensornetwork.sweep.engine import SweepEngine

SHOTS = 40_000
Edges = Sequence[tuple[int, int]]
LINE = [(q, q + 1) for q in range(7)]
LADDER = [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]
HEXAGON = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (2, 7), (4, 8)]
STAR = [(0, q) for q in range(1, 8)]
ALL = list(itertools.combinations(range(6), 2))
GRAPHS = {"line": LINE, "ladder": LADDER, "hexagon": HEXAGON, "star": STAR, "all": ALL}
PAIRS = ("cz", "cx", "rzz", "ecr", "swap", "rxx", "cp", "iswap", "cry")


def counted(
    circuit: Circuit, noise: NoiseProgram | None, shots: int, seed: int, **options: object
) -> BindingResult:
    return run(SweepEngine(), circuit, Request(shots, seed), noise, **options).row(0)


def counts_of(result: BindingResult) -> dict[int, int]:
    outcomes = unpack(result.outcomes, result.outcome_width)
    return dict(zip(outcomes, np.frombuffer(result.counts, np.uint32).tolist(), strict=True))


def chi_square(
    circuit: Circuit, noise: NoiseProgram | None, seed: int, shots: int = SHOTS, **options: object
) -> float:
    """p of the counts under the exact distribution."""
    request = Request(0, 1, ("probabilities",))
    exact = probabilities(run(DensityMatrixEngine(), circuit, request, noise).row(0))
    return p_value(exact, counts_of(counted(circuit, noise, shots, seed, **options)))


def random_circuit(edges: Edges, layers: int, random: np.random.Generator) -> Circuit:
    """Gates on one and on two qubits at random, at different depths of the qubits."""
    width = 1 + max(map(max, edges))
    arrays = Arrays(width, width)
    for _ in range(layers):
        for qubit in range(width):
            if random.random() < 0.8:
                arrays.add("u", [qubit], (), random.uniform(0, 6, 3).tolist())
            if random.random() < 0.3:
                arrays.add(
                    ("x", "s", "rz")[k := int(random.integers(3))], [qubit], (), [0.7][: k // 2]
                )
        for number in random.permutation(len(edges))[: max(3, 2 * len(edges) // 3)].tolist():
            name = PAIRS[int(random.integers(len(PAIRS)))]
            angles = [float(random.uniform(0, 6))] if name in ("rzz", "rxx", "cp", "cry") else []
            arrays.add(name, list(edges[number])[:: 1 - 2 * int(random.integers(2))], (), angles)
    return arrays.measure(range(width)).circuit()


def noise_of(circuit: Circuit, random: np.random.Generator) -> NoiseProgram:
    """All components of a device's noise: Paulis, relaxation to a warm state, coherent errors,
    interaction while qubits relax, and readout errors, some of them correlated."""
    relaxed = relaxation(300, 4, 4 * float(random.choice([0.5, 1.0, 1.7])), 0.1)
    slow = relaxation(500, 9, 11)
    turned = from_unitary(np.array([[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]))
    after_one = depolarizing(0.01, 1).then(turned)
    pair = depolarizing(0.03, 2)
    shifted = from_unitary(np.diag(np.exp(1j * np.array([0.0, 0.1, -0.1, 0.2]))))
    together = tensor(slow, slow).then(shifted)

    def rule(row: Operation) -> Sequence[tuple[tuple[int, ...], Channel]]:
        if row.name == "u":
            return [(row.qubits, after_one), (row.qubits, relaxed)]
        if len(row.qubits) != 2:
            return []
        first, second = row.qubits
        entries = [(row.qubits, pair), ((first,), relaxed), ((second, first), together)]
        return entries[: 2 + int(random.integers(2))]

    located: list[Located] = after_gates(circuit, rule)
    width = circuit.num_qubits
    return program(located, Readout(random.uniform(0, 0.05, width), random.uniform(0, 0.1, width)))
