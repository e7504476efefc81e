"""Parsl: apps whose inputs are tasks of an environment.

    pip install parsl
    python examples/workflows/parsl_sweep.py

A task is a future, so that an app waits for the tasks among its arguments like for other apps.
"""

from __future__ import annotations

import math
import os
import tempfile

import parsl
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor
from qiskit import QuantumCircuit

import simenv

POINTS = 16


@parsl.python_app
def excited(result: simenv.Result) -> float:
    """The share of shots with both qubits in |1>."""
    return result.counts.get("11", 0) / result.shots


def prepared(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def main() -> None:
    angles = [math.pi * k / (POINTS - 1) for k in range(POINTS)]
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as env,
        parsl.load(
            Config(executors=[ThreadPoolExecutor(max_threads=2)], run_dir=folder, usage_tracking=0)
        ),
    ):
        tasks = env.submit_many([prepared(angle) for angle in angles], shots=2000, seed=11)
        shares = [app.result() for app in [excited(task) for task in tasks]]
    for angle, share in zip(angles, shares, strict=True):
        print(f"{angle:.3f}  {share:.3f}  sin^2 {math.sin(angle / 2) ** 2:.3f}")


if __name__ == "__main__":
    main()
