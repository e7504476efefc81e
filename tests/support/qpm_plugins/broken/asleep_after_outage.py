"""Defect: after an outage polling alone finds nothing, until another call comes."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    asleep = False

    def _reached(self):
        QPM.asleep = QPM.asleep or self.desk.away()
        super()._reached()

    def is_ready(self, token=None):
        QPM.asleep = False
        return super().is_ready(token)

    def _poll(self, operation, cid, reservation_id, token, *, keep):
        if QPM.asleep and not self.desk.away():
            cid = "none"
        return super()._poll(operation, cid, reservation_id, token, keep=keep)
