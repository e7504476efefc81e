"""Choice of the engine for a program: its route with the reason, or the limit that forbids it.

The choice is a function of the program's profile, its options and the installed engines, pools
and memory: limits count operations, never seconds, and no learned figure is used. Preferences among
pools are handled by `live_routing`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter

import msgspec

from simenv.errors import InfeasibleError, OptionError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.model.calls import is_call
from simenv.scheduler.core import ClusterLimits, Route, nodes_of, rank_gpus
from simenv.scheduler.routing import engine_support, offers, ranks
from simulators import catalog
from simulators.catalog import CostQuery, EngineCard
from simulators.circuit.analysis.profile import Profile

AUTO = "auto"
SHOTS_PROBE = 1_000_000  # the model is linear in shots; two points give the line
NO_OTHER_ENGINE = "no other engine can run it here"


class RoutingRequest(msgspec.Struct, frozen=True):
    """Program for which an engine is sought, its options, and the pools that may run it."""

    profile: Profile
    terms: TaskOptions
    pools: tuple[PoolSpec, ...]
    limits: ClusterLimits
    snapshot: engine_support.RoutingSnapshot = engine_support.EMPTY_SNAPSHOT
    is_auto: bool = False  # the engine is not named: `auto` may object to it


class EngineCandidate(msgspec.Struct, frozen=True):
    """Engine that was considered: a route or an objection, and a short text about it."""

    engine: str
    route: Route | None
    objection: SimenvError | None
    text: str


def choose(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: engine_support.RoutingSnapshot = engine_support.EMPTY_SNAPSHOT,
) -> Route:
    """Return the route of a program. Raises a SimenvError with the reason if there is none."""
    if terms.engine == AUTO and not terms.pool:
        allowed = _allowed_pools(terms, pools)
        request = RoutingRequest(profile, terms, allowed, limits, is_auto=True)
        result = _first_route(request) if profile.noise is None else _noisy_route(request)
        if result is not None:
            return result
    considered = candidates(profile, terms, pools, limits, snapshot)
    chosen = considered[0]
    if chosen.route is not None:
        return chosen.route
    assert chosen.objection is not None
    error = chosen.objection
    if terms.engine == AUTO:
        request = RoutingRequest(profile, terms, _allowed_pools(terms, pools), limits, snapshot)
        error.hint = _remedy(error.hint, considered[1:], _offers(request))
    raise error


def _remedy(hint: str, others: Sequence[EngineCandidate], offered: Sequence[str]) -> str:
    """Return the hint for a program that no engine of `auto` can run: first what can be had, and
    what to do, then the reason of each other engine on a line of its own."""
    parts = list(offered)
    if hint != engine_support.ELSEWHERE or not others:  # `auto` was asked for already
        parts.append(hint)
    elif not offered:
        parts.append(f"{NO_OTHER_ENGINE}:")
    first = "; ".join(filter(None, parts))
    return "\n".join((first, *(f"{each.engine}: {each.text}" for each in others)))


def _offers(request: RoutingRequest) -> list[str]:
    """Return what can be had of a program that no engine of `auto` can run: engines by name, the
    fastest first, with their expected times and errors, and the layers that are run exactly."""
    found = []
    for card in catalog.engine_cards():
        if card.pool == "device" or not offers.may_offer(card, request.profile):
            continue
        for options in offers.options_of(card):
            terms = msgspec.structs.replace(request.terms, engine=card.name, options=options)
            named = msgspec.structs.replace(request, terms=terms, is_auto=False)
            route = evaluate(card, named).route
            if route is not None:
                seconds = (route.evolve_us + route.shot_us * offers.SHOTS) * 1e-6
                found.append((seconds, offers.text(card, options, seconds)))
    found = sorted(each for each in found if each[0] <= offers.LONGEST_S)[: offers.MOST]
    return [*(text for _, text in found), *offers.exact_layers(request.profile)]


def _first_route(request: RoutingRequest) -> Route | None:
    """Return the route of `candidates` for a circuit without noise: that of the first engine in the
    order of preference that can run it, so that the others are not examined. None if no engine can
    run it."""
    _check_options(request.terms)
    routes = (evaluate(card, request).route for card in _automatic_cards(request))
    return next((route for route in routes if route is not None), None)


def _noisy_route(request: RoutingRequest) -> Route | None:
    """Return the first route of `candidates` for a circuit with noise; None if its noise is of no
    kind, and if no engine can run it. Facts that circuits of one shape share are computed once and
    cached: their noise changes only the times."""
    profile, terms, limits = request.profile, request.terms, request.limits
    if profile.noise is None or not profile.noise.kinds:
        return None
    noise = msgspec.structs.replace(
        profile.noise, locations=0, pair_locations=0, error_weight=0.0, drawn_weight=0.0,
        device_shot_ns=0.0, device_overhead_ns=0.0,
    )  # fmt: skip
    shape = msgspec.structs.replace(
        request,
        profile=msgspec.structs.replace(profile, noise=noise),
        terms=TaskOptions(
            precision=terms.precision,
            outputs=terms.outputs,
            options=terms.options,
            ranks=terms.ranks,
            device=terms.device,
        ),
    )
    costs = []
    for place, (card, fit, reason, query) in enumerate(_runnable(shape)):
        effective = card.effective_profile(profile, terms.outputs)
        us = time_us(card, effective, query)
        counted = us * _advantage(card.name)
        costs.append((counted, place, us, card, fit, effective, reason))
    if not costs:
        return None
    costs.sort(key=itemgetter(0, 1))
    _, _, evolve_us, card, fit, effective, reason = costs[0]
    times = _noisy_times((each[3].name, each[2]) for each in costs)
    return placed_route(card, fit, effective, limits, f"{reason}; {times}", evolve_us)


@functools.lru_cache(maxsize=4096)
def _runnable(
    shape: RoutingRequest,
) -> tuple[tuple[EngineCard, ranks.RankFit, str, CostQuery], ...]:
    """Return the engines of `auto` that can run circuits with noise of this shape, in their order,
    with ranks, reasons and the queries for their costs."""
    _check_options(shape.terms)
    results = ((card, find_fit(card, shape)) for card in _automatic_cards(shape))
    noise = shape.profile.noise
    shots = 0 if noise is None else noise.shots
    return tuple(
        (card, fit, text, query_on(card, fit, shape.terms, shots))
        for card, (fit, text) in results
        if isinstance(fit, ranks.RankFit)
    )


def _automatic_cards(request: RoutingRequest) -> list[EngineCard]:
    """Return the engines that `auto` considers, in its order; one for GPUs only if a pool has
    it."""
    profile, pools = request.profile, request.pools
    cards = [
        card
        for card in catalog.engine_cards()
        if card.auto is not None
        and card.calls == is_call(request.terms)
        and not (card.auto.only_noise and profile.noise is None)
        and not (card.pool == "gpu" and not any(runs(pool, card) for pool in pools))
    ]
    width = profile.num_qubits
    if profile.kept is not None or profile.noise is not None:  # else all engines run all of it
        outputs = request.terms.outputs
        effective = (each.effective_profile(profile, outputs) for each in catalog.engine_cards())
        width = min(each.num_qubits for each in effective)
    cards.sort(key=lambda card: _rank(card, profile, width))
    return cards


def _rank(card: EngineCard, profile: Profile, width: int) -> int:
    """Return the position of an engine in the preference of `auto`. `width`: qubits held at
    once."""
    assert card.auto is not None
    return card.auto.rank(profile, width)


def candidates(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
    snapshot: engine_support.RoutingSnapshot = engine_support.EMPTY_SNAPSHOT,
) -> list[EngineCandidate]:
    """Return the engines that `terms` allows, the chosen one first. If none can run the program,
    the most likely one is first."""
    request = RoutingRequest(profile, terms, _allowed_pools(terms, pools), limits, snapshot)
    bound = [
        pool
        for pool in request.pools
        if engine_support.holds_hardware(pool) or _names_engine(terms, pool)
    ]
    if terms.engine != AUTO or bound:  # the named pool has an engine that `auto` never chooses
        wanted = bound[0].engine if terms.engine == AUTO else terms.engine
        card = _named(msgspec.structs.replace(terms, engine=wanted))
        result = evaluate(card, request)
        if result.objection is not None and result.objection.hint == engine_support.ELSEWHERE:
            result.objection.hint = _alternative(card, profile, terms, pools, limits)
        return [result]
    _check_options(terms)
    request = msgspec.structs.replace(request, is_auto=True)
    considered = [evaluate(card, request) for card in _automatic_cards(request)]
    if profile.noise is not None and profile.noise.kinds:
        considered.sort(key=_counted_us)
    considered.sort(key=lambda candidate: candidate.route is None)
    if profile.noise is not None and profile.noise.kinds:
        considered[0] = _with_costs(considered)
    if considered[0].route is None:  # the limit of the engine that runs any circuit explains most
        considered.sort(key=lambda candidate: candidate.engine != catalog.DEFAULT_ENGINE)
        if terms.options:  # that of an engine that has the options explains more
            considered.sort(key=lambda candidate: _lacks_options(candidate.engine, terms))
    return considered


def _alternative(
    card: EngineCard,
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    limits: ClusterLimits,
) -> str:
    """Return the hint for a program that the named engine, or that of the named pool, cannot run:
    the engine that `auto` takes, or why there is none."""
    wider = msgspec.structs.replace(
        terms, engine=AUTO, options=(), pool="" if terms.engine == AUTO else terms.pool
    )
    if wider.pool and any(_names_engine(wider, pool) for pool in _allowed_pools(wider, pools)):
        wider = msgspec.structs.replace(wider, pool="")
    considered = candidates(profile, wider, pools, limits)
    if considered[0].route is not None:
        pool = " without a pool" if terms.pool and not wider.pool else ""
        return f"{engine_support.ANOTHER}: engine='auto'{pool} takes {considered[0].engine!r}"
    others = [each for each in considered if each.engine != card.name]
    request = RoutingRequest(profile, wider, _allowed_pools(wider, pools), limits)
    return _remedy(engine_support.ELSEWHERE, others, _offers(request))


def depends_on_parameter_values(profile: Profile, terms: TaskOptions) -> bool:
    """Return whether a program of the same structure with other angles may have another route."""
    card = catalog.card(terms.engine)
    method = "" if card is None else card.method
    if profile.strings is not None:
        return True
    if profile.active is not None and (terms.engine == AUTO or method == "near_clifford"):
        return True
    if terms.engine == AUTO and profile.trial is not None:
        return True
    if not profile.by_angles:
        return False
    if terms.engine == AUTO:
        return profile.num_qubits > catalog.SMALL_QUBITS
    return method == "clifford"


# --- options --------------------------------------------------------------------------------------


def _allowed_pools(terms: TaskOptions, pools: tuple[PoolSpec, ...]) -> tuple[PoolSpec, ...]:
    """Return the pools that may run it: the named one, else all without hardware and without
    another emulated device."""
    if not terms.pool:
        allowed = ("", terms.device)
        return tuple(
            pool
            for pool in pools
            if pool.device in allowed and not engine_support.holds_hardware(pool)
        )
    named = tuple(pool for pool in pools if pool.name == terms.pool)
    if not named:
        hint = f"pools: {', '.join(p.name for p in pools)}"
        raise OptionError(f"there is no pool {terms.pool[:64]!r}", hint=hint)
    return named


def _names_engine(terms: TaskOptions, pool: PoolSpec) -> bool:
    """Return whether the terms name the pool, and its engine runs only in pools that are named."""
    card = catalog.card(pool.engine)
    return bool(terms.pool) and card is not None and card.auto is None


def _named(terms: TaskOptions) -> EngineCard:
    card = catalog.card(terms.engine)
    if card is None:
        names = [
            entry.name
            for entry in catalog.engine_cards()
            if entry.in_default_pool and not entry.calls
        ]
        hint = f"one of: auto, {', '.join(names)}"
        raise OptionError(f"engine {terms.engine[:64]!r} is not known", hint=hint)
    return card


def _check_options(terms: TaskOptions) -> None:
    """Raise OptionError for an option that no engine of `auto` has."""
    cards = [
        card
        for card in catalog.engine_cards()
        if card.auto is not None and card.calls == is_call(terms)
    ]
    for name, _ in terms.options:
        if not any(option.name == name for card in cards for option in card.options):
            hint = "; ".join(engine_support.option_hint(card) for card in cards if card.options)
            raise OptionError(f"no engine has an option {name[:64]!r}", hint=hint)


def check_option_values(terms: TaskOptions) -> None:
    """Raise OptionError for a value that no engine with an option of this name takes, before
    anything is computed with it."""
    named = catalog.card(terms.engine)
    cards = catalog.engine_cards() if named is None else (named,)
    for name, value in terms.options:
        owners = [card for card in cards if any(option.name == name for option in card.options)]
        problems = [card.option_problem(((name, value),)) for card in owners]
        if problems and all(problems):
            raise OptionError(problems[0], hint=engine_support.option_hint(owners[0]))


def _lacks_options(engine: str, terms: TaskOptions) -> bool:
    card = catalog.card(engine)
    names = {option.name for option in card.options} if card is not None else set()
    return not names.issuperset(name for name, _ in terms.options)


# --- one engine -----------------------------------------------------------------------------------


def evaluate(card: EngineCard, request: RoutingRequest) -> EngineCandidate:
    """Return the route on one engine, or the objection to it."""
    fit, reason = find_fit(card, request)
    if not isinstance(fit, ranks.RankFit):
        return EngineCandidate(card.name, None, fit, _short(card, fit))
    return EngineCandidate(card.name, route_on(card, fit, request, reason), None, reason)


def find_fit(card: EngineCard, request: RoutingRequest) -> tuple[ranks.RankFit | SimenvError, str]:
    """Return the ranks and pool with which one engine can run the program, or the objection; and
    the reason for the engine."""
    terms, total_qubits = request.terms, request.profile.used_qubits
    profile = card.effective_profile(request.profile, terms.outputs)
    error = engine_support.unsupported_reason(card, profile, terms)
    if error is None and card.pool == "device":
        error = _hardware_refusal(profile, request)
    fit = error or _fit_in_pools(card, profile, request)
    if not isinstance(fit, ranks.RankFit):
        return fit, ""
    if request.is_auto and (text := _against_auto(card, profile)):
        hint = f"engine={card.name!r}"
        return InfeasibleError(f"engine {card.name!r}: {text}", hint=hint), ""
    reason = f"asked for {card.name}"
    if card.pool == "device":
        reason = f"asked for {describe_pool(fit.pool, request.snapshot)}"
    elif request.is_auto:
        reason = _preference_reason(card, profile, total_qubits)
    if fit.text:
        reason = f"{reason}; {fit.text}"
    return fit, reason


def _fit_in_pools(
    card: EngineCard, profile: Profile, request: RoutingRequest
) -> ranks.RankFit | SimenvError:
    """Return the fit of a program: one rank if possible, else pools of several ranks, else ranks on
    demand. `profile`: as the engine runs it."""
    usable = [pool for pool in request.pools if runs(pool, card)]
    if not usable and request.terms.pool:
        return InfeasibleError(
            f"pool {request.terms.pool!r} does not run engine {card.name!r}",
            hint="leave out the pool, or ask for another engine",
        )
    if not usable:
        return InfeasibleError(
            f"no pool here runs engine {card.name!r}",
            hint=f"ask for another engine, or start a pool with engine={card.name}"
            + ("; hardware is selected by its pool" if not request.pools else ""),
        )
    usable.sort(key=lambda p: p.engine != card.name)  # a pool of this engine alone has it loaded
    terms, limits = request.terms, request.limits
    queries = (engine_support.RankQuery(card, profile, terms, pool, limits) for pool in usable)
    results = [ranks.fit(query) for query in queries]
    fits = [
        msgspec.structs.replace(fit, paced=pool.pace)
        for fit, pool in zip(results, usable, strict=True)
        if isinstance(fit, ranks.RankFit)
    ]
    if fits:
        return min(fits, key=lambda fit: (fit.ranks > 1, fit.on_demand))
    return next(result for result in results if not isinstance(result, ranks.RankFit))


def runs(pool: PoolSpec, card: EngineCard) -> bool:
    """Return whether this pool may run that engine; a pool of one engine on GPUs may run them all.
    Engines for fault drills need a pool of their own."""
    if pool.engine == "any":
        return card.in_default_pool
    return pool.engine == card.name or (card.pool == "gpu" and rank_gpus(pool) > 0)


def _against_auto(card: EngineCard, profile: Profile) -> str:
    """Return why `auto` does not choose an engine that may be able to run the program; "" if it
    may."""
    if card.method == "clifford":
        if not profile.clifford:
            return "free parameters or matrices may not be Clifford: select it by name to try"
        if profile.conditions:
            return "conditions may be more than parities of clbits: select it by name to try"
    return "" if card.auto is None else card.auto.objection(profile)


def _hardware_refusal(profile: Profile, request: RoutingRequest) -> SimenvError | None:
    """Return why the hardware of the named pool cannot run the program; None if no reason is
    known."""
    snapshot = request.snapshot
    hardware = (pool.name for pool in request.pools if engine_support.holds_hardware(pool))
    pool = next(hardware, "")
    if not pool:
        hint = "name the hardware pool: pool='NAME', or prefer=['hardware']"
        return OptionError("engine='hardware' cannot be selected directly", hint=hint)
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


def describe_pool(pool: str, snapshot: engine_support.RoutingSnapshot) -> str:
    """Return the name of a pool for a message, with its hardware model if known."""
    device = snapshot.device(pool)
    return f"pool {pool} ({device.model})" if device is not None else f"pool {pool}"


def _preference_reason(card: EngineCard, profile: Profile, total_qubits: int) -> str:
    """Return why `auto` chooses this engine; `total_qubits`: width before the program's
    reduction."""
    width = f"{min(profile.num_qubits, total_qubits)} qubits"
    if profile.num_qubits < total_qubits:
        width = f"{profile.num_qubits} of {total_qubits} qubits at once are needed"
    if card.method == "clifford":
        return f"auto: {width} of Clifford gates"
    if card.auto is not None and card.auto.reason is not None:
        return f"auto: {width}, {card.auto.reason(profile)}"
    return f"auto: {width}, {card.summary}"


def _short(card: EngineCard, error: SimenvError) -> str:
    """Return an objection without the engine's name; with the pip command if that solves it."""
    text = error.message.removeprefix(f"engine {card.name!r}").removeprefix(":").strip()
    return f"{text}: {card.install_hint}" if card.install_hint else text


