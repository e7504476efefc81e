"""Routing of programs on the nodes that are up, by preference, and after a restart.

Lost and drained nodes take no part in routing: a program that fits only with one of them is
refused at submission with the node's name, or waits for it if it has a `queue_timeout_s`. Tasks
accepted before wait, and their pending reason names the node. While no node is up, all configured
ones count and every task waits.

A preference is a list of pools and kinds of devices; the first that can run the program now is
chosen, once, at acceptance. A pool that is closed or unable, and a kind without a pool, is skipped,
and the route's reason says so. If all are skipped, the route is the one without a preference, which
is never hardware; requested noise is then refused. A word that is neither a pool nor a kind is
refused: a misspelt `hardware` must not become a simulator.
"""

from __future__ import annotations

from difflib import get_close_matches

import msgspec

from launcher.placement import NodeResources, Placement, ResourceRequest, place
from simenv.errors import ConfigError, InfeasibleError, OptionError, SimenvError
from simenv.model import DeviceKind, PoolSpec, TaskOptions, views
from simenv.scheduler.core import ClusterLimits, Route, gang_name, rank_gpus, slot_memory
from simenv.scheduler.routing import engine_choice, ranks as sizing
from simenv.scheduler.routing.engine_support import RoutingSnapshot, kind_of, power
from simenv.text import size
from simulators import catalog
from simulators.circuit.analysis.profile import Profile

KINDS = {
    "hardware": DeviceKind.HARDWARE,
    "simulator": DeviceKind.IDEAL,
    "ideal": DeviceKind.IDEAL,
    "emulator": DeviceKind.EMULATED,
    "emulated": DeviceKind.EMULATED,
}


class Capacity(msgspec.Struct, frozen=True):
    """Configured limits, limits of the nodes that are up, and the nodes that are not up with the
    reasons."""

    configured: ClusterLimits
    limits: ClusterLimits
    away: str = ""  # "n2 is lost: no answer"

    @property
    def is_whole(self) -> bool:
        """True if all nodes are up."""
        return self.limits is self.configured


def all_nodes(limits: ClusterLimits) -> Capacity:
    """Return the capacity while every node is up."""
    return Capacity(limits, limits)


