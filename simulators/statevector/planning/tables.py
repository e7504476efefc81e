"""Sweep table: the program that the planner writes and the sweep kernels execute.

Wires are the bits of an amplitude's index: qubits, after swaps have been eliminated by renaming. A
sweep visits the state tile by tile. A tile is the
2**width amplitudes that `width` wires span; the lowest LANE_WIRES of them are the lowest wires of
the state, whatever else is in it, so a tile is made of rows of LANES amplitudes that lie together.
Within a tile, bit j of an amplitude's number is a *place*: places below LANE_WIRES choose the lane,
the others (counted anew from 0) are the bits of the row's number. At the begin and at the end of
each sweep wire places[j] is at place j; in between, SWAP_LANE_ROW may exchange wires.

Every operation acts on rows that fulfil (row & ROW_MASK) == ROW_VALUE, in tiles whose base (the
index of its first amplitude) fulfils (base & OUTER_MASK) == OUTER_VALUE.

    SWAP_LANE_ROW  lane bit A and row bit B are exchanged (rows and tiles without condition)
    DENSE + k   the matrix at AT, k = 1..3: complex, (re, im) row by row, on row bits A, B, C; bit 0
                of the matrix' index is A
    REAL + k    the same with real numbers
    PERMUTE_ROWS   rows whose bits under ROW_MASK are ROW_VALUE are exchanged with those whose
                bits there are ROW_OTHER: X, CX, Toffoli, SWAP on row bits; no amplitude is computed
    PHASE       multiply by a phase that depends on the amplitude's index, see below

PHASE: the factor of an amplitude in row r, lane l of a tile is

    scalar(base) * T[r] * prod_{j in r} row_j(base) * L[c(r)][l] * prod_{i in l} lane_i(base)

T: complex [2**(width - LANE_WIRES)] at AT, (re, im) row by row. L: one table for each value of the
row bits under CROSS, c(r) being these bits moved together; each table is LANES real parts, then
LANES imaginary ones; they follow T. scalar, row_j and lane_i are products over the operation's
terms, rows FIRST_TERM .. FIRST_TERM + TERMS - 1 of `terms`: a term counts in tiles whose base has
all bits of its mask, for the place it names (SCALAR: no place); its (re, im) follow the tables.

Planner arrays. Few arrays are passed to kernels, because each argument adds compile time.
`inputs` [3, rows, columns]: fused gates (blocks), lowered gates (elements) and their pieces, see
`fusion`. `out` [4, rows, columns]: operations and terms of the sweep table, coefficient rules and
their parts; `done` counts the rows. `notes` [9, size]: lists that functions share.

Coefficient rules: how the coefficients of a sweep table follow from a binding's parameters. A rule
makes the coefficients of one fused gate, or of one PHASE. Its parts are factors of operations, or
given matrices:

    BLOCK               the product of the parts, as one matrix for each value of the FREE wires;
                        MOVED wires are its lowest bits. A part is a two-level factor (`gates`), its
                        patterns by the block's bits
    DIAGONAL_RULE       tables of a PHASE. A part multiplies accumulators, that of its TARGETS by
                        the factor's number to the power of EXPONENTS: 0 is a factor of all
                        amplitudes, 1 + place of those where the place is 1, PAIRS + 16 * higher +
                        lower where both are, and from FIRST_TARGET on one is a term
    REAL_ROTATION_RULE  a BLOCK of one wire, made real: its phases are rows of numbers from DERIVED
    UNIFORM_PHASE       a PHASE that is one number, where the lanes under LANES_MASK have
                        LANES_VALUE
    TURN_RULE           the product of the parts on one wire is diagonal, or (ANTI) diagonal after a
                        NOT: its two numbers, as rows of numbers from NUMBERS_AT on. These rules
                        come first
    KRONECKER_PAIR      the product of two real matrices of one wire each, which begin at FIRST_PART
                        and at END_PART among the numbers; the first is of the lower bit

While a sweep is written down, each wire is at a place of its tile, or outside. At the begin and at
the end of a sweep all wires of a tile are at their own places; lanes and row bits are exchanged in
between.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INT, INTS2, REALS, device_function, record
from simulators.compiler.simd import lowest


@record
class OperationRange(NamedTuple):
    """Range of a circuit's operations: first .. last - 1, and the indices of their first qubit and
    parameter."""

    first: INT
    last: INT
    at_qubit: INT
    at_param: INT


LANE_WIRES = 5
LANES = 1 << LANE_WIRES
MOST_CROSS = 3  # largest number of row bits under CROSS
MOST_WIDTH = 16  # largest number of wires of a tile

# Columns of an operation.
(
    KIND, A, B, C, ROW_MASK, ROW_VALUE, ROW_OTHER, OUTER_MASK, OUTER_VALUE, AT, CROSS, FIRST_TERM,
    TERMS,
) = range(13)  # fmt: skip
OP_COLUMNS = 13

# Kinds. DENSE + k and REAL + k: a matrix on k row bits.
SWAP_LANE_ROW = 0
DENSE = 0  # 1, 2, 3
REAL = 3  # 4, 5, 6
PERMUTE_ROWS = 7
PHASE = 8

# Columns of a term, and its place if that is no place of the tile.
MASK, PLACE = range(2)
SCALAR = 255


class SweepTable(msgspec.Struct, frozen=True, eq=False):
    """Passes for one structure; a binding supplies the numbers (`floats`). Pass p applies
    operations starts[p] .. starts[p + 1] - 1 in the tiles of the wires places[p, :width], those
    above the lanes in any order. Only wires under live[p] may be 1 in an amplitude that is not 0
    before or after the pass: all other tiles are not visited."""

    num_wires: int
    width: int  # wires of a tile: at most MOST_WIDTH
    starts: NDArray[np.int64]  # [passes + 1]
    places: NDArray[np.uint64]  # [passes, MOST_WIDTH]
    live: NDArray[np.uint64]  # [passes]
    ops: NDArray[np.uint64]  # [operations, OP_COLUMNS]
    terms: NDArray[np.uint64]  # [terms, 2]
    num_floats: int

    def arrays(self, num_qubits: int, floats: NDArray[np.float64]) -> SweepArrays:
        """Arrays for the kernels. `num_qubits`: of the part of the state in this process."""
        starts, places, live, ops, terms = (
            each.view(np.int64)
            for each in (self.starts, self.places, self.live, self.ops, self.terms)
        )
        return SweepArrays(num_qubits, self.width, starts, places, live, ops, terms, floats)


@record
class SweepArrays(NamedTuple):
    """Sweep table with the numbers of a binding, see `SweepTable`."""

    num_qubits: INT
    width: INT
    starts: I64
    places: INTS2
    live: I64
    ops: INTS2
    terms: INTS2
    floats: REALS


# Tables of `out`, and counters of `done`, which also counts the numbers.
OPS, TERM_ROWS, RULES, PARTS, FLOATS = range(5)
COUNTERS = 5
TABLES = 4

BLOCKS, ELEMENTS, PIECES = range(3)  # of `inputs`

# Lists of `notes`. MEMBERS[STARTS[b]] .. are the elements of block b; AFTER[k + 1] follows k in the
# list of blocks that no pass has yet; TAKEN, ORDER: the blocks of this pass, and the same kind of
# list of them. WIRE_AT[place] is the wire at a place, HOME[place] the one at the beginning of the
# pass; PLACE_OF[wire] is its place, or -1 - its number outside the tile. TEMPORARY: of one
# function at a time.
STARTS, MEMBERS, AFTER, TAKEN, ORDER, WIRE_AT, HOME, PLACE_OF, TEMPORARY = range(9)
NOTES = 9


@device_function
def new_op(out, done, kind):  # type: ignore[no-untyped-def]
    """Append an operation, all 0 but its kind."""
    ops = out[OPS]
    at = done[OPS]
    done[OPS] += 1
    for c in range(OP_COLUMNS):
        ops[at, c] = 0
    ops[at, KIND] = kind
    return at


# Columns of a rule: its kind, its parts FIRST_PART .. END_PART - 1, the start of its numbers.
RULE_KIND, FIRST_PART, END_PART, NUMBERS_AT = range(4)
BLOCK, DIAGONAL_RULE, UNIFORM_PHASE, REAL_ROTATION_RULE, KRONECKER_PAIR, TURN_RULE = range(6)
ANTI = 4  # column of a TURN_RULE
MOVED, FREE, REAL_NUMBERS = range(4, 7)  # columns of a BLOCK
DERIVED = FREE  # column of a REAL_ROTATION_RULE
CROSSED, HEIGHT, NUM_TERMS = range(4, 7)  # of a DIAGONAL_RULE; HEIGHT: bits of a row's number
LANES_MASK, LANES_VALUE = 4, 6  # of a UNIFORM_PHASE; HEIGHT as above
RULE_COLUMNS = 7

# Columns of a part. NUMBERS: the row of its numbers, or -1 - where a matrix begins.
NUMBERS, PART_MASK, ZERO, ONE = range(4)
EXPONENTS, TARGETS = 1, 5
PART_COLUMNS = 9

PAIRS = 1 + MOST_WIDTH
FIRST_TARGET = PAIRS + MOST_WIDTH * MOST_WIDTH  # of the terms
MOST_TERMS = 512  # terms of one PHASE


@device_function
def enter(tile, num_wires, places, at, notes):  # type: ignore[no-untyped-def]
    """Begin a pass: write its wires to places[at], the lowest first, and the place of each wire."""
    wire_at, home, place = notes[WIRE_AT], notes[HOME], notes[PLACE_OF]
    inside = 0
    for wire in range(num_wires):
        if tile >> wire & 1:
            places[at, inside] = wire
            wire_at[inside] = home[inside] = wire
            place[wire] = inside
            inside += 1
        else:
            place[wire] = -1 - wire
    return inside


@device_function
def parts(mask, notes):  # type: ignore[no-untyped-def]
    """Divide a set of wires into (row bits, lane bits, wires outside)."""
    place = notes[PLACE_OF]
    rows = lanes = outside = 0
    while mask:
        at = place[lowest(mask)]
        if at >= LANE_WIRES:
            rows |= 1 << (at - LANE_WIRES)
        elif at >= 0:
            lanes |= 1 << at
        else:
            outside |= 1 << (-1 - at)
        mask &= mask - 1
    return rows, lanes, outside


@device_function
def exchange(lane, row, notes):  # type: ignore[no-untyped-def]
    """Update the notes for a SWAP_LANE_ROW."""
    wire_at, place = notes[WIRE_AT], notes[PLACE_OF]
    lane_wire, row_wire = wire_at[lane], wire_at[LANE_WIRES + row]
    wire_at[lane], wire_at[LANE_WIRES + row] = row_wire, lane_wire
    place[lane_wire], place[row_wire] = LANE_WIRES + row, lane
