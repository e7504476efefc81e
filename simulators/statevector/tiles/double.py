"""Kernels of double precision: sweeps, norms of rows, and sampling."""

from __future__ import annotations

from simulators.jit import I64, INT, INTS2, REALS, kernel
from simulators.statevector.tiles.passes import run
from simulators.statevector.tiles.rownorms import fill, locate


@kernel(
    REALS, INT, INT, I64, INTS2, I64, INTS2, INTS2, REALS, REALS, INT, INT, INT, INT, INT, INT, INT,
    I64, I64, REALS, I64, REALS, REALS, returns=INT, group="wide",
)  # fmt: skip
def run_double(  # type: ignore[no-untyped-def]
    amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
    known, most, me, threads, marks, control, scratch, words, products, norms,
):  # fmt: skip
    """Sweep a state in double precision, see `run`."""
    return run(
        amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
        known, most, me, threads, marks, control, scratch, words, products, norms,
    )  # fmt: skip


@kernel(REALS, INT, INT, REALS, group="wide")
def fill_double(amplitudes, first, last, norms):  # type: ignore[no-untyped-def]
    """Norms of the rows of a state in double precision, see `rownorms.fill`."""
    fill(amplitudes, first, last, norms)


@kernel(REALS, REALS, INT, I64, INT, INT, REALS, I64, REALS, I64, group="wide")
def locate_double(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found):  # type: ignore[no-untyped-def]
    """Basis states of sorted draws in double precision, see `rownorms.locate`."""
    locate(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found)
