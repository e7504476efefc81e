"""Runs of engines: a plan, and what its request gives."""

import numpy as np

from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import BindingResult, Engine, EngineResult, Request, RunControl, RunOptions
from simulators.execution.packing import unpack


def run(
    engine: Engine, circuit: Circuit, request: Request, noise: NoiseProgram | None = None,
    control: RunControl | None = None, **options: object,
) -> EngineResult:  # fmt: skip
    """`options`: of RunOptions, by name."""
    chosen = RunOptions(**options)  # type: ignore[arg-type]
    plan = engine.plan(circuit, noise, chosen)
    return engine.run(plan, circuit, request, chosen, control or RunControl())


def probabilities(result: BindingResult) -> dict[int, float]:
    """Exact probabilities of a result by outcome, in ascending order."""
    outcomes = unpack(result.probability_outcomes, result.probability_width)
    assert outcomes == sorted(set(outcomes))
    return dict(zip(outcomes, np.frombuffer(result.probabilities).tolist(), strict=True))
