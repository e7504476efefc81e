"""Compilation of circuits for an emulated device, once for each structure.

Level and seed are fixed. Programs that differ only in their angles have one structure; see
`transpiler.opened`. Invariant: clbits are never changed, so counts need no mapping back; for a
device of several QPUs, those of a hidden register are added. Parameter slots of a program are
preserved. Compilation for others runs in a process with bounds of memory
and time (`compiler_sandbox`); what it returns is the same.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.client.circuits import ChannelNames, PackedCircuit, load
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.circuits.parameters import ParameterSlots
from simenv.errors import OptionError, ProgramError
from simenv.model import Observable, Program, decode_program
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.model.task_rules import measured_last, refuse_collapsed
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler import qpy
from simenv.transpiler.native_form import TOLERANCE, BindingFolder, NativeForm
from simenv.transpiler.qiskit_runtime import BY_COST
from simenv.transpiler.transpiler import Transpiler, closed, gate_names, opened

if TYPE_CHECKING:
    from simenv.transpiler.linked.distribution import LinkedTranspiler
    from simenv.transpiler.linked.operations import DistributedCircuit

MAX_TARGETS = 16
SANDBOX_S = 60.0  # for a structure that a sandbox compiles
MAX_STRUCTURES = 1_024

Sandbox = Callable[[], SandboxProcess]
# uint16: the device's qubit of each qubit of the circuit, at its end and at its beginning; b"": the
# same numbers.
Layouts = tuple[bytes, bytes]


class CompiledCircuit(msgspec.Struct, frozen=True):
    """A circuit in native gates on the device's qubits."""

    loaded: PackedCircuit
    layouts: Layouts
    compiler: str  # name, version, level and seed; "": not compiled
    num_qubits: int  # of the device
    replaced: tuple[str, ...] = ()  # gates of the original circuit that were replaced
    remote_gates: int = 0  # between modules of the device
    rotations: int = 0  # that became sequences of T gates

    def observables(self, unmapped: tuple[Observable, ...]) -> tuple[Observable, ...]:
        """Return the same observables on the device's qubits. Raises OptionError for X or Y on a
        qubit that is measured at the end."""
        if not self.layouts[0]:
            return unmapped
        places = np.frombuffer(self.layouts[0], np.uint16).tolist()
        labels = [label for each in unmapped for label in each.labels]
        if self.loaded.measures and any("X" in label or "Y" in label for label in labels):
            measured = _measured(self.loaded.program)
            refuse_collapsed(labels, {k for k, place in enumerate(places) if place in measured})
        return tuple(
            Observable(
                tuple(_moved(label, places, self.loaded.num_qubits) for label in each.labels),
                each.coefficients,
            )
            for each in unmapped
        )


def _measured(program: Program) -> set[int]:
    """Return the qubits whose last operation is a measurement."""
    ops, qubits = (
        np.frombuffer(each, np.uint16).tolist() for each in (program.ops, program.qubits)
    )
    sizes = np.frombuffer(program.arities, np.uint16)[::3].tolist()
    return measured_last(program.names, sizes, ops, qubits)


def _moved(label: str, places: list[int], num_qubits: int) -> str:
    result = ["I"] * num_qubits
    for letter, position in zip(reversed(label), places, strict=True):
        result[num_qubits - 1 - position] = letter
    return "".join(result)


@dataclass(frozen=True, slots=True)
class _CompiledSlots(ParameterSlots):
    """Parameter slots of a compiled program, as functions of the slots of the original program."""

    compiled: ParameterSlots

    def values(self, parameter_values: Any) -> NDArray[np.float64]:
        before = ParameterSlots(self.parameters, self.expressions).values(parameter_values)
        names = [str(getattr(each, "name", each)) for each in self.compiled.parameters]
        if not names:
            return np.zeros((len(before), 0))
        return self.compiled.values({name: before[:, int(name[1:])] for name in names})


@dataclass(frozen=True, eq=False)
class _CompiledStructure:
    """A compiled structure in the cache."""

    circuit: Any  # a QuantumCircuit in native gates
    layouts: Layouts
    channels: ChannelNames | None = None  # labels are read, as the structure has some
    remote_gates: int = 0
    rotations: int = 0

    @cached_property
    def packed(self) -> PackedCircuit:
        """The compiled circuit; its parameter slots are those of the structure."""
        return load(self.circuit, self.channels)


