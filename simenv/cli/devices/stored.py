"""Imported devices: one file of calibration data for each, in SIMENV_HOME/devices.

A fitted device NAME.json may have NAME.h5, its fit, and the folder NAME of its dated calibrations.
Both go when the device is replaced or removed: they describe no other one.
Names of devices are looked up here first, then among the profiles of `noise_models.library`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simenv import config, files
from simenv.config.syntax import nearest
from simenv.errors import ConfigError, NotFoundError, SimenvError
from simenv.model.devices import CalibrationSource

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot


class CalibrationError(SimenvError):
    """Calibration data that cannot be read; `field` names the place."""

    code = "calibration"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


@contextmanager
def calibration_errors(where: str = "") -> Iterator[None]:
    """Map errors of noise_models to CalibrationError, with the file or device in front."""
    from noise_models.errors import NoiseError

    try:
        yield
    except NoiseError as error:
        message = f"{where}: {error.message}" if where else error.message
        field = getattr(error, "field", "")
        raise CalibrationError(message, hint=error.hint, field=field) from error


def folder() -> Path:
    """Return the folder of imported devices; it may be missing."""
    return config.home_root() / "devices"


def names() -> list[str]:
    """Return the names of imported devices, sorted."""
    try:
        results = [path.stem for path in folder().iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    return sorted(name for name in results if _is_name(name))


def path_of(name: str) -> Path:
    """Return the file of a device. Raises ConfigError for a name that no device can have."""
    return folder() / f"{config.check_name(name, 'device')}.json"


def save(name: str, data: bytes) -> tuple[Path, bool]:
    """Write a device's file by rename, and remove the fit of an earlier device of this name; return
    the path, and whether it replaced another one.

    Raises ConfigError for the name of a bundled profile, and for data larger than an environment
    reads.
    """
    from noise_models import library
    from simenv.service.devices.registry import MAX_FILE_BYTES

    if name in library.BUNDLED:
        raise ConfigError(
            f"{name} is the name of a bundled profile", hint="--name: choose another name"
        )
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"a snapshot of {len(data)} bytes", hint=f"an environment reads {MAX_FILE_BYTES} bytes"
        )
    path = path_of(name)
    files.private_folder(path.parent)
    replaced = path.exists()
    _remove_fit(path)
    files.write_atomic(path, data, sync=True)
    return path, replaced


def remove(name: str) -> Path:
    """Remove an imported device and its fit. Raises NotFoundError."""
    path = path_of(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise NotFoundError(
            f"no imported device {name!r}", hint=nearest(name, names() or ["none"])
        ) from None
    _remove_fit(path)
    return path


def _remove_fit(path: Path) -> None:
    path.with_suffix(".h5").unlink(missing_ok=True)
    series = path.with_suffix("")
    if series.is_dir() and not series.is_symlink():
        shutil.rmtree(series)


def load(name: str) -> tuple[CalibrationSnapshot, CalibrationSource]:
    """Return the snapshot of a device and its source: imported, bundled or qiskit-ibm-runtime.

    Raises CalibrationError, and NotFoundError for an unknown name.
    """
    from noise_models import library, snapshot

    if _is_name(name) and (path := path_of(name)).is_file():
        with calibration_errors(str(path)):
            return snapshot.load(path.read_bytes()), CalibrationSource.IMPORTED
    resolved = library.resolve(name)
    if not resolved:
        raise NotFoundError(f"no device {name!r}", hint=nearest(name, [*names(), *library.names()]))
    with calibration_errors(name):
        is_bundled = resolved in library.BUNDLED
        source = CalibrationSource.BUNDLED if is_bundled else CalibrationSource.INSTALLED
        return library.load(resolved), source


def _is_name(name: str) -> bool:
    try:
        config.check_name(name, "device")
    except ConfigError:
        return False
    return True
