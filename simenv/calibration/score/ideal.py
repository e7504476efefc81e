"""Distributions of circuits as written, without noise."""

from __future__ import annotations

import numpy as np

from simenv.calibration.data.records import CountsRecord
from simulators.circuit.ir import Circuit
from simulators.errors import EngineError
from simulators.simulate import simulate

MAX_QUBITS = 20


class IdealDistributions:
    """Cache of ideal distributions: equal circuits are computed once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, float] | None] = {}

    def __call__(self, record: CountsRecord) -> dict[int, float] | None:
        """Probability by outcome; None for a circuit that is too wide or cannot be simulated
        exactly."""
        key = record.source.text
        if key not in self._known:
            self._known[key] = _computed(record)
        return self._known[key]


def _computed(record: CountsRecord) -> dict[int, float] | None:
    circuit = Circuit.from_program(record.source.loaded.program)
    if np.unique(circuit.qubits).size > MAX_QUBITS:
        return None
    try:
        result = simulate(circuit, outputs=("probabilities",), shots=0).row(0)
    except EngineError:
        return None
    width = result.probability_width
    values = np.frombuffer(result.probabilities, np.float64).tolist()
    keys = range(0, len(result.probability_outcomes), max(width, 1))
    return {
        int.from_bytes(result.probability_outcomes[at : at + width], "little"): value
        for at, value in zip(keys, values, strict=True)
    }
