"""Defect: each registration has a thread that never ends."""

from __future__ import annotations

import threading

from .base import HonestQPM


class QPM(HonestQPM):
    def register_event_notification(self, *given, **named):
        threading.Thread(target=threading.Event().wait, name="listener", daemon=True).start()
        return super().register_event_notification(*given, **named)
