"""Defect: one put that fails ends all registrations."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            put = self.desk._put

            def all_or_none(registration, payload):
                if put(registration, payload):
                    return True
                self.desk.registrations.clear()
                return False

            self.desk._put = all_or_none
