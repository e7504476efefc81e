"""Candidate of one engine for a program: its route, or the objection to it."""

from __future__ import annotations

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
    unsupported_reason,
)
from simenv.scheduler.routing.ranks import RankFit
from simulators import catalog
from simulators.catalog import CostQuery, EngineCard
from simulators.circuit.analysis.profile import Profile

AUTO = "auto"
SHOTS_PROBE = 1_000_000  # the model is linear in shots; two points give the line


class EngineCandidate(msgspec.Struct, frozen=True):
    """Engine that was considered: a route or an objection, and a short text about it."""

    engine: str
    route: Route | None
    objection: SimenvError | None
    text: str


def runs(pool: PoolSpec, card: EngineCard) -> bool:
    """Return whether this pool may run that engine. Engines for fault drills need a pool of their
    own."""
    return pool.engine == card.name or (pool.engine == "any" and card.in_default_pool)


def _against_auto(card: EngineCard, profile: Profile) -> str:
    """Return why `auto` does not choose an engine that may be able to run the program; "" if it
    may."""
    if card.method == "clifford":
        if not profile.clifford:
            return "free parameters or matrices may not be Clifford: select it by name to try"
        if profile.conditions:
            return "conditions may be more than parities of clbits: select it by name to try"
    return "" if card.auto is None else card.auto.objection(profile)


def _preference_reason(card: EngineCard, profile: Profile, total_qubits: int) -> str:
    """Return why `auto` chooses this engine; `total_qubits`: width before the program's
    reduction."""
    width = f"{profile.num_qubits} qubits"
    if profile.num_qubits < total_qubits:
        width = f"{profile.num_qubits} of {total_qubits} qubits at once are needed"
    if card.method == "clifford":
        return f"auto: {width} of Clifford gates"
    if card.auto is not None and card.auto.reason is not None:
        return f"auto: {width}, {card.auto.reason(profile)}"
    return f"auto: {width}, {card.summary}"


def candidate(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
    chosen_by: str,
    snapshot: RoutingSnapshot = EMPTY_SNAPSHOT,
) -> EngineCandidate:
    """Return the route on one engine, or the objection to it."""
    fit, reason = check_candidates(card, candidates, profile, terms, limits, chosen_by, snapshot)
    if not isinstance(fit, RankFit):
        return EngineCandidate(card.name, None, fit, _short(card, fit))
    profile = card.effective_profile(profile, terms.outputs)
    return EngineCandidate(
        card.name, route_on(card, fit, profile, terms, limits, reason), None, reason
    )


def check_candidates(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
    chosen_by: str,
    snapshot: RoutingSnapshot = EMPTY_SNAPSHOT,
) -> tuple[RankFit | SimenvError, str]:
    """Return the ranks and pool with which one engine can run the program, or the objection; and
    the reason for the engine."""
    total_qubits, profile = profile.used_qubits, card.effective_profile(profile, terms.outputs)
    error = unsupported_reason(card, profile, terms)
    if error is None and card.pool == "device":
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
        return error, ""
    reason = (
        _preference_reason(card, profile, total_qubits)
        if chosen_by == AUTO
        else f"asked for {card.name}"
    )
    if card.pool == "device":
        reason = f"asked for {describe_pool(fit.pool, snapshot)}"
    if fit.text:
        reason = f"{reason}; {fit.text}"
    return fit, reason


def _fit(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
) -> RankFit | SimenvError:
    """Return the fit of a program: one rank if possible, else pools of several ranks, else ranks on
    demand."""
    usable = [p for p in candidates if runs(p, card)]
    if not usable:
        return InfeasibleError(
            f"no pool here runs engine {card.name!r}",
            hint=f"ask for another engine, or start a pool with engine={card.name}"
            + ("; hardware is selected by its pool" if not candidates else ""),
        )
    usable.sort(key=lambda p: p.engine != card.name)  # a pool of this engine alone has it loaded
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
    """Return an objection without the engine's name; with the pip command if that solves it."""
    text = error.message.removeprefix(f"engine {card.name!r}").removeprefix(":").strip()
    return f"{text}: {card.install_hint}" if card.install_hint else text


def route_on(
    card: EngineCard,
    fit: RankFit,
    profile: Profile,
    terms: TaskOptions,
    limits: ClusterLimits,
    reason: str,
) -> Route:
    noise = profile.noise
    if noise is not None and noise.kinds:  # not linear: of so many shots as its tasks have
        query = query_on(card, fit, terms, noise.shots)
        return placed_route(card, fit, profile, limits, reason, time_us(card, profile, query))
    start_s = card.costs.seconds(profile, query_on(card, fit, terms), 1)
    many_s = card.costs.seconds(profile, query_on(card, fit, terms, SHOTS_PROBE), 1)
    shot_us = two_digits((many_s - start_s) * 1e6 / SHOTS_PROBE)
    return placed_route(card, fit, profile, limits, reason, two_digits(start_s * 1e6), shot_us)


def query_on(card: EngineCard, fit: RankFit, terms: TaskOptions, shots: int = 0) -> CostQuery:
    """Return the query for the cost of `shots` shots on the ranks of a fit."""
    query = cost_query(card, terms, shots, fit.used)
    return msgspec.structs.replace(query, bandwidth=fit.bandwidth)


def time_us(card: EngineCard, profile: Profile, query: CostQuery) -> float:
    """Return the expected time on one slot, in microseconds."""
    return two_digits(card.costs.seconds(profile, query, 1) * 1e6)


def two_digits(value: float) -> float:
    """Return an estimate rounded to two digits, so that programs of one kind share a route."""
    return float(f"{value:.2g}")


def placed_route(
    card: EngineCard,
    fit: RankFit,
    profile: Profile,
    limits: ClusterLimits,
    reason: str,
    evolve_us: float,
    shot_us: float = 0.0,
) -> Route:
    """Return the route with these times on one slot, in microseconds."""
    noise = profile.noise
    narrow = profile.num_qubits <= catalog.SMALL_QUBITS
    is_single_slot = narrow or not card.parallel.threads or fit.ranks > 1
    return Route(
        engine=card.name,
        reason=reason,
        pool=fit.pool,
        num_qubits=profile.num_qubits,
        memory_bytes=fit.memory_bytes,
        evolve_us=evolve_us,
        shot_us=shot_us,
        max_slots=1 if is_single_slot else max(node.slots for node in nodes_of(limits)),
        ranks=fit.ranks,
        device_shot_ns=0.0 if noise is None else noise.device_shot_ns,
        device_overhead_ns=0.0 if noise is None else noise.device_overhead_ns,
        paced=noise is not None and fit.paced,
    )


def describe_pool(pool: str, snapshot: RoutingSnapshot) -> str:
    """Return the name of a pool for a message, with its hardware model if known."""
    device = snapshot.device(pool)
    return f"pool {pool} ({device.model})" if device is not None else f"pool {pool}"


def _hardware_refusal(
    candidates: tuple[PoolSpec, ...], profile: Profile, snapshot: RoutingSnapshot
) -> SimenvError | None:
    """Return why the hardware of the named pool cannot run the program; None if no reason is
    known."""
    pool = next((pool.name for pool in candidates if holds_hardware(pool)), "")
    if not pool:
        return OptionError(
            "engine='hardware' cannot be selected directly",
            hint="name the hardware pool: pool='NAME', or prefer=['hardware']",
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
