"""A pilot: one environment for a bag of work that comes from many processes.

    simenv exec -- python examples/workflows/pilot.py

A driver keeps a pool of processes busy with classical work; each of them submits its circuits to
the same environment, whose workers are the pilot's quantum resources. What was submitted outlives
the process that submitted it: the driver reads all results by their ids.
"""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing
import os

from qiskit import QuantumCircuit

import simenv

UNITS = 12


def unit(service: str, number: int) -> str:
    """One unit of work: some classical preparation, then a circuit; returns the task's id."""
    size = 2 + sum(k * k for k in range(200_000 + number)) % 4
    circuit = QuantumCircuit(size)
    circuit.h(0)
    for qubit in range(1, size):
        circuit.cx(0, qubit)
    circuit.measure_all()
    with simenv.connect(service=service) as client:
        return client.submit(circuit, shots=1000, seed=number, name=f"unit-{number}").id


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as env,
        cf.ProcessPoolExecutor(2, mp_context=spawn) as processes,
    ):
        units = [processes.submit(unit, env.service, number) for number in range(UNITS)]
        for done in cf.as_completed(units):
            result = env.task(done.result()).result()
            print(
                f"{result.name}: {result.num_qubits} qubits, {dict(sorted(result.counts.items()))}"
            )


if __name__ == "__main__":
    main()
