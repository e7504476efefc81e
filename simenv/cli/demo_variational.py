"""The variational loop of the demo.

It finds the ground state of four Ising spins in 20 steps of 24 circuits. Each step sends the two
shifted circuits of every angle as one message (parameter-shift rule), and Adam updates the angles.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from simenv import library

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.result import Result


STEPS = 20
LOOP_SHOTS = 1024
RATE, MEMORY, MEMORY_SQUARED = 0.1, 0.9, 0.99  # learning rate and decay rates of Adam
NEAR_ENOUGH = 0.1  # energy above the ground state; the ansatz itself converges about 0.04 above


class VariationalRun(msgspec.Struct, frozen=True):
    """Result of the loop. `energies[k]` was measured before step k, and once after the last."""

    energies: list[float]
    ground: float
    circuits: int
    step_ms: list[float]
    run_ms: list[float]  # time of each step in the engine
    wall_s: float
    workers: int

    @property
    def converged(self) -> bool:
        """True if the mean of the last three energies is near the ground state."""
        return sum(self.energies[-3:]) / 3 < self.ground + NEAR_ENOUGH


def minimise(client: Client, seed: int = 7, device: str | None = None) -> VariationalRun:
    """Run the loop on any environment and device; the same seed gives the same run."""
    problem = library.ising_ground_state()
    circuit, observable = problem.circuit, problem.hamiltonian
    count = circuit.num_parameters
    angles = -0.5 + np.random.default_rng(seed).uniform(-0.3, 0.3, count)
    shifts = np.concatenate([np.eye(count), -np.eye(count)]) * math.pi / 2
    momentum, scale = np.zeros(count), np.zeros(count)
    energies, step_ms, run_ms = [], [], []

    def energy(step: int) -> float:
        return client.run(
            circuit, parameter_values=angles[None], observables=[observable],
            shots=8 * LOOP_SHOTS, seed=seed + step, device=device,
        ).expectation  # fmt: skip

    begun = time.perf_counter()
    for step in range(STEPS):
        energies.append(energy(step))
        start = time.perf_counter()
        tasks = client.submit_many(
            (circuit, angles + shifts), observables=[observable], shots=LOOP_SHOTS,
            seed=seed + step,
            device=device,
        )  # fmt: skip
        results = [task.result() for task in tasks]
        step_ms.append(1e3 * (time.perf_counter() - start))
        run_ms.append(1e3 * run_s(results))
        values = np.array([result.expectation for result in results])
        gradient = (values[:count] - values[count:]) / 2
        momentum = MEMORY * momentum + (1 - MEMORY) * gradient
        scale = MEMORY_SQUARED * scale + (1 - MEMORY_SQUARED) * gradient**2
        size = np.sqrt(scale / (1 - MEMORY_SQUARED ** (step + 1))) + 1e-8
        angles = angles - RATE * momentum / (1 - MEMORY ** (step + 1)) / size
    energies.append(energy(STEPS))
    wall_s = time.perf_counter() - begun
    workers = len(client.workers())
    return VariationalRun(
        energies, problem.ground_energy, 2 * count * STEPS, step_ms, run_ms, wall_s, workers
    )


def run_s(results: list[Result]) -> float:
    """Return the seconds in the engine: bindings that travelled as one task share that task's
    time."""
    return sum({each.task.partition(".")[0]: each.timing.run_s for each in results}.values())


def summary(run: VariationalRun) -> str:
    """Return two lines about the run."""
    steps = len(run.step_ms)
    return (
        f"variational loop: {run.circuits} circuits in {steps} steps, {run.wall_s:.2f} s, "
        f"{np.median(run.step_ms):.1f} ms a step of {run.circuits // steps} circuits\n"
        f"energy {run.energies[0]:.3f} -> {run.energies[-1]:.3f}; the ground state has "
        f"{run.ground:.3f}"
    )
