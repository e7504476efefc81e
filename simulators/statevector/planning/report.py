"""Reports on sweep tables, for `explain --plan` and for tests that compare plans."""

from __future__ import annotations

from collections import Counter

import msgspec

from simulators.statevector.planning import fusion as f
from simulators.statevector.planning import tables as t

_NAMES = {
    t.SWAP_LANE_ROW: "lane",
    **{t.DENSE + k: f"dense{k}" for k in (1, 2, 3)},
    **{t.REAL + k: f"real{k}" for k in (1, 2, 3)},
    t.PERMUTE_ROWS: "map",
    t.PHASE: "phase",
}


class SweepReport(msgspec.Struct, frozen=True):
    """Report of one pass."""

    wires: tuple[int, ...]  # wires of its tile above the lanes
    operations: tuple[tuple[str, int], ...]  # number of each kind
    amplitudes: int  # visited amplitudes
    work: float  # cost of its operations on a full state; SWEEP is one visit

    @property
    def text(self) -> str:
        """List its operations as text."""
        return ", ".join(f"{count} {name}" for name, count in self.operations)


def describe_sweeps(plan: t.SweepTable) -> tuple[SweepReport, ...]:
    """Report of each pass of a table."""
    results = []
    for number in range(len(plan.live)):
        places = plan.places[number, : plan.width].tolist()
        rows = plan.ops[plan.starts[number] : plan.starts[number + 1]].tolist()
        alive = int(plan.live[number]) | sum(1 << wire for wire in places)
        kinds = Counter(_NAMES[row[t.KIND]] for row in rows)
        results.append(
            SweepReport(
                tuple(places[5:]),
                tuple(sorted(kinds.items())),
                1 << alive.bit_count(),
                sum(_cost(row) for row in rows),
            )
        )
    return tuple(results)


def cost(plan: t.SweepTable) -> float:
    """Cost of all sweeps; SWEEP is loading and storing the state once."""
    size = float(1 << plan.num_wires)
    return sum((f.SWEEP + each.work) * each.amplitudes / size for each in describe_sweeps(plan))


def sweeps(plan: t.SweepTable) -> float:
    """Number of times that the full state is loaded and stored."""
    return sum(each.amplitudes for each in describe_sweeps(plan)) / float(1 << plan.num_wires)


def _cost(row: list[int]) -> float:
    kind = row[t.KIND]
    if kind == t.SWAP_LANE_ROW:
        return f.LANE_SWAP
    part = 0.5 ** (row[t.OUTER_MASK].bit_count() + row[t.ROW_MASK].bit_count())
    if kind == t.PERMUTE_ROWS:
        return f.PERMUTATION
    if kind == t.PHASE:
        return f.DIAGONALS * part
    if kind > t.REAL:
        return 0.5 * f.ONE_WIRE * 2.0 ** (kind - t.REAL - 1) * part
    return f.ONE_WIRE * 2.0 ** (kind - t.DENSE - 1) * part
