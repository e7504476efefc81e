"""Number of ranks for a program and the memory of each: the pool that it fits, or why none.

A rank is one slot and its memory. A program that fits one rank of a pool gets one; a larger one
gets the smallest power of two of ranks that hold it and that the nodes of one block can take, in
the pool `<pool>.x<ranks>`, which is made on demand. The answer depends on the configured nodes,
never on their present state.
"""

from __future__ import annotations

import functools

import msgspec

from launcher.base import Node
from launcher.placement import NodeResources, Placement, ResourceRequest, matches, place
from simenv.errors import InfeasibleError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core import ClusterLimits, Route, gang_name, nodes_of, slot_memory
from simenv.scheduler.routing import engine_support
from simenv.scheduler.routing.engine_support import ELSEWHERE, RankQuery, power
from simenv.text import size
from simulators import catalog
from simulators.catalog.costs import StatevectorCost
from simulators.circuit.analysis.profile import Profile


class RankFit(msgspec.Struct, frozen=True):
    """Pool, ranks and memory of a program."""

    pool: str
    ranks: int  # of the worker
    memory_bytes: int  # of each rank
    on_demand: bool = False
    used: int = 1  # number of the ranks that hold amplitudes, a power of two
    text: str = ""  # about the ranks, for the reason of a route
    paced: bool = False  # the pool's device is paced
    bandwidth: float = 0.0  # memory bandwidth of its GPU; see `CostQuery`


def fit(query: RankQuery) -> RankFit | SimenvError:
    """Return the ranks of a program in a pool, or on demand for it; or the objection."""
    card, terms, pool, limits = query.card, query.terms, query.pool, query.limits
    if not _nodes(pool.nodes, limits):
        text = f"no node matches {pool.nodes!r}, where workers of pool {pool.name!r} may be"
        hint = f"nodes: {', '.join(node.name for node in nodes_of(limits))}"
        return InfeasibleError(text, hint=hint)
    if card.pool == "gpu" and (refused := engine_support.device_refusal(query)):
        return refused
    if card.pool == "gpu" and pool.ranks == 1 and terms.ranks > 1:
        return engine_support.too_few_gpus(query)
    several = pool.ranks > 1 or terms.ranks > 1
    if several and not card.parallel.ranks:
        subject = f"workers of pool {pool.name!r} have" if pool.ranks > 1 else "it was asked for"
        number = pool.ranks if pool.ranks > 1 else terms.ranks
        return InfeasibleError(
            f"engine {card.name!r} runs on one rank, and {subject} {number}", hint=ELSEWHERE
        )
    if pool.ranks > 1:
        return _in_gang(query)
    if not several:
        placed = _on_one_rank(query)
        if placed is not None:
            return placed
    if card.parallel.ranks and terms.ranks != 1 and card.pool != "gpu":
        return _on_demand(query)
    return _too_wide_error(query)


def _on_one_rank(query: RankQuery) -> RankFit | None:
    """Return the fit on one rank; None if one rank cannot hold the program."""
    card, pool, limits = query.card, query.pool, query.limits
    max_bytes, cost = one_rank_bytes(pool, limits), query.cost_query()
    if query.profile.num_qubits > card.max_qubits:
        return None
    if card.costs.least_memory_bytes(query.profile, cost) > max_bytes:
        return None
    gpu = engine_support.smallest_gpu(pool, limits) if card.pool == "gpu" else None
    rank_bytes = min(max_bytes, card.costs.memory_bytes(query.profile, cost))
    if gpu is None:
        return RankFit(pool.name, 1, rank_bytes)
    text = engine_support.device_text(query, gpu)
    return RankFit(pool.name, 1, rank_bytes, text=text, bandwidth=gpu.bandwidth)


