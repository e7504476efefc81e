"""Defect: nothing keeps two threads from sending at once."""

from __future__ import annotations

from . import base
from .base import HonestQPM

base.install = lambda: None


class QPM(HonestQPM):
    """As the honest one otherwise."""
