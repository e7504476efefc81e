"""Messages about reservations, admission policies and device controls.

A reservation belongs to its owner; changes of a device are for administrators.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model.bounds import FEW
from simenv.model.reservations import (
    AdmissionPolicy,
    Decision,
    DeviceProfile,
    ReservationInfo,
    ReservationRequest,
    TargetInfo,
)
from simenv.model.task_rules import MAX_REASON_CHARS
from simenv.wire.messages.common import AdminRequest, ClientRequest, Number, Reply

Name = Annotated[str, msgspec.Meta(max_length=255)]
ReasonText = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


class Reserve(ClientRequest, frozen=True, tag=30):
    """Request a reservation; answered by DecisionReply when stored. `dry`: only report the
    decision."""

    ask: ReservationRequest
    dry: bool = False


class Renew(ClientRequest, frozen=True, tag=31):
    """Set the expiry of a reservation to `ttl_ns` from now; answered by Reservations with it."""

    reservation: Number
    ttl_ns: Number


class Release(ClientRequest, frozen=True, tag=32):
    """End a reservation; `cancel`: also cancel its tasks. Answered by Released. Idempotent."""

    reservation: Number
    reason: ReasonText = ""
    cancel: bool = False


class GetReservations(ClientRequest, frozen=True, tag=33):
    """Request one reservation, or with 0 all stored ones: those of the sender, or of all owners for
    an admin. Answered by Reservations."""

    reservation: Number = 0


class SetProfile(AdminRequest, frozen=True, tag=34):
    """Set the profile of a device; answered by ProfileReply when stored. `device` "": the whole
    environment."""

    device: Name
    profile: DeviceProfile


class GetProfile(ClientRequest, frozen=True, tag=35):
    device: Name


class SetPolicy(AdminRequest, frozen=True, tag=36):
    """Set the admission policy of a device; answered by PolicyReply when stored. It is refused if
    `expected` is neither -1 nor the present version."""

    device: Name
    policy: AdmissionPolicy
    expected: int = -1


class GetPolicy(ClientRequest, frozen=True, tag=37):
    device: Name


class GetTarget(ClientRequest, frozen=True, tag=38):
    """Request the control state of a device; answered by TargetReply."""

    device: Name


class SteerTarget(AdminRequest, frozen=True, tag=39):
    """Change the state of a device; answered by TargetReply when stored. `verb`: pause, resume or
    drain."""

    device: Name
    verb: Name
    reason: ReasonText = ""
    mode: Name = ""
    timeout_s: float = 0.0


class SetDispatch(AdminRequest, frozen=True, tag=40):
    """Limit the number of tasks of a device that workers hold at a time; 0: no limit. Answered by
    TargetReply."""

    device: Name
    max_inflight: Number


class SetOrder(AdminRequest, frozen=True, tag=41):
    """Set the queue policy of a device; answered by TargetReply."""

    device: Name
    policy: Name
    options: Annotated[tuple[tuple[Name, Name], ...], FEW] = ()


class DecisionReply(Reply, frozen=True, tag=30):
    decision: Decision


class Reservations(Reply, frozen=True, tag=31):
    reservations: list[ReservationInfo]


class Released(Reply, frozen=True, tag=32):
    """Answer to Release. `running`: tasks of the reservation that have not ended; it ends with the
    last of them."""

    info: ReservationInfo
    running: list[int]


class ProfileReply(Reply, frozen=True, tag=34):
    version: int
    changed: bool
    profile: DeviceProfile


class PolicyReply(Reply, frozen=True, tag=36):
    version: int
    changed: bool
    policy: AdmissionPolicy


class TargetReply(Reply, frozen=True, tag=38):
    changed: bool
    info: TargetInfo
