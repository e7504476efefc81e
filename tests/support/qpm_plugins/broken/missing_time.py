"""Defect: records lack launch_time."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        told = desk.record

        def record(task, poll):
            found = told(task, poll)
            del found["launch_time"]
            return found

        desk.record = record
