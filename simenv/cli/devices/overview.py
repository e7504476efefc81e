"""Rows of `simenv devices`: pools of the environment, imported devices, bundled profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simenv.cli.devices import stored, summary
from simenv.cli.listing import Column, Rows
from simenv.cli.options import Settings
from simenv.cli.output import formats
from simenv.errors import NoServiceError
from simenv.model.devices import DeviceInfo, DeviceKind

if TYPE_CHECKING:
    from simenv.client.client import Client

GATES_SHOWN = 8
POOL = "pool"
KINDS = {  # as in --prefer
    DeviceKind.HARDWARE: "hardware",
    DeviceKind.EMULATED: "emulator",
    DeviceKind.IDEAL: "simulator",
}


@contextmanager
def environment(common: Settings) -> Iterator[Client | None]:
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
        from noise_models import library
        from noise_models.library import installed
        from simenv.service.devices.describe import device_info

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
        others = installed.names()
        for name in [*stored.names(), *library.BUNDLED, *(others if self._every else ())]:
            try:
                snapshot, source = stored.load(name)
            except stored.CalibrationError as error:
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
        Column("2Q_ERROR", lambda device: _error(median_pair_error(device)), right=True),
        Column("READOUT", lambda device: _error(_readout(device)), right=True, optional=1),
        Column("T1_US", lambda device: _short(_t1_us(device)), right=True, optional=2),
        Column(
            "CALIBRATED", lambda device: formats.format_time(device.calibrated_s)[:10], optional=5
        ),
        Column("MODEL", lambda device: device.model or "-", optional=8),
        Column("PROVIDER", lambda device: device.provider or "-", optional=7),
        Column("TECHNOLOGY", lambda device: device.technology or "-", optional=6),
    )


def _coupling(device: DeviceInfo) -> str:
    if device.all_to_all:
        return "all to all"
    arrow = "directed" if device.directed else "pairs"
    count = len({frozenset(pair) for pair in device.coupling})
    return f"{count} {arrow}"


def _gates(device: DeviceInfo) -> str:
    names = [gate.name for gate in device.gates if gate.qubits > 0]
    more = len(names) - GATES_SHOWN
    return ",".join(names[:GATES_SHOWN]) + (f",+{more}" if more > 0 else "") or "-"


def median_pair_error(device: DeviceInfo) -> float:
    """Return the median error of the native two-qubit gates that work."""
    native = {gate.name for gate in device.gates if gate.qubits == 2}
    errors = [each.error for each in device.operations if each.name in native]
    return summary.median(summary.working(each for each in errors if each == each))


def _readout(device: DeviceInfo) -> float:
    return summary.median(qubit.readout_error for qubit in device.qubits)


def _t1_us(device: DeviceInfo) -> float:
    return summary.median(qubit.t1_us for qubit in device.qubits)


def _error(value: float) -> str:
    return "-" if value != value else f"{value:.2g}"


def _short(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
