"""Counts of planned circuits of a device, drawn from their exact distributions in this process."""

from collections.abc import Sequence

import numpy as np

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.experiments import plans
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.simulate import simulate


class ExactRunner:
    """Runs circuits on a device of a few qubits; see `plans.CircuitRunner`."""

    def __init__(self, snapshot: CalibrationSnapshot, seed: int) -> None:
        self._attachment = NoiseAttachment(build(snapshot))
        self._rng = np.random.default_rng(seed)

    def run(self, circuits: Sequence[plans.PlannedCircuit]) -> plans.Counts:
        counts: plans.Counts = {}
        for planned in circuits:
            circuit = Circuit.from_program(planned.program)
            result = simulate(
                circuit, noise=self._attachment.attach(circuit), engine="densitymatrix",
                outputs=("probabilities",), shots=0,
            ).row(0)  # fmt: skip
            read = np.frombuffer(result.probability_outcomes, np.uint8)
            probs = np.frombuffer(result.probabilities)
            drawn = self._rng.multinomial(planned.shots, probs / probs.sum()).astype(np.uint32)
            outcomes = read[:: result.probability_width].astype(np.uint64)
            plans.add(counts, planned.points, outcomes, drawn)
        return counts
