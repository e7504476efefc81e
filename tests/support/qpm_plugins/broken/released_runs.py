"""Defect: a reservation that was released still runs circuits."""

from __future__ import annotations

from .base import HonestQPM
from .ledger import Refused


class QPM(HonestQPM):
    def _needs(self, number):
        if self.desk.single:
            return
        if number is None:
            raise self.error("a reservation is needed")
        try:
            record = self.desk.ledger.find(number)
        except Refused as bad:
            raise self.error(str(bad)) from bad
        if record["state"] in ("expired", "cancelled"):
            raise self.error("it is over")
