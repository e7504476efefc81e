"""Emulated devices by name, and their descriptions.

Invariant: the loop never reads a file or parses a document itself; one thread does so, and the loop
gets a Future. A changed file is read again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from noise_models import terms
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import (
    CalibrationSnapshot,
    LayerCalibration,
    NativeGate,
    QubitCalibration,
)
from simenv.config import NAME_RULE
from simenv.errors import LimitExceededError, NotFoundError, OptionError
from simenv.model import MAX_SHOTS, GateInfo, OperationInfo, devices
from simenv.model.paradigms import CIRCUIT_FORMATS, PULSER
from simenv.service.fair_queue import CHECKS
from simenv.text import size

if TYPE_CHECKING:
    from noise_models.document import Document
    from noise_models.drift import Drift
    from simenv.config.pools import DriftSpec


PROVIDER = "simenv"


def device_info(name: str, snapshot: CalibrationSnapshot, digest: str) -> devices.DeviceInfo:
    """Return the device `name` with the figures of a snapshot; `digest`: that of the snapshot, in
    hexadecimal. An operation without qubits applies to every set of qubits without an operation of
    its own."""
    operations = [
        OperationInfo(
            gate.name,
            gate.qubits,
            _figure(gate.error),
            _figure(gate.duration_ns),
            _figure(gate.leakage),
            _figure(gate.seepage),
        )
        for gate in snapshot.gates
    ]
    operations += [
        OperationInfo(each.name, (each.qubit,), _figure(each.error), _figure(each.duration_ns))
        for each in snapshot.measurements
    ]
    measured = {each.name for each in operations}
    unmeasured = {*snapshot.unmeasured, *snapshot.unusable}
    for number in range(snapshot.num_qubits if snapshot.qubits or unmeasured else 0):
        if number in snapshot.unusable:
            continue
        qubit = snapshot.qubits[number] if snapshot.qubits else QubitCalibration()
        if "measure" not in measured and number not in unmeasured:
            error = _readout_error(qubit)
            operations.append(OperationInfo("measure", (number,), error, _figure(qubit.readout_ns)))
        if snapshot.dynamic and "reset" not in measured:
            operations.append(
                OperationInfo(
                    "reset", (number,), _figure(qubit.reset_error), _figure(qubit.reset_ns)
                )
            )
    coupling = snapshot.coupled
    return devices.DeviceInfo(
        name=name,
        kind=devices.DeviceKind.EMULATED,
        provider=snapshot.provider or PROVIDER,
        model=snapshot.name or name,
        version=snapshot.version,
        technology=snapshot.technology or "simulator",
        num_qubits=snapshot.num_qubits,
        coordinates=snapshot.coordinates,
        max_shots=snapshot.max_shots or MAX_SHOTS,
        formats=CIRCUIT_FORMATS if snapshot.analog is None else (PULSER,),
        gates=_gate_infos(snapshot.native_gates),
        fractional_gates=_gate_infos(snapshot.fractional_gates),
        all_to_all=snapshot.all_to_all,
        directed=bool(coupling) and not {(b, a) for a, b in coupling} <= set(coupling),
        coupling=coupling,
        operations=tuple(operations),
        qubits=tuple(map(_qubit_info, snapshot.qubits)),
        dynamic=snapshot.dynamic,
        calibration_id=digest,
        calibrated_s=devices.wall_clock_s(snapshot.calibrated),
        dt_ns=snapshot.dt_ns or devices.UNKNOWN,
        unusable=snapshot.unusable,
        layers=tuple(map(_layer_info, snapshot.layers)),
        terms=_terms(snapshot),
        angle_limits=tuple(
            devices.AngleLimits(each.gate, each.bounds_rad) for each in snapshot.angle_bounds
        ),
        refused_fit="" if snapshot.fitted is None else snapshot.fitted.refused,
        modules=tuple(
            devices.ModuleInfo(each.name, each.qubits, each.communication)
            for each in snapshot.modules
        ),
        links=tuple(
            devices.LinkInfo(each.pair, 1.0 - each.infidelity, each.mean_wait_ns, each.latency_ns)
            for each in snapshot.links
        ),
        logical=None
        if snapshot.logical is None
        else devices.LogicalInfo(**msgspec.structs.asdict(snapshot.logical)),
        analog=None if snapshot.analog is None else _analog_info(snapshot, snapshot.analog),
    )


def _gate_infos(gates: Iterable[NativeGate]) -> tuple[GateInfo, ...]:
    return tuple(GateInfo(gate.name, gate.num_qubits, gate.num_params) for gate in gates)


def _analog_info(snapshot: CalibrationSnapshot, analog: AnalogCalibration) -> devices.AnalogInfo:
    text = msgspec.json.encode(analog.device, order="deterministic").decode()
    return devices.AnalogInfo(
        text, snapshot.reset_ns(()), snapshot.overhead_ns, analog.uncalibrated
    )


def _terms(snapshot: CalibrationSnapshot) -> tuple[devices.TermInfo, ...]:
    """All quantities but those that every device has, with T2* at the present T1."""
    qubits = (msgspec.structs.replace(q.in_force, t1_jumps=q.t1_jumps) for q in snapshot.qubits)
    return tuple(
        devices.TermInfo(each.name, each.title, each.unit, each.places, each.values)
        for each in terms.measured(msgspec.structs.replace(snapshot, qubits=tuple(qubits)))
        if not each.is_basic
    )


def _layer_info(layer: LayerCalibration) -> devices.LayerInfo:
    return devices.LayerInfo(
        layer.names,
        layer.qubits,
        len(layer.generators),
        layer.error,
        devices.wall_clock_s(layer.calibrated),
    )


def _qubit_info(qubit: QubitCalibration) -> devices.QubitInfo:
    qubit = qubit.in_force
    figures = {name: _figure(getattr(qubit, name)) for name in devices.QubitInfo.__struct_fields__}
    return devices.QubitInfo(**figures | {"readout_error": _readout_error(qubit)})


def _readout_error(qubit: QubitCalibration) -> float:
    """Return the readout error, or the mean of p01 and p10 if only these were measured."""
    if qubit.readout_error is not None or qubit.p01 is None or qubit.p10 is None:
        return _figure(qubit.readout_error)
    return (qubit.p01 + qubit.p10) / 2.0


def _figure(value: float | None) -> float:
    return devices.UNKNOWN if value is None else value


MAX_FILE_BYTES = 16 * 2**20
MAX_CLIENT_BYTES = 2**20  # of the owner of a key; a device of 156 qubits takes 0.25 MiB
MAX_CACHED = 4_096  # names
FAILURE_S = 5.0
_SHOWN = 12  # names in a message
Version = tuple[int, int]  # of a file: modification time in ns, size; (0, 0): the library's


class EmulatedDevice(msgspec.Struct, frozen=True, eq=False):
    """A device that can be emulated now. `document`: a CalibrationSnapshot of `noise_models`, or a
    CustomModel for a noise document without a device."""

    digest: str  # of `body`, hexadecimal
    body: bytes  # canonical noise document
    document: Document
    info: devices.DeviceInfo | None  # None: a noise model without a device


class _Loaded(msgspec.Struct, frozen=True, eq=False):
    """A device that was requested, and the version of its file."""

    version: Version
    future: Future[EmulatedDevice]
    failure_until_s: float  # monotonic: a failure is reported until then, then tried again

    def is_over(self) -> bool:
        done = self.future.done() and monotonic() > self.failure_until_s
        return done and self.future.exception() is not None


class DeviceRegistry:
    """Cache of emulated devices by name. Used from the loop's thread."""

    def __init__(self, folder: Path, preload: Callable[[], object] | None = None) -> None:
        """`folder`: contains NAME.json for each imported device; it need not exist. `preload`:
        called in the thread after the first device was read, because circuits for it follow."""
        self._folder = folder
        self._preload = preload
        self._thread = ThreadPoolExecutor(1, "devices")
        self._cache: dict[str, _Loaded] = {}
        self._documents: dict[str, Future[EmulatedDevice]] = {}
        self._ids: dict[tuple[str, float], str] = {}  # of `dates` that were read. Of the thread.

    def get(self, name: str) -> Future[EmulatedDevice]:
        """Return the device with its present calibration. The Future raises NotFoundError or
        OptionError."""
        version = self._version(name)
        cached = self._cache.get(name)
        if cached is not None and cached.version == version and not cached.is_over():
            return cached.future
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        future = self._thread.submit(_load, self._folder, name, from_file=version != (0, 0))
        self._cache[name] = _Loaded(version, future, monotonic() + FAILURE_S)
        if self._preload is not None:
            self._thread.submit(self._preload)
            self._preload = None
        return future

    def document(self, digest: str, body: bytes) -> Future[EmulatedDevice]:
        """Read a stored document. The Future raises OptionError."""
        future = self._documents.get(digest) or self._device_of(digest)
        if future is None:
            if len(self._documents) >= 256:
                self._documents.clear()
            future = self._documents[digest] = self._thread.submit(_parsed, body, "")
        return future

    def _device_of(self, digest: str) -> Future[EmulatedDevice] | None:
        """Return the device that was read and has this document; None if there is none."""
        for loaded in self._cache.values():
            future = loaded.future
            is_read = future.done() and not future.cancelled() and future.exception() is None
            if is_read and future.result().digest == digest:
                return future
        return None

    def dates(self, name: str) -> Future[list[float]]:
        """Return when each stored calibration of a refreshed device came, in seconds since 1970."""
        return self._thread.submit(_dates, self._folder, name)

    def dated(self, name: str, at_s: float) -> Future[EmulatedDevice]:
        """Return a device with a calibration of `dates`. The Future raises NotFoundError,
        OptionError."""
        key = f"{name}@{at_s!r}"
        if key not in self._documents:
            if len(self._documents) >= 256:
                self._documents.clear()
            self._documents[key] = self._thread.submit(_dated, self._folder, name, at_s)
        return self._documents[key]

    def drift(self, name: str, spec: DriftSpec, folder: Path) -> Future[Drift]:
        """Read the drift of a device. The Future raises NotFoundError, OptionError."""
        from_file = self._version(name) != (0, 0)
        return self._thread.submit(_drift, folder, name, spec, from_file=from_file)

    def recorded(self, name: str, calibration_id: str) -> Future[EmulatedDevice]:
        """Return a device with the stored calibration that has this id. The Future raises
        NotFoundError, OptionError."""
        return self._thread.submit(self._recorded, name, calibration_id)

    def _recorded(self, name: str, calibration_id: str) -> EmulatedDevice:
        for at_s in reversed(_dates(self._folder, name)):
            key = name, at_s
            if self._ids.get(key, calibration_id) != calibration_id:
                continue
            with suppress(OptionError):  # such as a file that was just removed
                found = _read(_dated_path(self._folder, name, at_s), name)
                if len(self._ids) >= MAX_CACHED:
                    self._ids.clear()
                self._ids[key] = found.digest
                if found.digest == calibration_id:
                    return found
        text = f"device {name[:64]!r} has no stored calibration {calibration_id[:64]}"
        raise NotFoundError(text, hint="those of the present and of client.calibrations(NAME)")

    def check(self, body: bytes, owner: str = "") -> Future[EmulatedDevice]:
        """Parse and check a document of a client, one of an owner at a time. The Future raises
        OptionError. Raises LimitExceededError for a document that is too large."""
        if owner and len(body) > MAX_CLIENT_BYTES:
            raise LimitExceededError(
                f"a noise document of {size(len(body))} with the key {owner!r}; the limit is"
                f" {size(MAX_CLIENT_BYTES)}",
                hint="import it as a device where the environment runs: simenv devices import",
            )
        return CHECKS.submit(owner, partial(_checked, self._folder, body))

    def names(self) -> Future[dict[str, devices.CalibrationSource]]:
        """Return all devices by name, sorted, with the source of each."""
        return self._thread.submit(_names, self._folder)

    def _version(self, name: str) -> Version:
        if not NAME_RULE.match(name):
            return (0, 0)
        try:
            result = os.stat(self._folder / f"{name}.json")
        except OSError:
            return (0, 0)
        return (result.st_mtime_ns, result.st_size)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _load(folder: Path, name: str, *, from_file: bool) -> EmulatedDevice:
    from simenv.service.devices import noise_api

    if from_file:
        return _read(folder / f"{name}.json", name)
    resolved = noise_api.resolve(name)
    if not resolved:
        names = _names(folder)
        similar = get_close_matches(name, names, n=1)
        suggestion = f"did you mean {similar[0]!r}? " if similar else ""
        hint = f"{suggestion}devices: {_listed(names)}"
        raise NotFoundError(f"there is no device {name[:64]!r}", hint=hint)
    return emulated(resolved, noise_api.from_library(resolved))


