"""What routing is told of this moment: machines that are known, and pools that take nothing.

Everything else it decides by stays as long as the service does.
"""

from __future__ import annotations

import msgspec

from simenv.model import PoolSpec
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.scheduler.books import Books
from simenv.scheduler.infos import pool_info
from simulators import catalog


class Seen(msgspec.Struct, frozen=True):
    """`closed`: pools that take no program now, and why."""

    devices: tuple[DeviceInfo, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()

    def device(self, pool: str) -> DeviceInfo | None:
        """The machine of a pool; None if it has none, or has not said yet what it is."""
        return next((device for device in self.devices if device.name == pool), None)

    def why_closed(self, pool: str) -> str:
        """ "" if the pool takes programs."""
        return next((why for name, why in self.closed if name == pool), "")


NOTHING = Seen()


def closed(books: Books) -> tuple[tuple[str, str], ...]:
    """The pools that take nothing now, by their names."""
    found = []
    for pool in books.pools.values():
        info = pool_info(books, pool)
        why = books.steers.why_closed(pool.device)
        if why or info.state != "up":
            found.append((info.name, why or info.state))
    return tuple(found)


def holds_machine(pool: PoolSpec) -> bool:
    """Is a machine behind it, which nobody gets who did not ask for it?"""
    card = catalog.card(pool.engine)
    return card is not None and card.machine


def kind_of(pool: PoolSpec) -> DeviceKind:
    """What stands behind a pool."""
    return DeviceKind.HARDWARE if holds_machine(pool) else DeviceKind.IDEAL
