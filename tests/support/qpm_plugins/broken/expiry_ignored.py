"""Defect: reservations never expire."""

from __future__ import annotations

import time

from .base import HonestQPM


class QPM(HonestQPM):
    def reserve(self, *given, token=None, request=None):
        decision = super().reserve(*given, token=token, request=request)
        if isinstance(decision, dict) and decision.get("reservation_id"):
            record = self.desk.ledger.records[decision["reservation_id"]]
            record["expires_at_ns"] = max(record["expires_at_ns"], time.time_ns() + 10**10)
        return decision
