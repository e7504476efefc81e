"""Devices by name, and rows of `simenv devices`.

Names of devices are looked up among the files of SIMENV_HOME/devices first, then among the profiles
of `noise_models.library`. Rows are pools of the environment, imported devices, and bundled
profiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simenv.calibration import device_files
from simenv.cli import app, terminal
from simenv.cli.devices import details
from simenv.cli.listing import Column, Rows
from simenv.config.pools import nearest
from simenv.errors import NoServiceError, NotFoundError, SimenvError
from simenv.model.availability import Availability
from simenv.model.devices import MACHINE_PREFIX, CalibrationSource, DeviceInfo, DeviceKind

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.device_files import SavedDevice
    from simenv.client.client import Client


class CalibrationError(SimenvError):
    """Calibration data that cannot be read; `field` names the place."""

    code = "calibration"
    remedy = "correct the field that the message names, or name the format with `--format`"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


@contextmanager
def calibration_errors(where: str = "") -> Iterator[None]:
    """Map errors of noise_models to CalibrationError, with the file or device in front."""
    from noise_models.strict_json import NoiseError

    try:
        yield
    except NoiseError as error:
        message = f"{where}: {error.message}" if where else error.message
        field = getattr(error, "field", "")
        raise CalibrationError(message, hint=error.hint, field=field) from error


def save(name: str, data: bytes) -> tuple[Path, bool]:
    """Write a device's file as `device_files.write` does, and what `noted` prints; return the path,
    and whether it replaced another one. Raises ConfigError."""
    saved = noted(name, device_files.write(name, data))
    return saved.path, saved.replaced


def noted(name: str, saved: SavedDevice) -> SavedDevice:
    """Print a line that says where the earlier snapshot of this name is, and one that says that an
    installed device of this name is hidden; return the file."""
    if saved.earlier is not None:
        terminal.note(f"the earlier {name}: simenv devices import {saved.earlier} --name OTHER")
    if saved.hides_installed:
        terminal.note(f"{name} names this device now, in place of that of qiskit-ibm-runtime")
    return saved


def load(name: str) -> tuple[CalibrationSnapshot, CalibrationSource]:
    """Return the snapshot of a device and its source: imported, bundled or qiskit-ibm-runtime.
    Raises CalibrationError, and NotFoundError for an unknown name."""
    from noise_models import library, snapshot

    if device_files.is_name(name) and (path := device_files.path_of(name)).is_file():
        with calibration_errors(str(path)):
            return snapshot.load(path.read_bytes()), CalibrationSource.IMPORTED
    resolved = library.resolve(name)
    if not resolved:
        raise NotFoundError(
            f"no device {name!r}", hint=nearest(name, [*device_files.names(), *library.names()])
        )
    with calibration_errors(name):
        is_bundled = resolved in library.BUNDLED
        source = CalibrationSource.BUNDLED if is_bundled else CalibrationSource.INSTALLED
        return library.load(resolved), source


def load_shown(name: str, common: app.Settings) -> tuple[CalibrationSnapshot, CalibrationSource]:
    """Return what `load` does, also of a machine that the environment has stored. Raises
    NoServiceError if the environment of such a name is not up."""
    from noise_models import snapshot

    if not name.startswith(MACHINE_PREFIX) or device_files.path_of(name).is_file():
        return load(name)
    with common.connect() as client:
        info = client.device(name)
        _, document = client.recorded_device(name, info.calibration_id)
    with calibration_errors(name):
        return snapshot.load(document), CalibrationSource.STORED


GATES_SHOWN = 8
POOL = "pool"
KINDS = {  # as in --prefer
    DeviceKind.HARDWARE: "hardware",
    DeviceKind.EMULATED: "emulator",
    DeviceKind.IDEAL: "simulator",
}


@contextmanager
def environment(common: app.Settings) -> Iterator[Client | None]:
    """Yield a client of the environment; None if none is up and the user named none."""
    try:
        client = common.connect()
    except NoServiceError:
        if common.named:
            raise
        yield None
        return
    with client:
        yield client


class Overview:
    """Devices that can be named in a request, with the source of each."""

    def __init__(self, client: Client | None, every: bool) -> None:
        self._client = client
        self._every = every
        self._sources: dict[int, str] = {}  # by id() of the row; `_kept` keeps the rows alive
        self._kept: list[DeviceInfo] = []

    def source(self, info: DeviceInfo) -> str:
        """Return the source of a row: pool, imported, bundled or qiskit-ibm-runtime."""
        return self._sources.get(id(info), POOL)

    def rows(self) -> Rows[DeviceInfo]:
        """Return all rows, the pools first. The note names stored files that cannot be read."""
        from noise_models import library, library as installed
        from simenv.service.devices.registry import device_info

        self._sources, self._kept, notes = {}, [], []
        if self._client is not None:
            self._kept += self._client.devices().values()
            notes += [
                f"no calibration of {pool.name}: {pool.problem}"
                for pool in self._kept
                if pool.problem
            ]
        else:
            notes.append("no environment is up: no pools are listed")
        others = installed.installed_names()
        for name in [*device_files.names(), *library.BUNDLED, *(others if self._every else ())]:
            try:
                snapshot, source = load(name)
            except CalibrationError as error:
                notes.append(error.message)
                continue
            info = device_info(name, snapshot, snapshot.digest.hex())
            self._sources[id(info)] = source
            self._kept.append(info)
        if others and not self._every:
            notes.append(f"{len(others)} more devices in qiskit-ibm-runtime: simenv devices --all")
        return Rows(self._kept, "; ".join(notes))


def columns(overview: Overview) -> Sequence[Column[DeviceInfo]]:
    """Return the columns of the listing."""
    return (
        Column("NAME", lambda device: device.name),
        Column("SOURCE", overview.source),
        Column("KIND", lambda device: KINDS[device.kind]),
        Column("QUBITS", lambda device: str(device.num_qubits or "-"), right=True),
        Column("COUPLING", _coupling, optional=3),
        Column("GATES", _gates, optional=4),
        Column("2Q_ERROR", lambda device: _short(median_pair_error(device)), right=True),
        Column("READOUT", lambda device: _median(device, "readout_error"), right=True, optional=1),
        Column("T1_US", lambda device: _median(device, "t1_us", 3), right=True, optional=2),
        Column(
            "CALIBRATED", lambda device: terminal.format_time(device.calibrated_s)[:10], optional=5
        ),
        Column("MODEL", lambda device: device.model or "-", optional=8),
        Column("PROVIDER", lambda device: device.provider or "-", optional=7),
        Column("TECHNOLOGY", lambda device: device.technology or "-", optional=6),
    )


def _coupling(device: DeviceInfo) -> str:
    if device.analog is not None:
        return "atoms"
    if device.all_to_all:
        return "all to all"
    arrow = "directed" if device.directed else "pairs"
    count = len({frozenset(pair) for pair in device.coupling})
    return f"{count} {arrow}"


def _gates(device: DeviceInfo) -> str:
    if device.analog is not None:
        return "pulses"
    names = [gate.name for gate in device.gates if gate.qubits > 0]
    more = len(names) - GATES_SHOWN
    return ",".join(names[:GATES_SHOWN]) + (f",+{more}" if more > 0 else "") or "-"


def median_pair_error(device: DeviceInfo) -> float:
    """Return the median error of the native two-qubit gates that work, without pairs of links."""
    device = Availability(device).inside_modules
    native = {gate.name for gate in device.gates if gate.qubits == 2}
    errors = [each.error for each in device.operations if each.name in native]
    return details.median(details.working(each for each in errors if each == each))


# Figures of devices of neutral atoms in the columns of qubits; the mean of several.
_OF_ATOMS = {"readout_error": ("p_false_pos", "p_false_neg"), "t1_us": ("t1_us",)}


def _median(device: DeviceInfo, name: str, digits: int = 2) -> str:
    if device.analog is not None:
        values = [each.values[0] for each in device.terms if each.name in _OF_ATOMS[name]]
        is_whole = len(values) == len(_OF_ATOMS[name])
        return _short(sum(values) / len(values), digits) if is_whole else "-"
    return _short(details.median(getattr(qubit, name) for qubit in device.qubits), digits)


def _short(value: float, digits: int = 2) -> str:
    return "-" if value != value else f"{value:.{digits}g}"
