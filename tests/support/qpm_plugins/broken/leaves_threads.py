"""Defect: uninitialize leaves threads behind."""

from __future__ import annotations

import threading

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        for _ in range(3 if start else 0):
            threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()
