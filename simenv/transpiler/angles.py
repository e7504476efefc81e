"""Angles of rotations as parameters, so that circuits of one structure are compiled once.

The rotations are those whose compiled forms have no parameter in their global phase, which Qiskit
handles slowly. Multiples of pi/4 stay numbers: they decide which gates a compiler needs (rx(pi) is
x). The compiled circuit is a function of the circuit alone, not of earlier compilations.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.model import OWNERS, Program

ROTATIONS = frozenset({"rx", "ry", "rz", "rxx", "ryy", "rzz", "rzx"})
MOST_ANGLES = 1_024  # a circuit with more angles is compiled as it is
_STEP = math.pi / 4
_TOLERANCE = 1e-9


def opened(program: Program) -> tuple[Program, NDArray[np.float64]]:
    """Return the program with slot k in place of its k-th angle, and the angles, float64 [slots].

    A program with free parameters or control flow is returned unchanged, without angles.
    """
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
    """Return the compiled QuantumCircuit of an opened one with its angles bound.

    `passes`: merge the gates on one qubit that the parameters kept apart.
    """
    values = {each: float(angles[int(each.name[1:])]) for each in compiled.parameters}
    result = passes.run(compiled.assign_parameters(values))
    result._layout = compiled._layout
    result.name = compiled.name  # assign_parameters generates a name from a process counter
    return result


def _is_generic(angles: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which angles become parameters, bool [angles]."""
    quarters = angles / _STEP
    result: NDArray[np.bool_] = np.abs(quarters - np.round(quarters)) > _TOLERANCE
    return result
