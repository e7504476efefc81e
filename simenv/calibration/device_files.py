"""Files of imported, fitted, linked and encoded devices, in SIMENV_HOME/devices.

There is one file of calibration data for each device. A fitted device NAME.json may have NAME.h5,
its fit, and the folder NAME of its dated calibrations. Both go when the device is replaced or
removed: they describe no other one. An environment of the same SIMENV_HOME reads a file when a task
names its device.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simenv import config, files
from simenv.config.pools import nearest
from simenv.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot


class SavedDevice(msgspec.Struct, frozen=True):
    """File of a device. `earlier`: the snapshot that it replaced, if it was another one;
    `hides_installed`: whether qiskit-ibm-runtime has a device of this name."""

    path: Path
    replaced: bool
    earlier: Path | None
    hides_installed: bool


def folder() -> Path:
    """Return the folder of the files; it may be missing."""
    return config.home_root() / "devices"


def names() -> list[str]:
    """Return the names of the devices, sorted."""
    try:
        results = [path.stem for path in folder().iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    return sorted(name for name in results if is_name(name))


def is_name(name: str) -> bool:
    """Return whether a device may have this name."""
    try:
        config.check_name(name, "device")
    except ConfigError:
        return False
    return True


def path_of(name: str) -> Path:
    """Return the file of a device. Raises ConfigError for a name that no device can have."""
    return folder() / f"{config.check_name(name, 'device')}.json"


def save(snapshot: CalibrationSnapshot, name: str = "") -> SavedDevice:
    """Store a calibration as a device that `device=` names. `name`: by default that of the
    snapshot. Raises ConfigError for the name of a bundled profile, and SnapshotError for values
    that cannot be."""
    from noise_models.snapshot import dump

    return write(name or snapshot.name, dump(snapshot))


def write(name: str, data: bytes) -> SavedDevice:
    """Write a device's file by rename, and remove the fit of an earlier device of this name, whose
    snapshot is kept beside it. Raises ConfigError for the name of a bundled profile, and for data
    larger than an environment reads."""
    from noise_models import library
    from simenv.service.devices.registry import MAX_FILE_BYTES

    if name in library.BUNDLED:
        hint = "choose another name"
        raise ConfigError(f"{name} is the name of a bundled profile", hint=hint)
    if len(data) > MAX_FILE_BYTES:
        hint = f"an environment reads {MAX_FILE_BYTES} bytes"
        raise ConfigError(f"a snapshot of {len(data)} bytes", hint=hint)
    path = path_of(name)
    files.private_folder(path.parent)
    replaced, earlier = path.exists(), None
    if replaced and (former := path.read_bytes()) != data:
        earlier = _earlier(path)
        files.write_atomic(earlier, former)
    _remove_fit(path)
    files.write_atomic(path, data, sync=True)
    return SavedDevice(path, replaced, earlier, bool(library.resolve(name)))


def remove(name: str) -> Path:
    """Remove a device and its fit. Raises NotFoundError."""
    path = path_of(name)
    try:
        path.unlink()
    except FileNotFoundError:
        hint = nearest(name, names() or ["none"])
        raise NotFoundError(f"no imported device {name!r}", hint=hint) from None
    _earlier(path).unlink(missing_ok=True)
    _remove_fit(path)
    return path


def _earlier(path: Path) -> Path:
    """Return the file of the snapshot that a device's file replaced last."""
    return path.with_name(path.name + ".replaced")


def _remove_fit(path: Path) -> None:
    path.with_suffix(".h5").unlink(missing_ok=True)
    series = path.with_suffix("")
    if series.is_dir() and not series.is_symlink():
        shutil.rmtree(series)
