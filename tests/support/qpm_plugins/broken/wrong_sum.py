"""Defect: one shot more than was asked for."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def _accept(self, info, reservation_id, token):
        task = super()._accept(info, reservation_id, token)
        task.shots += 1
        return task
