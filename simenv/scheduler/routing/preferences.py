"""Routing by preference: the first of the preferred pools or kinds of devices that can run it now.

The choice is made once, at acceptance. A pool that is closed or unable, and a kind without a pool,
is skipped, and the route's reason says so. If all are skipped, the route is the one without a
preference, which is never hardware; requested noise is then refused. A word that is neither a pool
nor a kind is refused: a misspelt `hardware` must not become a simulator.
"""

from __future__ import annotations

from difflib import get_close_matches

import msgspec

from simenv.errors import InfeasibleError, OptionError
from simenv.model import PoolSpec, TaskOptions
from simenv.model.devices import DeviceKind
from simenv.scheduler.core.types import ClusterLimits, Route
from simenv.scheduler.routing import engine_choice
from simenv.scheduler.routing.engine_choice import EngineCandidate
from simenv.scheduler.routing.engine_support import RoutingSnapshot, kind_of
from simulators.circuit.analysis.profile import Profile

KINDS = {
    "hardware": DeviceKind.HARDWARE,
    "simulator": DeviceKind.IDEAL,
    "ideal": DeviceKind.IDEAL,
    "emulator": DeviceKind.EMULATED,
    "emulated": DeviceKind.EMULATED,
}


def route(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot,
) -> Route:
    """Return the route of `engine_choice.route`, with or without a preference."""
    if not terms.prefer:
        return engine_choice.route(profile, terms, pools, limits, snapshot)
    chosen, skipped = _preferred(profile, terms, pools, limits, snapshot)
    if chosen is not None and chosen.route is not None:
        return chosen.route
    _check_noise(terms, skipped)
    ideal = msgspec.structs.replace(profile, noise=None)
    candidate = engine_choice.route(ideal, _without_preference(terms), pools, limits, snapshot)
    return msgspec.structs.replace(candidate, reason=_fallback_reason(skipped, candidate))


def consider(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot,
) -> list[EngineCandidate]:
    """Return the candidates of `engine_choice.consider`, with or without a preference."""
    if not terms.prefer:
        return engine_choice.consider(profile, terms, pools, limits, snapshot)
    chosen, skipped = _preferred(profile, terms, pools, limits, snapshot)
    ideal = msgspec.structs.replace(profile, noise=None)
    others = engine_choice.consider(ideal, _without_preference(terms), pools, limits, snapshot)
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
) -> tuple[EngineCandidate | None, list[str]]:
    """Return the first candidate that can run it now, and why those before it were skipped."""
    if terms.pool:
        raise OptionError(
            f"prefer cannot be combined with pool {terms.pool[:64]!r}", hint="use one of them"
        )
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
            candidate = engine_choice.consider(pool_profile, named, pools, limits, snapshot)[0]
            if candidate.route is not None:
                return _with_preference(
                    word, pool, candidate, candidate.route, skipped, snapshot
                ), skipped
            skipped.append(f"{word}: pool {pool.name}: {candidate.text}")
    return None, skipped


def _check_noise(terms: TaskOptions, skipped: list[str]) -> None:
    """Raise InfeasibleError if requested noise would be left out."""
    if terms.noise and ("all", 0.0) not in terms.noise:
        raise InfeasibleError(
            f"noise is asked for, and no emulated device takes the circuit: {'; '.join(skipped)}",
            hint="leave noise out, or wait for the pool of the device",
        )


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


def _with_preference(
    word: str,
    pool: PoolSpec,
    candidate: EngineCandidate,
    route: Route,
    skipped: list[str],
    snapshot: RoutingSnapshot,
) -> EngineCandidate:
    text = f"preferred {word}: {engine_choice.describe_pool(pool.name, snapshot)}"
    if kind_of(pool) is not DeviceKind.HARDWARE:
        text += f"; {route.reason}"
    reason = "; ".join([*skipped, text])
    return EngineCandidate(
        candidate.engine, msgspec.structs.replace(route, reason=reason), None, reason
    )


def _fallback_reason(skipped: list[str], candidate: Route) -> str:
    return f"{'; '.join(skipped)}; took pool {candidate.pool}: {candidate.reason}"


def _not_emulated(pool: PoolSpec, profile: Profile, terms: TaskOptions) -> str:
    """Return why the emulated device of a pool does not run the program; "" if it does."""
    if pool.device != terms.device:
        return f"its device {pool.device} is not the first one that is preferred"
    return "" if profile.noise is not None else f"device {pool.device} does not take the circuit"


def _without_preference(terms: TaskOptions) -> TaskOptions:
    """Return the same terms without preference, device and noise."""
    return msgspec.structs.replace(terms, prefer=(), device="", noise=(), snapshot="")
