"""The passes of a leg as one rank does them: wires become positions of its share.

Invariant: an amplitude goes through the very operations, in the very order, that it would go
through in one process, so its bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.statevector import sweeps as s
from simulators.statevector.ranks.routing import Leg
from simulators.statevector.sweeps import Sweeps

_NEVER = np.uint64(1 << 63)  # a bit that no amplitude's index has


def relocated(plan: Sweeps, leg: Leg, num_local: int, rank: int) -> Sweeps:
    """Passes leg.first .. leg.last - 1, over the share of one rank.

    Conditions on the rank's number are decided here: an operation that has one that does not hold
    gets another that never does, and so does a term.
    """
    positions = leg.positions
    below = np.uint64((1 << num_local) - 1)
    number = np.uint64(rank << num_local)
    starts = plan.starts[leg.first : leg.last + 1]
    ops = plan.ops[starts[0] : starts[-1]].copy()
    masks = permuted(ops[:, s.OUTER_MASK], positions)
    values = permuted(ops[:, s.OUTER_VALUE], positions)
    fails = ((number ^ values) & masks & ~below) != 0
    ops[:, s.OUTER_MASK] = np.where(fails, 0, masks & below)
    ops[:, s.OUTER_VALUE] = np.where(fails, _NEVER, values & below)
    ops[ops[:, s.KIND] == s.SWAP_LANE, s.OUTER_MASK : s.OUTER_VALUE + 1] = 0
    terms = plan.terms.copy()
    masks = permuted(terms[:, s.MASK], positions)
    terms[:, s.MASK] = np.where((~number & masks & ~below) != 0, _NEVER, masks & below)
    live = permuted(plan.live[leg.first : leg.last], positions)
    absent = (number & ~live) != 0  # all this rank has is 0 in such a pass
    wires = plan.places[leg.first : leg.last, : plan.width].astype(np.int64)
    return msgspec.structs.replace(
        plan,
        num_wires=num_local,
        starts=starts - starts[0],
        places=np.array(positions, np.uint64)[wires],
        live=np.where(absent, np.uint64(0), live & below),
        ops=ops,
        terms=terms,
    )


def later(plan: Sweeps, first: int) -> Sweeps:
    """The passes from that one on."""
    if not first:
        return plan
    return msgspec.structs.replace(
        plan, starts=plan.starts[first:], places=plan.places[first:], live=plan.live[first:]
    )


def permuted(masks: NDArray[np.uint64], positions: Sequence[int]) -> NDArray[np.uint64]:
    """Masks of wires as masks of positions."""
    found = np.zeros_like(masks)
    for wire, position in enumerate(positions):
        found |= (masks >> np.uint64(wire) & np.uint64(1)) << np.uint64(position)
    return found