def _read(path: Path, name: str) -> EmulatedDevice:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from error
    if len(body) > MAX_FILE_BYTES:
        raise OptionError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    return _parsed(body, name)


def _dates(folder: Path, name: str) -> list[float]:
    if not NAME_RULE.match(name):
        return []
    times_s = (devices.dated_s(path.stem) for path in _series(folder, name).glob("*Z.json"))
    return sorted(filter(None, times_s))


def _dated(folder: Path, name: str, at_s: float) -> EmulatedDevice:
    if at_s not in _dates(folder, name):
        text = f"device {name[:64]!r} has no stored calibration of {at_s!r}"
        raise NotFoundError(text, hint="one of client.calibrations(NAME)")
    return _read(_dated_path(folder, name, at_s), name)


def _dated_path(folder: Path, name: str, at_s: float) -> Path:
    return _series(folder, name) / f"{devices.date_name(at_s)}.json"


def _series(folder: Path, name: str) -> Path:
    """Folder of a device's dated snapshots: NAME of those that a fit of several days made, which
    exists only beside the fitted device; else NAME.d of its calibrations."""
    fits = folder / name
    return fits if fits.is_dir() else folder / f"{name}.d"


def _drift(folder: Path, name: str, spec: DriftSpec, *, from_file: bool) -> Drift:
    from noise_models.calibration import T1Jumps
    from noise_models.drift import JumpingT1

    result = _without_jumps(folder, name, spec, from_file=from_file)
    default = None
    if spec.t1_jumps:
        per_hour, dwell_s, factor = spec.t1_jumps
        default = T1Jumps(per_hour, dwell_s, factor)
    first = result.snapshot(result.step(result.origin_s))
    if default is None and not any(each.t1_jumps for each in first.qubits):
        return result
    try:
        return JumpingT1(result, spec.seed, default)
    except ValueError:
        text = f"device {name!r}: t1_jumps, and no qubit has a calibrated T1"
        raise OptionError(text, hint="leave t1_jumps out of the pool's drift") from None


