"""Library of devices by name: bundled profiles, and the devices of qiskit-ibm-runtime.

Values of the bundled profiles are plausible medians and spreads of present machines of each
technology, drawn once with a fixed seed. They are not measurements of a machine.
"""

from __future__ import annotations

from pathlib import Path

from noise_models import snapshot as snapshots
from noise_models.calibration import CalibrationSnapshot
from noise_models.errors import SnapshotError
from noise_models.library import installed

BUNDLED = ("ideal", "neutral-atoms", "superconducting-lattice", "trapped-ions")
_FOLDER = Path(__file__).parent / "profiles"


def names() -> tuple[str, ...]:
    """Return the names that `load` accepts: the bundled ones, then those of qiskit-ibm-runtime."""
    return (*BUNDLED, *installed.names())


def resolve(name: str) -> str:
    """Return the entry of `names` for a name such as `fez` (`fake_fez`); "": unknown."""
    return name if name in BUNDLED else installed.canonical(name)


def load(name: str) -> CalibrationSnapshot:
    """Load the snapshot of a device by its name. Raises SnapshotError."""
    resolved = resolve(name)
    if resolved in BUNDLED:
        return snapshots.load((_FOLDER / f"{resolved}.json").read_bytes())
    if resolved:
        return installed.read(resolved)[0]
    raise SnapshotError("name", f"no device {name!r}", hint=f"known: {', '.join(names())}")
