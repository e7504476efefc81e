"""Fit of a program into the MPI ranks of a command, and the engine that runs it.

Invariant: pure; it counts bytes before anything is allocated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from simenv.errors import InfeasibleError, OptionError
from simenv.model import PoolSpec, TaskOptions
from simenv.model.task_rules import MAX_RANKS
from simenv.scheduler.core import ClusterLimits
from simenv.scheduler.routing import engine_choice
from simenv.scheduler.routing.engine_support import cost_query
from simenv.text import size
from simulators import catalog
from simulators.catalog.costs import BASE_BYTES

if TYPE_CHECKING:
    from simenv.worker.mpi_process import RankInfo
    from simulators.catalog import EngineCard
    from simulators.circuit.analysis.profile import Profile

_ENDLESS_BYTES = 2**62
_HOUR_NS = 3600 * 10**9


class ResourceFit(msgspec.Struct, frozen=True):
    """Engine, ranks and threads with which the ranks run a program."""

    engine: str
    reason: str  # why this engine is used
    ranks: int  # number of ranks that hold the state
    threads: int  # of each rank
    memory_bytes: int  # most bytes of states in each rank


def fitting(profile: Profile, terms: TaskOptions, rank_infos: Sequence[RankInfo]) -> ResourceFit:
    """Return the engine, and the threads and memory of each rank. Raises InfeasibleError with the
    figures, OptionError."""
    named = catalog.card(terms.engine)
    if named is not None and named.pool == "device":
        hint = "simenv submit --pool NAME"
        raise OptionError(f"engine {named.name!r} runs in pools of an environment", hint=hint)
    memory = sum({rank_info.node: rank_info.memory_bytes for rank_info in rank_infos}.values())
    pools = PoolSpec(), PoolSpec(engine=terms.engine)  # all engines, and those of special pools
    try:
        result = engine_choice.choose(profile, terms, pools, _limits(memory))
    except InfeasibleError:  # the error below has the figures of the ranks
        result = engine_choice.choose(profile, terms, pools, _limits(_ENDLESS_BYTES))
    card = catalog.card(result.engine)
    assert card is not None
    profile = card.effective_profile(profile, terms.outputs)
    ranks = card.ranks_used(profile.num_qubits, len(rank_infos))
    used = rank_infos[:ranks]
    share = min(_shares(used).values())
    required_bytes = card.costs.least_memory_bytes(profile, cost_query(card, terms, ranks=ranks))
    if required_bytes > share:
        raise _too_wide_error(card, profile, terms, used, required_bytes)
    return ResourceFit(result.engine, result.reason, ranks, _threads(used), share - BASE_BYTES)


def _limits(memory_bytes: int) -> ClusterLimits:
    """Return limits with all memory in one process: the choice of the engine ignores its
    division."""
    return ClusterLimits(1, memory_bytes, 1, 1, _HOUR_NS, _HOUR_NS)


def _shares(rank_infos: Sequence[RankInfo]) -> dict[str, int]:
    """Return the bytes that a rank on each node may hold."""
    count = Counter(rank_info.node for rank_info in rank_infos)
    return {
        rank_info.node: rank_info.memory_bytes // count[rank_info.node] for rank_info in rank_infos
    }


def _threads(rank_infos: Sequence[RankInfo]) -> int:
    """Return the threads of each rank, the same for all: its part of the usable cores of its
    node."""
    count = Counter(rank_info.node for rank_info in rank_infos)
    cores: dict[str, set[int]] = {}
    for rank_info in rank_infos:
        cores.setdefault(rank_info.node, set()).update(rank_info.cores)
    slots = []
    for each in rank_infos:  # may be bound to different cores of a node, and share a quota of time
        usable = len(cores[each.node])
        if each.slots < len(each.cores):
            usable = min(usable, each.slots)
        slots.append(usable // count[each.node])
    return max(1, min(slots))


def _too_wide_error(
    card: EngineCard,
    profile: Profile,
    terms: TaskOptions,
    rank_infos: Sequence[RankInfo],
    required_bytes: int,
) -> InfeasibleError:
    count = Counter(rank_info.node for rank_info in rank_infos)
    shares = _shares(rank_infos)
    node = min(shares, key=lambda name: shares[name])
    node_bytes = shares[node] * count[node]
    what = f"{profile.num_qubits} qubits, {terms.precision} precision"
    each = "in each of its ranks" if len(rank_infos) > 1 else "in one process"
    text = (
        f"this program needs {size(required_bytes)} {each} ({what}),"
        f" {size(required_bytes * count[node])} on node {node};"
        f" that has {size(node_bytes)} for {count[node]}"
    )
    return InfeasibleError(text, hint=_remedy(card, profile, terms, len(rank_infos), shares[node]))


def _remedy(card: EngineCard, profile: Profile, terms: TaskOptions, ranks: int, share: int) -> str:
    num_ranks = 2 * ranks
    while num_ranks <= card.ranks_used(profile.num_qubits, MAX_RANKS):
        required_bytes = card.costs.least_memory_bytes(
            profile, cost_query(card, terms, ranks=num_ranks)
        )
        if required_bytes <= share:
            return (
                f"with as much memory for each, {num_ranks} ranks hold it, "
                f"{size(required_bytes)} each: mpirun -n {num_ranks} over more nodes"
            )
        num_ranks *= 2
    single = msgspec.structs.replace(terms, precision="single")
    required_bytes = card.costs.least_memory_bytes(profile, cost_query(card, single, ranks=ranks))
    if terms.precision == "double" and required_bytes <= share:
        return "it fits with --precision single"
    return "fewer outputs or fewer qubits: a whole statevector must fit into the first rank"
