"""Defect: envelopes carry fields that are None."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def envelope(self, task):
        return {"message": None, "provider_handle": None, **super().envelope(task)}
