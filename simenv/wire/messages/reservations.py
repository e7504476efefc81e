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
from simenv.wire.messages.common import Number

Name = Annotated[str, msgspec.Meta(max_length=255)]
ReasonText = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


class Reserve(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """Request a reservation; answered by DecisionReply when stored. `dry`: only report the
    decision."""

    request: Number
    ask: ReservationRequest
    dry: bool = False


class Renew(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Set the expiry of a reservation to `ttl_ns` from now; answered by Reservations with it."""

    request: Number
    reservation: Number
    ttl_ns: Number


class Release(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """End a reservation; `cancel`: also cancel its tasks. Answered by Released. Idempotent."""

    request: Number
    reservation: Number
    reason: ReasonText = ""
    cancel: bool = False


class GetReservations(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """Request one reservation, or with 0 all stored ones: those of the sender, or of all owners for
    an admin. Answered by Reservations."""

    request: Number
    reservation: Number = 0


class SetProfile(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Set the profile of a device; answered by ProfileReply when stored. `device` "": the whole
    environment."""

    request: Number
    device: Name
    profile: DeviceProfile


class GetProfile(msgspec.Struct, frozen=True, array_like=True, tag=35):
    request: Number
    device: Name


class SetPolicy(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """Set the admission policy of a device; answered by PolicyReply when stored. It is refused if
    `expected` is neither -1 nor the present version."""

    request: Number
    device: Name
    policy: AdmissionPolicy
    expected: int = -1


class GetPolicy(msgspec.Struct, frozen=True, array_like=True, tag=37):
    request: Number
    device: Name


class GetTarget(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """Request the control state of a device; answered by TargetReply."""

    request: Number
    device: Name


class SteerTarget(msgspec.Struct, frozen=True, array_like=True, tag=39):
    """Change the state of a device; answered by TargetReply when stored. `verb`: pause, resume or
    drain."""

    request: Number
    device: Name
    verb: Name
    reason: ReasonText = ""
    mode: Name = ""
    timeout_s: float = 0.0


class SetDispatch(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Limit the number of tasks of a device that workers hold at a time; 0: no limit. Answered by
    TargetReply."""

    request: Number
    device: Name
    max_inflight: Number


class SetOrder(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Set the queue policy of a device; answered by TargetReply."""

    request: Number
    device: Name
    policy: Name
    options: Annotated[tuple[tuple[Name, Name], ...], FEW] = ()


class DecisionReply(msgspec.Struct, frozen=True, array_like=True, tag=30):
    request: int
    decision: Decision


class Reservations(msgspec.Struct, frozen=True, array_like=True, tag=31):
    request: int
    reservations: list[ReservationInfo]


class Released(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Answer to Release. `running`: tasks of the reservation that have not ended; it ends with the
    last of them."""

    request: int
    info: ReservationInfo
    running: list[int]


class ProfileReply(msgspec.Struct, frozen=True, array_like=True, tag=34):
    request: int
    version: int
    changed: bool
    profile: DeviceProfile


class PolicyReply(msgspec.Struct, frozen=True, array_like=True, tag=36):
    request: int
    version: int
    changed: bool
    policy: AdmissionPolicy


class TargetReply(msgspec.Struct, frozen=True, array_like=True, tag=38):
    request: int
    changed: bool
    info: TargetInfo
