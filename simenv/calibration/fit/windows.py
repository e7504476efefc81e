"""Date windows: runs that are close in time, each window with its own calibration.

The components of a window differ from the common ones by factors with their own prior.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.data.records import CountsRecord
from simenv.calibration.fit.prior import Prior

GAP_S = 3 * 86_400.0  # gap without runs between two windows
LEAST_CIRCUITS = 4  # circuits of a window
# Priors of a window's factors around the common ones: pooled, or also for each qubit and pair.
POOLED_SHIFT, OWN_SHIFT = Prior(0.3), Prior(0.3, 0.5, heavy=True)


class FittedWindow(msgspec.Struct, frozen=True, eq=False):
    """Values of one window; it begins at `begin_s` and ends where the next one begins."""

    begin_s: float
    latent: NDArray[np.float64]
    values: NDArray[np.float64]


def window_starts(records: Sequence[CountsRecord]) -> list[float]:
    """Begins of the windows, seconds since 1970; [] if a time is unknown."""
    dated = [each for each in records if each.time_s == each.time_s]
    if len(dated) < len(records) or not dated:
        return []
    results: list[float] = []
    circuits: set[tuple[str, int]] = set()
    last_s = -np.inf
    for each in sorted(dated, key=lambda record: record.time_s):
        if each.time_s - last_s > GAP_S and (not results or len(circuits) >= LEAST_CIRCUITS):
            results.append(each.time_s)
            circuits = set()
        circuits.add((each.source.text, each.level))
        last_s = each.time_s
    if len(results) > 1 and len(circuits) < LEAST_CIRCUITS:
        results.pop()
    return results


def windows_of(records: Sequence[CountsRecord], starts: Sequence[float]) -> list[int]:
    """Window of each record; 0 for those before the first one."""
    if not starts:
        return [0] * len(records)
    times = [each.time_s for each in records]
    results: list[int] = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0).tolist()
    return results
