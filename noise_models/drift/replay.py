"""Replay of dated calibration snapshots of one device."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from noise_models.calibration import CalibrationSnapshot
from noise_models.errors import SnapshotError


def moment_s(text: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time; UTC without a zone. Raises ValueError."""
    result = datetime.fromisoformat(text)
    return (result if result.tzinfo else result.replace(tzinfo=UTC)).timestamp()


class Replay:
    """Replay of dated snapshots: each is in force from its `calibrated` time to that of the
    next."""

    def __init__(self, snapshots: Sequence[CalibrationSnapshot]) -> None:
        """Sort the snapshots, given in any order, by date.

        Raises SnapshotError for no snapshot, for one without a date, for two with the same date,
        and for devices of different sizes.
        """
        if not snapshots:
            raise SnapshotError("calibrated", "no dated snapshots", hint="one or more files")
        dated = []
        for each in snapshots:
            try:
                dated.append((moment_s(each.calibrated), each))
            except ValueError:
                raise SnapshotError(
                    "calibrated",
                    f"snapshot {each.name} has no date",
                    hint="calibrated: an ISO 8601 time",
                ) from None
        dated.sort(key=lambda pair: pair[0])
        for (first_s, first), (second_s, second) in pairwise(dated):
            if first_s == second_s:
                raise SnapshotError("calibrated", f"two snapshots of {second.calibrated}")
            if first.num_qubits != second.num_qubits:
                raise SnapshotError(
                    "num_qubits",
                    f"{first.num_qubits} on {first.calibrated}, {second.num_qubits} on"
                    f" {second.calibrated}",
                    hint="snapshots of one device",
                )
        self._times_s = [time_s for time_s, _ in dated]
        self._snapshots = [each for _, each in dated]

    @property
    def origin_s(self) -> float:
        """Date of the first snapshot."""
        return self._times_s[0]

    def step(self, device_s: float) -> int:
        """Return the number of the snapshot in force at a time."""
        return max(0, bisect_right(self._times_s, device_s) - 1)

    def begin_s(self, step: int) -> float:
        """Return the date of a snapshot; infinite beyond the last one."""
        return self._times_s[step] if step < len(self._times_s) else math.inf

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """Return the snapshot with this number."""
        return self._snapshots[step]
