"""Engine registry: names to instances; an engine's module is imported at its first use.

Engines of other distributions are found through the entry point group `simenv.engines`; each entry
names a class without constructor arguments that satisfies `engine.Engine`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from simulators import catalog
from simulators.engine import Engine
from simulators.errors import UnknownEngine, Unsupported

GROUP = "simenv.engines"


def names() -> tuple[str, ...]:
    """Every engine name known here, installed requirements or not."""
    others = {entry.name for entry in entry_points(group=GROUP)}
    return tuple(sorted(others | {entry.name for entry in catalog.CARDS}))


def create(name: str, comm: Any = None, backend: Any = None) -> Engine:
    """A new instance of the engine; raises UnknownEngine with the names there are.

    `comm`: an mpi4py communicator; where it has several ranks, all of them create the engine
    together, and close it together. `backend`: the Qiskit BackendV2 of an engine that holds a
    machine. Raises Unsupported for an engine that runs in one rank, or holds no machine.
    """
    found = catalog.card(name)
    if (backend is None) == (found is not None and found.is_device):
        raise Unsupported(
            f"engine {name[:64]!r} "
            + ("holds a machine, and none was given" if backend is None else "holds no machine"),
            hint="a pool of engine=hardware,provider=MODULE:FACTORY has one",
        )
    if comm is not None and comm.Get_size() > 1 and (found is None or not found.ranks):
        able = ", ".join(
            entry.name for entry in catalog.CARDS if entry.ranks and entry.in_default_pool
        )
        raise Unsupported(
            f"engine {name[:64]!r} runs in one rank, and {comm.Get_size()} were given",
            hint=f"over ranks there is: {able}",
        )
    if found is not None:
        if found.install_hint:
            raise UnknownEngine(
                f"engine {name!r} needs {', '.join(found.needs)}", hint=found.install_hint
            )
        module, _, attribute = found.module.partition(":")
        maker = getattr(importlib.import_module(module), attribute)
        if found.is_device:
            machine: Engine = maker(backend)
            return machine
        engine: Engine = maker(comm=comm) if found.ranks else maker()
        return engine
    for entry in entry_points(group=GROUP, name=name):
        other: Engine = entry.load()()
        return other
    raise UnknownEngine(
        f"no engine is called {name[:64]!r}", hint=f"there are: {', '.join(names())}"
    )
