"""Statevectors that are results in files."""

from pathlib import Path

import numpy as np

from simenv.client.client import Client
from simenv.client.tasks.task import Task

HEAD = 'OPENQASM 2.0; include "qelib1.inc"; '


def files(env: Client) -> list[Path]:
    """All result files of an environment of this machine."""
    root = env._session.channel.service.results
    assert root is not None
    return sorted(path for path in root.glob("*/*") if path.is_file())


def turned(num_qubits: int) -> str:
    """Every qubit by its own angle: all amplitudes differ."""
    gates = " ".join(f"ry(0.{k + 1}) q[{k}];" for k in range(num_qubits))
    return f"{HEAD}qreg q[{num_qubits}]; {gates}"


def state_of(env: Client, num_qubits: int = 17) -> tuple[Task, np.ndarray]:
    """A task with a statevector in a file, and what it read at first."""
    task = env.submit(turned(num_qubits), shots=None, outputs=("statevector",))
    vector = task.result(timeout_s=200).statevector
    assert not vector.flags.owndata, "it was copied"
    return task, np.array(vector)
