"""Counts of engine `sweep`, against the exact distributions of density matrices."""

import numpy as np
from engine_runs import probabilities, run
from noisy import p_value

from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.densitymatrix.engine import DensityMatrixEngine
from simulators.engine import BindingResult, Request
from simulators.execution.sampling import unpack
from simulators.tensornetwork.sweep.engine import SweepEngine

SHOTS = 40_000


def counted(
    circuit: Circuit, noise: NoiseProgram | None, shots: int, seed: int, **options: object
) -> BindingResult:
    return run(SweepEngine(), circuit, Request(shots, seed), noise, **options).row(0)


def counts_of(result: BindingResult) -> dict[int, int]:
    outcomes = unpack(result.outcomes, result.outcome_width)
    return dict(zip(outcomes, np.frombuffer(result.counts, np.uint32).tolist(), strict=True))


def chi_square(
    circuit: Circuit, noise: NoiseProgram | None, seed: int, shots: int = SHOTS, **options: object
) -> float:
    """p of the counts under the exact distribution."""
    request = Request(0, 1, ("probabilities",))
    exact = probabilities(run(DensityMatrixEngine(), circuit, request, noise).row(0))
    return p_value(exact, counts_of(counted(circuit, noise, shots, seed, **options)))