# --- route on an engine, and its times ------------------------------------------------------------


def route_on(card: EngineCard, fit: ranks.RankFit, request: RoutingRequest, reason: str) -> Route:
    """Return the route on one engine, with its times for the program."""
    terms, limits = request.terms, request.limits
    profile = card.effective_profile(request.profile, terms.outputs)
    noise = profile.noise
    if noise is not None and noise.kinds:  # not linear: of so many shots as its tasks have
        query = query_on(card, fit, terms, noise.shots)
        return placed_route(card, fit, profile, limits, reason, time_us(card, profile, query))
    start_s = card.costs.seconds(profile, query_on(card, fit, terms), 1)
    many_s = card.costs.seconds(profile, query_on(card, fit, terms, SHOTS_PROBE), 1)
    shot_us = two_digits((many_s - start_s) * 1e6 / SHOTS_PROBE)
    return placed_route(card, fit, profile, limits, reason, two_digits(start_s * 1e6), shot_us)


def placed_route(
    card: EngineCard,
    fit: ranks.RankFit,
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


def query_on(card: EngineCard, fit: ranks.RankFit, terms: TaskOptions, shots: int = 0) -> CostQuery:
    """Return the query for the cost of `shots` shots on the ranks of a fit."""
    query = engine_support.cost_query(card, terms, shots, fit.used)
    return msgspec.structs.replace(query, bandwidth=fit.bandwidth)


def time_us(card: EngineCard, profile: Profile, query: CostQuery) -> float:
    """Return the expected time on one slot, in microseconds."""
    return two_digits(card.costs.seconds(profile, query, 1) * 1e6)


def two_digits(value: float) -> float:
    """Return an estimate rounded to two digits, so that programs of one kind share a route."""
    return float(f"{value:.2g}")


# --- engines compared by time ---------------------------------------------------------------------


def _counted_us(candidate: EngineCandidate) -> float:
    """Return the expected time of a circuit with noise, in microseconds, times the advantage that
    the engine must have."""
    if candidate.route is None:
        return 0.0
    return candidate.route.evolve_us * _advantage(candidate.engine)


def _advantage(engine: str) -> float:
    card = catalog.card(engine)
    return 1.0 if card is None or card.auto is None else card.auto.advantage


def _with_costs(candidates: list[EngineCandidate]) -> EngineCandidate:
    """Return the first candidate; its reason lists the expected times of all that can run the
    circuit."""
    chosen = candidates[0]
    if chosen.route is None:
        return chosen
    times = _noisy_times((each.engine, each.route.evolve_us) for each in candidates if each.route)
    reason = f"{chosen.text}; {times}"
    route = msgspec.structs.replace(chosen.route, reason=reason)
    return msgspec.structs.replace(chosen, route=route, text=reason)


def _noisy_times(times_us: Iterable[tuple[str, float]]) -> str:
    """Return the expected times of engines as text, from microseconds."""
    texts = [f"{name} {_about(us * 1e-3):g} ms" for name, us in times_us]
    return f"expected time with noise: {', '.join(texts)}"


@functools.lru_cache(maxsize=4096)
def _about(value: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of ten. Tasks share a chunk only if their
    reasons are equal, so circuits of one kind should have equal texts."""
    unit = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return unit * min((1.0, 2.0, 5.0, 10.0), key=lambda step: abs(math.log(value / unit / step)))
