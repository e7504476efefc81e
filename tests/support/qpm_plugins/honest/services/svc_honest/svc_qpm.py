"""The service class of the honest plugin."""

from __future__ import annotations

from .base import HonestQPM


class QPM(HonestQPM):
    """As it should be."""
