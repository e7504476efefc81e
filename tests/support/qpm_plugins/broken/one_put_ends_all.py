"""Defect: one put that fails ends all registrations."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        put = desk._put

        def all_or_none(registration, payload):
            if put(registration, payload):
                return True
            desk.registrations.clear()
            return False

        desk._put = all_or_none
