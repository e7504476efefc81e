"""An MPI application against one environment: every rank submits circuits of its own.

    simenv exec -- mpirun -n 4 python examples/mpi_app.py

The ranks share one curve, the magnetisation of a chain of spins after a kick of some angle; each
computes every n-th point of it as a circuit, and MPI brings the points together.
"""

from __future__ import annotations

import math

import numpy as np
from mpi4py import MPI
from qiskit import QuantumCircuit

import simenv

CIRCUITS = 250  # of each rank
SPINS = 4
SHOTS = 400


def kicked(angle: float) -> QuantumCircuit:
    """A chain whose spins are turned together, coupled, and turned back half way."""
    circuit = QuantumCircuit(SPINS, SPINS)
    for spin in range(SPINS):
        circuit.rx(1.5 * angle, spin)
    for spin in range(SPINS - 1):
        circuit.rzz(math.pi, spin, spin + 1)
        circuit.rzz(-math.pi, spin, spin + 1)
    for spin in range(SPINS):
        circuit.rx(-0.5 * angle, spin)
    circuit.measure(range(SPINS), range(SPINS))
    return circuit


def magnetisation(counts: dict[str, int]) -> float:
    """The mean of Z over shots and spins, from -1 to 1."""
    down = sum(key.count("1") * count for key, count in counts.items())
    return 1 - 2 * down / (SPINS * SHOTS)


def main() -> None:
    world = MPI.COMM_WORLD
    rank, ranks = world.rank, world.size
    angles = np.linspace(0, 2 * math.pi, ranks * CIRCUITS)

    with simenv.connect() as client:  # the environment of `simenv exec`, from every rank
        circuits = [kicked(angle) for angle in angles[rank::ranks]]
        tasks = client.submit_many(circuits, shots=SHOTS, seed=rank)
        points = np.array([magnetisation(task.result().counts) for task in tasks])
        array = np.array([task.id for task in tasks], dtype="S16")

    ids = np.empty((ranks, CIRCUITS), dtype="S16") if rank == 0 else None
    curve = np.empty((ranks, CIRCUITS)) if rank == 0 else None
    world.Gather([array, MPI.CHAR], [ids, MPI.CHAR] if rank == 0 else None)
    world.Gather(points, curve)
    if rank == 0:
        distinct = len(np.unique(ids))
        error = np.abs(curve.T.ravel() - np.cos(angles)).max()
        print(f"{ranks} ranks, {ranks * CIRCUITS} tasks with {distinct} different ids")
        print(f"the curve is a cosine to {error:.2f}")


if __name__ == "__main__":
    main()
