"""Rate limit for warnings about received messages: LINES a minute; the others are counted."""

from __future__ import annotations

import logging
import time

LINES = 20
WINDOW_S = 60.0


class RateLimitedLog:
    """Rate-limited warnings about messages of peers."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._since_s = -WINDOW_S
        self._count = 0

    def warning(self, message: str, *details: object) -> None:
        """Log a warning, as `Logger.warning`; above LINES in WINDOW_S warnings are only counted."""
        now = time.monotonic()
        if now - self._since_s >= WINDOW_S:
            if self._count > LINES:
                self._log.warning("%d more like that in the minute before", self._count - LINES)
            self._since_s, self._count = now, 0
        self._count += 1
        if self._count <= LINES:
            self._log.warning(message, *details)
