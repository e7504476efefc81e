"""Messages about pools, nodes, keys and limits of owners; changes are for administrators.

Secret keys are never sent.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import NodeInfo, OwnerReport, PoolInfo
from simenv.model.bounds import FEW
from simenv.model.task_rules import MAX_REASON_CHARS, MAX_WORKERS
from simenv.wire.messages.common import AdminRequest, ClientRequest, Number, Reply

Name = Annotated[str, msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
Workers = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]


class GetPools(ClientRequest, frozen=True, tag=25):
    """Request the state of all pools and nodes; answered by Pools."""


class Scale(AdminRequest, frozen=True, tag=26):
    """Set the smallest and the largest number of workers of a pool; answered by Pools when
    stored."""

    pool: Name
    least: Workers
    most: Workers
    force: bool = False  # also if the nodes cannot hold so many workers


class DrainNode(AdminRequest, frozen=True, tag=27):
    """Drain a node: start nothing more on it and let running tasks end. Answered by Pools when
    stored."""

    node: Name
    reason: Reason


class ResumeNode(AdminRequest, frozen=True, tag=28):
    """Use a drained or lost node again, or a pool in quarantine. Answered by Pools."""

    name: Name


class Pools(Reply, frozen=True, tag=25):
    """Present state of all pools and nodes."""

    pools: list[PoolInfo]
    nodes: list[NodeInfo]


PUBLIC_KEY_CHARS = 40  # 32 bytes in ZeroMQ's base 85
KeyName = Annotated[str, msgspec.Meta(max_length=64)]
PublicKey = Annotated[str, msgspec.Meta(min_length=PUBLIC_KEY_CHARS, max_length=PUBLIC_KEY_CHARS)]


class KeyInfo(msgspec.Struct, frozen=True):
    """One accepted key. `at_s`: time at which it was added, seconds since 1970."""

    name: str  # of its owner
    role: str  # client, admin, worker
    public_key: PublicKey
    at_s: float


class AddKey(AdminRequest, frozen=True, tag=20):
    """Accept a key from now on; answered by Keys."""

    name: KeyName
    role: KeyName
    public_key: PublicKey


class RevokeKey(AdminRequest, frozen=True, tag=21):
    """Revoke a key; its connections are closed at once. Answered by Keys."""

    name: KeyName


class GetKeys(AdminRequest, frozen=True, tag=22):
    """Request all accepted keys; answered by Keys."""


class Keys(Reply, frozen=True, tag=20):
    """All accepted keys."""

    keys: list[KeyInfo]


class GetLimits(ClientRequest, frozen=True, tag=44):
    """Request the limits and usage of the sender, or of all owners for an admin. Answered by
    OwnerReports."""


class SetLimits(AdminRequest, frozen=True, tag=45):
    """Replace some limits of the owner of a key; answered by OwnerReports, when stored.

    `values`: names of OwnerLimits and their values, added to those that were set before. `reset`:
    remove the limits that were set before, so that the configuration's limits hold again.
    """

    owner: KeyName
    values: Annotated[dict[KeyName, Number], FEW] = msgspec.field(default_factory=dict)
    reset: bool = False


class OwnerReports(Reply, frozen=True, tag=44):
    owners: list[OwnerReport]
