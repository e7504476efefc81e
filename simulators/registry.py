"""Engine names to engine instances; an engine is imported when it is first asked for.

Engines of other distributions are found through the entry point group `simenv.engines`; each entry
names a class without arguments that satisfies `base.Engine`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from simulators import catalog
from simulators.base import Engine
from simulators.errors import UnknownEngine

GROUP = "simenv.engines"


def names() -> tuple[str, ...]:
    """Every engine name known here, installed requirements or not."""
    others = {entry.name for entry in entry_points(group=GROUP)}
    return tuple(sorted(others | {entry.name for entry in catalog.CARDS}))


def create(name: str) -> Engine:
    """A new instance of the engine; raises UnknownEngine with the names there are."""
    found = catalog.card(name)
    if found is not None:
        if found.missing:
            raise UnknownEngine(
                f"engine {name!r} needs {', '.join(found.needs)}", hint=found.missing
            )
        module, _, attribute = found.module.partition(":")
        engine: Engine = getattr(importlib.import_module(module), attribute)()
        return engine
    for entry in entry_points(group=GROUP, name=name):
        other: Engine = entry.load()()
        return other
    raise UnknownEngine(
        f"no engine is called {name[:64]!r}", hint=f"there are: {', '.join(names())}"
    )
