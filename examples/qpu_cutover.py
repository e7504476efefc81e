"""A client script that runs on an ideal pool today and on a machine tomorrow: one name changes.

simenv up --pool main:workers=1 --pool qpu:engine=hardware,provider=examples.machine:montreal
python examples/qpu_cutover.py main
python examples/qpu_cutover.py qpu
simenv qpm diff main qpu examples/bell.qasm
"""

from __future__ import annotations

import sys

import simenv
from simenv.library import ghz

SHOTS = 4096


def main(pool: str) -> None:
    """Everything below is the same for a simulator and a machine."""
    with simenv.connect() as client:
        device = client.devices()[pool]
        print(f"{pool}: {device.kind}, {device.model}, {device.num_qubits} qubits")
        states = [ghz(qubits) for qubits in (2, 4, 6)]
        tasks = [client.submit(each.circuit, shots=SHOTS, seed=1, pool=pool) for each in states]
        for each, task in zip(states, tasks, strict=True):
            result = task.result()
            right = each.expected.success(result.counts)
            print(f"{each.name} on {result.engine}: {right:.3f} of the shots agree")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "main")
