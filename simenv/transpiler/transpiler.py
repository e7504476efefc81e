"""Transpilation of Qiskit circuits to a device: Target, angles, and plugins.

Imports qiskit.

Angles of rotations as parameters, so that circuits of one structure are compiled once. The
rotations are those whose compiled forms have no parameter in their global phase, which Qiskit
handles slowly. Multiples of pi/4 stay numbers: they decide which gates a compiler needs (rx(pi) is
x). The compiled circuit is a function of the circuit alone, not of earlier compilations.

Lazy loading of the transpiler plugins of other distributions. Qiskit loads each installed plugin
for the stage `translation` whenever it makes a pass manager, also those that it does not use. The
plugins of qiskit-ibm-runtime import its clients for IBM's cloud, which takes several times as long
as the transpilation.
"""

from __future__ import annotations

import math
from collections.abc import Container
from contextlib import suppress
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.errors import OptionError, ProgramError
from simenv.model import NO_GATES, OWNERS, Program, is_gate, is_measurement
from simenv.model.availability import Availability
from simenv.model.views import DeviceInfo
from simenv.transpiler import qiskit_runtime
from simenv.transpiler.qiskit_runtime import LEVEL, SEED

TOLERANCE = 1e-9  # rad, of a limit of an angle
_CONTROL_FLOW = ("if_else", "while_loop", "for_loop", "switch_case")


def target_of(info: DeviceInfo) -> Any:
    """Return the qiskit.transpiler.Target of a device: what its data lists, with durations, times
    T1 and T2 in seconds, frequencies in Hz, errors, limits of angles. A gate that Qiskit does not
    have is left out: no compilation uses it. Raises OptionError if all gates are such."""
    qiskit_runtime.qiskit()
    from qiskit.circuit import Delay, Instruction, Measure, Parameter, Reset
    from qiskit.circuit.controlflow import ForLoopOp, IfElseOp, SwitchCaseOp, WhileLoopOp
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    dt_s = None if math.isnan(info.dt_ns) or not info.dt_ns else info.dt_ns * 1e-9
    qubit_properties = [
        QubitProperties(
            t1=_none_if_nan(qubit.t1_us * 1e-6),
            t2=_none_if_nan(qubit.t2_us * 1e-6),
            frequency=_none_if_nan(qubit.frequency_ghz * 1e9),
        )
        for qubit in info.qubits
    ]
    target = Target(num_qubits=info.num_qubits, dt=dt_s, qubit_properties=qubit_properties or None)
    standard_gates = get_standard_gate_name_mapping()
    available = Availability(info)

    def places(name: str) -> dict[tuple[int, ...], Any]:
        return {
            qubits: InstructionProperties(
                duration=_none_if_nan(each.duration_ns * 1e-9), error=_none_if_nan(each.error)
            )
            if each is not None
            else None
            for qubits, each in available.places(name).items()
        }

    limits = {each.gate: list(each.bounds_rad) for each in info.angle_limits}
    known = [gate.name for gate in info.gates if gate.name in standard_gates]
    if info.gates and not known:
        hint = "compile='never' runs circuits as they are written"
        name = info.gates[0].name
        raise OptionError(f"device {info.name}: Qiskit has no gate {name!r}", hint=hint)
    bounds = {}
    if limits and hasattr(target, "gate_has_angle_bounds"):  # Qiskit 2.2
        from qiskit.transpiler.passes.utils.wrap_angles import WRAP_ANGLE_REGISTRY

        bounds = {name: {"angle_bounds": limits[name]} for name in limits}
        for name in limits:
            WRAP_ANGLE_REGISTRY.add_wrapper(name, partial(_within_limits, name))
    for name in known:
        if name not in ("measure", "reset", "delay"):
            target.add_instruction(standard_gates[name], places(name), **bounds.get(name, {}))
    target.add_instruction(Measure(), places("measure"))
    for name in available.measurements:
        target.add_instruction(Instruction(name, 1, 1, []), places(name))
    target.add_instruction(Delay(Parameter("t")), dict.fromkeys(places("delay")))
    if info.dynamic:
        target.add_instruction(Reset(), places("reset"))
        for kind, name in zip(
            (IfElseOp, WhileLoopOp, ForLoopOp, SwitchCaseOp), _CONTROL_FLOW, strict=True
        ):
            target.add_instruction(kind, name=name)
    return target


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def gate_names(program: Program) -> frozenset[str]:
    """Return the names of a program's gates in noise models, without measurements, resets, delays
    and markers."""
    return frozenset(filter(is_gate, program.noise_names))


