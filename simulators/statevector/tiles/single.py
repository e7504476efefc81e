"""Kernels of single precision: sweeps, norms of rows, and sampling."""

from __future__ import annotations

from simulators.jit import I64, INT, INTS2, REALS, SINGLES, kernel
from simulators.statevector.tiles.passes import run
from simulators.statevector.tiles.rownorms import fill, locate


@kernel(
    SINGLES, INT, INT, I64, INTS2, I64, INTS2, INTS2, REALS, SINGLES, INT, INT, INT, INT, INT, INT,
    INT, I64, I64, SINGLES, I64, REALS, REALS, returns=INT, group="deferred",
)  # fmt: skip
def run_single(  # type: ignore[no-untyped-def]
    amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
    known, most, me, threads, marks, control, scratch, words, products, norms,
):  # fmt: skip
    """Sweep a state in single precision, see `run`."""
    return run(
        amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
        known, most, me, threads, marks, control, scratch, words, products, norms,
    )  # fmt: skip


@kernel(SINGLES, INT, INT, REALS, group="deferred")
def fill_single(amplitudes, first, last, norms):  # type: ignore[no-untyped-def]
    """Norms of the rows of a state in single precision, see `rownorms.fill`."""
    fill(amplitudes, first, last, norms)


@kernel(SINGLES, REALS, INT, I64, INT, INT, REALS, I64, REALS, I64, group="deferred")
def locate_single(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found):  # type: ignore[no-untyped-def]
    """Basis states of sorted draws in single precision, see `rownorms.locate`."""
    locate(amplitudes, norms, rows_each, numbers, first, last, edges, begins, draws, found)
