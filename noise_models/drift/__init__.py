"""Drift of a device: which calibration snapshot is its noise at each time.

Either dated snapshots are replayed (`Replay`), or the values of one snapshot take a seeded random
walk (`RandomWalk`). Both are pure functions of the device's time in seconds. Reason: frequencies of
hardware are over-dispersed compared with shot noise (arXiv 2407.03970).
"""

from __future__ import annotations

from typing import Protocol

from noise_models.calibration import CalibrationSnapshot
from noise_models.drift.random_walk import RandomWalk
from noise_models.drift.replay import Replay, moment_s

__all__ = ["Drift", "RandomWalk", "Replay", "moment_s"]


class Drift(Protocol):
    """Snapshots in their order, each in force until the next one. Times are those of the device,
    in seconds since 1970."""

    @property
    def origin_s(self) -> float:
        """When snapshot 0 comes into force."""

    def step(self, device_s: float) -> int:
        """The number of the snapshot in force at a time; 0 before `origin_s` as well."""

    def begin_s(self, step: int) -> float:
        """When a snapshot comes into force; infinite for one that never does."""

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """The snapshot of that number."""
