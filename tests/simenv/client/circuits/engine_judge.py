"""Runs a circuit on the whole path: packed by the client, checked and run by the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from simenv.client.circuits import load
from simenv.model import Program
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.execution.sampling import unpack
from simulators.simulate import counts_of, simulate


def received(program: Program) -> Circuit:
    """The circuit as an engine gets it."""
    circuit = Circuit.from_program(program)
    assert validation_error(circuit) == ""
    return circuit


def exact(circuit: Any) -> dict[int, float]:
    """The distribution over the clbits."""
    result = simulate(received(load(circuit).program), shots=0, outputs=("probabilities",)).row(0)
    values = unpack(result.probability_outcomes, result.probability_width)
    return dict(zip(values, np.frombuffer(result.probabilities).tolist(), strict=True))


def counts(circuit: Any, shots: int = 100, seed: int = 1) -> dict[int, int]:
    """Counts by the value of the clbits."""
    loaded = load(circuit)
    return counts_of(simulate(received(loaded.program), shots=shots, seed=seed).row(0))
