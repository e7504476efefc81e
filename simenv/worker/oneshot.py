"""One task without a service: the ranks of a `World` run it, and the first has what it found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from simenv.wire import codec
from simenv.wire.messages import Assign, Finished
from simenv.worker.runner import Runner
from simulators import catalog
from simulators.compiler import warmup

if TYPE_CHECKING:
    from simenv.worker.world import World


def lead(world: World, chunk: Assign, kernels: Path) -> Finished:
    """Run the task of a chunk, with the others; every error of the engine is a result that says
    so."""
    divided = _divided(world, chunk)
    warmup.warm_up(kernels, chunk.engine, ranks=divided)
    assigned = chunk.tasks[0]
    runner = Runner(comm=world.comm if divided else None)
    return runner.run(assigned, chunk.terms[0], chunk, time.perf_counter_ns())


def follow(world: World, data: bytes, kernels: Path) -> None:
    """Any other rank's part of it. Raises what the engine does."""
    chunk = codec.to_worker(data)
    assert isinstance(chunk, Assign)
    if _divided(world, chunk):
        warmup.warm_up(kernels, chunk.engine, ranks=True)
        Runner(comm=world.comm).follow(chunk.tasks[0], chunk.terms[0], chunk)


def _divided(world: World, chunk: Assign) -> bool:
    """Does every rank take part?"""
    card = catalog.card(chunk.engine)
    return world.size > 1 and card is not None and card.ranks
