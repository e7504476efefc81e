"""What passes are written from and to, in few arrays: compiling a call takes long with many.

`given` [3, rows, columns]: blocks and elements (see `fuse`), and pieces. `out` [4, rows, columns]:
operations and terms (see `sweeps`), recipes and parts (see `recipes`); `done` counts the rows.
`notes` [9, size]: lists and places that functions share.
"""

from __future__ import annotations

from simulators.jit import part
from simulators.statevector.sweeps import COLUMNS, KIND

# The tables of `out`, and what `done` counts: numbers too.
OPS, TERMS, RECIPES, PARTS, FLOATS = range(5)
COUNTERS = 5
TABLES = 4

BLOCKS, ELEMENTS, PIECES = range(3)  # of `given`

# Of `notes`. MEMBERS[STARTS[b]] .. are the elements of block b; AFTER[k + 1] follows k in the list
# of blocks that no pass has yet; TAKEN, ORDER: those of this pass, and the same sort of list of
# them. HERE[place] is the wire there, HOME[place] at the begin of the pass; STANDS[wire] is its
# place, or -1 - its number outside the tile.
STARTS, MEMBERS, AFTER, TAKEN, ORDER, HERE, HOME, STANDS, SPARE = range(9)
NOTES = 9


@part
def new_op(out, done, kind):  # type: ignore[no-untyped-def]
    """A new operation, all 0 but its kind."""
    ops = out[OPS]
    at = done[OPS]
    done[OPS] += 1
    for c in range(COLUMNS):
        ops[at, c] = 0
    ops[at, KIND] = kind
    return at
