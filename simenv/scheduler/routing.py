"""Which engine runs a program, or why none ever can here, with the limiting figure."""

from __future__ import annotations

import msgspec

from simenv.errors import Infeasible, OptionError, SimenvError
from simenv.model import PoolSpec, Terms
from simenv.scheduler.values import Limits, Route
from simulators import catalog
from simulators.catalog import EngineCard
from simulators.circuit.profile import Profile

AUTO = "auto"
SHOTS_PROBE = 1_000_000  # the model is linear in shots; two points give the line


def route(profile: Profile, terms: Terms, pools: tuple[PoolSpec, ...], limits: Limits) -> Route:
    """The engine for a program and what it will cost; raises a SimenvError that says why not."""
    reasons: list[SimenvError] = []
    candidates = _pools(terms, pools)
    for card in _cards(terms):
        pool = next((p.name for p in candidates if runs(p, card)), None)
        found = _consider(card, pool, profile, terms, limits)
        if isinstance(found, Route):
            return found
        reasons.append(found)
    raise reasons[0]


def runs(pool: PoolSpec, card: EngineCard) -> bool:
    """May this pool run that engine? One that is never chosen by itself needs a pool of its own."""
    return pool.engine == card.name or (pool.engine == "any" and card.automatic)


def _cards(terms: Terms) -> list[EngineCard]:
    if terms.engine == AUTO:
        return [card for card in catalog.CARDS if card.automatic and not card.missing]
    card = catalog.card(terms.engine)
    if card is None:
        names = ", ".join(entry.name for entry in catalog.CARDS if entry.automatic)
        raise OptionError(
            f"engine {terms.engine[:64]!r} is not known", hint=f"one of: auto, {names}"
        )
    if card.missing:
        raise OptionError(f"engine {card.name!r} is not installed here", hint=card.missing)
    return [card]


def _consider(
    card: EngineCard, pool: str | None, profile: Profile, terms: Terms, limits: Limits
) -> Route | SimenvError:
    """A route on one engine, or what speaks against it."""
    if pool is None:
        return Infeasible(
            f"no pool here runs engine {card.name!r}",
            hint=f"ask for another engine, or start a pool with engine={card.name}",
        )
    missing = [output for output in terms.outputs if output not in card.outputs]
    if missing:
        return Infeasible(
            f"engine {card.name!r} has no output {missing[0]!r}",
            hint=f"it has: {', '.join(card.outputs)}",
        )
    least = card.least_memory_bytes(profile, terms.precision)
    if least > limits.memory_bytes or profile.num_qubits > card.max_qubits:
        return _too_wide(card, least, profile, terms, limits)
    start_s = card.seconds(profile, 0)
    shot_us = (card.seconds(profile, SHOTS_PROBE) - start_s) * 1e6 / SHOTS_PROBE
    words = f"asked for {card.name}" if terms.engine == card.name else f"auto: {card.summary}"
    return Route(
        engine=card.name,
        reason=words,
        pool=pool,
        num_qubits=profile.num_qubits,
        memory_bytes=min(
            card.memory_bytes(profile, terms.precision, terms.outputs), limits.memory_bytes
        ),
        # Two digits are all an estimate is worth, and let programs of one kind share a route.
        evolve_us=float(f"{start_s * 1e6:.2g}"),
        shot_us=float(f"{shot_us:.2g}"),
        max_slots=1 if profile.num_qubits <= catalog.SMALL_QUBITS else limits.slots,
    )


def _too_wide(
    card: EngineCard, least: int, profile: Profile, terms: Terms, limits: Limits
) -> Infeasible:
    widest = _widest(card, profile, "double", limits)
    single = _widest(card, profile, "single", limits)
    kind = "dynamic program" if profile.mid_circuit else "program"
    hint = f"the widest {kind} that fits here has {widest} qubits, {single} in single precision"
    if terms.precision == "double" and profile.num_qubits <= single:
        hint += ": this one fits with precision='single'"
    return Infeasible(
        f"this program needs {size(least)} ({profile.num_qubits} qubits, "
        f"{terms.precision} precision); this environment has {size(limits.memory_bytes)} for "
        "simulators",
        hint=hint,
    )


def _widest(card: EngineCard, profile: Profile, precision: str, limits: Limits) -> int:
    """The most qubits a program of this kind may have here."""
    width = min(profile.num_qubits, card.max_qubits)
    while width > 0:
        narrower = msgspec.structs.replace(profile, num_qubits=width)
        if card.least_memory_bytes(narrower, precision) <= limits.memory_bytes:
            break
        width -= 1
    return width


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


def size(number: int) -> str:
    """Bytes in words: '16.0 GiB'; from an exbibyte on a power of two."""
    if number >= 2**60:
        return f"2^{number.bit_length() - 1} bytes"
    value = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"
