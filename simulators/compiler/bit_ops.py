"""Bit operations on qubit masks, inside kernels: int64, since no state has 63 qubits."""

from __future__ import annotations

from simulators.compiler.kernel import device_function


@device_function
def count(mask):  # type: ignore[no-untyped-def]
    """Number of set bits."""
    result = 0
    while mask:
        mask &= mask - 1
        result += 1
    return result


@device_function
def lowest(mask):  # type: ignore[no-untyped-def]
    """Lowest wire of a nonempty set."""
    result = 0
    while not mask & 1:
        mask >>= 1
        result += 1
    return result


@device_function
def mapped(mask, to):  # type: ignore[no-untyped-def]
    """Image of a set under to[wire]."""
    result = 0
    while mask:
        result |= 1 << to[lowest(mask)]
        mask &= mask - 1
    return result
