"""A program that prefers pools or kinds of devices: the first that can take it now gets it.

The choice is made once, at acceptance. What is not open or not able, and a kind of which there is
no pool, is passed over, and the route says so; if nothing preferred can take it, it goes where it
would go without a preference, which is never a machine. A word that is neither a pool nor a kind is
refused: a misspelt `hardware` must not become a simulator.
"""

from __future__ import annotations

from difflib import get_close_matches

import msgspec

from simenv.errors import OptionError
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
}
EMULATED = ("emulator", "emulated")  # a simulator with a machine's errors: there is none yet


def route(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    seen: RoutingSnapshot,
) -> Route:
    """As `routing.route`, with a preference or without."""
    if not terms.prefer:
        return engine_choice.route(profile, terms, pools, limits, seen)
    chosen, passed = _preferred(profile, terms, pools, limits, seen)
    if chosen is not None and chosen.route is not None:
        return chosen.route
    found = engine_choice.route(profile, _plain(terms), pools, limits, seen)
    return msgspec.structs.replace(found, reason=_instead(passed, found))


def consider(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    seen: RoutingSnapshot,
) -> list[EngineCandidate]:
    """As `routing.consider`, with a preference or without."""
    if not terms.prefer:
        return engine_choice.consider(profile, terms, pools, limits, seen)
    chosen, passed = _preferred(profile, terms, pools, limits, seen)
    others = engine_choice.consider(profile, _plain(terms), pools, limits, seen)
    if chosen is not None:
        return [chosen, *(each for each in others if each.engine != chosen.engine)]
    first = others[0]
    if first.route is None:
        return others
    reason = _instead(passed, first.route)
    taken = msgspec.structs.replace(first.route, reason=reason)
    return [msgspec.structs.replace(first, route=taken, words=reason), *others[1:]]


def _preferred(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    seen: RoutingSnapshot,
) -> tuple[EngineCandidate | None, list[str]]:
    """The first that can take it now, and what was passed over before it, in words."""
    if terms.pool:
        raise OptionError(
            f"prefer beside pool {terms.pool[:64]!r}", hint="pool= leaves no choice: say one"
        )
    _check_words(terms.prefer, pools)
    passed: list[str] = []
    for word in terms.prefer:
        there = [pool for pool in pools if pool.name == word]
        there = there or [pool for pool in pools if kind_of(pool) is KINDS.get(word)]
        if not there:
            passed.append(f"{word}: no such pool")  # of a kind that there is elsewhere
        for pool in there:
            named = msgspec.structs.replace(_plain(terms), pool=pool.name)
            why = seen.why_closed(pool.name)
            if why:
                passed.append(f"{word}: pool {pool.name} is {why}")
                continue
            found = engine_choice.consider(profile, named, pools, limits, seen)[0]
            if found.route is not None:
                return _taken(word, pool, found, found.route, passed, seen), passed
            passed.append(f"{word}: pool {pool.name}: {found.words}")
    return None, passed


def _check_words(words: tuple[str, ...], pools: tuple[PoolSpec, ...]) -> None:
    """Raises OptionError for a word that is neither a pool nor a kind of device."""
    names = [pool.name for pool in pools]
    there = f"pools here: {', '.join(names)}; kinds: hardware, simulator"
    for word in words:
        if word in KINDS or word in names:
            continue
        if word in EMULATED:
            raise OptionError(
                f"prefer={word!r}: emulated devices (with noise) do not exist here yet", hint=there
            )
        near = get_close_matches(word, [*KINDS, *names], n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise OptionError(
            f"prefer={word[:64]!r} is neither a pool nor a kind of device", hint=f"{meant}{there}"
        )


def _taken(
    word: str,
    pool: PoolSpec,
    found: EngineCandidate,
    by: Route,
    passed: list[str],
    seen: RoutingSnapshot,
) -> EngineCandidate:
    words = f"preferred {word}: {engine_choice.named(pool.name, seen)}"
    if kind_of(pool) is not DeviceKind.HARDWARE:
        words += f"; {by.reason}"
    reason = "; ".join([*passed, words])
    return EngineCandidate(found.engine, msgspec.structs.replace(by, reason=reason), None, reason)


def _instead(passed: list[str], found: Route) -> str:
    return f"{'; '.join(passed)}; took pool {found.pool}: {found.reason}"


def _plain(terms: TaskOptions) -> TaskOptions:
    return msgspec.structs.replace(terms, prefer=())
