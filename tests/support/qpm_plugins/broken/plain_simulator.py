"""Defect: it offers no type that an example of revision 1 asks for."""

from __future__ import annotations

from . import telling
from .base import HonestQPM

telling.NWQSIM = 0


class QPM(HonestQPM):
    """As the honest one otherwise."""