def _in_gang(query: RankQuery) -> RankFit | SimenvError:
    """Return the fit in a pool whose workers have several ranks, or the objection."""
    card, pool, wanted = query.card, query.pool, query.terms.ranks
    used = power(pool.ranks) if card.parallel.divides_state else pool.ranks
    if wanted and power(wanted) != power(pool.ranks):
        text = f"{wanted} ranks were asked for, and workers of pool {pool.name!r} have {pool.ranks}"
        return InfeasibleError(text, hint="ask for no pool, or for no number of ranks")
    max_bytes = pool.memory_bytes or slot_bytes(pool, query.limits, pool.ranks)
    if _min_bytes(query, used) > max_bytes or query.profile.num_qubits > card.max_qubits:
        return _too_wide_error(query)
    rank_bytes = min(max_bytes, card.costs.memory_bytes(query.profile, query.cost_query(used)))
    text, bandwidth = _ranks_text(used, pool.ranks, rank_bytes), 0.0
    gpu = engine_support.smallest_gpu(pool, query.limits) if card.pool == "gpu" else None
    if gpu is not None:
        text = f"{text}; {engine_support.device_text(query, gpu)}"
        bandwidth = gpu.bandwidth
    return RankFit(pool.name, pool.ranks, rank_bytes, used=used, text=text, bandwidth=bandwidth)


def _on_demand(query: RankQuery) -> RankFit | SimenvError:
    """Return the fit over as many ranks as the terms request, or as the program needs; or the
    objection."""
    card, pool, limits, wanted = query.card, query.pool, query.limits, query.terms.ranks
    requested = power(wanted)
    max_ranks = min(limits.max_ranks, most_ranks(pool, limits))
    if requested > max_ranks:
        return _too_many_ranks_error(wanted, pool, limits)
    ranks = requested or 2
    while ranks <= max_ranks and query.profile.num_qubits <= card.max_qubits:
        bound = slot_bytes(pool, limits, ranks)
        if _min_bytes(query, ranks) <= bound:
            needed = card.costs.memory_bytes(query.profile, query.cost_query(ranks))
            rank_bytes = min(bound, needed)
            text = _ranks_text(ranks, max(ranks, wanted), rank_bytes)
            return RankFit(gang_name(pool.name, ranks), ranks, rank_bytes, True, ranks, text)
        if requested:
            break
        ranks *= 2
    return _too_wide_error(query)


def _min_bytes(query: RankQuery, ranks: int) -> int:
    return query.card.costs.least_memory_bytes(query.profile, query.cost_query(ranks))


def _ranks_text(used: int, total_ranks: int, rank_bytes: int) -> str:
    if used < total_ranks:
        return f"{used} of {total_ranks} ranks used: a power of two"
    return f"over {used} ranks of {size(rank_bytes)}"


@functools.lru_cache(maxsize=1024)
def _nodes(patterns: str, limits: ClusterLimits) -> tuple[Node, ...]:
    return tuple(node for node in nodes_of(limits) if matches(patterns, NodeResources.of(node)))


def one_rank_bytes(pool: PoolSpec, limits: ClusterLimits) -> int:
    """Return the most memory in bytes that a worker of one rank in this pool may hold."""
    nodes = _nodes(pool.nodes, limits)
    max_bytes = max((node.memory_bytes for node in nodes), default=0)
    return min(max_bytes, pool.memory_bytes or limits.memory_per_slot or max_bytes)


@functools.lru_cache(maxsize=1024)
def slot_bytes(pool: PoolSpec, limits: ClusterLimits, ranks: int) -> int:
    """Return the most bytes that each of `ranks` ranks of a worker may hold; 0: they fit
    nowhere."""
    sizes = {slot_memory(node, limits) for node in _nodes(pool.nodes, limits)}
    fitting = (each for each in sizes if most_ranks(pool, limits, each) >= ranks)
    max_bytes = max(fitting, default=0)
    return min(max_bytes, pool.memory_bytes) if pool.memory_bytes else max_bytes


