"""Defect: while its machine is away, pollers are told that their circuits are in progress."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def _reached(self):
        """Nobody looks."""
