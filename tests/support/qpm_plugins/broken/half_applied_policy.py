"""Defect: a policy that is refused has taken effect by then."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def set_admission_policy(self, token=None, device_id=None, configuration=None):
        if isinstance(configuration, dict) and isinstance(configuration.get("capacity"), dict):
            ledger = self.desk.ledger
            ledger.rules = {**ledger.rules, "capacity": dict(configuration["capacity"])}
        return super().set_admission_policy(token, device_id, configuration)
