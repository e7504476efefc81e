"""Library of devices by name: bundled profiles, and the devices of qiskit-ibm-runtime.

Values of the bundled profiles are plausible medians and spreads of present machines of each
technology, drawn once with a fixed seed. They are not measurements of a machine.

`superconducting-square` has 105 qubits: all places of the rotated surface code of distance 7, with
the coordinates that stim gives them, and 8 more along the boundary. Its means and spreads are those
that Google Quantum AI published for a processor of as many qubits (Nature 638, 920 (2025), arXiv
2408.13687): T1 68 us, T2 89 us, errors 0.035 % on one qubit, 0.33 % of CZ, 0.77 % of readout;
durations are such that a round of the code takes 1.1 us.

`neutral-atoms-analog` runs pulse sequences. Its machine and its figures are those that Amazon
Braket and the paper (Wurtz et al., arXiv 2306.11727) publish of QuEra's Aquila; the snapshot names
the source of each.
"""

import importlib.util
from pathlib import Path

from noise_models import snapshot as snapshots
from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import ImportReport, import_snapshot
from noise_models.strict_json import SnapshotError

# Calibration data of an installed qiskit-ibm-runtime.
#
# Only its JSON files are read; neither it nor Qiskit is imported.

PACKAGE = "qiskit_ibm_runtime"
_PREFIXES = ("fake_", "fake", "ibmq_", "ibm_")


def installed_names() -> tuple[str, ...]:
    """Return the sorted names of the devices; () if the package is not installed."""
    folder = _folder()
    if folder is None:
        return ()
    return tuple(sorted(each.name for each in folder.iterdir() if _files(each)))


MAX_NAME_CHARS = 64


def canonical(name: str) -> str:
    """Return the folder's name for `fake_fez`, `FakeFez`, `FakeLimaV2` or `ibm_fez`; "":
    unknown."""
    folder = _folder()
    lower = name.lower()
    # A longer name is none of a file: to look for one would be an OSError.
    if folder is None or not lower.isidentifier() or len(name) > MAX_NAME_CHARS:
        return ""
    shorter = [lower.removeprefix(prefix) for prefix in _PREFIXES]
    for each in (lower, *shorter, *(each.removesuffix("v2") for each in shorter)):
        if each and _files(folder / each):
            return each
    return ""


def read(name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Read the snapshot of a device that `names` lists. Raises SnapshotError, OSError."""
    folder = _folder()
    assert folder is not None
    files = {path.name: path.read_bytes() for path in _files(folder / name)}
    return import_snapshot(files, "ibm-properties", name, allow_ignored=True)


def _folder() -> Path | None:
    """Return the folder that has one folder of files for each device; None: not installed."""
    try:
        result = importlib.util.find_spec(PACKAGE)
    except ValueError:  # a module without a specification is not the package
        return None
    if result is None or result.origin is None:
        return None
    folder = Path(result.origin).parent / "fake_provider" / "backends"
    return folder if folder.is_dir() else None


def _files(folder: Path) -> tuple[Path, ...]:
    """Return the properties and configuration files of one device; () if either is missing."""
    pair = (folder / f"props_{folder.name}.json", folder / f"conf_{folder.name}.json")
    return pair if all(path.is_file() for path in pair) else ()


BUNDLED = (
    "ideal", "neutral-atoms", "neutral-atoms-analog", "superconducting-heavy-hex",
    "superconducting-lattice", "superconducting-square", "trapped-ions",
)  # fmt: skip
_FOLDER = Path(__file__).parent / "profiles"


def names() -> tuple[str, ...]:
    """Return the names that `load` accepts: the bundled ones, then those of qiskit-ibm-runtime."""
    return (*BUNDLED, *installed_names())


def resolve(name: str) -> str:
    """Return the entry of `names` for a name such as `fez` (`fake_fez`); "": unknown."""
    return name if name in BUNDLED else canonical(name)


def load(name: str) -> CalibrationSnapshot:
    """Load the snapshot of a device by its name. Raises SnapshotError."""
    resolved = resolve(name)
    if resolved in BUNDLED:
        return snapshots.load((_FOLDER / f"{resolved}.json").read_bytes())
    if resolved:
        return read(resolved)[0]
    raise SnapshotError("name", f"no device {name!r}", hint=f"known: {', '.join(names())}")
