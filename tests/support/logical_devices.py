"""Devices of logical qubits, without the experiments of `devices encode`."""

from __future__ import annotations

from noise_models import library, snapshot
from simenv import config, files
from simenv.calibration.logical.device import LogicalErrors, logical_snapshot
from simenv.calibration.logical.error_rates import MemoryRate
from simenv.calibration.logical.options import EncodeOptions

ROUND_NS = 1_000.0


def store_logical(name: str, qubits: int, error: float = 1e-6) -> None:
    """Store a device of patches of distance 5 under SIMENV_HOME. `error`: of X and of Z of each
    round, and of readout."""
    options = EncodeOptions(qubits=qubits, distance=5)
    rate = MemoryRate(error, error, resolved=True)
    errors = LogicalErrors(({"Z": rate, "X": rate},), (), ROUND_NS, (4.0, 4.0), False, places=())
    chip = library.load("superconducting-lattice")
    made, _ = logical_snapshot(name, chip, options, errors, 49)
    path = files.private_folder(config.devices_folder()) / f"{name}.json"
    path.write_bytes(snapshot.dump(made))
