"""Messages about pools and nodes, reservations, admission policies and controls of devices.

A reservation belongs to its owner; changes of the others are for administrators.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import NodeInfo, PoolInfo, reservations as model_reservations
from simenv.model.program import FEW
from simenv.model.task_rules import MAX_REASON_CHARS, MAX_WORKERS
from simenv.wire.messages.base import AdminRequest, ClientRequest, Number, Reply, Seconds

Name = Annotated[str, msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
Workers = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]


class GetPools(ClientRequest["Pools"], frozen=True, tag=25):
    """Request the state of all pools and nodes."""


class Scale(AdminRequest["Pools"], frozen=True, tag=26):
    """Set the smallest and the largest number of workers of a pool; answered by Pools when
    stored."""

    pool: Name
    least: Workers
    most: Workers
    force: bool = False  # also if the nodes cannot hold so many workers


class DrainNode(AdminRequest["Pools"], frozen=True, tag=27):
    """Drain a node: start nothing more on it and let running tasks end. Answered by Pools when
    stored."""

    node: Name
    reason: Reason


class ResumeNode(AdminRequest["Pools"], frozen=True, tag=28):
    """Use a drained or lost node again, or a pool in quarantine."""

    name: Name


class Pools(Reply, frozen=True, tag=25):
    """Present state of all pools and nodes."""

    pools: list[PoolInfo]
    nodes: list[NodeInfo]


class AddCalendarEntry(ClientRequest["CalendarEntries"], frozen=True, tag=63):
    """Plan a maintenance, for administrators, or a reservation of the sender. Its id and owner are
    set by the service. Answered by CalendarEntries, with this entry, when stored."""

    entry: model_reservations.CalendarEntry


class RemoveCalendarEntry(ClientRequest["CalendarEntries"], frozen=True, tag=64):
    """Remove an entry; an occurrence that is under way ends. Answered by CalendarEntries, with the
    removed entry, when stored."""

    entry: Number


class GetCalendar(ClientRequest["CalendarEntries"], frozen=True, tag=65):
    """Request all maintenance, and the planned reservations that the sender may see; answered by
    CalendarEntries."""


class CalendarEntries(Reply, frozen=True, tag=63):
    entries: list[model_reservations.CalendarEntry]


ReasonText = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]


class Reserve(ClientRequest["DecisionReply"], frozen=True, tag=30):
    """Request a reservation; answered by DecisionReply when stored. `dry`: only report the
    decision. `owner`: its user, "" the sender; of another one, and with the scope of a batch job,
    administrators alone make one."""

    ask: model_reservations.ReservationRequest
    dry: bool = False
    owner: Name = ""


class Renew(ClientRequest["Reservations"], frozen=True, tag=31):
    """Set the expiry of a reservation to `ttl_ns` from now; answered by Reservations with it."""

    reservation: Number
    ttl_ns: Number


class Release(ClientRequest["Released"], frozen=True, tag=32):
    """End a reservation; `cancel`: also cancel its tasks. Answered by Released. Idempotent."""

    reservation: Number
    reason: ReasonText = ""
    cancel: bool = False


class GetReservations(ClientRequest["Reservations"], frozen=True, tag=33):
    """Request one reservation, or with 0 all stored ones: those of the sender, or of all owners for
    an admin."""

    reservation: Number = 0


class SetProfile(AdminRequest["ProfileReply"], frozen=True, tag=34):
    """Set the profile of a device; answered by ProfileReply when stored. `device` "": the whole
    environment."""

    device: Name
    profile: model_reservations.DeviceProfile


class GetProfile(ClientRequest["ProfileReply"], frozen=True, tag=35):
    device: Name


class SetPolicy(AdminRequest["PolicyReply"], frozen=True, tag=36):
    """Set the admission policy of a device; answered by PolicyReply when stored. It is refused if
    `expected` is neither -1 nor the present version."""

    device: Name
    policy: model_reservations.AdmissionPolicy
    expected: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] = -1


class GetPolicy(ClientRequest["PolicyReply"], frozen=True, tag=37):
    device: Name


class GetTarget(ClientRequest["TargetReply"], frozen=True, tag=38):
    """Request the control state of a device."""

    device: Name


class SteerTarget(AdminRequest["TargetReply"], frozen=True, tag=39):
    """Change the state of a device; answered by TargetReply when stored. `verb`: pause, resume or
    drain."""

    device: Name
    verb: Name
    reason: ReasonText = ""
    mode: Name = ""
    timeout_s: Seconds = 0.0


class SetDispatch(AdminRequest["TargetReply"], frozen=True, tag=40):
    """Limit the number of tasks of a device that workers hold at a time; 0: no limit. Answered by
    TargetReply."""

    device: Name
    max_inflight: Number


class SetOrder(AdminRequest["TargetReply"], frozen=True, tag=41):
    """Set the queue policy of a device."""

    device: Name
    policy: Name
    options: Annotated[tuple[tuple[Name, Name], ...], FEW] = ()


class DecisionReply(Reply, frozen=True, tag=30):
    decision: model_reservations.Decision


class Reservations(Reply, frozen=True, tag=31):
    reservations: list[model_reservations.ReservationInfo]


class Released(Reply, frozen=True, tag=32):
    """Answer to Release. `running`: tasks of the reservation that have not ended; it ends with the
    last of them."""

    info: model_reservations.ReservationInfo
    running: list[int]


class ProfileReply(Reply, frozen=True, tag=34):
    version: int
    changed: bool
    profile: model_reservations.DeviceProfile


class PolicyReply(Reply, frozen=True, tag=36):
    version: int
    changed: bool
    policy: model_reservations.AdmissionPolicy


class TargetReply(Reply, frozen=True, tag=38):
    changed: bool
    info: model_reservations.TargetInfo
