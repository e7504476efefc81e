"""Defect: circuits end before they begin."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            result["exec_time"], result["completion_time"] = task.ended, task.began
            return result

        desk.record = record