class Compiler:
    """Compiler for one device, with a cache of compiled structures. Thread-safe: one structure is
    compiled at a time, and circuits whose structure is in the cache do not wait for it."""

    def __init__(
        self,
        info: DeviceInfo,
        level: int = BY_COST,
        sandbox: Sandbox | None = None,
        *,
        fractional_gates: bool = False,
    ) -> None:
        """`level`, `fractional_gates`: as for `Transpiler`. `sandbox`: returns the process that
        compiles, BY_COST only; None: this one."""
        self._info, self._fractional = info, fractional_gates
        self._sandbox = sandbox
        self._native = NativeForm(info)
        kind = Transpiler
        if info.links:
            from simenv.transpiler.linked.distribution import LinkedTranspiler

            kind = LinkedTranspiler
        self._transpiler = kind(info, level, fractional_gates=fractional_gates)
        self._structures: OrderedDict[tuple[object, ...], _CompiledStructure] = OrderedDict()
        self._lock = threading.Lock()  # of the cache
        self._compiling = threading.Lock()

    @property
    def name(self) -> str:
        """Name, version, level and seed of the compiler, as results record it."""
        return self._transpiler.name

    def compiled(
        self,
        loaded: PackedCircuit,
        mode: str,
        mapping: tuple[int, ...] = (),
        modules: tuple[str, ...] = (),
    ) -> CompiledCircuit:
        """Compile a circuit. `mode`: "auto" and "fresh" compile a circuit that does not fit the
        device, "always" any, "never" none. `mapping`: the device's qubit of each qubit of the
        circuit at its beginning; (): any. `modules`: the QPU of each qubit, where the device has
        several; (): the compiler's choice. Raises ProgramError, OptionError."""
        if modules and not self._info.modules:
            raise OptionError(
                f"partition for device {self._info.name}, which is one QPU",
                hint="a device that `simenv devices link` made, or no partition",
                option="partition",
            )
        wide = self._info.num_qubits
        written, packed_mapping = loaded, b""
        if mapping:
            written = self._mapped(loaded, mapping)
            packed_mapping = np.array(mapping, np.uint16).tobytes()
        compiled = CompiledCircuit(written, (packed_mapping, packed_mapping), "", wide)
        may_stay = mode != "always" and not modules
        if mode == "never" or (may_stay and self._native.fits(written.program)):
            return compiled
        # The service refuses a circuit that no compilation can make fit, and names the operation.
        if self._native.is_refused(written.program):
            return compiled
        structure, values = loaded.program, np.zeros(0)
        if not self._transpiler.needs_numbers:
            structure, values = opened(structure)
        try:
            result = self._structure(structure, mapping, modules)
        except ProgramError:
            if self._info.dynamic or "reset" not in loaded.program.names:
                raise
            return compiled
        if values.size:
            bound = closed(result.circuit, values, self._transpiler.merging)
            packed = load(bound, result.channels)
        else:
            after = result.packed
            slots = _CompiledSlots(loaded.slots.parameters, loaded.slots.expressions, after.slots)
            packed = PackedCircuit(
                after.packed, after.num_qubits, after.measures, loaded.parameters, slots
            )
        replaced = gate_names(loaded.program) - gate_names(packed.program)
        names = tuple(sorted(replaced))
        return CompiledCircuit(
            packed, result.layouts, self.name, wide, names, result.remote_gates, result.rotations
        )

    def within_limits(
        self, loaded: PackedCircuit, rows: NDArray[np.float64]
    ) -> tuple[PackedCircuit, NDArray[np.float64]]:
        """Rewrite rzz whose swept angle leaves the device's limits. `rows` [K, slots]: values of
        the slots. Return the circuit and its rows unchanged where no form fits the device."""
        bounds = {each.gate: each.bounds_rad for each in self._info.angle_limits}.get("rzz")
        if bounds is None or not rows.size or "rzz" not in loaded.program.names:
            return loaded, rows
        ((low, high),) = bounds
        if rows.min() >= low - TOLERANCE and rows.max() <= high + TOLERANCE:
            return loaded, rows
        native = {gate.name for gate in Availability(self._info).with_fractional.gates}
        covers = low <= TOLERANCE and high >= math.pi / 2 - TOLERANCE
        if not covers or "rz" not in native or native.isdisjoint(("rx", "sx")):
            return loaded, rows
        program, values = BindingFolder(loaded.program, rows, native).folded(low, high)
        if program.num_slots == rows.shape[1] or not self._native.fits(program):
            return loaded, rows
        return msgspec.structs.replace(loaded, packed=program.packed()), values

    def _structure(
        self, structure: Program, mapping: tuple[int, ...], modules: tuple[str, ...]
    ) -> _CompiledStructure:
        """Return the compiled structure from the cache, or compile it. Raises ProgramError."""
        key = structure.packed(), mapping, modules
        result = self._cached(key)
        if result is None:
            with self._compiling:
                result = self._cached(key)  # another thread may have compiled it meanwhile
                if result is None:
                    compile_ = self.transpiled if self._sandbox is None else self._confined
                    result = compile_(structure, mapping, modules)
                    if self._info.links:
                        from simenv.transpiler.linked.distribution import with_pairs

                        circuit = with_pairs(result.circuit, self._info)
                        result = dataclasses.replace(result, circuit=circuit)
                    self._keep(key, result)
        return result

    def _cached(self, key: tuple[object, ...]) -> _CompiledStructure | None:
        with self._lock:
            result = self._structures.get(key)
            if result is not None:
                self._structures.move_to_end(key)
            return result

    def _keep(self, key: tuple[object, ...], result: _CompiledStructure) -> None:
        with self._lock:
            self._structures[key] = result
            if len(self._structures) > MAX_STRUCTURES:
                self._structures.popitem(last=False)

    def _mapped(self, loaded: PackedCircuit, mapping: tuple[int, ...]) -> PackedCircuit:
        """Return the circuit, not compiled, on these qubits of the device."""
        if len(mapping) != loaded.num_qubits or max(mapping) >= self._info.num_qubits:
            raise OptionError(
                f"qubit_mapping={mapping!r:.80} for {loaded.num_qubits} qubits",
                hint=f"one qubit of the {self._info.num_qubits} of device {self._info.name} each",
                option="qubit_mapping",
            )
        program = loaded.program
        places = np.array(mapping, np.uint16)[np.frombuffer(program.qubits, np.uint16)]
        moved = msgspec.structs.replace(
            program, num_qubits=self._info.num_qubits, qubits=places.tobytes()
        )
        return PackedCircuit(
            moved.packed(), moved.num_qubits, loaded.measures, loaded.parameters, loaded.slots
        )

    def _confined(
        self, program: Program, mapping: tuple[int, ...], modules: tuple[str, ...]
    ) -> _CompiledStructure:
        """Compile a structure in the sandbox. Raises ProgramError, LimitExceededError."""
        assert self._sandbox is not None
        asked = _Structure(self._info, program.packed(), mapping, modules, self._fractional)
        data = self._sandbox().convert(msgspec.msgpack.encode(asked))
        answer = msgspec.msgpack.decode(data, type=_Transpiled)
        circuit, channels = qpy.parse(answer.circuit), _channels(program)
        return _CompiledStructure(
            circuit, answer.layouts, channels, answer.remote_gates, answer.rotations
        )

    def transpiled(
        self, program: Program, mapping: tuple[int, ...], modules: tuple[str, ...]
    ) -> _CompiledStructure:
        """Compile a structure in this process. Raises ProgramError, OptionError."""
        if self._info.links:
            linked = self._linked.divided(to_qiskit(program), mapping, modules)
            layouts = _packed(linked.last), _packed(linked.first)
            channels = _channels(program)
            return _CompiledStructure(linked.circuit, layouts, channels, linked.remote_gates)
        result = self._transpiler.run(to_qiskit(program), mapping)
        last = result.layout.final_index_layout(filter_ancillas=True)
        first = result.layout.initial_index_layout(filter_ancillas=True)
        layouts = _packed(last), _packed(first)
        rotations = self._transpiler.rotations
        return _CompiledStructure(result, layouts, _channels(program), rotations=rotations)

    def placed(self, wired: DistributedCircuit) -> Any:
        """Return a distributed circuit as a QuantumCircuit in native gates on the device's qubits.
        Raises ProgramError."""
        with self._compiling:
            return self._linked.placed(wired).circuit

    @property
    def _linked(self) -> LinkedTranspiler:
        return cast("LinkedTranspiler", self._transpiler)