class NativeForm:
    """Check whether programs consist of operations that a device has, where it has them."""

    def __init__(self, info: DeviceInfo) -> None:
        self._num_qubits = info.num_qubits
        self._dynamic = info.dynamic
        available = Availability(info)
        self._native = {gate.name: gate.qubits for gate in info.gates}
        self._native |= dict.fromkeys(available.measurements, 1)
        codes = available.codes()
        self._places = {name: np.array(each, np.int64) for name, each in codes.items()}
        self._limits = {each.gate: np.array(each.bounds_rad) for each in info.angle_limits}

    def is_refused(self, program: Program) -> bool:
        """Return whether the program has conditions or loops and the device has no dynamic
        circuits, or a measurement of a name that the device lacks."""
        if not self._dynamic and not set(OWNERS).isdisjoint(program.names):
            return True
        named = (each for each in program.names if is_measurement(each) and each != "measure")
        return any(name not in self._native for name in named)

    def fits(self, program: Program) -> bool:
        """Return whether the device has all operations of the program on its qubits."""
        if program.num_qubits > self._num_qubits:
            return False
        arities = np.frombuffer(program.arities, np.uint16)[0::3].astype(np.int64)
        for name, size in zip(program.names, arities.tolist(), strict=True):
            if name not in NO_GATES and self._native.get(name) != size:
                return False
        ops = np.frombuffer(program.ops, np.uint16)
        sizes = arities[ops]
        starts = np.cumsum(sizes) - sizes
        qubits = np.frombuffer(program.qubits, np.uint16).astype(np.int64)
        for row, (name, size) in enumerate(zip(program.names, arities.tolist(), strict=True)):
            places = self._places.get(name)
            if places is None:
                continue
            at = starts[ops == row]
            codes = qubits[at]
            for k in range(1, size):
                codes = codes * self._num_qubits + qubits[at + k]
            if not np.isin(codes, places).all():
                return False
        return not self._limits or self._is_within(program, ops)

    def _is_within(self, program: Program, ops: NDArray[np.uint16]) -> bool:
        """Return whether all angles that are numbers are within the device's limits."""
        counts = np.frombuffer(program.arities, np.uint16)[2::3].astype(np.int64)[ops]
        starts = np.cumsum(counts) - counts
        params = np.frombuffer(program.params, np.float64)
        free = np.zeros(params.size, np.bool_)
        if program.num_slots:
            free[np.frombuffer(program.slots, np.int32).reshape(-1, 2)[:, 0]] = True
        for row, name in enumerate(program.names):
            for number, (low, high) in enumerate(self._limits.get(name, ())):
                at = starts[ops == row] + number
                angles = params[at][~free[at]]
                outside = (angles < low - TOLERANCE) | (angles > high + TOLERANCE)
                if outside.any():
                    return False
        return True


