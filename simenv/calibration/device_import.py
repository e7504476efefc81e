"""Devices from calibration data: files of vendors, devices of Pulser, backends of Qiskit.

An object is written as the document that `noise_models.importers` reads, so that it has one reader
in whatever way it comes: `to_abstract_repr()` of a device of Pulser, and for a backend of Qiskit
the JSON form of its Target, here. Qiskit and pulser are never imported by noise_models. Times are
in seconds, frequencies in hertz.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import ImportReport, import_snapshot
from noise_models.strict_json import SnapshotError
from simenv import config
from simenv.calibration import device_files
from simenv.calibration.device_files import SavedDevice
from simenv.errors import OptionError

if TYPE_CHECKING:
    from qiskit.transpiler import Target

    from simulators.hardware.engine import MachineDescription

MAX_BYTES = 64 * 2**20  # of a file; 1,000 qubits take 2 MB
_CHARS = 300  # of another package's error message
_SHOWN = 80  # characters of a value in an error message
_HINT = "a device of Pulser, a BackendV2 of Qiskit, paths of files, or their contents by name"


class ImportedDevice(msgspec.Struct, frozen=True):
    """A device that was imported. `name`: as `device=` takes it; `report`: fields of the source
    that were used, ignored and defaulted, and what the device does not have."""

    name: str
    snapshot: CalibrationSnapshot
    report: ImportReport
    saved: SavedDevice


def import_device(
    source: Any,
    name: str = "",
    *,
    noise: Any = None,
    source_format: str = "auto",
    allow_ignored: bool = False,
) -> ImportedDevice:
    """Store calibration data as a device that `device=` names, as `simenv devices import` does.

    `source`: a Device or VirtualDevice of Pulser, a BackendV2 of Qiskit, a path or several of them,
    or a mapping of names of files to bytes. `name`: by default that in the source. `noise`: a
    NoiseModel of Pulser in place of the device's own. `source_format`: of files;
    by default it is detected. `allow_ignored`: import a device also where noise of the source
    cannot be held. Raises SnapshotError, whose field names the place, OptionError and ConfigError.
    """
    files = _files_of(source)
    if noise is not None:
        files = {**files, "noise model.json": _noise_document(noise)}
    if name:
        config.check_name(name, "device")
    snapshot, report = import_snapshot(files, source_format, allow_ignored=allow_ignored)
    if name and any(line.field == "name" for line in report.defaulted):
        snapshot = msgspec.structs.replace(snapshot, name=name)  # else it keeps its own name
    if snapshot.analog is not None:
        _check_machine(snapshot.analog)
    snapshot = _laid_out(snapshot)
    name = config.check_name(name or snapshot.name.lower().replace(" ", "-"), "device")
    return ImportedDevice(name, snapshot, report, device_files.save(snapshot, name))


def _files_of(source: Any) -> dict[str, bytes]:
    """Return the contents of files by their names. Raises OptionError, SnapshotError."""
    if isinstance(source, Mapping):
        if not all(isinstance(k, str) and isinstance(v, bytes) for k, v in source.items()):
            raise OptionError("files are not bytes by name", hint=_HINT)
        return dict(source)
    if isinstance(source, str | Path):
        return read_files([source])
    if hasattr(source, "to_abstract_repr") and hasattr(source, "channels"):
        return {"device of pulser.json": _abstract(source, "the device")}
    if hasattr(source, "target"):
        from simulators.hardware.engine import describe

        return {"target.json": target_document(describe(source, source.target), source.target)}
    if isinstance(source, list | tuple) and all(isinstance(each, str | Path) for each in source):
        return read_files(source)
    raise OptionError(f"no device can be read from {source!r:.{_SHOWN}}", hint=_HINT)


def read_files(paths: Iterable[str | Path]) -> dict[str, bytes]:
    """Return the contents of files by their names. Raises OptionError."""
    entries: dict[str, bytes] = {}
    for path in map(Path, paths):
        if path.name in entries:
            raise OptionError(f"two files with the name {path.name}", hint="give each file once")
        try:
            with path.open("rb") as file:
                entries[path.name] = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            text = f"cannot read {str(path)[:_CHARS]}: {reason}"
            raise OptionError(text, hint="files of calibration data") from error
        if len(entries[path.name]) > MAX_BYTES:
            hint = "name a file of one device"
            raise OptionError(f"{path} has more than {MAX_BYTES:,} bytes", hint=hint)
    return entries


def _noise_document(noise: Any) -> bytes:
    if not (hasattr(noise, "to_abstract_repr") and hasattr(noise, "noise_types")):
        hint = "a pulser.NoiseModel; files of a device and of its noise are one source"
        raise OptionError(f"noise={noise!r:.{_SHOWN}}", hint=hint)
    return _abstract(noise, "the noise model")


def _abstract(value: Any, what: str) -> bytes:
    """Return the abstract representation of an object of pulser."""
    from simenv.transpiler.atoms import pulser_text

    try:
        text: str = value.to_abstract_repr()
    except Exception as error:  # pulser raises many types
        said = pulser_text(error)[:_CHARS]
        raise SnapshotError(what, f"pulser cannot write it: {said}") from error
    return text.encode()


def _check_machine(analog: AnalogCalibration) -> None:
    """Raise SnapshotError for a machine that an installed pulser does not take."""
    from simenv.transpiler.atoms import machine_of, pulser_text

    if importlib.util.find_spec("pulser") is None:
        return
    try:
        machine_of(msgspec.json.encode(analog.device).decode())
    except Exception as error:  # pulser raises many types
        text = pulser_text(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise SnapshotError("analog.device", f"refused by pulser: {text[:_CHARS]}") from error


def _laid_out(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Return a snapshot with coordinates: its own, or those of its couplings, computed once."""
    from simenv.transpiler import lattice

    if snapshot.coordinates or not snapshot.coupling or snapshot.num_qubits > lattice.MAX_QUBITS:
        return snapshot
    places = lattice.positions(snapshot.num_qubits, snapshot.coupling).round(3).tolist()
    return msgspec.structs.replace(snapshot, coordinates=tuple((x, y) for x, y in places))


