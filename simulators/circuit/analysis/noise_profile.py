"""Computation of the `NoiseProfile` that cost models of engines read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simulators.circuit.analysis.profile import NoiseProfile
from simulators.circuit.gates import BARRIER
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import CHANNEL, Q1, NoiseProgram
from simulators.circuit.passes.noisy_components import component_qubits
from simulators.circuit.passes.noisy_cone import active_support


def noise_profile(
    program: NoiseProgram,
    circuit: Circuit | None = None,
    outputs: tuple[str, ...] = (),
    labels: Iterable[str] = (),
) -> NoiseProfile:
    """Profile of a noise program; of what the outputs depend on, where they are given with the
    circuit. `labels`: of all Pauli strings."""
    locations, width, widest, touched = program.locations, 0, 0, 0
    if circuit is not None:
        width, touched = circuit.num_qubits, _touched(circuit)
        result = active_support(circuit, program, outputs, labels) if outputs else None
        if result is not None:
            locations, width = locations[result.acting], int(result.needed.sum())
            if outputs == ("counts",):
                parts = component_qubits(circuit, result.kept, locations, result.needed)
                widest = max(part.size for part in parts)
    facts, numbers = program.facts, locations[:, CHANNEL]
    return NoiseProfile(
        frozenset(program.kinds),
        len(locations),
        int(np.count_nonzero(locations[:, Q1] >= 0)),
        float(facts.errors[numbers].sum()),
        float(facts.drawn[numbers].sum()),
        width,
        touched=touched,
        widest=widest,
    )


def _touched(circuit: Circuit) -> int:
    """Number of qubits that operations other than barriers act on."""
    rows, qubits = circuit.table.rows, circuit.qubits
    if (rows[:, 0] == BARRIER).any():
        used = rows[circuit.ops]
        qubits = qubits[np.repeat(used[:, 0] != BARRIER, used[:, 1])]
    result = np.zeros(circuit.num_qubits, np.bool_)
    result[qubits] = True
    return int(result.sum())