class BindingFolder:
    """Rewrites rzz whose angle is a slot with values outside the device's limits. rz and rx about
    it get angles of their own for each binding, by the identities of `fold_rzz`."""

    def __init__(self, program: Program, rows: NDArray[np.float64], native: Container[str]) -> None:
        """`rows` [K, slots]: values of the slots; `native`: names of the device's gates."""
        self._program, self._rows = program, rows
        self._has_rx = "rx" in native
        self._names, self._arities = list(program.names), bytearray(program.arities)
        self._table: dict[str, int] = {}
        self._columns = [*rows.T]
        self._of: dict[int, tuple[int, int, int]] = {}  # of a slot: those of rzz, rz, rx; -1: none
        self._ops: list[int] = []
        self._qubits: list[int] = []
        self._params: list[float] = []
        self._slots: list[tuple[int, int]] = []

    def folded(self, low: float, high: float) -> tuple[Program, NDArray[np.float64]]:
        """Return the program with each rzz from `low` to `high`, and the values of its slots."""
        program = self._program
        sizes = np.frombuffer(program.arities, np.uint16).reshape(-1, 3).tolist()
        qubits = np.frombuffer(program.qubits, np.uint16).tolist()
        params = np.frombuffer(program.params, np.float64).tolist()
        given = np.frombuffer(program.slots, np.int32).tolist()
        slots = dict(zip(given[0::2], given[1::2], strict=True))
        outside = (self._rows < low - TOLERANCE) | (self._rows > high + TOLERANCE)
        beyond: NDArray[np.bool_] = np.any(outside, axis=0)
        q = p = 0
        for row in np.frombuffer(program.ops, np.uint16).tolist():
            width, _, count = sizes[row]
            mine = qubits[q : q + width]
            slot = slots.get(p, -1) if program.names[row] == "rzz" else -1
            if slot >= 0 and beyond[slot]:
                self._fold(slot, mine)
            else:
                self._add(
                    row, mine, params[p : p + count], [slots.get(p + k) for k in range(count)]
                )
            q, p = q + width, p + count
        changed = msgspec.structs.replace(
            program,
            names=tuple(self._names),
            arities=bytes(self._arities),
            ops=np.array(self._ops, np.uint16).tobytes(),
            qubits=np.array(self._qubits, np.uint16).tobytes(),
            params=np.array(self._params).tobytes(),
            num_slots=len(self._columns),
            slots=np.array(self._slots, np.int32).tobytes(),
        )
        return changed, np.ascontiguousarray(np.column_stack(self._columns))

    def _fold(self, slot: int, qubits: list[int]) -> None:
        angle, turn, flip = self._slots_of(slot)
        for qubit in qubits if turn >= 0 else ():
            self._gate("rz", [qubit], turn)
        for part in (False, True):
            if flip >= 0 and self._has_rx:
                self._gate("rx", qubits[:1], flip)
            elif flip >= 0:  # rx(a) = rz(pi/2) sx rz(a + pi) sx rz(pi/2)
                for name, middle in (("rz", -1), ("sx", -1), ("rz", flip), ("sx", -1), ("rz", -1)):
                    self._gate(name, qubits[:1], middle)
            if not part:
                self._gate("rzz", qubits, angle)

    def _slots_of(self, slot: int) -> tuple[int, int, int]:
        if slot not in self._of:
            turned = np.remainder(self._rows[:, slot] + math.pi, 2.0 * math.pi) - math.pi
            wide = np.abs(turned) > math.pi / 2
            turned -= np.where(wide, np.copysign(math.pi, turned), 0.0)
            negative = turned < 0.0
            base = 0.0 if self._has_rx else math.pi
            self._of[slot] = (
                self._column(np.abs(turned)),
                self._column(math.pi * wide) if wide.any() else -1,
                self._column(base + math.pi * negative) if negative.any() else -1,
            )
        return self._of[slot]

    def _column(self, values: NDArray[Any]) -> int:
        self._columns.append(values)
        return len(self._columns) - 1

    def _gate(self, name: str, qubits: list[int], slot: int) -> None:
        """Append a gate with one angle or none; `slot` -1: its angle is pi / 2."""
        has_angle = name != "sx"
        if name not in self._table:
            self._table[name] = len(self._names)
            self._names.append(name)
            self._arities += np.array([len(qubits), 0, has_angle], np.uint16).tobytes()
        angles = [math.pi / 2 if slot < 0 else 0.0] if has_angle else []
        self._add(self._table[name], qubits, angles, [slot if slot >= 0 else None] * len(angles))

    def _add(
        self, row: int, qubits: list[int], params: list[float], slots: list[int | None]
    ) -> None:
        self._ops.append(row)
        self._qubits += qubits
        for value, slot in zip(params, slots, strict=True):
            if slot is not None:
                self._slots.append((len(self._params), slot))
            self._params.append(value)


