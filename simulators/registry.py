"""Engine registry: names to instances; an engine's module is imported at its first use.

Engines of other distributions are found through the entry points of `catalog.ENTRY_POINTS`: each
names an `EngineCard`, so that they are listed and routed to like those of this distribution.
"""

from __future__ import annotations

import importlib

from simulators import catalog
from simulators.catalog.cards import PoolKind
from simulators.engine import Engine, EngineContext
from simulators.errors import UnknownEngine, Unsupported

# Arguments that a user's component is, the pool that has one, and its text.
_COMPONENTS: dict[str, tuple[PoolKind, str]] = {
    "backend": ("device", "engine=hardware,provider=MODULE:FACTORY"),
    "program": ("program", "engine=external,command='PROGRAM {circuit} {shots}'"),
}


def names() -> tuple[str, ...]:
    """Names of all engines that run circuits, also of those whose packages are not installed."""
    return tuple(sorted(card.name for card in catalog.engine_cards() if not card.calls))


def create(name: str, context: EngineContext | None = None) -> Engine:
    """Create an instance of the engine; raises UnknownEngine with the existing names. Over several
    ranks all of them create the engine together, and close it together. Raises Unsupported for an
    engine that runs in one rank, that holds no device, or that runs no circuits."""
    context = context or EngineContext()
    card = catalog.card(name)
    taken = {"comm"} if card is not None and card.parallel.ranks else set()
    for part, (pool, text) in _COMPONENTS.items():
        if card is not None and card.pool == pool:
            taken.add(part)
        if (getattr(context, part) is not None) != (part in taken):
            verb = "needs a" if part in taken else "takes no"
            hint = f"a pool of {text} has one"
            raise Unsupported(f"engine {name[:64]!r} {verb} {part}", hint=hint)
    ranks = 1 if context.comm is None else context.comm.Get_size()
    if ranks > 1 and (card is None or not card.parallel.ranks):
        cards = catalog.engine_cards()
        able = ", ".join(
            each.name for each in cards if each.parallel.ranks and each.in_default_pool
        )
        text = f"engine {name[:64]!r} runs in one rank, and {ranks} were given"
        raise Unsupported(text, hint=f"over ranks there is: {able}")
    if card is None:
        hint = f"there are: {', '.join(names())}"
        raise UnknownEngine(f"no engine is called {name[:64]!r}", hint=hint)
    if card.pool == "gpu":
        from simulators.gpu.devices.detect import require_gpu  # it names what is missing, and why

        require_gpu()
    if card.install_hint:
        text = f"engine {name!r} needs {', '.join(card.package.modules)}"
        raise UnknownEngine(text, hint=card.install_hint)
    if card.calls:
        raise Unsupported(f"engine {name!r} runs no circuits", hint=card.summary)
    module, _, attribute = card.module.partition(":")
    maker = getattr(importlib.import_module(module), attribute)
    engine: Engine = maker(**{part: getattr(context, part) for part in taken})
    return engine
