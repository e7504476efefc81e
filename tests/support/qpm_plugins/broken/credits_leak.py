"""Defect: what a task held is never given back."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            self.desk.ledger.settle = lambda *_: None
