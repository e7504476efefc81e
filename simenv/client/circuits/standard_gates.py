"""Recognition of standard gates that a text defines itself.

Exporters of OpenQASM write definitions of gates that its include files lack: Qiskit those of `ecr`,
`rzz` or `r`, for example. Such a gate is encoded under its name, so that a circuit in a device's
native gates stays one. Invariant: the definition has the matrix of the standard gate, up to a
global phase, at the parameters of each use.
"""

from __future__ import annotations

import cmath
from functools import cache
from typing import Any

import numpy as np

_EQUAL = 1e-9  # largest difference of two entries of equal matrices
_MOST_QUBITS = 4  # of a standard gate


class StandardGateUse:
    """A standard gate in place of its definition; `phase`: global phase of the definition, rad."""

    __slots__ = ("phase", "values")

    def __init__(self, values: tuple[float, ...], phase: float) -> None:
        self.values = values
        self.phase = phase


def standard_gate_use(operation: Any) -> StandardGateUse | None:
    """Compare a defined gate with the standard gate of its name. None: there is no such gate, a
    parameter is no number, or the definition differs."""
    size, name = operation.num_qubits, operation.name
    if not 0 < size <= _MOST_QUBITS or operation.num_clbits or name not in _standard_gates():
        return None
    kind, num_qubits, num_params = _standard_gates()[name]
    if num_qubits != size or num_params != len(operation.params):
        return None
    try:
        values = tuple(float(value) for value in operation.params)
        expected = np.asarray(kind(*values))
        actual = _matrix(operation.definition)
    except (TypeError, ValueError, OverflowError):
        return None
    overlap = complex(np.vdot(expected, actual))
    if not abs(overlap) > 0.5:
        return None
    phase = cmath.phase(overlap)
    if float(np.abs(actual - cmath.exp(1j * phase) * expected).max()) > _EQUAL:
        return None
    return StandardGateUse(values, 0.0 if abs(phase) <= _EQUAL else phase)


def _matrix(circuit: Any) -> Any:
    """Matrix of a circuit of standard gates, or of others by their definitions."""
    data, size = circuit._data, circuit.num_qubits
    axis_of = {qubit: size - 1 - k for k, qubit in enumerate(data.qubits)}
    result = np.eye(1 << size, dtype=np.complex128).reshape((2,) * size + (1 << size,))
    for item in data:
        operation = item.operation
        matrix = operation.to_matrix() if item.is_standard_gate() else _operator(operation)
        axes = [axis_of[qubit] for qubit in reversed(item.qubits)]
        width = len(axes)
        tensor = matrix.reshape((2,) * (2 * width))
        result = np.tensordot(tensor, result, (range(width, 2 * width), axes))
        result = np.moveaxis(result, range(width), axes)
    return result.reshape(1 << size, 1 << size) * cmath.exp(1j * float(circuit.global_phase))


def _operator(operation: Any) -> Any:
    """Matrix of a gate by its definition. Raises ValueError for an operation that has none."""
    from qiskit.exceptions import QiskitError
    from qiskit.quantum_info import Operator

    try:
        return Operator(operation).data
    except QiskitError as error:
        raise ValueError(str(error)) from error


@cache
def _standard_gates() -> dict[str, tuple[Any, int, int]]:
    """Function that gives the matrix, number of qubits and of parameters, by name."""
    from qiskit.circuit import Gate
    from qiskit.circuit.library import get_standard_gate_name_mapping

    results = {}
    for name, gate in get_standard_gate_name_mapping().items():
        if isinstance(gate, Gate) and gate.num_qubits and name == gate.name:
            kind = type(gate)
            results[name] = (
                lambda *values, kind=kind: kind(*values).to_matrix(),
                gate.num_qubits,
                len(gate.params),
            )
    return results
