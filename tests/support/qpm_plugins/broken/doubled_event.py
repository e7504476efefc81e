"""Defect: each event is put twice."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def prepare(self, desk):
        put = desk._put
        desk._put = lambda who, payload: put(who, payload) and put(who, payload)