def route_now(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> Route:
    """Return the route of `route_with_preference` on the nodes that are up. A program with a
    `queue_timeout_s` that fits only with all nodes gets that route. Otherwise InfeasibleError names
    the missing nodes."""
    try:
        return route_with_preference(profile, terms, pools, capacity.limits, snapshot)
    except SimenvError as error:
        route_of_all = _with_all_nodes(profile, terms, pools, capacity, snapshot)
        if route_of_all is None:
            raise
        if terms.queue_timeout_s:
            return msgspec.structs.replace(
                route_of_all, reason=f"{route_of_all.reason}; waits for a node: {capacity.away}"
            )
        raise _unavailable(error, capacity) from error


def candidates_now(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> list[engine_choice.EngineCandidate]:
    """Return the candidates of `candidates_with_preference` on the nodes that are up. An objection
    names the missing nodes if the program would fit with all nodes."""
    candidates = candidates_with_preference(profile, terms, pools, capacity.limits, snapshot)
    first = candidates[0]
    if (
        first.objection is not None
        and _with_all_nodes(profile, terms, pools, capacity, snapshot) is not None
    ):
        error = _unavailable(first.objection, capacity)
        text = f"{first.text}; {capacity.away}"
        candidates[0] = msgspec.structs.replace(first, objection=error, text=text)
    return candidates


def _with_all_nodes(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> Route | None:
    """Return the route that the program would have with all nodes up; None if there is none."""
    if capacity.is_whole:
        return None
    try:
        return route_with_preference(profile, terms, pools, capacity.configured, snapshot)
    except SimenvError:
        return None


def _unavailable(error: SimenvError, capacity: Capacity) -> InfeasibleError:
    hint = "it fits once that node is back: queue_timeout_s=SECONDS waits so long for it"
    return InfeasibleError(f"{error.message}; {capacity.away}", hint=hint)


def unplaceable_reason(capacity: Capacity, spec: PoolSpec, route: Route) -> str:
    """Return why a route of this pool fits none of the nodes that are up; "" if it fits."""
    limits = capacity.limits
    rank_bytes = max(route.memory_bytes, spec.memory_bytes)
    each = route.memory_bytes if views.base_of(route.pool) else 0
    nodes = [node for node in limits.nodes if slot_memory(node, limits) >= each]
    need = ResourceRequest(
        route.ranks, memory_bytes=rank_bytes, gpus=rank_gpus(spec), nodes=spec.nodes
    )
    if isinstance(place(need, [NodeResources.of(node) for node in nodes]), Placement):
        return ""
    ranks = f"{route.ranks} ranks of " if route.ranks > 1 else ""
    return f"it needs {ranks}{size(rank_bytes)}, more than the nodes in use have: {capacity.away}"


# --- preferences ----------------------------------------------------------------------------------


def route_with_preference(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot,
) -> Route:
    """Return the route of `engine_choice.choose`, with or without a preference."""
    if not terms.prefer:
        return engine_choice.choose(profile, terms, pools, limits, snapshot)
    chosen, skipped = _preferred(profile, terms, pools, limits, snapshot)
    if chosen is not None and chosen.route is not None:
        return chosen.route
    _check_noise(terms, skipped)
    ideal = msgspec.structs.replace(profile, noise=None)
    candidate = engine_choice.choose(ideal, _without_preference(terms), pools, limits, snapshot)
    return msgspec.structs.replace(candidate, reason=_fallback_reason(skipped, candidate))


def candidates_with_preference(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot,
) -> list[engine_choice.EngineCandidate]:
    """Return the candidates of `engine_choice.candidates`, with or without a preference."""
    if not terms.prefer:
        return engine_choice.candidates(profile, terms, pools, limits, snapshot)
    chosen, skipped = _preferred(profile, terms, pools, limits, snapshot)
    ideal = msgspec.structs.replace(profile, noise=None)
    others = engine_choice.candidates(ideal, _without_preference(terms), pools, limits, snapshot)
    if chosen is not None:
        return [chosen, *(each for each in others if each.engine != chosen.engine)]
    _check_noise(terms, skipped)
    first = others[0]
    if first.route is None:
        return others
    reason = _fallback_reason(skipped, first.route)
    fallback = msgspec.structs.replace(first.route, reason=reason)
    return [msgspec.structs.replace(first, route=fallback, text=reason), *others[1:]]


def _preferred(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot,
) -> tuple[engine_choice.EngineCandidate | None, list[str]]:
    """Return the first candidate that can run it now, and why those before it were skipped."""
    if terms.pool:
        hint = "use one of them"
        raise OptionError(f"prefer cannot be combined with pool {terms.pool[:64]!r}", hint=hint)
    _check_preferences(terms.prefer, pools)
    skipped: list[str] = []
    for word in terms.prefer:
        matching = [pool for pool in pools if pool.name == word]
        matching = matching or [pool for pool in pools if kind_of(pool) is KINDS.get(word)]
        if not matching:
            skipped.append(f"{word}: no such pool")  # a known kind without a pool here
        for pool in matching:
            named = msgspec.structs.replace(_without_preference(terms), pool=pool.name)
            reason = snapshot.closed_reason(pool.name)
            if reason:
                skipped.append(f"{word}: pool {pool.name} is {reason}")
                continue
            pool_profile = profile
            if pool.device:
                named = msgspec.structs.replace(
                    named, device=terms.device, noise=terms.noise, snapshot=terms.snapshot
                )
                reason = _not_emulated(pool, profile, terms)
                if reason:
                    skipped.append(f"{word}: pool {pool.name}: {reason}")
                    continue
            elif profile.noise is not None:
                pool_profile = msgspec.structs.replace(profile, noise=None)
            candidate = engine_choice.candidates(pool_profile, named, pools, limits, snapshot)[0]
            if candidate.route is not None:
                return _with_preference(
                    word, pool, candidate, candidate.route, skipped, snapshot
                ), skipped
            skipped.append(f"{word}: pool {pool.name}: {candidate.text}")
    return None, skipped


def _check_preferences(preferences: tuple[str, ...], pools: tuple[PoolSpec, ...]) -> None:
    """Raise OptionError for a word that is neither a pool nor a kind of device."""
    names = [pool.name for pool in pools]
    choices = f"pools here: {', '.join(names)}; kinds: hardware, emulator, simulator"
    for preference in preferences:
        if preference in KINDS or preference in names:
            continue
        similar = get_close_matches(preference, [*KINDS, *names], n=1)
        suggestion = f"did you mean {similar[0]!r}? " if similar else ""
        message = f"prefer={preference[:64]!r} is neither a pool nor a kind of device"
        raise OptionError(message, hint=f"{suggestion}{choices}")


def _check_noise(terms: TaskOptions, skipped: list[str]) -> None:
    """Raise InfeasibleError if requested noise would be left out."""
    if terms.noise and ("all", 0.0) not in terms.noise:
        text = f"noise is asked for, and no emulated device takes the circuit: {'; '.join(skipped)}"
        raise InfeasibleError(text, hint="leave noise out, or wait for the pool of the device")


def _not_emulated(pool: PoolSpec, profile: Profile, terms: TaskOptions) -> str:
    """Return why the emulated device of a pool does not run the program; "" if it does."""
    if pool.device != terms.device:
        return f"its device {pool.device} is not the first one that is preferred"
    return "" if profile.noise is not None else f"device {pool.device} does not take the circuit"


def _without_preference(terms: TaskOptions) -> TaskOptions:
    """Return the same terms without preference, device and noise."""
    return msgspec.structs.replace(terms, prefer=(), device="", noise=(), snapshot="")


def _with_preference(
    word: str,
    pool: PoolSpec,
    candidate: engine_choice.EngineCandidate,
    route: Route,
    skipped: list[str],
    snapshot: RoutingSnapshot,
) -> engine_choice.EngineCandidate:
    text = f"preferred {word}: {engine_choice.describe_pool(pool.name, snapshot)}"
    if kind_of(pool) is not DeviceKind.HARDWARE:
        text += f"; {route.reason}"
    reason = "; ".join([*skipped, text])
    return engine_choice.EngineCandidate(
        candidate.engine, msgspec.structs.replace(route, reason=reason), None, reason
    )


def _fallback_reason(skipped: list[str], candidate: Route) -> str:
    return f"{'; '.join(skipped)}; took pool {candidate.pool}: {candidate.reason}"


# --- restart --------------------------------------------------------------------------------------


def reroute_after_restart(
    route: Route, pools: tuple[PoolSpec, ...], limits: ClusterLimits
) -> Route:
    """Return the route itself, or one through another of the configured `pools` if its own is gone.
    Raises ConfigError if the task can run nowhere now."""
    card = catalog.card(route.engine)
    usable: list[PoolSpec] = []
    if card is not None and card.pool != "device":  # a task never moves to other hardware
        usable = [pool for pool in pools if engine_choice.runs(pool, card)]
    own_pools = [p for p in pools if p.name in (route.pool, views.base_of(route.pool))]
    for pool in (*own_pools, *usable):
        name = _pool_for(pool, route, limits)
        if name:
            ranks = route.ranks if name == pool.name else power(route.ranks)
            return msgspec.structs.replace(route, pool=name, ranks=ranks, paced=pool.pace)
    if not own_pools and not usable:
        own_name = views.base_of(route.pool) or route.pool
        raise ConfigError(
            f"tasks wait for engine {route.engine!r} in pool {route.pool!r}, which is not there "
            "now",
            hint=f"start with a pool {own_name!r} of the engine {route.engine!r}",
        )
    pool = (*own_pools, *usable)[0]
    if route.ranks == 1:
        available = f"a worker of this start has {size(sizing.one_rank_bytes(pool, limits))}"
        hint = "start with the memory it had before"
    else:
        max_ranks = min(limits.max_ranks, sizing.most_ranks(pool, limits, route.memory_bytes))
        available = f"this start has {max_ranks} of them for one worker ({limits.launcher})"
        hint = "start on the nodes it had before, with MPI"
    count = f"{route.ranks} ranks of " if route.ranks > 1 else ""
    raise ConfigError(
        f"tasks wait that need {count}{size(route.memory_bytes)}; {available}", hint=hint
    )


def _pool_for(pool: PoolSpec, route: Route, limits: ClusterLimits) -> str:
    """Return the name of the pool, or of the one made on demand for it, that can run the task; ""
    if neither can."""
    if route.ranks == 1:
        fits = pool.ranks == 1 and route.memory_bytes <= sizing.one_rank_bytes(pool, limits)
        return pool.name if fits else ""
    if pool.ranks > 1:
        max_bytes = pool.memory_bytes or sizing.slot_bytes(pool, limits, pool.ranks)
        return pool.name if pool.ranks == route.ranks and route.memory_bytes <= max_bytes else ""
    if rank_gpus(pool):
        return ""  # no worker on demand has GPUs
    ranks = power(route.ranks)
    max_pool_ranks = min(limits.max_ranks, sizing.most_ranks(pool, limits, route.memory_bytes))
    return gang_name(pool.name, ranks) if ranks <= max_pool_ranks else ""
