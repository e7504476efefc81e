"""Noise of a device whose T1 is low by a jump, against density matrices in numpy."""

import functools

import msgspec
import numpy as np
import pytest
from noise_references import (
    DeviceReference,
    Probabilities,
    all_engines,
    assert_counts,
    assert_exact,
    attached,
    chip,
    distribution,
    times,
)

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    QubitCalibration,
    T1Jumps,
)
from simulators.circuit.ir import Circuit

QUBITS = 3
GATES = (GateCalibration("sx", (), None, 50.0), GateCalibration("cx", (), None, 400.0))


def device(rng: np.random.Generator) -> CalibrationSnapshot:
    """All-to-all device without gate errors; T1 of about half of the qubits is low."""
    qubits = []
    for _ in range(QUBITS):
        jumps = T1Jumps(1.0, 600.0, float(rng.uniform(0.05, 0.5)), low=bool(rng.integers(2)))
        excited = float(rng.uniform(0.0, 0.1))
        qubits.append(QubitCalibration(**times(rng, 10, 60), excited=excited, t1_jumps=jumps))
    return chip(GATES, qubits)


class Reference(DeviceReference):
    """Populations approach equilibrium with the rate 1 / T1 of the jump, coherences decay with the
    pure dephasing of the calibrated T1 and half of that rate; qubits begin in equilibrium."""

    def __init__(self, snapshot: CalibrationSnapshot) -> None:
        super().__init__(snapshot)
        for qubit, each in enumerate(snapshot.qubits):
            self.pauli("X", each.excited or 0.0, [qubit])

    def times_us(self, qubit: int) -> tuple[float, float]:
        values = self.snapshot.qubits[qubit]
        assert values.t1_us is not None
        assert values.t2_us is not None
        assert values.t1_jumps is not None
        low = values.t1_us * (values.t1_jumps.factor if values.t1_jumps.low else 1.0)
        pure = 1.0 / values.t2_us - 0.5 / values.t1_us
        return low, 1.0 / (pure + 0.5 / low)


@functools.cache
def random_case(seed: int) -> tuple[Circuit, CalibrationSnapshot, Probabilities]:
    """A random circuit with idle qubits, its device, and the probabilities of its outcomes."""
    rng = np.random.default_rng(seed)
    reference = Reference(device(rng))
    for step in range(12):
        order = rng.permutation(QUBITS).tolist()
        name = "sx" if step < QUBITS or rng.random() < 0.6 else "cx"
        qubits = (step,) if step < QUBITS else tuple(order[: 1 if name == "sx" else 2])
        reference.add(name, *qubits)
    return reference.measured(), reference.snapshot, reference.populations()


@pytest.mark.parametrize("seed", range(40))
def test_the_density_matrix_relaxes_by_the_t1_in_force(seed: int) -> None:
    assert_exact(*random_case(seed))


@all_engines
@pytest.mark.parametrize("seed", range(2))
def test_counts_have_the_distribution_of_the_density_matrix(seed: int, engine: str) -> None:
    circuit, snapshot, expected = random_case(100 + seed)
    assert_counts(engine, circuit, attached(circuit, snapshot), expected, seed=seed)


def test_its_factor_takes_the_jump_out() -> None:
    changes = []
    for seed in range(8):
        circuit, snapshot, expected = random_case(seed)
        usual = tuple(msgspec.structs.replace(each, t1_jumps=None) for each in snapshot.qubits)
        without = msgspec.structs.replace(snapshot, qubits=usual)
        wanted = distribution(circuit, attached(circuit, without))
        off = distribution(circuit, attached(circuit, snapshot, {"qubit.t1_jumps": 0}))
        assert np.abs(off - wanted).max() < 1e-12
        changes.append(np.abs(expected - wanted).max())
    assert np.sum(np.array(changes) > 1e-3) >= 5
