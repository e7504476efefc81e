"""Messages about pools and nodes: a part of `messages`. All but the questions are for admins."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import NodeInfo, PoolInfo
from simenv.wire.numbers import Number

Name = Annotated[str, msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
MAX_WORKERS = 1_024
Workers = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]


class GetPools(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Answered by Pools."""

    request: Number


class Scale(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """From now on the pool has so many workers; answered by Pools when stored."""

    request: Number
    pool: Name
    least: Workers
    most: Workers
    force: bool = False  # also where the nodes do not hold so many


class DrainNode(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Start nothing more on this node: what runs is finished; answered by Pools when stored."""

    request: Number
    node: Name
    reason: Reason


class ResumeNode(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Use this node again, drained or lost; or this pool, if it was given up. Answered by Pools."""

    request: Number
    name: Name


class Pools(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """All pools and nodes as they are now."""

    request: int
    pools: list[PoolInfo]
    nodes: list[NodeInfo]
