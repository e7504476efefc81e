"""Defaults of the transpiler, and bounds on circuits that all readers share."""

from __future__ import annotations

from simenv.errors import LimitExceededError

LEVEL = 1  # optimization level of Qiskit's transpiler
SEED = 7  # seed of its random choices
MAX_OPERATIONS = 1_000_000  # after every definition is expanded


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
