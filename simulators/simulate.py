"""One circuit, no service: check, plan, run, in this process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators import registry
from simulators.base import BindingResult, Control, EngineResult, PauliSum, Request, RunOptions
from simulators.circuit.check import problem
from simulators.circuit.ir import Circuit
from simulators.errors import BadCircuit


def simulate(
    circuit: Circuit,
    *,
    shots: int = 1024,
    seed: int = 0,
    outputs: tuple[str, ...] = ("counts",),
    observables: tuple[PauliSum, ...] = (),
    bindings: NDArray[np.float64] | None = None,
    binding: int = 0,
    precision: str = "double",
    threads: int = 1,
    engine: str = "statevector",
    settings: tuple[tuple[str, int | float], ...] = (),
    control: Control | None = None,
) -> EngineResult:
    """Run one circuit; the arguments are those of `base.Request` and `base.RunOptions`.

    Raises BadCircuit for arrays that contradict one another, and the engine's own errors.
    """
    text = problem(circuit)
    if text:
        raise BadCircuit(text)
    options = RunOptions(precision=precision, threads=threads, settings=settings)
    request = Request(shots, seed, outputs, observables, bindings, binding)
    runner = registry.create(engine)
    plan = runner.plan(circuit, None, options)
    return runner.run(plan, circuit, request, options, control or Control())


def counts_of(result: BindingResult) -> dict[int, int]:
    """Counts as a dictionary from outcome (clbit 0 in bit 0) to how often it was seen."""
    width = result.outcome_width
    values = np.frombuffer(result.counts, np.uint32).tolist()
    keys = range(0, len(result.outcomes), max(1, width))
    return {
        int.from_bytes(result.outcomes[at : at + width], "little"): value
        for at, value in zip(keys, values, strict=True)
    }
