"""Defect: what is wrong with a circuit is a ValueError, which travels as a traceback."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    def sync_run(self, info, *given, **named):
        import defw_exception

        try:
            return super().sync_run(info, *given, **named)
        except defw_exception.DEFwExecutionError as bad:
            raise ValueError(str(bad)) from None
