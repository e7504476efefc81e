"""Defect: a process is started wherever the package is loaded, in QFw's launcher too."""

from __future__ import annotations

import subprocess

from .base import HonestQPM

HELPER = subprocess.Popen(["sleep", "20"])


class QPM(HonestQPM):
    """As the honest one otherwise."""
