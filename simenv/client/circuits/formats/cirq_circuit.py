"""Conversion of Cirq circuits through the OpenQASM 2 that Cirq writes.

Invariant: this module does not import Cirq; the caller's circuit shows that it is installed. Angles
have 16 digits. Qubit k of the program is the k-th of Cirq's sorted qubits; a measurement key is a
classical register.
"""

from __future__ import annotations

from typing import Any

from simenv.errors import ProgramError

_PRECISION = 16  # digits of an angle, in half turns
_SHOWN = 200
_KINDS = ("Circuit", "FrozenCircuit")


def is_cirq(circuit: Any) -> bool:
    """Return whether an object is a cirq.Circuit or cirq.FrozenCircuit."""
    kind = type(circuit)
    return kind.__name__ in _KINDS and kind.__module__.partition(".")[0] == "cirq"


def to_qasm(circuit: Any) -> str:
    """Convert a circuit to OpenQASM 2. Raises ProgramError for noise channels, qudits, free
    parameters, and circuits without qubits."""
    if not circuit.all_qubits():
        raise ProgramError("the Cirq circuit has no qubits")
    wide = [qubit for qubit in circuit.all_qubits() if qubit.dimension != 2]
    if wide:
        raise ProgramError(f"the Cirq circuit has a qudit: {str(wide[0])[:_SHOWN]}")
    free = sorted(circuit._parameter_names_()) if circuit._is_parameterized_() else []
    if free:
        raise ProgramError(
            f"the Cirq circuit has free parameters: {', '.join(free[:5])}",
            hint="cirq.resolve_parameters(circuit, values); or parameters of a QuantumCircuit",
        )
    try:
        text: str = circuit.to_qasm(precision=_PRECISION)
    except (ValueError, TypeError) as error:
        raise ProgramError(
            f"OpenQASM 2 cannot carry the Cirq circuit: {str(error)[:_SHOWN]}",
            hint="noise is an option of the task (device=, noise=); conditions are on one bit",
        ) from error
    return text
