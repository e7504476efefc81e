"""An environment with an ideal, an emulated and a hardware pool, for tests of devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import live
import pytest
from qiskit import QuantumCircuit

from noise_models import snapshot
from noise_models.calibration import CalibrationSnapshot
from simenv import config, library

SUPPORT = str(Path(__file__).parent)
DEVICE = "superconducting-lattice"
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "lattice", "device": DEVICE, "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "machines:ideal"},
]


@contextmanager
def environment() -> Iterator[live.Live]:
    """The environment, with the provider of its hardware pool on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SUPPORT)
        with live.environment(pools=POOLS) as result:
            yield result


def stored(name: str, device: CalibrationSnapshot) -> Path:
    """Store a device under a name, as `simenv devices import` does; return its path."""
    path = config.devices_folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(snapshot.dump(device))
    return path


def ghz(qubits: int = 3) -> QuantumCircuit:
    """A measured GHZ state."""
    return library.ghz(qubits).circuit


def far() -> QuantumCircuit:
    """Needs swaps on a lattice, and asks for an observable that tells its qubits apart."""
    circuit = QuantumCircuit(4)
    for qubit, angle in enumerate((0.3, 0.7, 1.1, 1.9)):
        circuit.ry(angle, qubit)
    for a in range(4):
        for b in range(a):
            circuit.rzz(0.2 + 0.1 * a, a, b)
    return circuit
