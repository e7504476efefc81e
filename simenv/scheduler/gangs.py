"""Pools of several ranks made on demand: their names, their size, how many there may be.

A program too big for one rank runs over the smallest power of two of ranks that hold it, in the
pool `<pool>.x<ranks>`, whose workers are started when it comes and kept while there is such work.
"""

from __future__ import annotations

import msgspec

from simenv.model import PoolSpec
from simenv.scheduler.nodes import nodes_of
from simenv.scheduler.values import Limits

_MARK = ".x"


def gang_name(base: str, ranks: int) -> str:
    """The pool for programs over so many ranks beside the pool `base`."""
    return f"{base}{_MARK}{ranks}"


def base_of(name: str) -> str:
    """The pool a gang's was made for."""
    return name.rpartition(_MARK)[0]


def gang_spec(base: PoolSpec, ranks: int, limits: Limits) -> PoolSpec:
    """Like its base, of so many ranks; as many workers as could work side by side."""
    slots = sum(node.slots for node in nodes_of(limits))
    return msgspec.structs.replace(
        base,
        name=gang_name(base.name, ranks),
        min=0,
        max=max(1, slots // ranks),
        ranks=ranks,
        memory_bytes=0,
    )
