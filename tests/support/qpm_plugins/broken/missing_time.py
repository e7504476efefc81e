"""Defect: records lack launch_time."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            told = self.desk.record

            def record(task, poll):
                found = told(task, poll)
                del found["launch_time"]
                return found

            self.desk.record = record