def most_ranks(pool: PoolSpec, limits: ClusterLimits, rank_bytes: int = 0) -> int:
    """Return the most ranks of a worker on nodes of one block with at least `rank_bytes` for each
    slot."""
    if pool.jobs is not None:
        return 1
    blocks: dict[int, int] = {}
    for node in _nodes(pool.nodes, limits):
        if slot_memory(node, limits) >= rank_bytes:
            blocks[node.block] = blocks.get(node.block, 0) + node.slots
    return max(blocks.values(), default=0)


def most_ranks_of_all(limits: ClusterLimits) -> int:
    """Return the most ranks that any worker could have: the slots of one block's nodes."""
    return max(1, min(limits.max_ranks, most_ranks(PoolSpec("any"), limits)))


def nodes_for(route: Route, limits: ClusterLimits) -> int:
    """Return how many nodes a worker for the route would use on an empty cluster."""
    resources = [
        NodeResources.of(node)
        for node in nodes_of(limits)
        if slot_memory(node, limits) >= route.memory_bytes or route.ranks == 1
    ]
    placed = place(ResourceRequest(route.ranks, memory_bytes=route.memory_bytes), resources)
    return len(placed.shares) if isinstance(placed, Placement) else 1


def _too_many_ranks_error(ranks: int, pool: PoolSpec, limits: ClusterLimits) -> InfeasibleError:
    if limits.max_ranks == 1:
        text = f"{ranks} ranks were asked for, and a worker here has one: there is no MPI"
        return InfeasibleError(text, hint=limits.launcher)
    max_ranks = min(limits.max_ranks, most_ranks(pool, limits))
    return InfeasibleError(
        f"{ranks} ranks were asked for, and a worker of pool {pool.name!r} may have {max_ranks} "
        "here",
        hint=f"ranks={power(max_ranks)} is the most; without it as many are taken as are needed",
    )


def _too_wide_error(query: RankQuery) -> InfeasibleError:
    """Return the error with the figure that is too large, its limit, and the widest circuit within
    it."""
    card, terms, pool, limits = query.card, query.terms, query.pool, query.limits
    program_text = f"{query.profile.num_qubits} qubits, {terms.precision} precision"
    required_text = f"{size(_min_bytes(query, 1))} ({program_text})"
    limit = f"a worker here has {size(one_rank_bytes(pool, limits))}"
    if card.method == "clifford" or card.dense_qubits:
        hint, several = ELSEWHERE, max(pool.ranks, power(terms.ranks))
        if several > 1:  # each has the whole state
            bound = pool.memory_bytes or slot_bytes(pool, limits, several)
            limit = f"each of {several} ranks here has {size(bound)}"
            hint = f"fewer ranks have more memory each; {hint}"
        return InfeasibleError(f"engine {card.name!r} needs {required_text}; {limit}", hint=hint)
    max_ranks = power(min(limits.max_ranks, most_ranks(pool, limits)))
    if card.parallel.ranks and pool.ranks > 1:
        used, bound = power(pool.ranks), pool.memory_bytes or slot_bytes(pool, limits, pool.ranks)
        limit = _memory_limit_text(used, _min_bytes(query, used), bound)
    elif card.parallel.ranks and terms.ranks != 1 and max_ranks > 1:
        used = power(terms.ranks) or max_ranks
        limit = _memory_limit_text(used, _min_bytes(query, used), slot_bytes(pool, limits, used))
    return InfeasibleError(f"this program needs {required_text}; {limit}", hint=_remedy(query))


def _memory_limit_text(ranks: int, rank_bytes: int, bound: int) -> str:
    return f"over {ranks} ranks {size(rank_bytes)} each, and a rank here has {size(bound)}"


