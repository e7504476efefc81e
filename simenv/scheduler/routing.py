"""Which engine runs a program, and why; or why none ever can here, with the limiting figure.

The choice is a function of the program, its terms and the engines, pools and memory there are:
caps count operations, never seconds, and nothing learned takes part.
"""

from __future__ import annotations

import msgspec

from simenv.errors import Infeasible, OptionError, SimenvError
from simenv.model import PoolSpec, Terms
from simenv.scheduler.fitness import ask, objection, option_hint, size
from simenv.scheduler.values import Limits, Route
from simulators import catalog
from simulators.catalog import EngineCard
from simulators.circuit.profile import Profile

__all__ = ["AUTO", "Considered", "consider", "hangs_on_angles", "route", "runs", "size"]

AUTO = "auto"
SHOTS_PROBE = 1_000_000  # the model is linear in shots; two points give the line

LIGHT_QUBITS = 24  # up to here all amplitudes cost less than thinking of something better
LIGHT_BITS = 6  # beyond, a chain with bonds up to 2**6 is lighter than all amplitudes
CHAIN_BITS = 8  # too wide for memory: a chain that is exact with bonds up to 2**8
CHAIN_OPERATIONS = 10**12  # splits of tensors that may be counted for it


class Considered(msgspec.Struct, frozen=True):
    """One engine looked at: a route, or what speaks against it; `words` says it in short."""

    engine: str
    route: Route | None
    objection: SimenvError | None
    words: str


def route(profile: Profile, terms: Terms, pools: tuple[PoolSpec, ...], limits: Limits) -> Route:
    """The engine for a program and what it will cost; raises a SimenvError that says why not."""
    considered = consider(profile, terms, pools, limits)
    chosen = considered[0]
    if chosen.route is not None:
        return chosen.route
    assert chosen.objection is not None
    error = chosen.objection
    if terms.engine == AUTO:
        others = [f"{one.engine}: {one.words}" for one in considered[1:]]
        error.hint = "; ".join([error.hint, *others]) if error.hint else "; ".join(others)
    raise error


def consider(
    profile: Profile, terms: Terms, pools: tuple[PoolSpec, ...], limits: Limits
) -> list[Considered]:
    """What `terms` allows, the engine chosen first; if none can, the most likely one first."""
    candidates = _pools(terms, pools)
    if terms.engine != AUTO:
        return [_look(_named(terms), candidates, profile, terms, limits, "")]
    _check_options(terms)
    found = []
    for card in catalog.CARDS:
        if card.automatic:
            found.append(_look(card, candidates, profile, terms, limits, AUTO))
    order = _order(profile)
    found.sort(key=lambda one: (one.route is None, order.index(one.engine)))
    if found[0].route is None:  # the amplitudes' figure says most
        found.sort(key=lambda one: one.engine != "statevector")
    return found


def hangs_on_angles(profile: Profile, terms: Terms) -> bool:
    """May a program of the same structure with other angles be routed otherwise?"""
    if not profile.by_angles:
        return False
    card = catalog.card(terms.engine)
    if terms.engine == AUTO:
        return profile.num_qubits > catalog.SMALL_QUBITS
    return card is not None and card.clifford


def runs(pool: PoolSpec, card: EngineCard) -> bool:
    """May this pool run that engine? One for drills needs a pool of its own."""
    return pool.engine == card.name or (pool.engine == "any" and card.shared)


def _order(profile: Profile) -> tuple[str, ...]:
    """The engines `auto` prefers, those that can first."""
    if profile.num_qubits <= catalog.SMALL_QUBITS:
        return "statevector", "stabilizer", "mps"
    if profile.num_qubits > LIGHT_QUBITS and 0 <= profile.bond_bits <= LIGHT_BITS:
        return "stabilizer", "mps", "statevector"
    return "stabilizer", "statevector", "mps"


def _against_auto(card: EngineCard, profile: Profile) -> str:
    """What keeps `auto` from an engine that may be able to run the program; "" if nothing."""
    if card.clifford:
        if not profile.clifford:
            return "free parameters or matrices may not be Clifford: ask for it by name to try"
        if profile.conditions:
            return "conditions may be more than parities of clbits: ask for it by name to try"
    if card.name == "mps":
        if not 0 <= profile.bond_bits <= CHAIN_BITS:
            bound = "unknown" if profile.bond_bits < 0 else f"2^{profile.bond_bits}"
            return (
                f"its bonds may need {bound} values, auto allows 2^{CHAIN_BITS}: asked for by name,"
                " it cuts off what is beyond its option bond"
            )
        if _splits(profile) > CHAIN_OPERATIONS:
            return f"more than {CHAIN_OPERATIONS:.0e} operations: ask for it by name to run it"
    return ""


