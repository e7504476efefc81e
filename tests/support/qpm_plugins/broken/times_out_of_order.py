"""Defect: circuits end before they begin."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            told = self.desk.record

            def record(task, poll):
                found = told(task, poll)
                found["exec_time"], found["completion_time"] = task.ended, task.began
                return found

            self.desk.record = record
