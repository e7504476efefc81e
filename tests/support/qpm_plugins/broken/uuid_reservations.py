"""Defect: reservation ids are UUID texts."""

from __future__ import annotations

import uuid

from .base import HonestQPM


class QPM(HonestQPM):
    def reserve(self, *given, token=None, request=None):
        decision = super().reserve(*given, token=token, request=request)
        if isinstance(decision, dict) and decision.get("reservation_id"):
            decision["reservation_id"] = str(uuid.uuid4())
        return decision