def _packed(layout: Sequence[int]) -> bytes:
    return np.array(layout, np.uint16).tobytes()


def _channels(program: Program) -> ChannelNames | None:
    return ChannelNames(whole=False) if program.labels else None


class Compilers:
    """Cache of compilers, by device and calibration: the one that was not used for longest makes
    room. Thread-safe."""

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox
        self._cache: OrderedDict[tuple[str, str, bool], Compiler] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, info: DeviceInfo, *, fractional_gates: bool = False) -> Compiler:
        """Return the compiler for a device with its present calibration."""
        key = (info.name, info.calibration_id, fractional_gates)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        # Other devices do not wait for it.
        made = Compiler(info, sandbox=self._sandbox, fractional_gates=fractional_gates)
        with self._lock:
            result = self._cache.setdefault(key, made)
            self._cache.move_to_end(key)
            if len(self._cache) > MAX_TARGETS:
                self._cache.popitem(last=False)
        return result


class _Structure(msgspec.Struct, frozen=True, array_like=True):
    """A structure to compile, for the sandbox process. `program`: packed."""

    info: DeviceInfo
    program: bytes
    mapping: tuple[int, ...]
    modules: tuple[str, ...]
    fractional_gates: bool


class _Transpiled(msgspec.Struct, frozen=True, array_like=True):
    """`circuit`: QPY."""

    circuit: bytes
    layouts: Layouts
    remote_gates: int
    rotations: int


def compiler_sandbox() -> SandboxProcess:
    """Return a process that compiles, which is started with its first structure."""
    verbs = "compiling", "compiled"
    return SandboxProcess(__name__, "transpiled", "circuit", verbs, SANDBOX_S)


_of_sandbox = Compilers()  # in the sandbox process


def transpiled(data: bytes) -> bytes:
    """Compile a structure; called in the sandbox process."""
    asked = msgspec.msgpack.decode(data, type=_Structure)
    compiler = _of_sandbox.of(asked.info, fractional_gates=asked.fractional_gates)
    result = compiler.transpiled(decode_program(asked.program), asked.mapping, asked.modules)
    return msgspec.msgpack.encode(
        _Transpiled(
            qpy.write_qpy(result.circuit), result.layouts, result.remote_gates, result.rotations
        )
    )
