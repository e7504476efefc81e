"""Defect: a token that was sent stands in what the service tells of its life."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def reserve(self, token=None, request=None):
        self.events.append(self.event("reconciliation", f"reserve by {token}"))
        return super().reserve(token, request)