def target_document(description: MachineDescription, target: Target) -> bytes:
    """Return the JSON of a backend's Target with the backend's description."""
    qubits = [
        {
            "t1_s": _number(getattr(each, "t1", None)),
            "t2_s": _number(getattr(each, "t2", None)),
            "frequency_hz": _number(getattr(each, "frequency", None)),
        }
        for each in target.qubit_properties or ()
    ]
    operations = [each for name in target.operation_names for each in _operations(target, name)]
    return msgspec.json.encode(
        {
            "kind": "qiskit-target", "format": 1, "name": description.model,
            "provider": description.provider, "version": description.version,
            "technology": description.technology, "max_shots": description.max_shots,
            "calibrated": description.calibration_id, "num_qubits": target.num_qubits or 0,
            "dt_s": _number(target.dt), "qubits": qubits, "operations": operations,
        }
    )  # fmt: skip


def _operations(target: Target, name: str) -> list[dict[str, Any]]:
    """Return one entry for each set of qubits, or one with `qubits` null for all."""
    from qiskit.circuit import Gate

    operation = target.operation_from_name(name)
    is_gate = isinstance(operation, Gate)
    angles = [] if not is_gate else [_number(each) for each in operation.params]
    bounds = None
    if hasattr(target, "gate_has_angle_bounds") and target.gate_has_angle_bounds(name):
        bounds = [_bounds(target, name, index, len(angles)) for index in range(len(angles))]
    return [
        {
            "name": name, "gate": is_gate,
            "num_qubits": operation.num_qubits if is_gate else len(qubits or ()),
            "num_params": len(angles), "fixed": any(each is not None for each in angles),
            "angle_bounds": bounds,
            "qubits": None if qubits is None else list(qubits),
            "error": _number(getattr(properties, "error", None)),
            "duration_s": _number(getattr(properties, "duration", None)),
        }
        for qubits, properties in target[name].items()
    ]  # fmt: skip


def _bounds(target: Target, name: str, index: int, count: int) -> list[float] | None:
    """Return the smallest and the largest angle of a gate's parameter, found by bisection: a Target
    only answers whether angles are supported. None: there is no such interval."""
    eighths = [math.pi / 8 * step for step in range(-32, 33)]
    for other in (0.0, math.pi / 8, -math.pi / 8):

        def has(angle: float, rest: float = other) -> bool:
            angles = [rest] * count
            angles[index] = angle
            return bool(target.supported_angle_bound(name, angles))

        supported = [angle for angle in eighths if has(angle)]
        if supported:
            low, high = supported[0], supported[-1]
            ends = [_edge(has, low, low - math.pi / 8), _edge(has, high, high + math.pi / 8)]
            return None if len(supported) == len(eighths) else ends
    return None


def _edge(has: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the last supported angle on the way from one inside to one outside."""
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if has(middle) else (inside, middle)
    return inside


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else None
