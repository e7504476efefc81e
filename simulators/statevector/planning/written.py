"""What of a table is written so far: counters, and a new row."""

from __future__ import annotations

from simulators.jit import part
from simulators.statevector.sweeps import COLUMNS, KIND

# How much there is of each.
OPS, TERMS_DONE, RECIPES, PARTS, FLOATS = range(5)
COUNTERS = 5


@part
def new_op(ops, done, kind):  # type: ignore[no-untyped-def]
    """A row of `ops`, all 0 but its kind."""
    at = done[OPS]
    done[OPS] += 1
    for c in range(COLUMNS):
        ops[at, c] = 0
    ops[at, KIND] = kind
    return at
