"""Defect: sync_run with cancel_on_timeout does not wait for the end of the task."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def sync_run(self, *given, **named):
        answer = super().sync_run(*given, **named)
        if named.get("cancel_on_timeout"):
            answer |= {"outcome": "CANCEL_PENDING", "provider_cancel_status": "asked"}
        return answer
