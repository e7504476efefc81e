"""Defect: a code is put into a text by `str` of an IntEnum, whose repr it is in a host."""

from __future__ import annotations

import enum

from . import ledger
from .base import HonestQPM


class Code(enum.IntEnum):
    NO_DEVICE = 2


told = ledger.reason_of
ledger.reason_of = lambda code: f"reason-{Code(code)}" if code == 2 else told(code)


class QPM(HonestQPM):
    """As the honest one otherwise."""