def _remedy(query: RankQuery) -> str:
    profile, pool, limits = query.profile, query.pool, query.limits
    kind = "dynamic program" if profile.mid_circuit else "program"
    double, single = (_widest(query.with_precision(p)) for p in ("double", "single"))
    hint = f"the widest {kind} that fits here has {double} qubits"
    if "single" not in query.card.precisions:
        return hint
    hint += f", {single} in single precision"
    if query.terms.precision == "double" and profile.num_qubits <= single:
        return hint + ": this one fits with precision='single'"
    most = most_ranks(pool, limits)
    if limits.max_ranks == 1 and query.card.parallel.ranks and most > 1:
        usable = msgspec.structs.replace(limits, max_ranks=most)
        if _can_fit(msgspec.structs.replace(query, limits=usable)):
            return f"{hint}; over several ranks this one would fit, but there is no MPI: " + (
                limits.launcher
            )
    return hint


def _can_fit(query: RankQuery) -> bool:
    """Return whether `fit` would find ranks, without its texts."""
    card, pool, limits, wanted = query.card, query.pool, query.limits, query.terms.ranks
    if pool.ranks == 1 and wanted <= 1 and _on_one_rank(query):
        return True
    if not card.parallel.ranks or wanted == 1 or query.profile.num_qubits > card.max_qubits:
        return False
    if pool.ranks > 1:
        choices = [power(pool.ranks)]
    else:
        max_ranks = min(limits.max_ranks, most_ranks(pool, limits))
        choices = [2**k for k in range(1, max_ranks.bit_length())]
        choices = [r for r in choices if r == power(wanted) or not wanted]
    bounds = [(r, pool.memory_bytes or slot_bytes(pool, limits, r)) for r in choices]
    return any(_min_bytes(query, r) <= bound for r, bound in bounds)


def _widest(query: RankQuery) -> int:
    """Return the most qubits of a program of this kind."""
    terms = msgspec.structs.replace(query.terms, outputs=("counts",))
    query = msgspec.structs.replace(query, terms=terms)
    width = min(query.profile.num_qubits, query.card.max_qubits)
    while width > 0 and not _can_fit(query.narrowed(width)):
        width -= 1
    return width


_PLAIN = Profile(64, 0, 1, 1, 0, 0, 0, 0, False, 0)


@functools.lru_cache(maxsize=64)
def widest(pools: tuple[PoolSpec, ...], limits: ClusterLimits) -> int:
    """Return the qubits of the widest program with all amplitudes in double precision that can run
    here. The program may use as many ranks as it needs; 0 if no pool holds amplitudes."""
    return max(widest_on(card, pools, limits) for card in catalog.engine_cards() if is_dense(card))


def widest_on(card: catalog.EngineCard, pools: tuple[PoolSpec, ...], limits: ClusterLimits) -> int:
    """Return the value of `widest` for one engine that holds all amplitudes."""
    usable = [pool for pool in pools if pool.engine in ("any", card.name)]
    queries = (RankQuery(card, _PLAIN, TaskOptions(), pool, limits) for pool in usable)
    return max(map(_widest, queries), default=0)


@functools.lru_cache(maxsize=1024)
def widest_of(pool: PoolSpec, limits: ClusterLimits) -> int:
    """Return the value of `widest` for a pool's own workers, without pools on demand. If the width
    alone does not give the memory, the engine's limit is returned; 0 for hardware."""
    card = catalog.card(catalog.DEFAULT_ENGINE if pool.engine == "any" else pool.engine)
    if card is not None and card.pool == "device":
        return 0  # the hardware describes its width itself
    if card is not None and card.pool == "gpu":
        return engine_support.widest_on_gpus(card, pool, limits)
    if card is None or not is_dense(card):
        return 0 if card is None else card.max_qubits
    terms = TaskOptions(ranks=0 if pool.ranks > 1 else 1)
    return _widest(RankQuery(card, _PLAIN, terms, pool, limits))


def is_dense(card: catalog.EngineCard) -> bool:
    """Return whether the engine holds all amplitudes, so that the width gives the memory."""
    return isinstance(card.costs, StatevectorCost)
