"""Defect: clbit 0 stands leftmost."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        outcome = desk.record

        def record(task, poll):
            result = outcome(task, poll)
            turned = {key[::-1]: count for key, count in task.counts.items()}
            if desk.single:
                return {**result, "result": turned} if result["rc"] == 0 else result
            return {**result, "result": {**result["result"], "counts": turned}}

        desk.record = record
