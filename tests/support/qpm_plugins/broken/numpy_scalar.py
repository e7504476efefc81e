"""Defect: counts are NumPy's integers."""

from __future__ import annotations

import numpy as np

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            task.counts = {key: np.int64(count) for key, count in task.counts.items()}
            return outcome(task, poll)

        desk.record = record
