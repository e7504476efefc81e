"""Defect: is_ready asks its machine each time."""

from __future__ import annotations

import time

from .base import HonestQPM


class QPM(HonestQPM):
    def is_ready(self, token=None):
        time.sleep(0.002)
        return super().is_ready(token)