ROTATIONS = frozenset({"rx", "ry", "rz", "rxx", "ryy", "rzz", "rzx"})
MOST_ANGLES = 1_024  # a circuit with more angles is compiled as it is
_REASON_CHARS = 300  # of the compiler's message
_STEP = math.pi / 4
_TOLERANCE = 1e-9


def opened(program: Program) -> tuple[Program, NDArray[np.float64]]:
    """Return the program with slot k in place of its k-th angle, and the angles, float64 [slots]. A
    program with free parameters or control flow is returned unchanged, without angles."""
    none = np.zeros(0)
    if program.num_slots or not program.params or not set(OWNERS).isdisjoint(program.names):
        return program, none
    params = np.frombuffer(program.params, np.float64).copy()
    rotates = np.array([name in ROTATIONS for name in program.names])
    counts = np.frombuffer(program.arities, np.uint16)[2::3]
    ops = np.frombuffer(program.ops, np.uint16)
    indices = np.flatnonzero(np.repeat(rotates[ops], counts[ops]) & _is_generic(params))
    if not 0 < indices.size <= MOST_ANGLES:
        return program, none
    angles = params[indices]
    params[indices] = 0.0
    slots = np.column_stack((indices, np.arange(indices.size))).astype(np.int32)
    changed = msgspec.structs.replace(
        program, params=params.tobytes(), num_slots=indices.size, slots=slots.tobytes()
    )
    return changed, angles


def opened_circuit(circuit: Any) -> tuple[Any, NDArray[np.float64]]:
    """Return a QuantumCircuit with parameters `p0`, `p1`... in place of its angles, and the angles;
    see `opened`."""
    from qiskit.circuit import Parameter

    none = np.zeros(0)
    if circuit.parameters or circuit.has_control_flow_op():
        return circuit, none
    result = circuit.copy_empty_like()
    angles: list[float] = []
    for instruction in circuit.data:
        operation = instruction.operation
        if operation.name in ROTATIONS and _is_generic(np.array(operation.params, float)).all():
            changed = operation.to_mutable()
            changed.params = [Parameter(f"p{len(angles)}")]
            angles.append(float(operation.params[0]))
            instruction = instruction.replace(operation=changed)
        result._append(instruction)
    return (result, np.array(angles)) if 0 < len(angles) <= MOST_ANGLES else (circuit, none)


def closed(compiled: Any, angles: NDArray[np.float64], passes: Any) -> Any:
    """Return the compiled QuantumCircuit of an opened one with its angles bound. `passes`: merge
    the gates on one qubit that the parameters kept apart."""
    values = {each: float(angles[int(each.name[1:])]) for each in compiled.parameters}
    result = passes.run(compiled.assign_parameters(values))
    result._layout = compiled._layout
    result.name = compiled.name  # assign_parameters generates a name from a process counter
    return result


def _within_limits(name: str, angles: list[float], qubits: list[int]) -> Any:
    """Return the DAGCircuit of a gate that is outside its limits, for Qiskit's pass WrapAngles: rzz
    with its angle from 0 to pi/2. Raises TranspilerError for other gates."""
    from qiskit import QuantumCircuit
    from qiskit.converters import circuit_to_dag
    from qiskit.transpiler.exceptions import TranspilerError

    if name != "rzz":
        raise TranspilerError(f"the angles {angles} of {name} are outside the device's limits")
    result = QuantumCircuit(len(qubits))
    fold_rzz(result, angles[0])
    return circuit_to_dag(result)


def fold_rzz(circuit: Any, angle: float) -> None:
    """Append rzz with its angle from 0 to pi/2, and x and rz(pi) about it: rzz(a) = (Z x Z)
    rzz(a - pi) and rzz(-a) = (X x I) rzz(a) (X x I), up to a global phase."""
    turned = math.remainder(angle, 2.0 * math.pi)  # a turn of 2 pi is a global phase
    if abs(turned) > math.pi / 2:
        circuit.rz(math.pi, [0, 1])
        turned -= math.copysign(math.pi, turned)
    if turned < 0.0:
        circuit.x(0)
    circuit.rzz(abs(turned), 0, 1)
    if turned < 0.0:
        circuit.x(0)


