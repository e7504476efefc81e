"""Defect: all clients of revision 1 share one registration: the last one gets every event."""

from __future__ import annotations

from .base import HonestQPM


class Last(dict):
    """A table in which every owner finds the last that was entered."""

    def __contains__(self, owner):
        return bool(self)

    def __getitem__(self, owner):
        return list(self.values())[-1]


class QPM(HonestQPM):
    def prepare(self, desk):
        desk.listening = Last()
