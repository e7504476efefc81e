"""Execution of a distributed sweep table: exchanges, and the local sweeps between them.

Each amplitude goes through the same operations in the same order as in one process, so results have
the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.statevector.checkpoint import Checkpointer
from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.distributed.exchange import Exchange
from simulators.statevector.distributed.qubit_layout import StateSlice
from simulators.statevector.distributed.remap_schedule import RemapStage, before, plan_communication
from simulators.statevector.planning import tables as s
from simulators.statevector.planning.tables import SweepTable
from simulators.statevector.state import BlockExecutor
from simulators.statevector.tiles import driver

_NEVER = np.uint64(1 << 63)  # bit that no amplitude's index has


def local_table(plan: SweepTable, stage: RemapStage, num_local: int, rank: int) -> SweepTable:
    """Passes leg.first .. leg.last - 1, over the slice of one rank.

    Conditions on the rank number are resolved here: an operation or term whose condition does not
    hold gets a condition that never holds.
    """
    positions = stage.positions
    below = np.uint64((1 << num_local) - 1)
    number = np.uint64(rank << num_local)
    starts = plan.starts[stage.first : stage.last + 1]
    ops = plan.ops[starts[0] : starts[-1]].copy()
    masks = permuted(ops[:, s.OUTER_MASK], positions)
    values = permuted(ops[:, s.OUTER_VALUE], positions)
    fails = ((number ^ values) & masks & ~below) != 0
    ops[:, s.OUTER_MASK] = np.where(fails, 0, masks & below)
    ops[:, s.OUTER_VALUE] = np.where(fails, _NEVER, values & below)
    ops[ops[:, s.KIND] == s.SWAP_LANE_ROW, s.OUTER_MASK : s.OUTER_VALUE + 1] = 0
    terms = plan.terms.copy()
    masks = permuted(terms[:, s.MASK], positions)
    terms[:, s.MASK] = np.where((~number & masks & ~below) != 0, _NEVER, masks & below)
    live = permuted(plan.live[stage.first : stage.last], positions)
    absent = (number & ~live) != 0  # the slice of this rank is 0 in such a pass
    wires = plan.places[stage.first : stage.last, : plan.width].astype(np.int64)
    return msgspec.structs.replace(
        plan,
        num_wires=num_local,
        starts=starts - starts[0],
        places=np.array(positions, np.uint64)[wires],
        live=np.where(absent, np.uint64(0), live & below),
        ops=ops,
        terms=terms,
    )


def later(plan: SweepTable, first: int) -> SweepTable:
    """Passes from `first` on."""
    if not first:
        return plan
    return msgspec.structs.replace(
        plan, starts=plan.starts[first:], places=plan.places[first:], live=plan.live[first:]
    )


def permuted(masks: NDArray[np.uint64], positions: Sequence[int]) -> NDArray[np.uint64]:
    """Masks of wires as masks of positions."""
    result = np.zeros_like(masks)
    for wire, position in enumerate(positions):
        result |= (masks >> np.uint64(wire) & np.uint64(1)) << np.uint64(position)
    return result


_UNHEARD = 1 << 24  # amplitudes processed between two collective checks


class CommStats(msgspec.Struct, frozen=True):
    """Statistics of one rank's exchanges in one run; CPU times are those of MPI only."""

    passes: int = 0
    exchanges: int = 0
    planned_bytes: int = 0  # planned for passes, by the rank that sends most
    planned_bytes_of_all: int = 0
    sent_bytes: int = 0  # sent for passes, by this rank
    exchange_s: float = 0.0
    waited_cpu_s: float = 0.0

    def plus(self, other: CommStats, at_meetings_s: float) -> CommStats:
        """Sum of both; the time of collective checks, which both contain, is `at_meetings_s`."""
        return CommStats(
            self.passes + other.passes,
            self.exchanges + other.exchanges,
            self.planned_bytes + other.planned_bytes,
            self.planned_bytes_of_all + other.planned_bytes_of_all,
            self.sent_bytes + other.sent_bytes,
            self.exchange_s + other.exchange_s,
            self.waited_cpu_s + max(0.0, other.waited_cpu_s - at_meetings_s),
        )


class DistributedExecutor:
    """One rank's part in the passes of one run."""

    def __init__(
        self,
        agreement: ErrorAgreement,
        exchange: Exchange,
        sweeper: BlockExecutor,
        checkpointer: Checkpointer,
    ) -> None:
        self._agreement = agreement
        self._exchange = exchange
        self._sweeper = sweeper
        self._checkpointer = checkpointer
        self._traffic = CommStats()

    @property
    def traffic(self) -> CommStats:
        """Statistics of the exchanges so far."""
        waited_s = self._agreement.waited_cpu_s + self._exchange.waited_cpu_s
        return msgspec.structs.replace(self._traffic, waited_cpu_s=waited_s)

    def __call__(self, share: StateSlice, plan: SweepTable, floats: NDArray[np.float64]) -> None:
        """Apply the passes that no earlier attempt has done, leg by leg."""
        skipped = self._checkpointer.skip_done(len(plan.live))
        self._sweeper.passed(skipped)
        if skipped == len(plan.live):
            return
        plan = later(plan, skipped)
        layout = share.layout
        result = plan_communication(plan, layout.positions, layout.num_local, fresh=share.fresh)
        everything = (1 << plan.num_wires) - 1
        if share.fresh and not self._checkpointer.is_kept and int(plan.live[-1]) == everything:
            share.overwritten()  # other amplitudes are written before they are read or sent
        share.fresh = False
        before_bytes, before_s = self._exchange.sent_bytes, self._exchange.seconds
        for stage in result.stages:
            self._agreement.meet()
            self._trade(share, stage)
            part = local_table(plan, stage, layout.num_local, share.rank)
            self._sweep(share, part, floats, is_last=stage is result.stages[-1])
        settings, size = self._traffic, share.amplitudes.itemsize
        self._traffic = CommStats(
            settings.passes + len(plan.live),
            settings.exchanges + sum(bool(stage.pairs) for stage in result.stages),
            settings.planned_bytes + result.sent * size,
            settings.planned_bytes_of_all + result.sent_by_all * size,
            settings.sent_bytes + self._exchange.sent_bytes - before_bytes,
            settings.exchange_s + self._exchange.seconds - before_s,
        )

    def _trade(self, share: StateSlice, stage: RemapStage) -> None:
        """Exchange qubits from the previous layout to that of a leg."""
        layout, local = share.layout, share.layout.num_local
        if stage.pairs:
            alive = before(stage, stage.alive)
            pairs = [(remote - local, position) for remote, position in stage.pairs]
            self._exchange.exchange_qubits(share, pairs, alive & ((1 << local) - 1), alive >> local)
        layout.become(stage.positions)
        share.changed()
        alive = layout.placed(stage.alive)
        holds = not share.rank & ~(alive >> local)
        share.live = alive & ((1 << local) - 1) if holds else 0

    def _sweep(
        self, share: StateSlice, part: SweepTable, floats: NDArray[np.float64], *, is_last: bool
    ) -> None:
        """Apply the passes of a leg, with collective checks between them."""
        end, checkpointer = len(part.live), self._checkpointer
        step = 1 if checkpointer.is_kept else max(1, _UNHEARD >> share.num_qubits)
        for begin in range(0, end, step):
            if begin:
                self._agreement.meet()
            stop = min(begin + step, end)
            norms = is_last and stop == end
            driver.apply(self._sweeper, share, part, floats, first=begin, last=stop, norms=norms)
            if checkpointer.is_kept:
                checkpointer.sweep_done(share.amplitudes, share.layout.positions)
