"""Defect: QPM(start=False) needs a variable that its author happens to have set."""

from __future__ import annotations

import os

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        if not os.environ.get("OF_THE_AUTHOR"):
            raise KeyError("OF_THE_AUTHOR")
        super().__init__(*given, start=start, **named)
