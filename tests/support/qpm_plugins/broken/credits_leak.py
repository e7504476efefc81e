"""Defect: what a task held is never given back."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        desk.ledger.settle = lambda *_: None
