"""Defect: any number passes for a reservation."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def _needs(self, number):
        if not self.desk.single and number is None:
            raise self.error("a reservation is needed")
