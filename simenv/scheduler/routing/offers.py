"""Offers in the refusal of a program: engines that run it by name, with time and error.

An engine is offered only if it would accept the program, and says how much it cut off.
"""

from __future__ import annotations

from collections.abc import Iterator

from simenv.text import duration
from simulators.catalog import EngineCard, Options
from simulators.catalog.costs import ContractionCost, DmtCost, MpsCost, PauliCost
from simulators.circuit.analysis.profile import Profile

LONGEST_S = 86_400.0  # expected time of a run that is offered
MOST = 3  # engines, or values of their options
SHOTS = 1_000  # for which a time without noise is stated
_BONDS = (16, 64)  # of `mps`
_WIDEST = 34  # log2 of the largest tensor that `contraction` takes, in slices


def may_offer(card: EngineCard, profile: Profile) -> bool:
    """Return whether an engine is one of those that are offered, and its price is known."""
    if isinstance(card.costs, PauliCost):
        return profile.strings is not None and profile.strings.certified
    if isinstance(card.costs, ContractionCost):
        return 0 <= profile.contraction_width <= _WIDEST
    return card.name == "mps" or isinstance(card.costs, DmtCost)


def options_of(card: EngineCard) -> tuple[Options, ...]:
    """Return the options with which an engine is offered."""
    if isinstance(card.costs, MpsCost):
        return tuple((("bond", bond),) for bond in _BONDS)
    return ((),)


def text(card: EngineCard, options: Options, seconds: float) -> str:
    """Return an offer as text."""
    name = f"engine={card.name!r}"
    if options:
        name += f" with options={dict(options)}"
    return f"{name}: about {duration(seconds)}{_error(card)}"


def _error(card: EngineCard) -> str:
    """Return what the offer says about the error of an engine."""
    if isinstance(card.costs, DmtCost):
        most = card.value((), "tolerance")
        return f", counts and values with an error that is measured beside the run, at most {most}"
    if isinstance(card.costs, MpsCost):
        return ", result.truncation says what it cut off"
    if isinstance(card.costs, PauliCost):
        return ", values with a stated error"
    return ", exact"


def exact_layers(profile: Profile) -> Iterator[str]:
    """Yield the layers of a circuit that sweeps sample exactly, if they are known."""
    size = profile.sweep
    if size is not None and size.runnable:
        yield f"at most {size.runnable} of its {size.layers} layers are run exactly here"
