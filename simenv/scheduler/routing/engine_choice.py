"""Choice of the engine for a program, with its reason; or why none can run it, with the limit.

A function of the program, its options and the installed engines, pools and memory: limits count
operations, never seconds, and no learned figure takes part.
"""

from __future__ import annotations

import math

import msgspec

from simenv.errors import InfeasibleError, OptionError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.types import ClusterLimits, Route, nodes_of
from simenv.scheduler.routing import ranks
from simenv.scheduler.routing.engine_support import (
    EMPTY_SNAPSHOT,
    RoutingSnapshot,
    cost_query,
    holds_hardware,
    option_hint,
    unsupported_reason,
)
from simenv.scheduler.routing.ranks import RankFit
from simenv.text import size
from simulators import catalog
from simulators.catalog import EngineCard
from simulators.circuit.analysis.profile import Profile

__all__ = [
    "AUTO",
    "EngineCandidate",
    "consider",
    "depends_on_parameter_values",
    "route",
    "runs",
    "size",
]

AUTO = "auto"
SHOTS_PROBE = 1_000_000  # the model is linear in shots; two points give the line


class EngineCandidate(msgspec.Struct, frozen=True):
    """One engine that was considered: a route or an objection, and a short text about it."""

    engine: str
    route: Route | None
    objection: SimenvError | None
    text: str


def route(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot = EMPTY_SNAPSHOT,
) -> Route:
    """The route of a program; raises a SimenvError with the reason if there is none. Preferences
    among pools are handled by `preferences`."""
    considered = consider(profile, terms, pools, limits, snapshot)
    chosen = considered[0]
    if chosen.route is not None:
        return chosen.route
    assert chosen.objection is not None
    error = chosen.objection
    if terms.engine == AUTO:
        others = [f"{candidate.engine}: {candidate.text}" for candidate in considered[1:]]
        error.hint = "; ".join([error.hint, *others]) if error.hint else "; ".join(others)
    raise error


def consider(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: RoutingSnapshot = EMPTY_SNAPSHOT,
) -> list[EngineCandidate]:
    """The engines that `terms` allows, the chosen one first; if none can run it, the most likely
    first."""
    candidates = _pools(terms, pools)
    bound = [pool for pool in candidates if holds_hardware(pool) or _names_engine(terms, pool)]
    if terms.engine != AUTO or bound:  # the named pool has an engine that `auto` never chooses
        wanted = bound[0].engine if terms.engine == AUTO else terms.engine
        card = _named(msgspec.structs.replace(terms, engine=wanted))
        return [_candidate(card, candidates, profile, terms, limits, "", snapshot)]
    _check_options(terms)
    cards = [
        card
        for card in catalog.engine_cards()
        if card.automatic and not (card.only_noise and profile.noise is None)
    ]
    effective = (each.effective_profile(profile, terms.outputs) for each in catalog.engine_cards())
    width = min(each.num_qubits for each in effective)
    cards.sort(key=lambda card: _rank(card, profile, width))
    candidates_ = [_candidate(card, candidates, profile, terms, limits, AUTO) for card in cards]
    if profile.noise is not None and profile.noise.kinds:
        candidates_.sort(key=_expected_us)
    candidates_.sort(key=lambda candidate: candidate.route is None)
    if profile.noise is not None and profile.noise.kinds:
        candidates_[0] = _with_costs(candidates_)
    if candidates_[0].route is None:  # the limit of the engine that runs any circuit says most
        candidates_.sort(key=lambda candidate: candidate.engine != catalog.DEFAULT_ENGINE)
    return candidates_


def _names_engine(terms: TaskOptions, pool: PoolSpec) -> bool:
    """Whether the pool was asked for by name, and its engine runs only where it is named."""
    card = catalog.card(pool.engine)
    return bool(terms.pool) and card is not None and not card.automatic


def _expected_us(candidate: EngineCandidate) -> float:
    """Expected time of a circuit with noise."""
    return 0.0 if candidate.route is None else candidate.route.evolve_us


