"""Error rates from wrong predictions: what goes in comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, QubitCalibration
from simenv.calibration.logical.cx_errors import (
    GateFlips,
    cx_flips,
    expected_contrasts,
    gate_paulis,
)
from simenv.calibration.logical.error_rates import (
    MemoryCounts,
    MemoryRate,
    extrapolated,
    least_contrast,
    memory_rate,
    round_errors,
    suppression,
    times_us,
)

SHOTS = 10**9


def counts(rounds: int, error: float, readout: float) -> MemoryCounts:
    wrong = 0.5 * (1.0 - (1.0 - 2.0 * readout) * (1.0 - 2.0 * error) ** rounds)
    return MemoryCounts(rounds, round(wrong * SHOTS), SHOTS)


@pytest.mark.parametrize(("error", "readout"), [(1e-5, 1e-4), (3e-3, 0.0), (0.02, 0.01)])
def test_a_memory_rate_is_that_of_the_experiments(error: float, readout: float) -> None:
    found = memory_rate(counts(5, error, readout), counts(20, error, readout))
    assert found.resolved
    assert found.error == pytest.approx(error, rel=1e-3)
    assert found.readout == pytest.approx(readout, rel=1e-2, abs=1e-6)


def test_too_few_errors_give_an_upper_limit() -> None:
    found = memory_rate(MemoryCounts(5, 0, 10_000), MemoryCounts(20, 2, 10_000))
    assert not found.resolved
    assert found.error == pytest.approx(5 / 10_000 / 20)


def test_a_lost_long_memory_leaves_the_rate_of_the_short_one() -> None:
    found = memory_rate(MemoryCounts(3, 300, 1_000), MemoryCounts(12, 499, 1_000))
    assert found.error == pytest.approx(0.5 * (1 - 0.4 ** (1 / 3)), rel=1e-6)
    assert found.lost


def test_lost_memories_leave_a_lower_limit() -> None:
    found = memory_rate(MemoryCounts(3, 25_100, 50_000), MemoryCounts(12, 24_900, 50_000))
    assert found.lost
    assert found.error == pytest.approx(0.5 * (1 - least_contrast(50_000) ** (1 / 3)))


def test_the_deviation_is_that_of_repeated_experiments() -> None:
    random, shots, rates = np.random.default_rng(5), 20_000, []
    for _ in range(400):
        wrong = [0.5 * (1 - (1 - 2 * 2e-3) ** rounds) for rounds in (3, 12)]
        short, long = (
            MemoryCounts(rounds, int(random.binomial(shots, p)), shots)
            for rounds, p in zip((3, 12), wrong, strict=True)
        )
        rates.append(memory_rate(short, long))
    seen = np.std([each.error for each in rates])
    assert np.mean([each.deviation for each in rates]) == pytest.approx(seen, rel=0.2)


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_flips_of_cx_are_those_of_simulated_gates(basis: str) -> None:
    """Contrasts of CX several times by drawn flips of each round and of each gate. Other errors
    of preparation and measurement than those of memories have no effect."""
    random, shots = np.random.default_rng(3), 1_000_000
    rates = MemoryRate(0.004, 0.008, resolved=True), MemoryRate(0.008, 0.016, resolved=True)
    true = GateFlips(0.005, 0.015, 0.01)
    layouts = (2, 1, 1, 3), (2, *(1,) * 8, 3)
    measured = []
    for rounds in layouts:
        flips = np.zeros((2, shots), bool)

        def idle(count: int, flips: np.ndarray = flips) -> None:
            for k in range(2):
                for _ in range(count):
                    flips[k] ^= random.random(shots) < rates[k].error

        idle(rounds[0])
        source, changed = (0, 1) if basis == "Z" else (1, 0)
        for after in rounds[1:]:
            flips[changed] ^= flips[source]
            kind = random.choice(4, size=shots, p=[0.97, 0.005, 0.015, 0.01])
            flips[0] ^= (kind == 1) | (kind == 3)
            flips[1] ^= (kind == 2) | (kind == 3)
            idle(after)
        for k in range(2):
            flips[k] ^= random.random(shots) < rates[k].readout
        measured.append([0.97 - 1.94 * np.mean(each) for each in (*flips, flips[0] ^ flips[1])])
    found = cx_flips(measured, basis, rates, layouts, least_contrast(shots))
    for name in ("control", "target", "both"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), abs=1.5e-3)


def test_contrasts_after_cx_without_errors_of_its_own() -> None:
    control, target = MemoryRate(0.01, 0.0, resolved=True), MemoryRate(0.02, 0.0, resolved=True)
    a, b = 1 - 2 * 0.01, 1 - 2 * 0.02
    found = expected_contrasts("Z", control, target, (2, 1, 3))
    # Two CX: errors of the control between them flip the target at the end.
    assert found == pytest.approx((a**6, b**6 * a**1, b**6 * a**5))


def test_paulis_of_a_gate_have_the_flips_of_both_bases() -> None:
    z, x = GateFlips(0.01, 0.02, 0.03), GateFlips(0.001, 0.002, 0.003)
    errors = {each.pauli: each.probability for each in gate_paulis({"Z": z, "X": x})}
    assert "II" not in errors
    of_x = [p for pauli, p in errors.items() if pauli[0] in "XY" and pauli[1] in "IZ"]
    assert math.fsum(of_x) == pytest.approx(z.control)
    of_z = [p for pauli, p in errors.items() if pauli[0] in "ZY" and pauli[1] in "ZY"]
    assert math.fsum(of_z) == pytest.approx(x.both)


def test_a_logical_qubit_has_the_errors_of_a_round_as_its_idle_channel() -> None:
    error_x, error_z, round_ns = 2e-3, 3e-3, 1_100.0
    t1_us, t2_us, limited = times_us(error_x, error_z, round_ns)
    qubit = QubitCalibration(t1_us=t1_us, t2_us=t2_us, excited=0.5)
    channel = build(CalibrationSnapshot("q", 1, qubits=(qubit,))).idle(0, round_ns)
    assert channel is not None
    assert not limited
    _, x, y, z = channel.pauli_probabilities
    assert x + y == pytest.approx(error_x, rel=1e-6)
    assert z + y == pytest.approx(error_z, rel=1e-6)
    assert np.count_nonzero(np.abs(channel.ptm - np.diag(np.diag(channel.ptm))) > 1e-12) == 0
    assert round_errors(qubit, round_ns) == pytest.approx((error_x, error_z))


def test_errors_of_z_below_half_of_x_are_limited() -> None:
    _, _, limited = times_us(2e-3, 5e-4, 1_000.0)
    assert limited


def test_extrapolation_goes_on_by_lambda() -> None:
    factor = suppression(8e-3, 2e-3)
    assert factor == pytest.approx(4.0)
    assert extrapolated(2e-3, factor, 2) == pytest.approx(1.25e-4)
