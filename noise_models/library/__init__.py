"""Devices by name: profiles that come with the package, and those of qiskit-ibm-runtime.

Figures of the bundled profiles are plausible medians and spreads of present machines of each
technology, drawn once with a fixed seed; no machine has been measured for them.
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
    """Names that `load` takes: the bundled ones, then those of qiskit-ibm-runtime."""
    return (*BUNDLED, *installed.names())


def resolve(name: str) -> str:
    """The name in `names` that a name stands for, as `fez` for `fake_fez`; "": it is unknown."""
    return name if name in BUNDLED else installed.canonical(name)


def load(name: str) -> CalibrationSnapshot:
    """Snapshot of a device by its name. Raises SnapshotError."""
    resolved = resolve(name)
    if resolved in BUNDLED:
        return snapshots.load((_FOLDER / f"{resolved}.json").read_bytes())
    if resolved:
        return installed.read(resolved)[0]
    raise SnapshotError("name", f"no device {name!r}", hint=f"known: {', '.join(names())}")
