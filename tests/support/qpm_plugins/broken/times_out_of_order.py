"""Defect: circuits end before they begin."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        told = desk.record

        def record(task, poll):
            found = told(task, poll)
            found["exec_time"], found["completion_time"] = task.ended, task.began
            return found

        desk.record = record
