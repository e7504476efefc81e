"""Qiskit Aer: its state vector method with its default gate fusion."""

from __future__ import annotations

import functools
from typing import Any

from bench.circuits import measured
from bench.peers.base import SHOTS, Counts, Gate


@functools.cache
def simulator(threads: int = 1, **options: Any) -> Any:
    """Return an AerSimulator, of the state vector method by default."""
    from qiskit_aer import AerSimulator

    return AerSimulator(**{"method": "statevector", "max_parallel_threads": threads, **options})


class Aer:
    """Peer (bench.peers.base) of Qiskit Aer."""

    def __init__(self, threads: int) -> None:
        self._simulator = simulator(threads)

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        return measured(num_qubits, gates)

    def run(self, job: Any) -> Any:
        return self._simulator.run(job, shots=SHOTS).result().get_counts(0)

    def counts(self, result: Any) -> Counts:
        return {int(key, 2): count for key, count in result.items()}
