"""Defect: five bindings, one of them by a name nobody looks for."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def properties(self):
        outcome = super().properties()
        outcome["api_bindings"] = outcome["api_bindings"][:-1]
        outcome["api_bindings"][1]["binding_name"] = "reservations"
        return outcome
