"""Calibration data that an installed qiskit-ibm-runtime brings along.

Only its JSON files are read; neither it nor Qiskit is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import ImportReport, import_snapshot

PACKAGE = "qiskit_ibm_runtime"
_PREFIXES = ("fake_", "fake", "ibmq_", "ibm_")


def names() -> tuple[str, ...]:
    """Names of the devices, sorted; () where the package is not installed."""
    folder = _folder()
    if folder is None:
        return ()
    return tuple(sorted(each.name for each in folder.iterdir() if _files(each)))


def canonical(name: str) -> str:
    """The folder's name of `fake_fez`, `FakeFez`, `FakeLimaV2` or `ibm_fez`; "" for an unknown
    one."""
    folder = _folder()
    lower = name.lower()
    if folder is None or not lower.isidentifier():
        return ""
    shorter = [lower.removeprefix(prefix) for prefix in _PREFIXES]
    for each in (lower, *shorter, *(each.removesuffix("v2") for each in shorter)):
        if each and _files(folder / each):
            return each
    return ""


def read(name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Snapshot of a device by a name that `names` lists. Raises SnapshotError, OSError."""
    folder = _folder()
    assert folder is not None
    files = {path.name: path.read_bytes() for path in _files(folder / name)}
    return import_snapshot(files, "ibm-properties", name)


def _folder() -> Path | None:
    """Folder with one folder of files for each device."""
    try:
        result = importlib.util.find_spec(PACKAGE)
    except ValueError:  # a module without a specification is not the package
        return None
    if result is None or result.origin is None:
        return None
    folder = Path(result.origin).parent / "fake_provider" / "backends"
    return folder if folder.is_dir() else None


def _files(folder: Path) -> tuple[Path, ...]:
    """Properties and configuration of one device; () where either is missing."""
    pair = (folder / f"props_{folder.name}.json", folder / f"conf_{folder.name}.json")
    return pair if all(path.is_file() for path in pair) else ()
