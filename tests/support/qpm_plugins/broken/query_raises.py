"""Defect: in one revision a look at its record raises."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def query(self):
        if self.revision2():
            raise KeyError("properties")
        return super().query()