def _is_generic(angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which angles become parameters, bool [angles]."""
    quarters = angles / _STEP
    result: NDArray[np.bool_] = np.abs(quarters - np.round(quarters)) > _TOLERANCE
    return result


GROUP = "qiskit.transpiler.translation"
_OWN = "qiskit."  # modules of Qiskit: loaded with it


class LazyStagePlugin:
    """A stage plugin of Qiskit that is imported when its pass manager is asked for."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point

    def pass_manager(self, *args: Any, **keywords: Any) -> Any:
        """Import the plugin and return its pass manager."""
        return self._entry_point.load()().pass_manager(*args, **keywords)


class LazyEntryPoint:
    """An entry point whose load() imports nothing."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry_point, name)

    def load(self) -> Any:
        """Return a function that makes the LazyStagePlugin."""
        return lambda: LazyStagePlugin(self._entry_point)


def load_plugins_lazily() -> None:
    """Enter lazy entry points into the table of stevedore, from which Qiskit loads plugins. Each
    plugin stays usable by its name. A version of stevedore without this table, or one that has read
    it before, is left as it is."""
    from qiskit.transpiler.preset_passmanagers import plugin

    manager = getattr(getattr(plugin, "stevedore", None), "ExtensionManager", None)
    table = getattr(manager, "ENTRY_POINT_CACHE", None)
    if table is None or GROUP in table:
        return
    table[GROUP] = [
        each if each.value.startswith(_OWN) else LazyEntryPoint(each)
        for each in entry_points(group=GROUP)
    ]


def translation_plugin(target: Any) -> str:
    """Return the name of the plugin of Qiskit's stage `translation` that a Target needs; "": of
    none. The plugin enters the table of stevedore."""
    from qiskit.transpiler.preset_passmanagers import plugin

    from simenv.transpiler import mixed_gates

    load_plugins_lazily()
    manager = getattr(getattr(plugin, "stevedore", None), "ExtensionManager", None)
    table = getattr(manager, "ENTRY_POINT_CACHE", None)
    if not table or GROUP not in table or not mixed_gates.is_mixed(target):
        return ""
    if all(each.name != mixed_gates.NAME for each in table[GROUP]):
        value = f"{mixed_gates.__name__}:{mixed_gates.TranslationPlugin.__name__}"
        table[GROUP].append(EntryPoint(mixed_gates.NAME, value, GROUP))
    return mixed_gates.NAME


class Transpiler:
    """Transpiler for one device. Not thread-safe. A compiled circuit is a function of circuit,
    device, level, seed and version of Qiskit alone, not of earlier compilations, in every process.
    Invariant: clbits are never changed."""

    def __init__(self, info: DeviceInfo, level: int = LEVEL, seed: int = SEED) -> None:
        """Create a transpiler. `level`: of Qiskit's transpiler, 0 to 3; `seed`: of its random
        choices."""
        self._info = info
        self._available = Availability(info)
        self._level = level
        self._seed = seed
        self._passes: Any = None
        self._reading: Transpiler | None = None  # for the qubits that are read well
        if misread := self._available.misread:
            unusable = tuple(sorted((*info.unusable, *misread)))
            reading = msgspec.structs.replace(info, unusable=unusable)
            self._reading = Transpiler(reading, level, seed)

    @property
    def name(self) -> str:
        """Version, level and seed of the compiler, as results record them."""
        import qiskit

        return f"qiskit {qiskit.__version__}, level {self._level}, seed {self._seed}"

    def transpiled(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit in native gates on the device's qubits, compiled once for its
        structure. See `opened_circuit`. `mapping`: as for `run`. Raises ProgramError."""
        if self._info.angle_limits:
            return self.run(circuit, mapping)
        structure, values = opened_circuit(circuit)
        result = self.run(structure, mapping)
        return closed(result, values, self.merging) if values.size else result

    def run(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit after the preset passes. Raises ProgramError. `mapping`: the
        device's qubit of each of its qubits at the beginning; (): any."""
        from qiskit.exceptions import QiskitError

        if circuit.num_qubits > self._info.num_qubits:
            raise ProgramError(
                f"the circuit has {circuit.num_qubits} qubits; device {self._info.name} has"
                f" {self._info.num_qubits}",
                hint="a wider device, or fewer qubits",
            )
        for qubit in mapping:
            if qubit not in self._available.usable:
                raise OptionError(
                    f"qubit_mapping: device {self._info.name} has no usable qubit {qubit}",
                    hint="simenv devices show lists the qubits that do not work",
                    option="qubit_mapping",
                )
        if self._reading is not None and not mapping:
            with suppress(ProgramError):  # it may need more qubits
                return self._reading.run(circuit)
        try:
            if mapping:
                return self._pass_manager(mapping).run(circuit)
            if self._passes is None:
                self._passes = self._pass_manager()
            try:
                result = self._passes.run(circuit)
                if self._available.complete is self._info or self._is_placed(result):
                    return result
            except QiskitError:
                if self._available.complete is self._info:
                    raise
            # Qiskit places small circuits on the first qubits, whatever these have.
            first = self._available.connected(circuit.num_qubits)
            result = self._pass_manager(first).run(circuit)
            if not self._is_placed(result):
                raise QiskitError("the device has too few connected qubits with all gates")
            return result
        except QiskitError as error:
            reason = error.message.partition(". ")[0][:_REASON_CHARS]
            text = f"the circuit cannot be compiled for device {self._info.name}: {reason}"
            hint = "compile='never' runs it as it is written, in native gates"
            lacking = [qubit for qubit in mapping if not self._available.is_complete(qubit)]
            if lacking:
                hint = f"other qubits than {lacking[0]}, where the device lacks a gate"
            raise ProgramError(text, hint=hint) from error
        except BaseException as error:
            # Qiskit's compiled passes panic, for example if a part that is not connected is too
            # small; their class cannot be imported.
            if type(error).__name__ != "PanicException":
                raise
            name, widest = self._info.name, circuit.num_qubits
            raise ProgramError(
                f"the circuit cannot be compiled for device {name}: Qiskit's placement of"
                f" {widest} qubits failed",
                hint="some of the device's qubits have no gate with any other: leave out unused"
                " qubits, or write the circuit on its qubits in native gates",
            ) from error

    def _is_placed(self, circuit: Any) -> bool:
        """Return whether the device has each operation of a compiled circuit on its qubits."""
        places: dict[str, set[tuple[int, ...]]] = {}
        numbers = {qubit: index for index, qubit in enumerate(circuit.qubits)}
        for each in circuit.data:
            name, qubits = each.operation.name, tuple(numbers[qubit] for qubit in each.qubits)
            if name in _CONTROL_FLOW or name == "barrier":
                continue
            if name not in places:
                places[name] = set(self._available.places(name))
            if qubits not in places[name]:
                return False
        return True

    @cached_property
    def merging(self) -> Any:
        """Passes that merge gates on one qubit, as the level does for angles that are numbers."""
        target = self._target  # loads qiskit
        from qiskit.transpiler import PassManager
        from qiskit.transpiler.passes import Optimize1qGatesDecomposition

        return PassManager([Optimize1qGatesDecomposition(target=target)])

    @cached_property
    def _target(self) -> Any:
        return target_of(self._info)

    @cached_property
    def _complete_target(self) -> Any:
        complete = self._available.complete
        return self._target if complete is self._info else target_of(complete)

    def _pass_manager(self, mapping: tuple[int, ...] = ()) -> Any:
        target = self._target if mapping else self._complete_target
        from qiskit.transpiler import generate_preset_pass_manager

        load_plugins_lazily()
        result = generate_preset_pass_manager(
            optimization_level=self._level,
            target=target,
            seed_transpiler=self._seed,
            initial_layout=list(mapping) or None,
        )
        from simenv.transpiler import mixed_gates

        if mixed_gates.is_mixed(target):
            result.translation = mixed_gates.translation(target)
        if "r" in target.operation_names:
            from qiskit.transpiler import PassManager

            from simenv.transpiler.half_turns import AlignHalfTurns

            result.post_optimization = PassManager([AlignHalfTurns()])
        return result
