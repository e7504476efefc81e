"""Defect: after an outage a task is said to be completed, and its completion not ready."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    polled = False

    def _poll(self, operation, cid, reservation_id, token, *, keep):
        if cid and not QPM.polled:
            QPM.polled = True
            polled = {"completion_ready": False, "poll_operation": operation}
            return {**self._stands("completed", "COMPLETED"), "cid": cid, **polled}
        return super()._poll(operation, cid, reservation_id, token, keep=keep)
