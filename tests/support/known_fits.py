"""Fits to counts of devices whose noise is known, by the likelihood."""

import functools

import msgspec
import numpy as np

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData
from simenv.calibration.fit import attempt, solve
from simenv.calibration.fit.components import with_gates_of_each_set
from simenv.calibration.fit.identify import (
    Identification,
    LikelihoodFit,
    ParameterEstimate,
    identify,
)
from testbed.drawn_devices import circuits, counts_of, device

RANDOM = 11


def likelihood_fit(data: CountsData, calibration: CalibrationSnapshot) -> LikelihoodFit:
    base = attempt.FitBase.of("snapshot", calibration, data)
    solution = solve.fit(base.problem, attempt.UNCHECKED)
    return LikelihoodFit.of(base.problem, solution.values, attempt.UNCHECKED)


def with_errors(
    snapshot: CalibrationSnapshot, error_1q: float, factor_2q: float
) -> CalibrationSnapshot:
    """Device with one error of all gates on one qubit, and a factor of those on two."""
    gates = tuple(
        gate
        if not gate.error
        else msgspec.structs.replace(
            gate, error=error_1q if len(gate.qubits) == 1 else gate.error * factor_2q
        )
        for gate in snapshot.gates
    )
    return msgspec.structs.replace(snapshot, gates=gates)


def mixed_counts() -> tuple[CountsData, CalibrationSnapshot, CalibrationSnapshot]:
    """Counts of circuits whose gates on one and on two qubits alternate, the calibration, and the
    true device, whose gates on one qubit have several times their calibrated errors."""
    random = np.random.default_rng(RANDOM)
    calibration = device(random, 3)
    truth = with_errors(calibration, 0.005, 1.0)
    return counts_of(truth, circuits(random, 3, 40), 20_000, random), calibration, truth


@functools.cache
def mixed_errors() -> tuple[LikelihoodFit, CalibrationSnapshot, CalibrationSnapshot]:
    """Fit to these counts."""
    data, calibration, truth = mixed_counts()
    return likelihood_fit(data, calibration), calibration, truth


def identified(
    fit: LikelihoodFit, before: CalibrationSnapshot, after: CalibrationSnapshot
) -> Identification:
    return identify(fit, with_gates_of_each_set(before), with_gates_of_each_set(after))


def covers(each: ParameterEstimate) -> bool:
    """Return whether the interval has the fitted value, which is that of the true device here."""
    assert each.fitted is not None
    return (each.low or 0.0) <= each.fitted and (each.high is None or each.fitted <= each.high)
