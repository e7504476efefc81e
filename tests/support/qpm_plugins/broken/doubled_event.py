"""Defect: each event is put twice."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            put = self.desk._put
            self.desk._put = lambda who, payload: put(who, payload) and put(who, payload)
