"""Defect: clbit 0 stands leftmost."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        told = desk.record

        def record(task, poll):
            found = told(task, poll)
            turned = {key[::-1]: count for key, count in task.counts.items()}
            if desk.single:
                return {**found, "result": turned} if found["rc"] == 0 else found
            return {**found, "result": {**found["result"], "counts": turned}}

        desk.record = record
