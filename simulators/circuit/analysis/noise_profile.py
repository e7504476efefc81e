"""Computation of the `NoiseProfile` that cost models of engines read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simulators.circuit.analysis.profile import NoiseProfile
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import CHANNEL, Q1, NoiseProgram
from simulators.circuit.passes.noisy_cone import active_support


def noise_profile(
    program: NoiseProgram,
    circuit: Circuit | None = None,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
) -> NoiseProfile:
    """Profile of a noise program; of what the outputs depend on, where they are given with the
    circuit. `labels`: of all Pauli strings."""
    locations, width = program.locations, 0
    if circuit is not None:
        width = circuit.num_qubits
        found = active_support(circuit, program, outputs, labels) if outputs else None
        if found is not None:
            locations, width = locations[found.acting], int(found.needed.sum())
    facts, numbers = program.facts, locations[:, CHANNEL]
    return NoiseProfile(
        frozenset(program.kinds),
        len(locations),
        int(np.count_nonzero(locations[:, Q1] >= 0)),
        float(facts.errors[numbers].sum()),
        float(facts.drawn[numbers].sum()),
        width,
    )
