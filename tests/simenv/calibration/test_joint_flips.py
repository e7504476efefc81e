"""Records of two qubits that are flipped together: fitted, and stored as correlated readout."""

import msgspec
import numpy as np
import pytest
from changed_devices import changed_qubit

from noise_models.calibration import CalibrationSnapshot, CorrelatedReadout
from noise_models.confusion import independent_confusion
from simenv.calibration.data import CountsData
from simenv.calibration.fit.calibrate import calibrate
from testbed.drawn_devices import changed, circuits, counts_of, device, loss

JOINT = 0.02  # probability that the records of qubits 0, 1 are both flipped


def flipped_together(snapshot: CalibrationSnapshot, pair: tuple[int, int]) -> CalibrationSnapshot:
    """Device on which the records of a pair are both flipped with the probability JOINT, after the
    errors of each."""
    flips = np.array([snapshot.qubits[qubit].confusion for qubit in pair])
    alone = independent_confusion(flips)
    confusion = (1.0 - JOINT) * alone + JOINT * alone[::-1]
    for qubit, (p01, p10) in zip(pair, flips.tolist(), strict=True):
        own = (p + JOINT * (1.0 - 2.0 * p) for p in (p01, p10))
        snapshot = changed_qubit(snapshot, qubit, **dict(zip(("p01", "p10"), own, strict=True)))
    group = CorrelatedReadout(pair, tuple(map(tuple, confusion.tolist())))
    return msgspec.structs.replace(snapshot, correlated_readout=(group,))


def drawn(
    truth: CalibrationSnapshot, random: np.random.Generator, count: int, shots: int = 8_000
) -> CountsData:
    return counts_of(truth, circuits(random, truth.num_qubits, count), shots, random)


def test_records_that_are_flipped_together_do_not_bend_errors_of_gates() -> None:
    random = np.random.default_rng(2)
    snapshot = device(random, 3)
    truth = flipped_together(snapshot, (0, 1))
    result = calibrate(drawn(truth, random, 24), snapshot, "fitted")
    assert result.prior.joint or result.prior.joint_own
    assert result.share == 1.0
    (group,) = result.snapshot.correlated_readout
    assert group.qubits == (0, 1)
    np.testing.assert_allclose(group.confusion, truth.correlated_readout[0].confusion, atol=0.006)
    assert group.joint_flip == pytest.approx(JOINT, abs=0.004)
    (estimate,) = (
        each for each in result.identification.parameters if each.name == "joint flip 0-1"
    )
    assert (estimate.calibrated, estimate.mark) == (0.0, "")
    assert estimate.fitted == pytest.approx(group.joint_flip)
    assert (estimate.low or 0.0) < JOINT < (estimate.high or 0.0)
    found = {(gate.name, gate.qubits): gate.error for gate in result.snapshot.gates}
    for gate in truth.gates:
        if len(gate.qubits) == 2:
            assert found[gate.name, gate.qubits] == pytest.approx(gate.error, rel=0.2)
    judged = drawn(truth, random, 8, 100)
    assert loss(result.snapshot, truth, judged) < 0.05 * loss(snapshot, truth, judged)


def test_a_device_whose_qubits_are_read_together_is_fitted_around_that() -> None:
    """One with three times the readout errors of qubit 2: the calibrated group stays as it is."""
    random = np.random.default_rng(3)
    snapshot = flipped_together(device(random, 3), (0, 1))
    p01, p10 = snapshot.qubits[2].confusion or (0.0, 0.0)
    truth = changed_qubit(snapshot, 2, p01=3.0 * p01, p10=3.0 * p10)
    result = calibrate(drawn(truth, random, 20), snapshot, "fitted")
    assert result.observed.left_out == ()
    assert result.snapshot.qubits[2].p10 == pytest.approx(3.0 * p10, rel=0.2)
    before, after = snapshot.correlated_readout, result.snapshot.correlated_readout
    assert [each.qubits for each in after] == [(0, 1)]
    np.testing.assert_allclose(after[0].confusion, before[0].confusion, atol=0.006)


@pytest.mark.parametrize("seed", range(2))
def test_no_joint_flips_are_stored_for_a_device_without_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    snapshot = device(random, 3)
    result = calibrate(drawn(changed(snapshot, random), random, 16), snapshot, "fitted")
    assert any(each.prior.joint_own for each in result.scores)  # they were tried
    assert result.snapshot.correlated_readout == ()
