"""Fit of a program into the MPI ranks of a command, and the engine that runs it.

Invariant: pure; it counts bytes before anything is allocated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from simenv.errors import InfeasibleError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.types import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simenv.scheduler.routing.engine_support import cost_query
from simulators import catalog
from simulators.catalog.costs import BASE_BYTES, ranks_used

if TYPE_CHECKING:
    from simenv.worker.ranks.mpirun import RankInfo
    from simulators.catalog import EngineCard
    from simulators.circuit.analysis.profile import Profile

_ENDLESS_BYTES = 2**62
_HOUR_NS = 3600 * 10**9


class Fitting(msgspec.Struct, frozen=True):
    """Engine, ranks and threads with which the ranks run a program."""

    engine: str
    reason: str  # why this engine is used
    ranks: int  # number of ranks that hold the state
    threads: int  # of each rank
    memory_bytes: int  # most bytes of states in each rank


def fitting(profile: Profile, terms: TaskOptions, seats: Sequence[RankInfo]) -> Fitting:
    """Return the engine, and the threads and memory of each rank.

    Raises InfeasibleError with the figures, OptionError.
    """
    memory = sum({seat.node: seat.memory_bytes for seat in seats}.values())
    pools = (PoolSpec(engine="any" if terms.engine == engine_choice.AUTO else terms.engine),)
    try:
        result = engine_choice.route(profile, terms, pools, _limits(memory))
    except InfeasibleError:  # the error below has the figures of the ranks
        result = engine_choice.route(profile, terms, pools, _limits(_ENDLESS_BYTES))
    card = catalog.card(result.engine)
    assert card is not None
    profile = card.effective_profile(profile, terms.outputs)
    ranks = ranks_used(profile.num_qubits, len(seats)) if card.ranks else 1
    used = seats[:ranks]
    share = min(_shares(used).values())
    need = card.costs.least_memory_bytes(profile, cost_query(card, terms, ranks=ranks))
    if need > share:
        raise _too_wide(card, profile, terms, used, need)
    return Fitting(result.engine, result.reason, ranks, _threads(used), share - BASE_BYTES)


def _limits(memory_bytes: int) -> ClusterLimits:
    """Return limits with all memory in one process: the choice of the engine ignores its
    division."""
    return ClusterLimits(1, memory_bytes, 1, 1, _HOUR_NS, _HOUR_NS)


def _shares(seats: Sequence[RankInfo]) -> dict[str, int]:
    """Return the bytes that a rank on each node may hold."""
    count = Counter(seat.node for seat in seats)
    return {seat.node: seat.memory_bytes // count[seat.node] for seat in seats}


def _threads(seats: Sequence[RankInfo]) -> int:
    """Return the threads of each rank, the same for all: its part of the usable cores of its
    node."""
    count = Counter(seat.node for seat in seats)
    cores: dict[str, set[int]] = {}
    for seat in seats:
        cores.setdefault(seat.node, set()).update(seat.cores)
    least = min(_slots(seat, cores[seat.node]) // count[seat.node] for seat in seats)
    return max(1, least)


def _slots(seat: RankInfo, cores: set[int]) -> int:
    """Return the usable slots of a rank's node.

    Its ranks may be bound to different cores (`cores`: all of them) and share a quota of time.
    """
    return len(cores) if seat.slots >= len(seat.cores) else min(len(cores), seat.slots)


def _too_wide(
    card: EngineCard, profile: Profile, terms: TaskOptions, seats: Sequence[RankInfo], need: int
) -> InfeasibleError:
    count = Counter(seat.node for seat in seats)
    shares = _shares(seats)
    node = min(shares, key=lambda name: shares[name])
    there = shares[node] * count[node]
    what = f"{profile.num_qubits} qubits, {terms.precision} precision"
    each = "in each of its ranks" if len(seats) > 1 else "in one process"
    text = (
        f"this program needs {engine_choice.size(need)} {each} ({what}),"
        f" {engine_choice.size(need * count[node])} on node {node};"
        f" that has {engine_choice.size(there)} for {count[node]}"
    )
    return InfeasibleError(text, hint=_way_out(card, profile, terms, len(seats), shares[node]))


def _way_out(card: EngineCard, profile: Profile, terms: TaskOptions, ranks: int, share: int) -> str:
    more = 2 * ranks
    while card.ranks and more <= ranks_used(profile.num_qubits, 2**20):
        need = card.costs.least_memory_bytes(profile, cost_query(card, terms, ranks=more))
        if need <= share:
            return (
                f"with as much memory for each, {more} ranks hold it, {engine_choice.size(need)} "
                f"each: mpirun -n {more} over more nodes"
            )
        more *= 2
    single = msgspec.structs.replace(terms, precision="single")
    need = card.costs.least_memory_bytes(profile, cost_query(card, single, ranks=ranks))
    if terms.precision == "double" and need <= share:
        return "it fits with --precision single"
    return "fewer outputs or fewer qubits: a whole statevector must fit into the first rank"
