"""Defaults of the transpiler, and bounds on circuits that all readers share."""

from __future__ import annotations

from typing import Any

from simenv.errors import LimitExceededError

LEVEL = 1  # optimization level of Qiskit's transpiler
SEED = 7  # seed of its random choices
MAX_OPERATIONS = 1_000_000  # after every definition is expanded


def least_operations(operation: Any) -> int:
    """Return a lower bound of the operations of a gate of Qiskit's library whose definition is far
    larger than the gate in a file; 1 for all others. The definition is not computed."""
    kind = type(operation).__name__
    if kind == "QFTGate":
        return int(operation.num_qubits) * (int(operation.num_qubits) - 1) // 2
    if kind == "PauliEvolutionGate":
        return int(getattr(operation.synthesis, "reps", 1))
    return 1


def check_operations(circuit: Any, name: str = "") -> None:
    """Check a QuantumCircuit by `least_operations`. Raises LimitExceededError."""
    if sum(least_operations(item.operation) for item in circuit.data) > MAX_OPERATIONS:
        raise too_many_operations(label(name))


def label(name: str) -> str:
    """Return the prefix of a message about the text `name`; "" without a name."""
    return f"{name}: " if name else ""


def too_many_bits(kind: str, count: int | str, limit: int, prefix: str = "") -> LimitExceededError:
    """Return the refusal of a circuit by its width."""
    return LimitExceededError(
        f"{prefix}{count} {kind}; a program holds at most {limit}",
        hint="no simulator here is wider; check the sizes of the registers",
    )


def too_many_operations(prefix: str = "") -> LimitExceededError:
    """Return the refusal of a circuit by its length."""
    return LimitExceededError(
        f"{prefix}more than {MAX_OPERATIONS} operations once every gate definition is expanded",
        hint="split the circuit; look for gates that call one another many times",
    )
