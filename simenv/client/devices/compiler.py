"""Circuits compiled for an emulated device: once for each program, with a fixed level and seed.

Invariant: clbits are never changed, so counts need no mapping back. Slots of a program stay slots.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.client.circuits import PackedCircuit, load
from simenv.client.circuits.common.parameters import ParameterSlots
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.client.devices.target import NativeForm, gate_names, target_of
from simenv.errors import OptionError, ProgramError
from simenv.model import Observable
from simenv.model.devices import DeviceInfo

LEVEL = 1  # of Qiskit's transpiler
SEED = 7
MAX_TARGETS = 16
MAX_PROGRAMS = 1_024

# uint16: the device's qubit of each qubit of the circuit, at its end and at its beginning; b"": the
# same.
Layouts = tuple[bytes, bytes]


class CompiledCircuit(msgspec.Struct, frozen=True):
    """A circuit in native gates on the device's qubits."""

    loaded: PackedCircuit
    layouts: Layouts
    compiler: str  # name, version, level and seed; "": it was left as written
    num_qubits: int  # of the device
    replaced: tuple[str, ...] = ()  # gates of the circuit that it has no longer

    def observables(self, told: tuple[Observable, ...]) -> tuple[Observable, ...]:
        """The same observables on the device's qubits."""
        if not self.layouts[0]:
            return told
        places = np.frombuffer(self.layouts[0], np.uint16).tolist()
        return tuple(
            Observable(
                tuple(_moved(label, places, self.loaded.num_qubits) for label in each.labels),
                each.coefficients,
            )
            for each in told
        )


def _moved(label: str, places: list[int], num_qubits: int) -> str:
    found = ["I"] * num_qubits
    for letter, place in zip(reversed(label), places, strict=True):
        found[num_qubits - 1 - place] = letter
    return "".join(found)


@dataclass(frozen=True, slots=True)
class _CompiledSlots(ParameterSlots):
    """The slots of a compiled program, by those of the program before."""

    compiled: ParameterSlots

    def values(self, parameter_values: Any) -> NDArray[np.float64]:
        before = ParameterSlots(self.parameters, self.expressions).values(parameter_values)
        names = [str(getattr(each, "name", each)) for each in self.compiled.parameters]
        if not names:
            return np.zeros((len(before), 0))
        return self.compiled.values({name: before[:, int(name[1:])] for name in names})


class Compiler:
    """Compiles for one device, and keeps what it compiled. Not thread-safe."""

    def __init__(self, info: DeviceInfo) -> None:
        self._info = info
        self._native = NativeForm(info)
        self._passes: Any = None
        self._programs: OrderedDict[bytes, tuple[PackedCircuit, Layouts]] = OrderedDict()

    @property
    def name(self) -> str:
        """What compiles, as results record it."""
        import qiskit

        return f"qiskit {qiskit.__version__}, level {LEVEL}, seed {SEED}"

    def compiled(
        self, loaded: PackedCircuit, mode: str, mapping: tuple[int, ...] = ()
    ) -> CompiledCircuit:
        """`mode`: "auto": where it does not fit; "never", "always". `mapping`: the device's qubit
        of each of the circuit's at its beginning; (): any. Raises ProgramError, OptionError."""
        wide = self._info.num_qubits
        written, place = loaded, b""
        if mapping:
            written = self._mapped(loaded, mapping)
            place = np.array(mapping, np.uint16).tobytes()
        own = CompiledCircuit(written, (place, place), "", wide)
        if mode == "never" or (mode == "auto" and self._native.fits(written.program)):
            return own
        # What no compilation makes fit is refused by the service, which names the operation.
        if self._native.is_refused(written.program):
            return own
        key = loaded.packed + place
        found = self._programs.get(key)
        if found is None:
            try:
                found = self._programs[key] = self._transpiled(loaded, mapping)
            except ProgramError:
                if self._info.dynamic or "reset" not in loaded.program.names:
                    raise
                return own
            if len(self._programs) > MAX_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(key)
        after, layouts = found
        slots = _CompiledSlots(loaded.slots.parameters, loaded.slots.expressions, after.slots)
        packed = PackedCircuit(
            after.packed, after.num_qubits, after.measures, loaded.parameters, slots
        )
        replaced = gate_names(loaded.program) - gate_names(after.program)
        return CompiledCircuit(packed, layouts, self.name, wide, tuple(sorted(replaced)))

    def _mapped(self, loaded: PackedCircuit, mapping: tuple[int, ...]) -> PackedCircuit:
        """The circuit as it is written, on these qubits of the device."""
        if len(mapping) != loaded.num_qubits or max(mapping) >= self._info.num_qubits:
            raise OptionError(
                f"qubit_mapping={mapping!r:.80} for {loaded.num_qubits} qubits",
                hint=f"one qubit of the {self._info.num_qubits} of device {self._info.name} each",
            )
        program = loaded.program
        places = np.array(mapping, np.uint16)[np.frombuffer(program.qubits, np.uint16)]
        moved = msgspec.structs.replace(
            program, num_qubits=self._info.num_qubits, qubits=places.tobytes()
        )
        return PackedCircuit(
            moved.packed(), moved.num_qubits, loaded.measures, loaded.parameters, loaded.slots
        )

    def transpiled(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """A QuantumCircuit in native gates on the device's qubits. Raises ProgramError."""
        from qiskit.exceptions import QiskitError

        if circuit.num_qubits > self._info.num_qubits:
            raise ProgramError(
                f"the circuit has {circuit.num_qubits} qubits; device {self._info.name} has"
                f" {self._info.num_qubits}",
                hint="a wider device, or fewer qubits",
            )
        try:
            if mapping:
                return self._pass_manager(mapping).run(circuit)
            if self._passes is None:
                self._passes = self._pass_manager()
            return self._passes.run(circuit)
        except QiskitError as error:
            raise ProgramError(
                f"the circuit cannot be compiled for device {self._info.name}: {error.message}",
                hint="compile='never' runs it as it is written, in native gates",
            ) from error

    def _pass_manager(self, mapping: tuple[int, ...] = ()) -> Any:
        target = target_of(self._info)
        from qiskit.transpiler import generate_preset_pass_manager

        return generate_preset_pass_manager(
            optimization_level=LEVEL,
            target=target,
            seed_transpiler=SEED,
            initial_layout=list(mapping) or None,
        )

    def _transpiled(
        self, loaded: PackedCircuit, mapping: tuple[int, ...]
    ) -> tuple[PackedCircuit, Layouts]:
        found = self.transpiled(to_qiskit(loaded.program), mapping)
        last = found.layout.final_index_layout(filter_ancillas=True)
        first = found.layout.initial_index_layout(filter_ancillas=True)
        return load(found), (
            np.array(last, np.uint16).tobytes(),
            np.array(first, np.uint16).tobytes(),
        )


class Compilers:
    """Compilers of devices, by calibration. Not thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Compiler] = OrderedDict()

    def of(self, info: DeviceInfo) -> Compiler:
        """The compiler for a device as it is calibrated now."""
        key = (info.name, info.calibration_id)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Compiler(info)
            if len(self._known) > MAX_TARGETS:
                self._known.popitem(last=False)
        return found
