"""Bit operations on qubit masks, inside kernels: int64, since no state has 63 qubits."""

from __future__ import annotations

from simulators.compiler.kernel import device_function


@device_function
def count(mask):  # type: ignore[no-untyped-def]
    """Number of set bits."""
    found = 0
    while mask:
        mask &= mask - 1
        found += 1
    return found


@device_function
def lowest(mask):  # type: ignore[no-untyped-def]
    """The lowest wire of a set that is not empty."""
    found = 0
    while not mask & 1:
        mask >>= 1
        found += 1
    return found


@device_function
def mapped(mask, to):  # type: ignore[no-untyped-def]
    """The set of to[wire]."""
    found = 0
    while mask:
        found |= 1 << to[lowest(mask)]
        mask &= mask - 1
    return found
