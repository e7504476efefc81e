"""Messages about pools, nodes, keys, tokens, limits, reservations and policies.

Secret keys are never sent.

Messages about reservations, admission policies and device controls. A reservation belongs to its
owner; changes of a device are for administrators.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from simenv.model import NodeInfo, OwnerReport, PoolInfo, reservations as model_reservations
from simenv.model.program import FEW
from simenv.model.task_rules import MAX_REASON_CHARS, MAX_WORKERS
from simenv.wire.messages.identity import PublicKey
from simenv.wire.messages.queries import AdminRequest, ClientRequest, Number, Reply, Role

Name = Annotated[str, msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)]
Workers = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]
Time = Annotated[float, msgspec.Meta(ge=0.0, le=1e11)]  # seconds


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


KeyName = Annotated[str, msgspec.Meta(max_length=64)]


class KeyInfo(msgspec.Struct, frozen=True):
    """One key. `at_s`, `expires_s`: times at which it was added and will no longer be accepted, in
    seconds since 1970; 0: it does not expire."""

    name: str  # of its owner
    role: str  # client, admin, worker
    public_key: PublicKey
    at_s: float
    expires_s: float = 0.0


class AddKey(AdminRequest["Keys"], frozen=True, tag=20):
    """Accept a key from now on, until `expires_s` (see KeyInfo)."""

    name: KeyName
    role: KeyName
    public_key: PublicKey
    expires_s: Time = 0.0


class RevokeKey(AdminRequest["Keys"], frozen=True, tag=21):
    """Revoke a key; its connections are closed at once."""

    name: KeyName


class RotateKey(ClientRequest["Keys"], frozen=True, tag=29):
    """Accept a new key of a name, with the role and the end of the present one, which is accepted
    for `overlap_s` more seconds. `name` "": that of the sender, who must be an admin for another
    one. Answered by Keys: those of that name."""

    name: KeyName
    public_key: PublicKey
    overlap_s: Time


class GetKeys(AdminRequest["Keys"], frozen=True, tag=22):
    """Request all accepted keys."""


class Keys(Reply, frozen=True, tag=20):
    """Accepted keys. `gateway`: with a new key, URL of the gateway for users elsewhere; "": there
    is none."""

    keys: list[KeyInfo]
    gateway: str = ""


# Bearer tokens of HTTP clients, of which the service stores a hash. A gateway, whose key has the
# role gateway, may do nothing for a user before that user has presented a token: it sends the token
# with a public key of its own, which the service then accepts as the user's for a while.
Secret = Annotated[str, msgspec.Meta(min_length=40, max_length=100)]


class TokenInfo(msgspec.Struct, frozen=True):
    """One token. `number`: eight characters by which it is listed and revoked. `at_s`, `expires_s`:
    when it was made and ends, `used_s`: last use (to ten minutes; 0: never); seconds since 1970.
    `reservation`: that of its user's work on `pool`, under which all of its tasks run, and with
    which it ends; 0: none. `parent`: number of a token with which it ends too; "": none."""

    number: str
    user: str  # "": the environment's own user
    account: str  # charged by default; "": the user's default
    role: str  # client, admin or monitor
    purpose: str  # text of its maker: "notebook"
    at_s: float
    expires_s: float
    used_s: float = 0.0
    reservation: int = 0
    pool: str = ""
    parent: str = ""


class CreateToken(ClientRequest["TokenCreated"], frozen=True, tag=56):
    """Make a token for a user; "" the sender, who must be an admin for another one. `role`: not
    above the sender's, and "" that of the user. `once`: it ends with its first exchange, as a link
    of `simenv web` does. `reservation`: a live one of the user, to which the token's rights are
    bound, and with which it ends; 0: none. A repeat by the user returns the same token. `parent`:
    number of a token of the user with which it ends; "": none."""

    user: KeyName
    account: KeyName
    role: KeyName
    purpose: KeyName
    lifetime_s: Time
    once: bool = False
    reservation: Number = 0
    parent: KeyName = ""


class RevokeToken(ClientRequest["Tokens"], frozen=True, tag=57):
    """Revoke a token: its certificates and connections end at once."""

    number: KeyName


class GetTokens(ClientRequest["Tokens"], frozen=True, tag=58):
    """Request the tokens of the sender, or all for an admin."""


class TokenCreated(Reply, frozen=True, tag=56):
    """The token, 256 random bits, which is shown once. `authority`: PEM certificate of the
    authority by which its user checks the gateway's; "": the gateway has none of its own.
    `gateway`: URL of the gateway for users elsewhere; "": there is none."""

    secret: str
    token: TokenInfo
    authority: str = ""
    gateway: str = ""


class Tokens(Reply, frozen=True, tag=57):
    """Tokens without their secrets."""

    tokens: list[TokenInfo]


class ExchangeToken(ClientRequest["TokenCertificate"], frozen=True, tag=59):
    """Of a gateway: accept this public key as that of the token's user for `lifetime_s` seconds, or
    until the token ends. Sent again before that time has passed."""

    sender: ClassVar[Role] = Role.GATEWAY

    secret: Secret
    public_key: PublicKey


class TokenCertificate(Reply, frozen=True, tag=58):
    """The service accepts the public key for `lifetime_s` seconds from now at `address` ("": it
    listens for its own user alone, who is the user of the token: the connection file serves)."""

    token: TokenInfo
    address: str
    server_key: str
    lifetime_s: float
    once: bool = False  # the token was one for a link, and has ended now


class GetLimits(ClientRequest["OwnerReports"], frozen=True, tag=44):
    """Request the limits and usage of the sender, or of all owners for an admin. Answered by
    OwnerReports."""


class SetLimits(AdminRequest["OwnerReports"], frozen=True, tag=45):
    """Replace some limits of the owner of a key; answered by OwnerReports, when stored. `values`:
    names of Limits and their values, added to those that were set before. `reset`: remove the
    limits that were set before, so that the configuration's limits hold again."""

    owner: KeyName
    values: Annotated[dict[KeyName, Number], FEW] = msgspec.field(default_factory=dict)
    reset: bool = False


class OwnerReports(Reply, frozen=True, tag=44):
    owners: list[OwnerReport]


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
    expected: int = -1


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
    timeout_s: float = 0.0


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
