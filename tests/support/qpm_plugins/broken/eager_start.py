"""Defect: QPM(start=False) starts a thread."""

from __future__ import annotations

import threading

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        threading.Thread(target=threading.Event().wait, daemon=True).start()
