"""Plausible values of fitted devices: how far from the calibrated ones, and of which changes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from noise_models import calibration
from simenv.calibration.fit.components import ADDED, ASYMMETRY, JOINT, ZZ

LARGEST_FACTOR = 5.0  # of a calibrated value, or its reciprocal
_LARGEST_OF_TIMES = 10.0  # T2 of echoes is several times what circuits without them see
# Changes of probabilities that are plausible whatever is calibrated, as of readout errors of .0005
# that a later month finds at .014.
_USUAL_READOUT = 0.05
_USUAL_OF_GATES = 0.01, 0.05  # of one qubit, of more
# Changes of the factors of ZZ rates, and of p10 - p01; probabilities added to readout errors, and
# of joint flips.
RANGES = {
    ZZ: (-0.5, 1.5),
    ASYMMETRY: (-1.5, 1.0),
    JOINT: (-0.02, 0.15),
    **dict.fromkeys(ADDED.values(), (-0.05, 0.1)),
}


def implausible(
    before: calibration.CalibrationSnapshot,
    after: calibration.CalibrationSnapshot,
    changes: Iterable[tuple[str, float]],
    qubits: Collection[int],
) -> tuple[str, ...]:
    """Texts for what is not plausible in a fitted device: values of the circuits' `qubits`
    (`implausible_values`), and `changes` outside RANGES, each with the name of its unknown. Other
    unknowns are judged by the values that they change."""
    results = [*implausible_values(before, after, qubits)]
    for name, value in changes:
        low, high = RANGES.get(name.partition(" ")[0], (-math.inf, math.inf))
        if not low <= value <= high:
            results.append(f"change of {name} {value:+.3g}, outside {low:g} to {high:g}")
    return tuple(results)


def implausible_values(
    before: calibration.CalibrationSnapshot,
    after: calibration.CalibrationSnapshot,
    qubits: Collection[int],
) -> tuple[str, ...]:
    """Texts for values of these qubits and the gates among them that are more than LARGEST_FACTOR
    from the calibrated ones (times: _LARGEST_OF_TIMES), unless the change is usual of such a value.
    T2 is the one that acts, at most 2 T1. Both devices have the same qubits and gates in the same
    order."""
    none = None, None
    values = [
        (f"{name} of qubit {k}", old, new, limit, usual)
        for k, (a, b) in enumerate(zip(before.qubits, after.qubits, strict=True))
        if k in qubits
        for name, old, new, limit, usual in (
            ("t1_us", a.t1_us, b.t1_us, _LARGEST_OF_TIMES, 0.0),
            ("t2_us", a.t2_limited_us, b.t2_limited_us, _LARGEST_OF_TIMES, 0.0),
            ("t2_star_us", a.t2_star_us and a.t2_ramsey_us, b.t2_ramsey_us, _LARGEST_OF_TIMES, 0.0),
            *(
                (name, old, new, LARGEST_FACTOR, _USUAL_READOUT)
                for name, old, new in zip(
                    ("p01", "p10"), a.confusion or none, b.confusion or none, strict=True
                )
            ),
        )
    ]
    values += [
        (
            f"error of {' '.join((a.name, *map(str, a.qubits)))}",
            *(a.error, b.error, LARGEST_FACTOR),
            _USUAL_OF_GATES[len(a.qubits) > 1],
        )
        for a, b in zip(before.gates, after.gates, strict=True)
        if set(qubits).issuperset(a.qubits)
    ]
    results = []
    for name, old, new, limit, usual in values:
        if old and new and abs(new - old) > usual and not 1.0 / limit <= new / old <= limit:
            results.append(f"{name} {new:.3g} in place of {old:.3g}, x {new / old:.3g}")
    return tuple(results)
