"""Kernels of large states in double precision; what they do is told where their parts are."""

from __future__ import annotations

from simulators.jit import I64, INT, INTS2, REALS, kernel
from simulators.statevector.tiles import passes, rownorms


@kernel(
    REALS, INT, INT, I64, INTS2, I64, INTS2, INTS2, REALS, REALS, INT, INT, INT, INT, INT, INT, INT,
    I64, I64, REALS, I64, REALS, REALS, returns=INT, group="wide",
)  # fmt: skip
def run(  # type: ignore[no-untyped-def]
    amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
    known, most, me, threads, marks, control, scratch, words, products, norms,
):  # fmt: skip
    """See `passes.run`."""
    return passes.run(
        amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
        known, most, me, threads, marks, control, scratch, words, products, norms,
    )  # fmt: skip


@kernel(REALS, INT, INT, REALS, group="wide")
def fill(amplitudes, first, last, norms):  # type: ignore[no-untyped-def]
    """See `rownorms.fill`."""
    rownorms.fill(amplitudes, first, last, norms)


@kernel(REALS, REALS, INT, I64, INT, INT, REALS, I64, REALS, I64, group="wide")
def locate(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found):  # type: ignore[no-untyped-def]
    """See `rownorms.locate`."""
    rownorms.locate(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found)
