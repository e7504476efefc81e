"""Defect: QPM(start=False) opens its device first."""

from __future__ import annotations

import time

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        time.sleep(0.005)
