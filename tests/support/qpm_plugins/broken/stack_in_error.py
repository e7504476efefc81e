"""Defect: an error is constructed inside `except`: DEFw puts that stack into it."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def error(self, words):
        import defw_exception

        return defw_exception.DEFwExecutionError(words)
