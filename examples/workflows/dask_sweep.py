"""Dask: its workers prepare circuits and evaluate results; one environment runs all circuits.

    pip install distributed
    python examples/workflows/dask_sweep.py

Each Dask worker connects once, by the connection file, and results travel as pickles.
"""

from __future__ import annotations

import functools
import math
import os

from distributed import Client, LocalCluster
from qiskit import QuantumCircuit

import simenv

POINTS = 16


@functools.cache
def connected(service: str) -> simenv.Client:
    """The connection of this process."""
    return simenv.connect(service=service)


def measured(service: str, angle: float) -> simenv.Result:
    """Runs in a Dask worker."""
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return connected(service).run(circuit, shots=2000, seed=11)


def excited(result: simenv.Result) -> float:
    """The share of shots with both qubits in |1>."""
    return result.counts.get("11", 0) / result.shots


def main() -> None:
    angles = [math.pi * k / (POINTS - 1) for k in range(POINTS)]
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with (
        simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as env,
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as dask,
    ):
        results = dask.map(functools.partial(measured, env.service), angles)
        shares = dask.gather(dask.map(excited, results))
    for angle, share in zip(angles, shares, strict=True):
        print(f"{angle:.3f}  {share:.3f}  sin^2 {math.sin(angle / 2) ** 2:.3f}")


if __name__ == "__main__":
    main()
