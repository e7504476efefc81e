"""Defect: a helper is started with sys.executable, which is the host's own program."""

from __future__ import annotations

import subprocess
import sys

from .base import HonestQPM


class QPM(HonestQPM):
    def __init__(self, *given, start=True, **named):
        super().__init__(*given, start=start, **named)
        if start:
            subprocess.run([sys.executable, "-c", "pass"], check=False)
