"""Defect: the reason of a completion that is gone is none of the contract's."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def _poll(self, *given, **named):
        answer = super()._poll(*given, **named)
        if answer.get("outcome") == "NO_LONGER_RETAINED":
            answer["reason"] = "completion-read"
        return answer
