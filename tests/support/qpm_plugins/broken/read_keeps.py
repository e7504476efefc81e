"""Defect: read_cq leaves the completion in the queue."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def read_cq(self, cid=None, reservation_id=None, token=None):
        return self._poll("read_cq", cid, reservation_id, token, keep=True)
