"""The device of a submission, given by its name or by its pool: compilation and stored noise.

Thread-safe. Descriptions of devices and pools are cached for DEVICE_S and POOLS_S seconds.
Invariant: no lock is held over a request to the service or a compilation, so that no thread waits
for the circuit of another one; two threads may ask for the same description.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from simenv.client.submission.machine import Machine
from simenv.client.submission.noise import OFF, channel_names
from simenv.errors import NoDeviceError, OptionError
from simenv.model.devices import MACHINE_DIGITS, MACHINE_PREFIX, DeviceInfo, DeviceKind
from simenv.model.link_use import links_of
from simenv.model.logical_use import LogicalUse, logical_use
from simenv.model.task import LinkUse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.client.circuits import ChannelNames, PackedCircuit
    from simenv.client.submission.compiler import CompiledCircuit, Compiler, Compilers, Sandbox
    from simenv.client.submission.options import CheckedOptions
    from simenv.model import TaskOptions
    from simenv.transpiler.qpu_programs.join import JoinedPrograms
    from simenv.transpiler.qpu_programs.program import QPUProgram

DEVICE_S = 10.0
POOLS_S = 60.0
MAX_STORED = 64
EMULATORS = ("emulator", "emulated")  # accepted in `prefer`


class DeviceSource(Protocol):
    """Provider of device descriptions: the service, or this process without a service."""

    def device(self, name: str) -> DeviceInfo:
        """Return an emulated device as calibrated now. Raises NotFoundError, OptionError."""

    def devices(self) -> Mapping[str, DeviceInfo]:
        """Return the pools as devices, by name."""

    def store(self, document: bytes) -> str:
        """Store a noise document; return its digest in hexadecimal. Raises OptionError."""


class DeviceUse(msgspec.Struct, frozen=True):
    """What a circuit takes of a device of several QPUs, or of logical qubits; the fields of
    `Explanation`."""

    links: tuple[LinkUse, ...] = ()
    remote_gates: int = 0
    logical: LogicalUse | None = None


class SubmitDevices:
    """Devices, compilers and stored noise documents of one client."""

    def __init__(self, source: DeviceSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._infos: dict[str, tuple[float, DeviceInfo]] = {}
        self._pools: tuple[float, Mapping[str, DeviceInfo]] | None = None
        self._stored: dict[bytes, str] = {}
        self._channels: dict[bytes, frozenset[str]] = {}  # names, by digest of the document
        self._compilers: Compilers | None = None
        self._sandbox: Sandbox | None = None

    def compile_in(self, sandbox: Sandbox) -> None:
        """Compile in a process that `sandbox` returns, with bounds of memory and time."""
        self._sandbox = sandbox

    def channels(self, checked: CheckedOptions) -> ChannelNames | None:
        """Return the names that the noise model of a submission has channels of; None without one,
        or without such names. Raises SimenvError."""
        if not checked.document:
            return None
        from simenv.client.circuits import ChannelNames

        key = hashlib.sha256(checked.document).digest()
        names = self._channels.get(key)
        if names is None:
            names = channel_names(checked.document)
            with self._lock:
                if len(self._channels) >= MAX_STORED:
                    self._channels.clear()
                self._channels[key] = names
        task = checked.task
        is_compiled = names and self._info_for(task.device, task.pool, task.prefer) is not None
        return ChannelNames(names, not is_compiled) if names else None

    def prepared(
        self, checked: CheckedOptions, loaded: PackedCircuit
    ) -> tuple[CheckedOptions, CompiledCircuit | None]:
        """Return the options with the stored noise, and the circuit compiled for its device; None
        without an emulated device. Raises SimenvError."""
        task = checked.task
        if checked.document:
            digest = self._store(checked.document)
            task = msgspec.structs.replace(task, snapshot=digest)
            checked = msgspec.structs.replace(checked, task=task)
        info = self._info_for(task.device, task.pool, task.prefer)
        if info is None:
            return _without_device(checked), None
        self._refuse(info, checked, loaded)
        if checked.fractional_gates:
            check_fractional(info)
        if task.device and task.device != info.name:  # FakeFez is fez
            task = msgspec.structs.replace(task, device=info.name)
            checked = msgspec.structs.replace(checked, task=task)
        compiled = self._compiler(info, checked).compiled(
            loaded, checked.compile, checked.mapping, checked.partition
        )
        replaced = compiled.replaced if checked.document else ()
        if (compiled.compiler, replaced) != (task.compiled, task.replaced_gates):
            calibration = "" if checked.document or not compiled.compiler else info.calibration_id
            task = msgspec.structs.replace(
                task, compiled=compiled.compiler, replaced_gates=replaced, compiled_for=calibration
            )
            checked = msgspec.structs.replace(checked, task=task)
        return checked, compiled

    def takes_numbers(self, checked: CheckedOptions) -> bool:
        """Return whether circuits are compiled with numbers for all angles, a sweep binding by
        binding, as the device of a submission has no gate with an angle."""
        if not checked.named or checked.compile == "never":
            return False
        info = self._info_for(checked.task.device, checked.task.pool, checked.task.prefer)
        return info is not None and info.is_discrete

    def use(self, checked: CheckedOptions, compiled: CompiledCircuit) -> DeviceUse:
        """Return what a prepared circuit takes of its device beside gates: Bell pairs of links, T
        gates and time of logical qubits."""
        task = checked.task
        info = self._info_for(task.device, task.pool, task.prefer)
        if info is None:
            return DeviceUse()
        program = compiled.loaded.program
        return DeviceUse(
            links_of(program, info.modules, info.links) if info.links else (),
            compiled.remote_gates,
            logical_use(program, info, compiled.rotations),
        )

    def within_limits(
        self, checked: CheckedOptions, loaded: PackedCircuit, rows: NDArray[np.float64]
    ) -> tuple[PackedCircuit, NDArray[np.float64]]:
        """Return a prepared circuit and the values of its slots, float64 [K, slots], within the
        limits of its device's angles where rewriting them is allowed; see `Compiler`."""
        task = checked.task
        info = self._info_for(task.device, task.pool, task.prefer)
        if info is None or not info.angle_limits or checked.compile == "never":
            return loaded, rows
        return self._compiler(info, checked).within_limits(loaded, rows)

    def join(
        self, programs: Sequence[QPUProgram] | Mapping[str, QPUProgram], device: Machine | str
    ) -> JoinedPrograms:
        """Return one circuit of the programs of several QPUs on a device of linked modules. Raises
        ProgramError, NotFoundError, OptionError, LimitExceededError."""
        from simenv.transpiler.qpu_programs.join import JoinedPrograms, distributed

        info = self._info(self.named(device) or "")
        wired, bits = distributed(programs, info)
        return JoinedPrograms(self._compiler(info).placed(wired), bits)

    def named(self, device: Any) -> str | None:
        """Return the name of a device that a submission names, that of a Machine after it was
        stored; other values as they are. Raises OptionError."""
        if isinstance(device, Machine):
            return MACHINE_PREFIX + self._store(device.document())[:MACHINE_DIGITS]
        result: str | None = device
        return result

    def forget(self) -> None:
        """Clear the cached descriptions of devices and pools."""
        with self._lock:
            self._infos.clear()
            self._pools = None

    def info(self, name: str) -> DeviceInfo:
        """Return a device, or a pool's, with its present calibration. Raises NotFoundError."""
        with self._lock:
            self._infos.pop(name, None)
        return self._info(name)

    def of_options(self, task: TaskOptions) -> DeviceInfo | None:
        """Return the emulated device that options name, directly or by a pool; None: they name
        none. Raises NotFoundError."""
        return self._info_for(task.device, task.pool, task.prefer)

    def _compiler(self, info: DeviceInfo, checked: CheckedOptions | None = None) -> Compiler:
        from simenv.client.submission.compiler import Compilers

        with self._lock:
            if self._compilers is None:
                self._compilers = Compilers(self._sandbox)
            compilers = self._compilers
        fractional = checked is not None and checked.fractional_gates
        return compilers.of(info, fractional_gates=fractional)

    def _refuse(self, info: DeviceInfo, checked: CheckedOptions, loaded: PackedCircuit) -> None:
        """Raise OptionError for outputs that an emulated device does not have."""
        if info.analog is not None:
            hint = "a pulser.Sequence; or a device of gates: simenv devices"
            raise OptionError(f"device {info.name!r} runs pulse sequences, no circuits", hint=hint)
        outputs = checked.task.outputs
        for output in ("statevector", "amplitudes", "gradient"):
            if output in outputs:
                message = f"a device has no output {output!r}: noise makes its state mixed"
                hint = "counts, probabilities or expectation values; or no device"
                raise OptionError(message, hint=hint)
        if "probabilities" in outputs and not loaded.measures:
            hint = "add measurements, as measure_all() does: probabilities are those of clbits"
            raise OptionError("probabilities of a device need a circuit that measures", hint=hint)

    def _info_for(self, device: str, pool: str, prefer: tuple[str, ...]) -> DeviceInfo | None:
        """Return the emulated device that a submission names, directly, by pool or by `prefer`."""
        if device:
            return self._info(device)
        if not (pool or prefer):
            return None
        pools = self._cached_pools()
        emulated = [each for each in pools.values() if each.kind is DeviceKind.EMULATED]
        for name in (pool, *prefer):
            results = [each for each in emulated if each.name == name or name in EMULATORS]
            ready = [each for each in results if not each.problem]
            if ready:
                return ready[0]
            if results:
                return self._info(results[0].name)  # raises the error with its hint
        return None

    def _info(self, name: str) -> DeviceInfo:
        cached = self._infos.get(name)
        if cached is None or monotonic() - cached[0] > DEVICE_S:
            cached = self._infos[name] = (monotonic(), self._source.device(name))
        return cached[1]

    def _cached_pools(self) -> Mapping[str, DeviceInfo]:
        cached = self._pools
        if cached is None or monotonic() - cached[0] > POOLS_S:
            cached = self._pools = (monotonic(), self._source.devices())
        return cached[1]

    def _store(self, document: bytes) -> str:
        key = hashlib.sha256(document).digest()
        digest = self._stored.get(key)
        if digest is None:
            digest = self._source.store(document)
            with self._lock:
                if len(self._stored) >= MAX_STORED:
                    self._stored.clear()
                self._stored[key] = digest
        return digest


def check_fractional(info: DeviceInfo) -> None:
    """Raise OptionError for a device without fractional gates."""
    if not info.fractional_gates:
        raise OptionError(
            f"fractional_gates for device {info.name}, which has none",
            hint="leave it out; simenv devices show lists a device's gates",
            option="fractional_gates",
        )


def _without_device(checked: CheckedOptions) -> CheckedOptions:
    """Return the options for an ideal device or a machine. Raises NoDeviceError for options that
    only an emulated device has."""
    task = checked.task
    if task.noise == OFF:
        task = msgspec.structs.replace(task, noise=())
        checked = msgspec.structs.replace(checked, task=task)
    asked = (
        ("noise", bool(task.noise) and not task.snapshot),
        ("compile", checked.compile != "auto"),
        ("qubit_mapping", bool(checked.mapping)),
        ("partition", bool(checked.partition)),
        ("fractional_gates", checked.fractional_gates),
    )
    for name, value in asked:
        if value:
            reason = f"pool {task.pool!r} holds none" if task.pool else "none is named"
            raise NoDeviceError(
                f"{name} needs an emulated device, and {reason}",
                hint=f"device='NAME' or the pool of a device; or leave {name}= out",
                option=name,
            )
    return checked
