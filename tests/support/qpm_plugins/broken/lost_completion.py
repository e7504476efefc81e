"""Defect: every tenth completion is lost."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        completed = desk._completed
        desk._completed = lambda task: None if task.number % 10 == 0 else completed(task)
