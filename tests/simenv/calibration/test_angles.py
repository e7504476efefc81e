"""Rotations about ZZ and IZ of all pairs: found by a fit of few circuits."""

import math

import msgspec
import numpy as np
import pytest

from noise_models.calibration import CalibrationSnapshot, PauliRotation
from simenv.calibration.fit.attempt import MANY_BODIES
from simenv.calibration.fit.calibrate import calibrate
from testbed.drawn_devices import circuits, counts_of, device, loss

TURNS = {"ZZ": 0.08, "IZ": 0.06}


def rotated(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Device whose gates on pairs turn by TURNS as well; their errors contain that."""
    left = math.prod(math.cos(angle / 2.0) ** 2 for angle in TURNS.values())
    turns = tuple(PauliRotation(*each) for each in TURNS.items())
    gates = tuple(
        msgspec.structs.replace(gate, rotations=turns, error=(gate.error or 0.0) + 0.8 * (1 - left))
        if len(gate.qubits) == 2
        else gate
        for gate in snapshot.gates
    )
    return msgspec.structs.replace(snapshot, gates=gates)


def test_angles_of_all_pairs_are_found_with_few_circuits() -> None:
    random = np.random.default_rng(1)
    snapshot = device(random, 4)
    truth = rotated(snapshot)
    data = counts_of(truth, circuits(random, 4, MANY_BODIES), 8_000, random)
    result = calibrate(data, snapshot, "fitted")
    assert result.prior.angle_common > 0.0
    assert result.share == 1.0
    pairs = [gate for gate in result.snapshot.gates if len(gate.qubits) == 2]
    errors = {gate.qubits: gate.error for gate in truth.gates if len(gate.qubits) == 2}
    for gate in pairs:
        angles = {each.pauli: each.angle_rad for each in gate.rotations}
        assert angles == pytest.approx(TURNS | {"ZI": 0.0}, abs=0.01)
        assert gate.error == pytest.approx(errors[gate.qubits], rel=0.2)
    judged = counts_of(truth, circuits(random, 4, 8), 100, random)
    assert loss(result.snapshot, truth, judged) < 0.02 * loss(snapshot, truth, judged)
