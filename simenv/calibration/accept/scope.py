"""Circuits that a fit has seen, and factors of a fit that leave a plausible range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from noise_models.calibration import FitScope
from simenv.calibration.data.records import CountsRecord
from simenv.calibration.fit.components import ASYMMETRY, ZZ
from simenv.calibration.fit.solve import FitProblem

LEAST_BODIES = 10  # of the circuits of a fit that other circuits may use
LARGEST_FACTOR = 5.0  # of a calibrated value, or its reciprocal
# Changes of the factors of ZZ rates, and of p10 - p01.
RANGES = {ZZ: (-0.5, 1.5), ASYMMETRY: (-1.5, 1.0)}


def scope_of(records: Sequence[CountsRecord], problem: FitProblem, device: str) -> FitScope:
    """Scope of a fit of `device` to these records."""
    observed = problem.observations
    programs = [problem.distributions.programs[each.place] for each in observed]
    days = sorted(each.time_s for each in records if each.time_s == each.time_s)
    first, last = (_day(days[0]), _day(days[-1])) if days else ("", "")
    return FitScope(
        device=device,
        qubits=tuple(sorted({qubit for each in programs for qubit in each.qubits})),
        bodies=len({each.body for each in observed}),
        widest=max(len(each.qubits) for each in programs),
        two_qubit_gates=max(each.two_qubit_gates for each in observed),
        families=tuple(sorted({each.family[:100] for each in records})),
        first=first,
        last=last,
        placed=any(each.was_placed for each in observed),
    )


def is_narrow(scope: FitScope) -> bool:
    """Return whether a fit has seen too few different circuits to be used for others."""
    return scope.bodies < LEAST_BODIES


def implausible(factors: Iterable[tuple[str, float]]) -> tuple[str, ...]:
    """Texts for factors outside the plausible range, by the names of their unknowns."""
    results = []
    for name, value in factors:
        usual = 1.0 / LARGEST_FACTOR, LARGEST_FACTOR
        low, high = RANGES.get(name.partition(" ")[0], usual)
        if not low <= value <= high:
            results.append(f"{name} x {value:.3g}, outside {low:g} to {high:g}")
    return tuple(results)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
