"""Counts of a plain part on few qubits, in one kernel call.

The steps are those of `execute`, `state` and `execution.readout`, and so are the counts; between
them nothing is allocated. A circuit of five qubits takes less than the calls would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import outcome_width
from simulators.compiler.arrays import as_numbers, as_reals
from simulators.compiler.kernel import (
    F64,
    I64,
    INT,
    INTS2,
    REALS,
    U8,
    U32,
    U64,
    WORD,
    WORDS2,
    kernel,
)
from simulators.control import RunControl
from simulators.densitymatrix.evolution import SCRATCH, basis_populations, multiply_blocks, tiles
from simulators.densitymatrix.fusion import BLOCK, COMPLEX, fixed_gates, fuse_items
from simulators.densitymatrix.plain_part import PlainPart
from simulators.densitymatrix.program import MIN_QUBITS
from simulators.densitymatrix.state import cumulate, draw_records, num_cells, write_outcomes
from simulators.execution.readout import ReadoutStage, flip_records
from simulators.results import BindingResult

_MAX_QUBITS = 8  # of wider states, threads share the work
_MAX_CLBITS = 12  # whose outcomes are counted in a table
_SHOTS_AT_ONCE = 1 << 16  # those of one block of `flip_records`
_NONE = np.zeros(0, np.int64)
_EXACT = ReadoutStage(  # no readout error
    np.zeros(0, np.uint64), _NONE, _NONE, _NONE, np.zeros(0), np.zeros(0)
)


def fits(part: PlainPart, outputs: tuple[str, ...]) -> bool:
    """Return whether `plain_counts` can give these outputs of a part."""
    few = part.num_qubits <= _MAX_QUBITS and part.layouts.clbits.source.size <= _MAX_CLBITS
    return few and outputs == ("counts",)


def plain_counts(
    part: PlainPart,
    params: NDArray[np.float64],
    shots: int,
    key: tuple[int, int],
    control: RunControl,
) -> BindingResult:
    """Counts of one binding. `params`: of the whole circuit; `key`: seed and binding. Raises
    Stopped."""
    items, source = part.items, part.layouts.clbits.source
    readout = _EXACT if part.readout is None else part.readout
    width, outcomes = max(MIN_QUBITS, part.num_qubits), 1 << part.num_qubits
    blocks, cells = len(items) + width, num_cells(outcomes) + 1
    num_reals = blocks * (BLOCK + 2) + 18 * width + 2 * BLOCK + SCRATCH + (1 << 2 * width)
    num_reals += 2 * (1 << width) + cells
    values, tallies = np.empty(1 << source.size, np.int64), np.zeros(1 << source.size, np.uint32)
    count = _count(
        items, params, fixed_gates().blocks.reshape(-1), part.facts.all_matrices.reshape(-1),
        width, part.num_qubits, cells, tiles(width), source, readout.draws, readout.begins,
        readout.clbits, readout.table_begins, readout.tables, readout.bounds, *key, shots,
        np.empty(32, np.complex128), np.empty(8 * num_reals, np.uint8),
        np.empty((outcomes, 1), np.uint64), np.empty((min(shots, _SHOTS_AT_ONCE), 1), np.uint64),
        values, tallies, control.flag,
    )  # fmt: skip
    control.check()
    size = outcome_width(source.size)
    return BindingResult(
        size, values[:count].astype(f"<u{size}").tobytes(), tallies[:count].tobytes()
    )


@kernel(
    INTS2, F64, REALS, REALS, INT, INT, INT, INT, I64, U64, I64, I64, I64, REALS, REALS, WORD, WORD,
    INT, COMPLEX, U8, WORDS2, WORDS2, I64, U32, I64, returns=INT, group="noise",
)  # fmt: skip
def _count(  # type: ignore[no-untyped-def]
    items, params, gates, channels, width, num_qubits, num_cells, num_tiles, source, draws, begins,
    clbits, table_begins, tables, bounds, seed, binding, shots, matrix, scratch, outcomes, records,
    values, tallies, control,
):  # fmt: skip
    """Fill `values`, the outcomes that occur, and `tallies`, how often each does; returns how many
    there are. `draws` .. `bounds`: of the readout error; `tallies` [2^clbits]: zeros; `outcomes`
    [2^qubits, 1], `records` [shots at once, 1] and `scratch`: scratch."""
    blocks = items.shape[0] + width
    at = 0
    low = as_numbers(scratch, at, blocks)
    at += 8 * blocks
    high = as_numbers(scratch, at, blocks)
    at += 8 * blocks
    last = as_numbers(scratch, at, 2 * width)
    at += 16 * width
    pending = as_reals(scratch, at, 16 * width)
    at += 128 * width
    work = as_reals(scratch, at, BLOCK)
    at += 8 * BLOCK
    out = as_reals(scratch, at, BLOCK)
    at += 8 * BLOCK
    lanes = as_reals(scratch, at, SCRATCH)
    at += 8 * SCRATCH
    state = as_reals(scratch, at, np.int64(1) << 2 * width)
    at += 8 * (np.int64(1) << 2 * width)
    probs = as_reals(scratch, at, np.int64(1) << width)
    at += 8 * (np.int64(1) << width)
    edges = as_reals(scratch, at, np.int64(1) << num_qubits)
    at += 8 * (np.int64(1) << width)
    cells = as_numbers(scratch, at, num_cells)
    at += 8 * num_cells
    mats = as_reals(scratch, at, blocks * BLOCK)

    state[:] = 0.0
    basis_populations(state, width, 1, state[:0])
    number = fuse_items(
        items, params, gates, channels, width, low, high, mats, last, pending, work, out, matrix
    )
    multiply_blocks(state, width, low, high, mats, 0, number, 0, num_tiles, lanes, control)
    if control[0]:
        return 0
    basis_populations(state, width, 0, probs)
    for k in range(probs.size):
        probs[k] = max(probs[k], 0.0)
    cumulate(probs[: edges.size], edges, cells)
    records[0, 0] = 0
    write_outcomes(num_qubits, records[:1], source, outcomes)
    for first in range(0, shots, records.shape[0]):
        if control[0]:
            return 0
        drawn = records[: min(records.shape[0], shots - first)]
        draw_records(edges, cells, outcomes, seed, binding, np.uint64(0), first, drawn)
        flip_records(
            drawn, first, seed, binding, draws, begins, clbits, table_begins, tables, bounds
        )
        for row in range(drawn.shape[0]):
            tallies[drawn[row, 0]] += 1
    count = 0
    for value in range(tallies.size):
        if tallies[value]:
            values[count], tallies[count] = value, tallies[value]
            count += 1
    return count
