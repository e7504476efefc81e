"""Defect: what the newest hosts ask for is there, and answers something else."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def list_scheduler_allocations(self, token=None, filters=None):
        return {"allocation_id": "honest/1"}

    def capability_map(self, token=None):
        return ["get_device_info"]

    def get_service_summary(self, token=None):
        return {**self.get_service_status(), "target_id": "honest"}

    def release(self, token=None, reservation_id=None, reason=None):
        self._text("reason", reason)
        return super().release(token, reservation_id)
