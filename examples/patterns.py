"""Three patterns of hybrid applications, each with a report of its use of the environment.

    quantum     much quantum, little classical: 400 circuits of 16 qubits, and one mean each
    classical   little quantum, much classical: the Hamiltonian is diagonalised in the space of
                sampled bit strings (Robledo-Moreno et al., arXiv:2405.05068)
    balanced    both: Bayesian optimization, where a Gaussian process chooses the next circuits

All three work on the Ising chain in a transverse field. The figures come from the history of the
environment: how much of the pool's time its workers were busy, how long tasks waited for one, and
the share of the time in which no task was in the environment, which is the application's own.
`error` compares the application's answer with exact values.

    python examples/patterns.py
    python examples/patterns.py --only classical --json use.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

import simenv
from simenv.library import transverse_ising

FIELD = 0.8
Array = NDArray[np.float64]


class Answer(NamedTuple):
    """What an application found; `check`: its error, found after the clock was stopped."""

    text: str
    check: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Use:
    """Of an environment by an application. `pool_busy`, `classical_share`: of its wall time."""

    pattern: str
    tasks: int
    circuits: int  # a task carries several sets of parameter values
    workers: int
    wall_s: float
    pool_busy: float
    wait_median_s: float
    wait_longest_s: float
    classical_share: float
    answer: str
    error: float
    error_limit: float


def layers(size: int, count: int) -> QuantumCircuit:
    """Alternating layers of Z Z and X rotations, each with the same two angles, from |+>."""
    angles = ParameterVector("a", 2)
    circuit = QuantumCircuit(size)
    circuit.h(range(size))
    for _ in range(count):
        for qubit in range(size - 1):
            circuit.rzz(angles[0], qubit, qubit + 1)
        circuit.rx(angles[1], range(size))
    return circuit


def grid(count: int) -> Array:
    """float64 [count ** 2, 2]: angles from -1.2 to 0."""
    axis = np.linspace(-1.2, 0.0, count)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def quantum(client: simenv.Client) -> Answer:
    """Energies of a grid of angles from shots; the lowest one."""
    circuit, hamiltonian, angles = layers(16, 4), transverse_ising(16, FIELD), grid(20)

    def energies(shots: int | None, name: str) -> list[simenv.Result]:
        tasks = client.submit_many(
            (circuit, angles), shots=shots, observables=hamiltonian, seed=1, name=name
        )
        return [task.result() for task in tasks]

    estimates = energies(500, "quantum")
    lowest = min(result.expectations[0] for result in estimates)

    def check() -> float:
        """The largest deviation in standard errors."""
        return max(
            abs(sampled.expectations[0] - exact.expectations[0]) / sampled.std_errors[0]
            for sampled, exact in zip(estimates, energies(None, "check"), strict=True)
        )

    return Answer(f"lowest energy {lowest:.2f}", check)


def classical(client: simenv.Client) -> Answer:
    """The ground state in the space of the bit strings that a circuit gave, which grows."""
    size = 10
    matrix = np.real(transverse_ising(size, FIELD).to_matrix())
    circuit = layers(size, 3).assign_parameters([-0.2, -0.4]).measure_all(inplace=False)
    states: set[int] = set()
    energy = 0.0
    for round_number in range(6):
        counts = client.run(circuit, shots=1000, seed=round_number, name="classical").counts
        states.update(int(key, 2) for key in counts)
        rows = np.array(sorted(states))
        energy = float(np.linalg.eigvalsh(matrix[np.ix_(rows, rows)])[0])

    def check() -> float:
        """Relative to the ground state of the whole space."""
        exact = float(np.linalg.eigvalsh(matrix)[0])
        return abs(energy - exact) / abs(exact)

    return Answer(f"ground state {energy:.3f} in {len(states)} of {1 << size} states", check)


def balanced(client: simenv.Client) -> Answer:
    """The minimum of the energy over two angles by Bayesian optimization, 8 circuits a step."""
    circuit, hamiltonian, candidates = layers(17, 8), transverse_ising(17, FIELD), grid(16)

    def energies(angles: Array, name: str) -> Array:
        tasks = client.submit_many(
            (circuit, angles), shots=None, observables=hamiltonian, name=name
        )
        return np.array([task.result().expectations[0] for task in tasks])

    chance = np.random.default_rng(3)
    angles = chance.choice(candidates, 8, replace=False)
    values = energies(angles, "balanced")
    for _ in range(9):
        chosen = candidates[promising(angles, values, candidates, 8)]
        angles = np.concatenate([angles, chosen])
        values = np.concatenate([values, energies(chosen, "balanced")])
    lowest = float(values.min())

    def check() -> float:
        """Relative to the lowest energy of a grid."""
        exact = float(energies(grid(20), "check").min())
        return max(0.0, lowest - exact) / abs(exact)

    return Answer(f"lowest energy {lowest:.2f} after {len(values)} circuits", check)


def promising(angles: Array, values: Array, candidates: Array, count: int) -> NDArray[np.int64]:
    """The candidates with the lowest confidence bound of a Gaussian process, whose length scale has
    the largest likelihood. Each that is chosen counts as measured at its mean for the next one."""
    level, spread = values.mean(), values.std()
    scaled = (values - level) / spread
    scales = np.linspace(0.1, 0.6, 6)
    scale = max(scales, key=lambda each: likelihood(kernel(angles, angles, each), scaled))
    chosen: list[int] = []
    for _ in range(count):
        inverse = np.linalg.inv(kernel(angles, angles, scale) + 1e-6 * np.eye(len(angles)))
        across = kernel(candidates, angles, scale)
        mean = across @ inverse @ scaled
        deviation = np.sqrt(np.clip(1 - np.sum(across @ inverse * across, axis=1), 0, 1))
        best = int(np.argmin(mean - 1.5 * deviation))
        chosen.append(best)
        angles = np.concatenate([angles, candidates[best][None]])
        scaled = np.append(scaled, mean[best])
    return np.array(chosen)


def kernel(left: Array, right: Array, scale: float) -> Array:
    """Squared exponential covariance."""
    return np.exp(-np.square(left[:, None] - right[None]).sum(axis=2) / (2 * scale**2))


def likelihood(covariance: Array, values: Array) -> float:
    """Logarithm, up to a constant."""
    covariance = covariance + 1e-6 * np.eye(len(values))
    _, determinant = np.linalg.slogdet(covariance)
    return float(-values @ np.linalg.solve(covariance, values) - determinant) / 2


PATTERNS = {"quantum": (quantum, 6.0), "classical": (classical, 0.01), "balanced": (balanced, 0.01)}


def use_of(client: simenv.Client, pattern: str) -> Use:
    """Run an application, and report its use from the history."""
    application, limit = PATTERNS[pattern]
    begun = time.time()
    answer = application(client)
    wall_s = time.time() - begun
    rows = [row for row in client.history.tasks(since_s=begun) if row.name == pattern]
    timings = [row.timing for row in rows]
    inside = [
        (row.submitted_s, row.submitted_s + 1e-6 * (t.queued_us + t.sent_us + t.run_us))
        for row, t in zip(rows, timings, strict=True)
    ]
    workers = len(client.workers())
    return Use(
        pattern=pattern,
        tasks=len(rows),
        circuits=sum(row.bindings for row in rows),
        workers=workers,
        wall_s=wall_s,
        pool_busy=1e-6 * sum(t.run_us for t in timings) / (workers * wall_s),
        wait_median_s=1e-6 * median(t.queued_us for t in timings),
        wait_longest_s=1e-6 * max(t.queued_us for t in timings),
        classical_share=1.0 - covered(inside) / wall_s,
        answer=answer.text,
        error=answer.check(),
        error_limit=limit,
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that are in at least one of the spans."""
    total, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Patterns of hybrid applications, and their use.")
    parser.add_argument("--only", choices=list(PATTERNS), nargs="+", default=list(PATTERNS))
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    args = parser.parse_args()
    uses = []
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as client:
        while any(each.state == "STARTING" for each in client.workers()):
            time.sleep(0.1)
        columns = ("pattern", "tasks", "circuits", "wall s", "busy", "wait ms", "longest ms", "own")
        print(("{:<10}" + "{:>11}" * 7).format(*columns))
        for pattern in args.only:
            use = use_of(client, pattern)
            uses.append(use)
            print(
                f"{use.pattern:<10}{use.tasks:>11}{use.circuits:>11}{use.wall_s:>11.2f}"
                f"{use.pool_busy:>11.0%}{1e3 * use.wait_median_s:>11.1f}"
                f"{1e3 * use.wait_longest_s:>11.1f}{use.classical_share:>11.0%}"
                f"   {use.answer}, error {use.error:.1e}"
            )
    print(f"\nbusy: of the time of {uses[0].workers} workers; own: no task in the environment")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(use) for use in uses], indent=2) + "\n")


if __name__ == "__main__":
    main()
