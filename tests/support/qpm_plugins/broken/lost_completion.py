"""Defect: every tenth completion is lost."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            completed = self.desk._completed
            self.desk._completed = lambda task: None if task.number % 10 == 0 else completed(task)
