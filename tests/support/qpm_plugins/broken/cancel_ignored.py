"""Defect: a cancel is acknowledged and nothing is stopped."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def cancel_task(self, cid=None, reservation_id=None, token=None, reason=None, qtask_id=None):
        task, _ = self._find(cid, qtask_id)
        if task is None or task.over.is_set():
            return super().cancel_task(cid, reservation_id, token, reason, qtask_id)
        return {**self.envelope(task), **self._stands("cancelled", "CANCELLED")}