def _about(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten: tasks share a chunk where their reasons are
    equal, so circuits of one kind should have the same."""
    unit = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return unit * min((1.0, 2.0, 5.0, 10.0), key=lambda step: abs(math.log(value / unit / step)))


def _with_costs(candidates: list[EngineCandidate]) -> EngineCandidate:
    """The first candidate, its reason with the expected times of all that can run the circuit."""
    chosen = candidates[0]
    if chosen.route is None:
        return chosen
    times = ", ".join(
        f"{each.engine} {_about(each.route.evolve_us * 1e-3):g} ms"
        for each in candidates
        if each.route
    )
    reason = f"{chosen.text}; expected time with noise: {times}"
    route = msgspec.structs.replace(chosen.route, reason=reason)
    return msgspec.structs.replace(chosen, route=route, text=reason)


def depends_on_parameter_values(profile: Profile, terms: TaskOptions) -> bool:
    """May a program of the same structure with other angles have another route?"""
    if not profile.by_angles:
        return False
    card = catalog.card(terms.engine)
    if terms.engine == AUTO:
        return profile.num_qubits > catalog.SMALL_QUBITS
    return card is not None and card.clifford


def runs(pool: PoolSpec, card: EngineCard) -> bool:
    """May this pool run that engine? Engines for fault drills need a pool of their own."""
    return pool.engine == card.name or (pool.engine == "any" and card.in_default_pool)


def _rank(card: EngineCard, profile: Profile, width: int) -> int:
    """The position of an engine in the preference of `auto`. `width`: qubits held at once."""
    assert card.auto_rank is not None
    return card.auto_rank(profile, width)


def _against_auto(card: EngineCard, profile: Profile) -> str:
    """Why `auto` does not choose an engine that may be able to run the program; "": it may."""
    if card.clifford:
        if not profile.clifford:
            return "free parameters or matrices may not be Clifford: ask for it by name to try"
        if profile.conditions:
            return "conditions may be more than parities of clbits: ask for it by name to try"
    return "" if card.auto_objection is None else card.auto_objection(profile)


def _why(card: EngineCard, profile: Profile, total_qubits: int) -> str:
    """Why `auto` chooses this engine; `total_qubits`: of the program before its reduction."""
    width = f"{profile.num_qubits} qubits"
    if profile.num_qubits < total_qubits:
        width = f"{profile.num_qubits} of {total_qubits} qubits at once are needed"
    if card.clifford:
        return f"auto: {width} of Clifford gates"
    if card.auto_reason is not None:
        return f"auto: {width}, {card.auto_reason(profile)}"
    return f"auto: {width}, {card.summary}"


def _named(terms: TaskOptions) -> EngineCard:
    card = catalog.card(terms.engine)
    if card is None:
        names = [
            entry.name
            for entry in catalog.engine_cards()
            if entry.in_default_pool and not entry.calls
        ]
        raise OptionError(
            f"engine {terms.engine[:64]!r} is not known", hint=f"one of: auto, {', '.join(names)}"
        )
    return card


def _check_options(terms: TaskOptions) -> None:
    """Raise OptionError for an option that no engine of `auto` has."""
    cards = [card for card in catalog.engine_cards() if card.automatic]
    for name, _ in terms.options:
        if not any(option.name == name for card in cards for option in card.options):
            raise OptionError(
                f"no engine has an option {name[:64]!r}",
                hint="; ".join(option_hint(card) for card in cards if card.options),
            )


def _candidate(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
    chosen_by: str,
    snapshot: RoutingSnapshot = EMPTY_SNAPSHOT,
) -> EngineCandidate:
    """The route on one engine, or the objection to it."""
    total_qubits, profile = profile.used_qubits, card.effective_profile(profile, terms.outputs)
    error = unsupported_reason(card, profile, terms)
    if error is None and card.is_device:
        error = _hardware_refusal(candidates, profile, snapshot)
    fit = None
    if error is None:
        candidates_ = _fit(card, candidates, profile, terms, limits)
        if isinstance(candidates_, RankFit):
            fit = candidates_
        else:
            error = candidates_
    if error is None and chosen_by == AUTO and (text := _against_auto(card, profile)):
        error = InfeasibleError(f"engine {card.name!r}: {text}", hint=f"engine={card.name!r}")
    if error is not None or fit is None:
        assert error is not None
        return EngineCandidate(card.name, None, error, _short(card, error))
    reason = _why(card, profile, total_qubits) if chosen_by == AUTO else f"asked for {card.name}"
    if card.is_device:
        reason = f"asked for {describe_pool(fit.pool, snapshot)}"
    if fit.text:
        reason = f"{reason}; {fit.text}"
    return EngineCandidate(
        card.name, _route(card, fit, profile, terms, limits, reason), None, reason
    )


def _fit(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
) -> RankFit | SimenvError:
    """Where it fits: one rank if possible, then pools of several ranks, then on demand."""
    usable = [p for p in candidates if runs(p, card)]
    if not usable:
        return InfeasibleError(
            f"no pool here runs engine {card.name!r}",
            hint=f"ask for another engine, or start a pool with engine={card.name}"
            + ("; a machine is asked for by its pool" if not candidates else ""),
        )
    usable.sort(key=lambda p: p.engine != card.name)  # a pool of its own has it loaded
    candidates_ = [ranks.fit(card, profile, terms, pool, limits) for pool in usable]
    fits = [
        msgspec.structs.replace(candidate, paced=pool.pace)
        for candidate, pool in zip(candidates_, usable, strict=True)
        if isinstance(candidate, RankFit)
    ]
    if fits:
        return min(fits, key=lambda candidate: (candidate.ranks > 1, candidate.on_demand))
    return next(candidate for candidate in candidates_ if not isinstance(candidate, RankFit))


def _short(card: EngineCard, error: SimenvError) -> str:
    """An objection without the engine's name; with the pip command if that solves it."""
    text = error.message.removeprefix(f"engine {card.name!r}").removeprefix(":").strip()
    return f"{text}: {card.install_hint}" if card.install_hint else text


def _route(
    card: EngineCard,
    fit: RankFit,
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
    reason: str,
) -> Route:
    noise = profile.noise
    if noise is not None and noise.kinds:  # not linear: of so many shots as its tasks have
        query = cost_query(card, terms, noise.shots, fit.used)
        start_s = many_s = card.costs.seconds(profile, query, 1)
    else:
        start_s = card.costs.seconds(profile, cost_query(card, terms, ranks=fit.used), 1)
        many_s = card.costs.seconds(profile, cost_query(card, terms, SHOTS_PROBE, fit.used), 1)
    narrow = profile.num_qubits <= catalog.SMALL_QUBITS
    alone = narrow or not card.threads or fit.ranks > 1
    return Route(
        engine=card.name,
        reason=reason,
        pool=fit.pool,
        num_qubits=profile.num_qubits,
        memory_bytes=fit.memory_bytes,
        # Two digits are all an estimate is worth, and let programs of one kind share a route.
        evolve_us=float(f"{start_s * 1e6:.2g}"),
        shot_us=float(f"{(many_s - start_s) * 1e6 / SHOTS_PROBE:.2g}"),
        max_slots=1 if alone else max(node.slots for node in nodes_of(limits)),
        ranks=fit.ranks,
        device_shot_ns=0.0 if noise is None else noise.device_shot_ns,
        device_overhead_ns=0.0 if noise is None else noise.device_overhead_ns,
        paced=noise is not None and fit.paced,
    )


def describe_pool(pool: str, snapshot: RoutingSnapshot) -> str:
    """A pool in a message, with its hardware model if known."""
    device = snapshot.device(pool)
    return f"pool {pool} ({device.model})" if device is not None else f"pool {pool}"


def _hardware_refusal(
    candidates: tuple[PoolSpec, ...], profile: Profile, snapshot: RoutingSnapshot
) -> SimenvError | None:
    """Why the hardware of the named pool cannot run the program, as far as is known."""
    pool = next((pool.name for pool in candidates if holds_hardware(pool)), "")
    if not pool:
        return OptionError(
            "a machine is asked for by its pool, never by engine='hardware' alone",
            hint="pool='NAME', or prefer=['hardware']",
        )
    device = snapshot.device(pool)
    if device is None:
        return None
    if 0 < device.num_qubits < profile.num_qubits:
        return InfeasibleError(
            f"this program has {profile.num_qubits} qubits; {describe_pool(pool, snapshot)} has "
            f"{device.num_qubits}",
            hint="a simulator may take it: ask for no pool",
        )
    if profile.mid_circuit and not device.dynamic:
        return InfeasibleError(
            f"{describe_pool(pool, snapshot)} has no measurements, resets or conditions before a "
            "program's end",
            hint="a simulator takes it: ask for no pool",
        )
    return None


def _pools(terms: TaskOptions, pools: tuple[PoolSpec, ...]) -> tuple[PoolSpec, ...]:
    """Pools that may run it: the named one, else all without hardware and without another emulated
    device."""
    if not terms.pool:
        allowed = ("", terms.device)
        return tuple(pool for pool in pools if pool.device in allowed and not holds_hardware(pool))
    candidates_ = tuple(pool for pool in pools if pool.name == terms.pool)
    if not candidates_:
        raise OptionError(
            f"there is no pool {terms.pool[:64]!r}",
            hint=f"pools: {', '.join(p.name for p in pools)}",
        )
    return candidates_
