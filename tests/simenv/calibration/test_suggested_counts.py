"""Counts of suggested circuits, each of which identifies one value: whether a fit to them is used.

A device of known truth has few counts of random circuits, which suggest others; these are measured
and fitted.
"""

import functools
import math

import msgspec
import numpy as np
import pytest

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import accept, probes
from simenv.calibration.data import CountsData, MeasuredCircuit
from simenv.calibration.fit.attempt import FitAttempt, FitBase, score_of
from simenv.calibration.fit.calibrate import FittedDevice, calibrate
from simenv.calibration.fit.significance import NullGains
from simenv.calibration.fit.solve import Prior
from simenv.client.circuits import load
from testbed.drawn_devices import circuits, counts_of, device, loss

SIZE = 2
PAIR = (0, 1)


def changed(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Device with another T1 of qubit 0 and another error of one cz."""
    first, *others = snapshot.qubits
    assert first.t1_us is not None
    assert first.t2_us is not None
    t1_us = 0.4 * first.t1_us
    first = msgspec.structs.replace(first, t1_us=t1_us, t2_us=min(first.t2_us, 1.9 * t1_us))
    gates = tuple(
        msgspec.structs.replace(each, error=3.0 * (each.error or 0.0))
        if (each.name, each.qubits) == ("cz", PAIR)
        else each
        for each in snapshot.gates
    )
    return msgspec.structs.replace(snapshot, qubits=(first, *others), gates=gates)


@functools.cache
def suggested_counts(
    seed: int, is_true: bool
) -> tuple[CalibrationSnapshot, CalibrationSnapshot, CountsData, CountsData]:
    """Calibration, truth, counts of suggested circuits, and of alike ones that are kept aside."""
    random = np.random.default_rng(seed)
    snapshot = device(random, SIZE)
    truth = snapshot if is_true else changed(snapshot)
    few = counts_of(truth, circuits(random, SIZE, 6), 500, random)
    first = calibrate(few, snapshot, "first")
    suggestion = probes.suggested(first.likelihood, first.identification)
    sources = []
    for row in probes.rows(suggestion):
        loaded = load(row["qasm"] + "\n")
        sources.append(MeasuredCircuit(row["qasm"], loaded, loaded.program.num_clbits, row["body"]))
    counts, judged = (
        counts_of(truth, each, probes.SHOTS, random)
        for each in (sources, circuits(random, SIZE, 12))
    )
    return snapshot, truth, counts, judged


def fitted(seed: int, is_true: bool) -> FittedDevice:
    snapshot, _, counts, _ = suggested_counts(seed, is_true)
    return calibrate(counts, snapshot, "fitted")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fit_that_circuits_left_out_cannot_show_is_for_alike_circuits(seed: int) -> None:
    snapshot, truth, _, judged = suggested_counts(seed, is_true=False)
    result = fitted(seed, is_true=False)
    assert (result.share, result.snapshot.outside) == (1.0, snapshot)
    held = result.held_out
    assert held is not None
    assert held.bodies >= accept.LEAST_BODIES
    assert not held.is_used
    assert held.is_narrow
    assert "p <= 0.001 of the likelihood" in held.text
    assert loss(result.snapshot, truth, judged) < 0.3 * loss(snapshot, truth, judged)
    named = {each.name: each for each in result.identification.parameters}
    (error,) = (each.error for each in truth.gates if (each.name, each.qubits) == ("cz", PAIR))
    for name, true in (("T1 0", truth.qubits[0].t1_us), ("cz error 0-1", error)):
        each = named[name]
        assert true is not None
        assert each.fitted is not None
        assert each.low is not None
        assert each.high is not None
        assert each.low < true < each.high, name
        assert each.low < each.fitted < each.high, name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_suggested_counts_of_the_calibrated_device_keep_it(seed: int) -> None:
    snapshot, *_ = suggested_counts(seed, is_true=True)
    result = fitted(seed, is_true=True)
    assert (result.share, result.snapshot.fitted) == (0.0, None)
    assert result.snapshot.qubits == snapshot.qubits
    assert result.held_out is not None
    assert not result.held_out.refutes_snapshot
    assert "of the likelihood" in result.held_out.text


def test_a_fit_without_a_fold_can_have_the_bodies_that_alone_identify_values() -> None:
    """Other circuits of the fold are then judged by the T1 that one body alone shows."""
    snapshot, truth, counts, _ = suggested_counts(1, is_true=False)
    base = FitBase.of("snapshot", snapshot, counts)
    losses = np.ones(len(base.folds()))
    prior = Prior(0.1, 1.0)
    built = FitAttempt(base, base.folds(), score_of(prior, losses, losses), ())
    alone = NullGains(base.problem, base.folds(), (1.0,)).alone(prior)
    solution, true_us = built.fit(), truth.qubits[0].t1_us
    assert true_us is not None

    def deviations(seen: frozenset[str]) -> list[float]:
        fits = [built.without(fold, solution, seen) for fold in range(built.num_folds)]
        return [abs(math.log((each.snapshot.qubits[0].t1_us or 1.0) / true_us)) for each in fits]

    assert max(deviations(frozenset())) > 0.4  # calibrated: 0.9
    assert max(deviations(alone)) < 0.2
