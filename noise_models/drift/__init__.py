"""Drift of a device: the calibration snapshot that gives its noise at each time.

Either dated snapshots are replayed (`Replay`), or the values of one snapshot follow a seeded random
walk (`RandomWalk`). Both are pure functions of the device's time in seconds. Reason: frequencies of
outcomes on hardware are over-dispersed compared with shot noise (arXiv 2407.03970).
"""

from __future__ import annotations

from typing import Protocol

from noise_models.calibration import CalibrationSnapshot
from noise_models.drift.random_walk import RandomWalk
from noise_models.drift.replay import Replay, moment_s

__all__ = ["Drift", "RandomWalk", "Replay", "moment_s"]


class Drift(Protocol):
    """Sequence of snapshots, each in force until the next one.

    Times are the device's, in seconds since 1970.
    """

    @property
    def origin_s(self) -> float:
        """Start time of snapshot 0."""

    def step(self, device_s: float) -> int:
        """Return the number of the snapshot in force at a time; 0 also before `origin_s`."""

    def begin_s(self, step: int) -> float:
        """Return the start time of a snapshot; infinite for a number beyond the last one."""

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """Return the snapshot with this number."""
