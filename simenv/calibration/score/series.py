"""Predictions of a device with dated calibrations: each circuit by the calibration in force at its
time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from noise_models.calibration import CalibrationSnapshot
from noise_models.drift import moment_s
from simenv.calibration.data.records import CountsRecord
from simenv.calibration.score.predict import Prediction, Predictor


class SeriesPredictor(Predictor):
    """Predictor with a series of snapshots, each in force from its date on; the first one also
    before it. A circuit without a date is predicted by `default`."""

    def __init__(
        self,
        default: CalibrationSnapshot,
        series: Sequence[CalibrationSnapshot],
        most_work: int = 0,
    ) -> None:
        """Set up; each snapshot of `series` has a date. Raises ValueError for an invalid date."""
        super().__init__(default, most_work=most_work)
        dated = sorted(((moment_s(each.calibrated), each) for each in series), key=_date)
        self._begins = [begin_s for begin_s, _ in dated]
        self._members = [Predictor(each, most_work=most_work) for _, each in dated]

    def prediction(self, record: CountsRecord) -> Prediction | None:
        """Prediction for a record's circuit by the snapshot of its date."""
        if not self._members or record.time_s != record.time_s:
            return super().prediction(record)
        place = max(bisect_right(self._begins, record.time_s) - 1, 0)
        return self._members[place].prediction(record)


def _date(pair: tuple[float, CalibrationSnapshot]) -> float:
    return pair[0]
