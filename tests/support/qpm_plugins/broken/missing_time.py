"""Defect: records lack launch_time."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            del result["launch_time"]
            return result

        desk.record = record
