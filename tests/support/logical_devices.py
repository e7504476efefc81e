"""Devices of logical qubits, without the experiments of `devices encode`."""

from __future__ import annotations

from noise_models import library, snapshot
from simenv import config, files
from simenv.calibration.logical.device import LogicalErrors, logical_snapshot
from simenv.calibration.logical.error_rates import MemoryRate
from simenv.calibration.logical.options import EncodeOptions
from simenv.calibration.logical.patch_chip import places, selected
from simenv.calibration.logical.surface_code import rotated

ROUND_NS = 1_000.0


def store_logical(
    name: str,
    qubits: int,
    error: float = 1e-6,
    *,
    chip: str = "superconducting-lattice",
    distance: int = 5,
) -> None:
    """Store a device of patches under SIMENV_HOME. `error`: of X and of Z of each round, and of
    readout."""
    options, code = EncodeOptions(qubits=qubits, distance=distance), rotated(distance)
    rate = MemoryRate(error, error, resolved=True)
    source = library.load(chip)
    on_chip = tuple(places(selected(source), code, qubits))
    rates = ({"Z": rate, "X": rate},) * max(1, len(on_chip))
    errors = LogicalErrors(rates, (), ROUND_NS, (4.0, 4.0), False, on_chip)
    made, _ = logical_snapshot(name, source, options, errors, code.num_qubits)
    path = files.private_folder(config.devices_folder()) / f"{name}.json"
    path.write_bytes(snapshot.dump(made))
