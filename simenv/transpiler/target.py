"""Conversion of a DeviceInfo to a Qiskit Target, and the check whether a program fits it. Imports
qiskit."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import permutations
from typing import Any

import numpy as np

from simenv.errors import OptionError
from simenv.model import NO_GATES, OWNERS, Program
from simenv.model.devices import DeviceInfo
from simenv.transpiler import qiskit_runtime

_CONTROL_FLOW = ("if_else", "while_loop", "for_loop", "switch_case")


def target_of(info: DeviceInfo) -> Any:
    """Return the qiskit.transpiler.Target of a device: gates, couplings, durations, times T1 and T2
    in seconds, frequencies in Hz, errors.

    Raises OptionError for a gate that Qiskit does not have.
    """
    qiskit_runtime.qiskit()
    from qiskit.circuit import Delay, Measure, Parameter, Reset
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
    figures: dict[str, dict[tuple[int, ...], Any]] = defaultdict(dict)
    for each in info.operations:
        figures[each.name][each.qubits] = InstructionProperties(
            duration=_none_if_nan(each.duration_ns * 1e-9), error=_none_if_nan(each.error)
        )
    pairs = info.coupling
    if info.all_to_all:
        pairs = tuple(permutations(range(info.num_qubits), 2))
    singles: list[tuple[int, ...]] = [(qubit,) for qubit in range(info.num_qubits)]
    for gate in info.gates:
        if gate.name in ("measure", "reset", "delay"):
            continue
        standard = standard_gates.get(gate.name)
        if standard is None:
            raise OptionError(
                f"device {info.name}: Qiskit has no gate {gate.name!r}",
                hint="compile='never' runs circuits as they are written",
            )
        settings = figures[gate.name]
        default = settings.get(())
        qubit_tuples = singles if gate.qubits == 1 else pairs if gate.qubits == 2 else []
        if not qubit_tuples:  # a gate on more qubits: on each tuple with a calibration
            qubit_tuples = [each for each in settings if each]
        properties = {
            qubits: settings.get(qubits, default)
            for qubits in qubit_tuples
            if not _broken(settings.get(qubits))
        }
        target.add_instruction(standard, properties)
    measured = figures["measure"]
    target.add_instruction(Measure(), {qubits: measured.get(qubits) for qubits in singles})
    target.add_instruction(Delay(Parameter("t")), dict.fromkeys(singles))
    if info.dynamic:
        reset = figures["reset"]
        target.add_instruction(Reset(), {qubits: reset.get(qubits) for qubits in singles})
        for kind, name in zip(
            (IfElseOp, WhileLoopOp, ForLoopOp, SwitchCaseOp), _CONTROL_FLOW, strict=True
        ):
            target.add_instruction(kind, name=name)
    return target


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _broken(properties: Any) -> bool:
    """Return whether the gate is calibrated as broken (error 1 or more)."""
    return properties is not None and properties.error is not None and properties.error >= 1.0


def gate_names(program: Program) -> frozenset[str]:
    """Return the names of a program's gates, without measurements, resets, delays and markers."""
    return frozenset(program.names) - NO_GATES


class NativeForm:
    """Check whether programs consist of a device's native gates on its couplings."""

    def __init__(self, info: DeviceInfo) -> None:
        self._num_qubits = width = info.num_qubits
        self._dynamic = info.dynamic
        self._native = {gate.name: gate.qubits for gate in info.gates}
        self._coupled = np.full(width * width, info.all_to_all, np.bool_)
        if info.coupling:
            first, second = np.array(info.coupling, np.int64).T
            self._coupled[first * width + second] = True

    def is_refused(self, program: Program) -> bool:
        """Return whether the program has conditions or loops and the device has no dynamic
        circuits."""
        return not self._dynamic and not set(OWNERS).isdisjoint(program.names)

    def fits(self, program: Program) -> bool:
        """Return whether the device has all operations of the program on its qubits."""
        if program.num_qubits > self._num_qubits:
            return False
        arities = np.frombuffer(program.arities, np.uint16)[0::3].astype(np.int64)
        wide = np.zeros(len(arities), np.bool_)
        for row, (name, size) in enumerate(zip(program.names, arities.tolist(), strict=True)):
            if name in NO_GATES:
                continue
            if self._native.get(name) != size:
                return False
            wide[row] = size == 2
        if not wide.any():
            return True
        ops = np.frombuffer(program.ops, np.uint16)
        sizes = arities[ops]
        starts = (np.cumsum(sizes) - sizes)[wide[ops]]
        qubits = np.frombuffer(program.qubits, np.uint16).astype(np.int64)
        return bool(self._coupled[qubits[starts] * self._num_qubits + qubits[starts + 1]].all())
