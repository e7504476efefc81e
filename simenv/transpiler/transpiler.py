"""Transpilation of Qiskit circuits to a device: its Target, and angles as parameters.

Imports qiskit.

Angles of rotations as parameters, so that circuits of one structure are compiled once. The
rotations are those whose compiled forms have no parameter in their global phase, which Qiskit
handles slowly. Multiples of pi/4 stay numbers: they decide which gates a compiler needs (rx(pi) is
x). The compiled circuit is a function of the circuit alone, not of earlier compilations.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.errors import OptionError, ProgramError
from simenv.model import OWNERS, Program, is_gate
from simenv.model.availability import Availability
from simenv.model.devices import DeviceInfo
from simenv.transpiler import compile_cost, qiskit_runtime
from simenv.transpiler.idle_qubits import (
    largest_part,
    used_qubits,
    with_idle_qubits,
    without_qubits,
)
from simenv.transpiler.plugins import load_plugins_lazily
from simenv.transpiler.qiskit_runtime import BELL, BY_COST, LEVEL, SEED

_CONTROL_FLOW = ("if_else", "while_loop", "for_loop", "switch_case")


def target_of(info: DeviceInfo, *, fractional_gates: bool = False) -> Any:
    """Return the qiskit.transpiler.Target of a device: what its data lists, with durations, times
    T1 and T2 in seconds, frequencies in Hz, errors, limits of angles. A gate that Qiskit does not
    have is left out, and so are the pairs of links: no compilation uses them. `fractional_gates`:
    with these, which a Target of IBM has on request too. Raises OptionError if all gates are
    such."""
    if fractional_gates:
        info = Availability(info).with_fractional
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
    info = Availability(info).inside_modules
    available = Availability(info)
    linked = {pair for link in info.links for pair in (link.pair, link.pair[::-1])}

    def places(name: str) -> dict[tuple[int, ...], Any]:
        return {
            qubits: InstructionProperties(
                duration=_none_if_nan(each.duration_ns * 1e-9), error=_none_if_nan(each.error)
            )
            if each is not None
            else None
            for qubits, each in available.places(name).items()
            if qubits not in linked  # the gate of a link makes pairs and nothing else
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


ROTATIONS = frozenset({"rx", "ry", "rz", "rxx", "ryy", "rzz", "rzx"})
MOST_ANGLES = 1_024  # a circuit with more angles is compiled as it is
_MOST_NAMED = 20  # qubits in a message
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


class Transpiler:
    """Transpiler for one device. Not thread-safe. A compiled circuit is a function of circuit,
    device, level, seed and version of Qiskit alone, not of earlier compilations, in every process.
    Invariant: clbits are never changed."""

    def __init__(
        self,
        info: DeviceInfo,
        level: int = BY_COST,
        seed: int = SEED,
        *,
        fractional_gates: bool = False,
    ) -> None:
        """Create a transpiler. `level`: of Qiskit's transpiler, 0 to 3, whose passes are left as
        they are; BY_COST: see `compile_cost`. `seed`: of its random choices. `fractional_gates`:
        compile to these too; BY_COST: where they are cheaper."""
        self._without: Transpiler | None = None  # for native gates alone, by cost
        # Others, by cost: without fractional gates, and where all gates on two qubits work. Qiskit
        # prefers the places where any of them has a small error.
        self._others: tuple[Transpiler, ...] = ()
        self._fractional = fractional_gates and bool(info.fractional_gates)
        if self._fractional:
            if level == BY_COST:
                self._without = Transpiler(info, level, seed)
            info = Availability(info).with_fractional
        self._info = info = Availability(info).inside_modules
        if self._without is not None:
            full = Transpiler(Availability(info).on_full_pairs, LEVEL, seed)
            self._others = self._without, full
        self._available = Availability(info)
        self._level = level
        self._seed = seed
        self._passes: dict[int, Any] = {}  # by level
        self._translation: Any = None  # passes for circuits that are placed
        self.rotations = 0  # of the last circuit, that were synthesized
        self._reading: Transpiler | None = None  # for the qubits that are read well
        if self._available.misread:
            self._reading = Transpiler(self._available.well_read, level, seed)
            self._reading._others = self._others

    @property
    def name(self) -> str:
        """Version, level and seed of the compiler, as results record them."""
        import qiskit

        level = "levels 1 to 3 by cost" if self._level == BY_COST else f"level {self._level}"
        level += ", fractional gates" if self._fractional else ""
        return f"qiskit {qiskit.__version__}, {level}, seed {self._seed}"

    @property
    def needs_numbers(self) -> bool:
        """True if angles must be numbers: they are limited, or no native gate has one."""
        limited = {each.gate for each in self._info.angle_limits}
        names = (gate.name for gate in self._info.gates)
        return not limited.isdisjoint(names) or self._info.is_discrete

    def transpiled(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit in native gates on the device's qubits, compiled once for its
        structure. See `opened_circuit`. `mapping`: as for `run`. Raises ProgramError."""
        if self.needs_numbers:
            return self.run(circuit, mapping)
        structure, values = opened_circuit(circuit)
        result = self.run(structure, mapping)
        return closed(result, values, self.merging) if values.size else result

    def run(self, circuit: Any, mapping: tuple[int, ...] = ()) -> Any:
        """Return a QuantumCircuit after the preset passes. Raises ProgramError. `mapping`: the
        device's qubit of each of its qubits at the beginning; (): any."""
        if circuit.parameters and self._info.is_discrete:
            count = len(circuit.parameters)
            raise ProgramError(
                f"device {self._info.name} has no gate with an angle: rotations become sequences of"
                f" its gates that depend on their angles, and {count} of the circuit's have no"
                " value",
                hint="parameter_values=, or bind the parameters in the circuit",
            )
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
        if mapping:
            return self._in_place(circuit, mapping)
        if circuit.num_qubits <= self._available.most_connected:
            return self._best(circuit)
        # Qiskit places idle qubits too, and fails where gates connect too few.
        used = used_qubits(circuit)
        if 0 < len(used) <= self._available.most_connected:
            written = self._as_written(circuit, used)
            part = without_qubits(circuit, used)
            found = self._in_place(part, written) if written else self._best(part)
        else:
            found = self._with_lone_qubits(circuit, used)
        return with_idle_qubits(found, circuit)

    def _as_written(self, circuit: Any, used: list[Any]) -> tuple[int, ...]:
        """Return the numbers of the used qubits if the circuit's gates on two qubits are where the
        device has some; (): they are not, or the level is one of those that look for better
        places."""
        if self._level not in (BY_COST, LEVEL):
            return ()
        numbers = {qubit: index for index, qubit in enumerate(circuit.qubits)}
        pairs = {frozenset(pair) for pair in self._available.pairs}
        for each in circuit.data:
            if len(each.qubits) > 1 and each.operation.name != "barrier":
                places = frozenset(numbers[qubit] for qubit in each.qubits)
                if not (self._info.all_to_all and len(places) == 2) and places not in pairs:
                    return ()
        result = tuple(numbers[qubit] for qubit in used)
        return result if all(map(self._available.is_complete, result)) else ()

    def _with_lone_qubits(self, circuit: Any, used: list[Any]) -> Any:
        """Compile a circuit that uses more qubits than gates connect: those without a gate on two
        qubits get any place. Raises ProgramError."""
        joined = used_qubits(circuit, 2)
        if not used:
            joined = used = circuit.qubits[:1]
        places = dict(zip(used, self._as_written(circuit, used), strict=False))
        if not places:
            if len(joined) > self._available.most_connected:
                largest = largest_part(circuit)
                if largest > self._available.most_connected:
                    raise self._too_wide(largest)
                return self._best(without_qubits(circuit, used))  # in parts
            if joined:
                compiled = self._best(without_qubits(circuit, joined))
                initial = compiled._layout.initial_layout
                places = {qubit: initial[qubit] for qubit in joined}
            taken = set(places.values())
            free = [q for q in self._available.by_connection if q not in taken]
            lone = [qubit for qubit in used if qubit not in places]
            if len(lone) > len(free):  # unless some gate is on too few qubits to count
                return self._best(without_qubits(circuit, used))
            places |= dict(zip(lone, free, strict=False))
        return self._in_place(without_qubits(circuit, used), tuple(places[q] for q in used))

    def _in_place(self, circuit: Any, mapping: tuple[int, ...]) -> Any:
        """Return the compilation of a circuit with its qubits at these places."""
        found = [self._compiled(circuit, mapping)]
        if self._without is not None:
            with suppress(ProgramError):
                found.append(self._without._compiled(circuit, mapping))
        return found[self._costs.cheapest(found)]

    def _best(self, circuit: Any) -> Any:
        """Return the compilation of a circuit that the compiler places."""
        if self._reading is not None:
            with suppress(ProgramError):  # it may need more qubits
                result = self._reading.run(circuit)
                self.rotations = self._reading.rotations
                return result
        if self._level != BY_COST:
            return self._compiled(circuit, (), self._level)
        result = self._compiled(circuit)
        found, counts = [result], [self.rotations]
        for level in compile_cost.further_levels(circuit, result):
            with suppress(ProgramError):
                found.append(self._compiled(circuit, (), level))
                counts.append(self.rotations)
        for other in self._others:
            with suppress(ProgramError):
                found.append(other._best(circuit))
                counts.append(other.rotations)
        best = self._costs.cheapest(found)
        self.rotations = counts[best]
        return found[best]

    def _compiled(self, circuit: Any, mapping: tuple[int, ...] = (), level: int = BY_COST) -> Any:
        """Return the compilation at a level; BY_COST: at LEVEL, each gate that one CZ makes as
        one."""
        from qiskit.exceptions import QiskitError

        try:
            if mapping:
                return self._passed(self._pass_manager(mapping), circuit)
            if level not in self._passes:
                self._passes[level] = self._pass_manager(level=level)
            try:
                result = self._passed(self._passes[level], circuit)
                if self._available.complete is self._info or self._is_placed(result):
                    return result
            except QiskitError:
                if self._available.complete is self._info:
                    raise
            # Qiskit places small circuits on the first qubits, whatever these have.
            first = self._available.connected(circuit.num_qubits)
            result = self._passed(self._pass_manager(first, level), circuit)
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
            raise self._too_wide(circuit.num_qubits) from error

    def _too_wide(self, count: int) -> ProgramError:
        """Return the refusal of a circuit that uses more qubits than gates connect."""
        name, most = self._info.name, self._available.most_connected
        cut = self._available.not_connected
        listed = ", ".join(map(str, cut[:_MOST_NAMED]))
        text = (
            f"the circuit cannot be compiled for device {name}: it joins {count} qubits by gates,"
        )
        text += f" and the device connects {most}"
        if cut:
            text += f": not {listed}" + (", ..." if len(cut) > _MOST_NAMED else "")
        hint = "fewer qubits; idle ones need no place. compile='never' runs a circuit in native"
        return ProgramError(text, hint=f"{hint} gates on the device's qubits as it is written")

    def translated(self, circuit: Any) -> Any:
        """Return a QuantumCircuit that is placed on the device's qubits in native gates, where its
        gates are. Raises ProgramError."""
        from qiskit.exceptions import QiskitError

        if self._translation is None:
            self._translation = self._pass_manager(tuple(range(self._info.num_qubits)))
        try:
            found = [self._passed(self._translation, circuit)]
            if self._without is not None:
                found.append(self._without.translated(circuit))
            return found[self._costs.cheapest(found)]
        except QiskitError as error:
            reason = error.message.partition(". ")[0][:_REASON_CHARS]
            text = f"the circuit cannot be translated for device {self._info.name}: {reason}"
            hint = "compile='never' runs it as it is written, in native gates"
            raise ProgramError(text, hint=hint) from error

    def _passed(self, passes: Any, circuit: Any) -> Any:
        """Run passes, and count the rotations that become sequences of T gates: those before
        Qiskit's pass of this name."""
        self.rotations, left = 0, 0
        if not self._info.is_discrete:
            return passes.run(circuit)

        def seen(**values: Any) -> None:
            nonlocal left
            if type(values["pass_"]).__name__ == "SynthesizeRZRotations":
                self.rotations += left
            left = values["dag"].count_ops().get("rz", 0)

        return passes.run(circuit, callback=seen)

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
        result = target_of(self._info)
        if self._info.links:
            from qiskit.circuit import Instruction

            pairs = [pair for link in self._info.links for pair in (link.pair, link.pair[::-1])]
            result.add_instruction(Instruction(BELL, 2, 0, []), dict.fromkeys(pairs))
        return result

    @cached_property
    def _complete_target(self) -> Any:
        complete = self._available.complete
        return self._target if complete is self._info else target_of(complete)

    @cached_property
    def _costs(self) -> compile_cost.Costs:
        return compile_cost.Costs(self._info)

    @cached_property
    def _is_entangled_by_one_gate(self) -> bool:
        """Return whether all gates on two qubits are as good as CZ, up to gates on one."""
        wide = {gate.name for gate in self._info.gates if gate.qubits == 2}
        return bool(wide) and wide <= compile_cost.ENTANGLERS and not self._info.is_discrete

    def _pass_manager(self, mapping: tuple[int, ...] = (), level: int = BY_COST) -> Any:
        target = self._target if mapping else self._complete_target
        from qiskit.transpiler import generate_preset_pass_manager

        load_plugins_lazily()
        chosen = level if self._level == BY_COST else self._level
        result = generate_preset_pass_manager(
            optimization_level=LEVEL if chosen == BY_COST else chosen,
            target=target,
            seed_transpiler=self._seed,
            initial_layout=list(mapping) or None,
        )
        if chosen == BY_COST and self._is_entangled_by_one_gate:
            from qiskit.transpiler import PassManager

            from simenv.transpiler.pair_gates import SingleEntangler

            result.pre_translation = PassManager([SingleEntangler()])
        from simenv.transpiler import mixed_gates

        if mixed_gates.is_mixed(target):
            result.translation = mixed_gates.translation(target)
        if "r" in target.operation_names:
            from qiskit.transpiler import PassManager

            from simenv.transpiler.half_turns import AlignHalfTurns

            result.post_optimization = PassManager([AlignHalfTurns()])
        return result
