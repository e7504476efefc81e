"""How the numbers of a table of passes come from those of a binding: columns of recipes and parts.

A recipe makes the numbers of one block, or of one PHASE. Its parts are pieces of operations, or
matrices that are given:

    BLOCK   the product of the parts, as one matrix for each value of the FREE wires; MOVED wires
            are its lowest bits. A part is a 2x2 action (`gates`), its patterns by the block's bits
    GATHER  tables of a PHASE. A part multiplies accumulators, that of its TARGETS by the piece's
            number to the power of EXPONENTS: 0 is a factor of all amplitudes, 1 + place of those
            where the place is 1, PAIRS + 16 * higher + lower where both are, and from TERMS on one
            is a term
    TURN    a BLOCK of one wire, made real: its phases go to rows of numbers from DERIVED on
    LONE    a PHASE that is one number, where all lanes under LANES_MASK have LANES_VALUE
    BOTH    the product of two real matrices of one wire each, which begin at FROM and at TO among
            the numbers; the first is of the lower bit
"""

from __future__ import annotations

from simulators.statevector.sweeps import MOST_WIDTH

HOW, FROM, TO, WHERE = range(4)  # of any recipe: what, its parts, where its numbers begin
BLOCK, GATHER, LONE, TURN, BOTH = range(5)
MOVED, FREE, REAL_NUMBERS = range(4, 7)  # of a BLOCK
DERIVED = FREE  # of a TURN
CROSSED, HEIGHT, NUM_TERMS = range(4, 7)  # of a GATHER; HEIGHT: bits of a row's number
LANES_MASK, LANES_VALUE = 4, 6  # of a LONE; HEIGHT as above
COLUMNS = 7

# Columns of a part. NUMBERS: the row of its numbers, or -1 - where a matrix begins.
NUMBERS, PART_MASK, ZERO, ONE = range(4)
EXPONENTS, TARGETS = 1, 5
PART_COLUMNS = 9

PAIRS = 1 + MOST_WIDTH
FIRST_TARGET = PAIRS + MOST_WIDTH * MOST_WIDTH  # of terms
MOST_TERMS = 512  # of one PHASE