def _splits(profile: Profile) -> int:
    """A count of operations for splitting tensors; distant qubits are swapped there and back."""
    gates = profile.gates_2q + profile.gates_many
    hops: int = max(1, 2 * profile.longest - 1)
    return int(gates * hops * 8 ** max(0, profile.bond_bits))


def _why(card: EngineCard, profile: Profile) -> str:
    """Why `auto` takes an engine that can."""
    width = f"{profile.num_qubits} qubits"
    if card.clifford:
        return f"auto: {width} of Clifford gates"
    if card.name == "mps":
        return f"auto: {width}, at most 2^{profile.bond_bits} values cross any cut between them"
    return f"auto: {width}, {card.summary}"


def _named(terms: Terms) -> EngineCard:
    card = catalog.card(terms.engine)
    if card is None:
        names = ", ".join(entry.name for entry in catalog.CARDS if entry.shared)
        raise OptionError(
            f"engine {terms.engine[:64]!r} is not known", hint=f"one of: auto, {names}"
        )
    return card


def _check_options(terms: Terms) -> None:
    """OptionError for an option that no engine of `auto` has."""
    cards = [card for card in catalog.CARDS if card.automatic]
    for name, _ in terms.options:
        if not any(option.name == name for card in cards for option in card.options):
            raise OptionError(
                f"no engine has an option {name[:64]!r}",
                hint="; ".join(option_hint(card) for card in cards if card.options),
            )


def _look(
    card: EngineCard,
    candidates: tuple[PoolSpec, ...],
    profile: Profile,
    terms: Terms,
    limits: Limits,
    by: str,
) -> Considered:
    """A route on one engine, or what speaks against it."""
    able = [p for p in candidates if runs(p, card)]
    able.sort(key=lambda p: p.engine != card.name)  # a pool of its own has it loaded
    pool = able[0].name if able else None
    error = objection(card, profile, terms, limits)
    if error is None and pool is None:
        error = Infeasible(
            f"no pool here runs engine {card.name!r}",
            hint=f"ask for another engine, or start a pool with engine={card.name}",
        )
    if error is None and by == AUTO and (words := _against_auto(card, profile)):
        error = Infeasible(f"engine {card.name!r}: {words}", hint=f"engine={card.name!r}")
    if error is not None or pool is None:
        assert error is not None
        return Considered(card.name, None, error, _short(card, error))
    reason = _why(card, profile) if by == AUTO else f"asked for {card.name}"
    found = _route(card, pool, profile, terms, limits, reason)
    return Considered(card.name, found, None, reason)


def _short(card: EngineCard, error: SimenvError) -> str:
    """An objection without the engine's name; the pip line where that is the way out."""
    words = error.message.removeprefix(f"engine {card.name!r}").removeprefix(":").strip()
    return f"{words}: {card.missing}" if card.missing else words


def _route(
    card: EngineCard, pool: str, profile: Profile, terms: Terms, limits: Limits, reason: str
) -> Route:
    start_s = card.costs.seconds(profile, ask(card, terms), 1)
    many_s = card.costs.seconds(profile, ask(card, terms, SHOTS_PROBE), 1)
    need = card.costs.memory_bytes(profile, ask(card, terms))
    narrow = profile.num_qubits <= catalog.SMALL_QUBITS
    return Route(
        engine=card.name,
        reason=reason,
        pool=pool,
        num_qubits=profile.num_qubits,
        memory_bytes=min(need, limits.memory_bytes),
        # Two digits are all an estimate is worth, and let programs of one kind share a route.
        evolve_us=float(f"{start_s * 1e6:.2g}"),
        shot_us=float(f"{(many_s - start_s) * 1e6 / SHOTS_PROBE:.2g}"),
        max_slots=1 if narrow or not card.threads else limits.slots,
    )


def _pools(terms: Terms, pools: tuple[PoolSpec, ...]) -> tuple[PoolSpec, ...]:
    if not terms.pool:
        return pools
    named = tuple(pool for pool in pools if pool.name == terms.pool)
    if not named:
        raise OptionError(
            f"there is no pool {terms.pool[:64]!r}",
            hint=f"pools: {', '.join(p.name for p in pools)}",
        )
    return named
