"""What a sequence of passes over a large state is made of: the table that the planner writes and
the kernels read.

Wires are the bits of an amplitude's index. A pass visits the state tile by tile. A tile is the
2**width amplitudes that `width` wires span; the lowest LANE_WIRES of them are the lowest wires of
the state, whatever else is in it, so a tile is made of rows of LANES amplitudes that lie together.
Within a tile, bit j of an amplitude's number is a *place*: places below LANE_WIRES choose the lane,
the others (counted anew from 0) are the bits of the row's number. At the begin and at the end of
each pass wire places[j] stands at place j; in between, SWAP_LANE may move wires about.

Every operation acts on rows that fulfil (row & ROW_MASK) == ROW_VALUE, in tiles whose base (the
index of its first amplitude) fulfils (base & OUTER_MASK) == OUTER_VALUE.

    SWAP_LANE   lane bit A and row bit B change places (rows and tiles without condition)
    DENSE + k   the matrix at AT, k = 1..3: complex, (re, im) row by row, on row bits A, B, C; bit 0
                of the matrix' index is A
    REAL + k    the same with real numbers
    MAP         rows whose bits under ROW_MASK are ROW_VALUE change places with those whose bits
                there are ROW_OTHER: X, CX, Toffoli, SWAP on row bits; no amplitude is computed
    PHASE       multiply by a phase that depends on the amplitude's index, see below

PHASE: the factor of an amplitude in row r, lane l of a tile is

    scalar(base) * T[r] * prod_{j in r} row_j(base) * L[c(r)][l] * prod_{i in l} lane_i(base)

T: complex [2**(width - LANE_WIRES)] at AT, (re, im) row by row. L: one table for each value of the
row bits under CROSS, c(r) being these bits moved together; each table is LANES real parts, then
LANES imaginary ones; they follow T. scalar, row_j and lane_i are products over the operation's
terms, rows FIRST_TERM .. FIRST_TERM + TERMS - 1 of `terms`: a term counts in tiles whose base has
all bits of its mask, for the place it names (SCALAR: no place); its (re, im) follow the tables.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

LANE_WIRES = 5
LANES = 1 << LANE_WIRES
MOST_CROSS = 3  # row bits under CROSS, at most
MOST_WIDTH = 16  # wires of a tile, at most

# Columns of an operation.
(
    KIND, A, B, C, ROW_MASK, ROW_VALUE, ROW_OTHER, OUTER_MASK, OUTER_VALUE, AT, CROSS, FIRST_TERM,
    TERMS,
) = range(13)  # fmt: skip
COLUMNS = 13

# Kinds. DENSE + k and REAL + k: a matrix on k row bits.
SWAP_LANE = 0
DENSE = 0  # 1, 2, 3
REAL = 3  # 4, 5, 6
MAP = 7
PHASE = 8

# Columns of a term, and what its place may be beside a place of the tile.
MASK, PLACE = range(2)
SCALAR = 255


class Sweeps(msgspec.Struct, frozen=True, eq=False):
    """Passes, for one structure; the numbers (`floats`) come with a binding.

    Pass p does operations starts[p] .. starts[p + 1] - 1 in the tiles of the wires
    places[p, :width], those above the lanes in any order. Only wires under live[p] may be 1 where
    an amplitude is not 0 before the pass, or become so by it: all other tiles stay untouched.
    """

    num_wires: int
    width: int  # wires of a tile: at most MOST_WIDTH
    starts: NDArray[np.int64]  # [passes + 1]
    places: NDArray[np.uint64]  # [passes, MOST_WIDTH]
    live: NDArray[np.uint64]  # [passes]
    ops: NDArray[np.uint64]  # [operations, COLUMNS]
    terms: NDArray[np.uint64]  # [terms, 2]
    num_floats: int
