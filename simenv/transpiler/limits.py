"""Defaults of the transpiler, and bounds on circuits that whoever reads one refuses alike."""

from __future__ import annotations

from simenv.errors import LimitExceededError

LEVEL = 1  # of Qiskit's transpiler
SEED = 7  # of its random choices
MAX_OPERATIONS = 1_000_000  # after every definition is expanded


def label(name: str) -> str:
    """What a message about a text begins with."""
    return f"{name}: " if name else ""


def too_many_bits(kind: str, count: int | str, limit: int, where: str = "") -> LimitExceededError:
    """The refusal of a circuit by its width."""
    return LimitExceededError(
        f"{where}{count} {kind}; a program holds at most {limit}",
        hint="no simulator here is wider; check the sizes of the registers",
    )


def too_many_operations(where: str = "") -> LimitExceededError:
    """The refusal of a circuit by its length."""
    return LimitExceededError(
        f"{where}more than {MAX_OPERATIONS} operations once every gate definition is expanded",
        hint="split the circuit; look for gates that call one another many times",
    )