def _without_jumps(folder: Path, name: str, spec: DriftSpec, *, from_file: bool) -> Drift:
    from noise_models import snapshot
    from noise_models.drift import RandomWalk, Replay
    from simenv.service.devices import noise_api

    if spec.kind == "walk":
        base = _load(folder, name, from_file=from_file).document
        assert isinstance(base, CalibrationSnapshot)  # a device always has one
        return RandomWalk(base, spec.seed, spec.every_s, spec.spread)
    series = _series(folder, name)
    files = sorted(series.glob("*.json"))
    if not files:
        text = f"device {name!r} has no series to replay: no dated snapshot in {series}"
        hint = "simenv calibrate with counts of several days writes one, as does a refresh of the"
        raise OptionError(text, hint=f"{hint} device; drift=walk needs none")
    results = []
    for path in files:
        with noise_api.reported(str(path)):
            results.append(snapshot.load(path.read_bytes()))
    with noise_api.reported(f"replay of {series}"):
        return Replay(results)


def emulated(name: str, snapshot: CalibrationSnapshot) -> EmulatedDevice:
    """Return the device `name` with a snapshot. Raises OptionError."""
    from noise_models import document
    from simenv.service.devices import noise_api

    with noise_api.reported(f"device {name!r}"):
        body = document.dump(snapshot)
    digest = document.digest(body).hex()
    return EmulatedDevice(digest, body, snapshot, device_info(name, snapshot, digest))


