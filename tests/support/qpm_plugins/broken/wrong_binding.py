"""Defect: five bindings, one of them by a name nobody looks for."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def properties(self):
        told = super().properties()
        told["api_bindings"] = told["api_bindings"][:-1]
        told["api_bindings"][1]["binding_name"] = "reservations"
        return told
