"""Simulation of one circuit without a service: check, plan, run, in this process or over MPI
ranks."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from simulators import engine as simulators_engine, registry
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.unrolled import for_engine
from simulators.circuit.validation.admission import validation_error
from simulators.errors import BadCircuit, EngineError
from simulators.execution.alternatives import name_other_engine
from simulators.execution.hidden_bits import without_hidden


class RunTerms(TypedDict, total=False):
    """Fields of `engine.Request` and `engine.RunOptions`."""

    shots: int  # default 1024
    seed: int  # default 0
    outputs: tuple[str, ...]
    observables: tuple[simulators_engine.PauliSum, ...]
    bindings: NDArray[np.float64] | None
    binding: int
    amplitudes: NDArray[np.uint8] | None
    precision: str
    threads: int
    settings: tuple[tuple[str, int | float], ...]


_OF_OPTIONS = ("precision", "threads", "settings")


def simulate(
    circuit: Circuit,
    *,
    comm: Any = None,
    engine: str = "statevector",
    control: simulators_engine.RunControl | None = None,
    noise: NoiseProgram | None = None,
    **terms: Unpack[RunTerms],
) -> simulators_engine.EngineResult:
    """Run one circuit. `terms`: see `engine.Request` and `engine.RunOptions`.

    `noise`: of this circuit, see `circuit.passes.attach_noise`.

    `comm`: an mpi4py communicator. Its ranks run the circuit together, each holding a part of the
    state: all of them call this with the same arguments. The first rank gets the result, the same
    as without ranks, and the others get None. Errors are raised in all ranks alike.

    Raises BadCircuit for arrays that contradict one another, Unsupported for an engine that does
    not run over ranks, and the engine's own errors.
    """
    text = validation_error(circuit)
    if text:
        raise BadCircuit(text)
    asked: dict[str, Any] = {"shots": 1024, "seed": 0, **terms}
    options = simulators_engine.RunOptions(
        **{name: asked.pop(name) for name in _OF_OPTIONS if name in asked}
    )
    request = simulators_engine.Request(**asked)
    runner = registry.create(engine, simulators_engine.EngineContext(comm=comm))
    if noise is not None:
        circuit = noise.located(circuit)
    circuit, noise = for_engine(circuit, noise, engine)
    try:
        try:
            plan = runner.plan(circuit, noise, options)
            control = control or simulators_engine.RunControl()
            result = runner.run(plan, circuit, request, options, control)
        except EngineError as error:
            name_other_engine(error, engine, circuit, noise, request, options)
            raise
        if comm is not None and result is None:  # of all ranks but the first
            return result
        return without_hidden(circuit, result, request.shots)
    finally:
        if isinstance(runner, simulators_engine.DistributedEngine):
            runner.close()


def counts_of(result: simulators_engine.BindingResult) -> dict[int, int]:
    """Counts as a dictionary from outcome (clbit 0 in bit 0) to number of shots."""
    width = result.outcome_width
    values = np.frombuffer(result.counts, np.uint32).tolist()
    keys = range(0, len(result.outcomes), max(1, width))
    return {
        int.from_bytes(result.outcomes[at : at + width], "little"): value
        for at, value in zip(keys, values, strict=True)
    }