def _parsed(body: bytes, name: str) -> EmulatedDevice:
    """Parse a document. `name`: of the device; "": the document need not be a device. Raises
    OptionError."""
    from simenv.service.devices import noise_api

    result, canonical, digest = noise_api.read(body, f"device {name!r}" if name else "noise")
    info = None
    if isinstance(result, CalibrationSnapshot):
        info = device_info(name or result.name, result, digest)
    elif name:
        text = f"device {name!r} is a noise model, not a calibration snapshot"
        hint = "give it as noise=; a device needs native gates and a coupling"
        raise OptionError(text, hint=hint)
    return EmulatedDevice(digest, canonical, result, info)


def _checked(folder: Path, body: bytes) -> EmulatedDevice:
    """Parse a document of a client; join the devices of one that describes a machine. Raises
    OptionError, NotFoundError."""
    from simenv.service.devices import noise_api

    design = noise_api.machine(body)
    if design is None:
        return _parsed(body, "")
    loaded = {}
    for name in set(design.modules.values()):
        path = folder / f"{name}.json"
        is_file = NAME_RULE.match(name) is not None and path.is_file()
        loaded[name] = _load(folder, name, from_file=is_file).document
    modules = {key: loaded[name] for key, name in design.modules.items()}
    return emulated(design.name, noise_api.joined(design, modules))


def _names(folder: Path) -> dict[str, devices.CalibrationSource]:
    from simenv.service.devices import noise_api

    files = [path.stem for path in folder.glob("*.json") if NAME_RULE.match(path.stem)]
    entries = {
        **noise_api.library_names(),
        **dict.fromkeys(files, devices.CalibrationSource.IMPORTED),
    }
    return dict(sorted(entries.items()))


def _listed(names: Iterable[str]) -> str:
    names = tuple(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
