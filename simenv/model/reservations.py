"""Reservations: requests, decisions and states. Times are wall-clock nanoseconds.

A reservation is a claim of one owner on one device: credits or rate of its admission policy, and
optionally dedicated workers. Numbers of `reason` are those of QPM hosts, see `AdmissionReason`.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from simenv.model.program import FEW, Text

MAX_LABEL_CHARS = 255  # of a name or a label in a request, a profile or a policy
MAX_INFLIGHT = 2**31 - 1  # tasks of one device at once
APP = "app"  # metadata key of a reservation: the run of the application that made it
BATCH_ACCOUNT = "account"  # the same: the account of the job that it is made for
# Begins the scope of reservations of batch jobs, which the batch scheduler bounds: administrators
# alone make them, and the limits of their owner do not apply.
JOB_SCOPE = "slurm/"


class ReservationState(enum.StrEnum):
    """PENDING -> ACTIVE -> RELEASED | EXPIRED | CANCELLED."""

    PENDING = "pending"
    ACTIVE = "active"
    RELEASED = "released"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class AdmissionReason(enum.IntEnum):
    """Reason code of an admission decision, numbered as in QPM hosts."""

    NONE = 0
    ACCEPTED = 1
    DEVICE_NOT_FOUND = 2
    DEVICE_UNAVAILABLE = 3
    INVALID_REQUEST = 4
    ESTIMATOR_FAILED = 5
    POLICY_FAILED = 6
    INSUFFICIENT_CREDITS = 7
    INSUFFICIENT_RATE = 8
    TOO_LARGE = 9
    WALLTIME_INFEASIBLE = 10
    NOT_FOUND = 11
    TERMINAL = 12
    OVER_LIMIT = 13
    UNSUPPORTED = 14
    EXISTS = 15
    ACTIVE_RESERVATIONS = 16
    SCOPE_LIMIT = 17
    NOT_AUTHORISED = 18

    @property
    def text(self) -> str:
        """Number and words of the reason, for an error message: "reason 9, too large"."""
        return f"reason {self.value}, {self.name.lower().replace('_', ' ')}"


class Workload(msgspec.Struct, frozen=True, array_like=True):
    """The size of `count` equal circuits."""

    count: int = 1
    qubits: int = 0
    depth: int = 0
    gates_1q: int = 0
    gates_2q: int = 0
    measurements: int = 0
    shots: int = 0


class ReservationRequest(msgspec.Struct, frozen=True):
    """Request for a reservation. 0 and "" mean that a value is not stated."""

    request_id: Text = ""
    device: Text = ""  # a pool; "": the whole environment
    scope: Text = ""
    user: Text = ""
    job: Text = ""
    workload_kind: Text = "quantum"  # or "hybrid"
    ttl_ns: int = 0  # 0: the device's own default
    walltime_ns: int = 0
    classical_ns: int = 0
    overhead_ns: int = 0
    workload: Workload = Workload()
    workers: int = 0  # dedicated to it until it ends
    bound_ns: int = 0  # requested bound of the time from acceptance of a task to its begin
    account: Text = ""  # charged for dedicated workers while they run nothing, and for its tasks
    # Other information of the request, for display.
    metadata: Annotated[tuple[tuple[Text, Text], ...], FEW] = ()


class Decision(msgspec.Struct, frozen=True):
    """Answer to a request. `status`: accepted, delayed (retry after `retry_after_ns`) or rejected
    (a retry cannot succeed)."""

    status: str
    code: int  # an AdmissionReason
    message: str
    reservation: int = 0
    units: int = 0  # of the device's baseline circuit
    credits_required: int = 0
    rate_required: int = 0
    capacity_available: int = 0  # credits or rate, by the policy; 0 where it is unlimited
    estimated_total_ns: int = 0
    estimated_start_ns: int = 0
    estimated_finish_ns: int = 0
    retry_after_ns: int = 0
    bound_ns: int = 0  # promised; 0: none


class ReservationInfo(msgspec.Struct, frozen=True):
    """State and usage of one reservation."""

    id: int
    request_id: str
    device: str
    scope: str
    owner: str
    user: str
    job: str
    workload_kind: str
    state: ReservationState
    created_ns: int
    expires_ns: int
    credits_reserved: int = 0
    credits_consumed: int = 0
    credits_held: int = 0  # of those consumed: for tasks that have not ended
    rate_reserved: int = 0
    rate_consumed: int = 0
    quantum_budget_ns: int = 0
    estimated_total_ns: int = 0
    actual_total_ns: int = 0
    workers: int = 0  # requested
    workers_kept: int = 0  # dedicated now
    bound_ns: int = 0
    parked: int = 0  # tasks that wait for credits
    waiting: int = 0
    running: int = 0
    metadata: tuple[tuple[str, str], ...] = ()
    account: str = ""  # charged for it; "": there are no accounts


class DeviceProfile(msgspec.Struct, frozen=True):
    """Parameters of one device for its admission policy. Whole numbers; times in ns."""

    device_id: int = 1
    external_device_id: Text = ""
    max_qubits: int = 0
    max_shots: int = 0
    time_span_ns: int = 0
    baseline: Workload = Workload(1, 5, 10, 20, 10, 5, 1_000)
    one_q_gate_ns: int = 30
    two_q_gate_ns: int = 300
    measurement_ns: int = 1_000
    one_q_transfer_ns: int = 0
    two_q_transfer_ns: int = 0
    measurement_transfer_ns: int = 0
    compile_ns: int = 0
    control_overhead_ns: int = 0
    provider_overhead_ns: int = 0
    total_credits: int = 0
    device_rate: int = 0
    concurrent_jobs: int = 0
    default_ttl_ns: int = 3_600_000_000_000
    max_provider_queue_depth: int = 0


class AdmissionPolicy(msgspec.Struct, frozen=True):
    """Admission policy of a pool. `name`: unlimited, credit or rate. `total_credits` applies to
    credit; `device_rate` and `time_span_ns` apply to rate."""

    name: Text = "unlimited"
    baseline: Workload = Workload(1, 5, 10, 20, 10, 5, 1_000)
    total_credits: int = 0
    device_rate: int = 0
    time_span_ns: int = 0


class HeldCapacity(msgspec.Struct, frozen=True, array_like=True):
    """Capacity that unfinished tasks hold of their reservations."""

    units: int = 0
    credits: int = 0
    rate: int = 0


class TargetInfo(msgspec.Struct, frozen=True):
    """Control state of a device's queue."""

    device: str
    state: str  # "active", "paused", "draining"
    version: int  # grows with each change
    policy: str = "priority"  # or fifo, ordered, round_robin
    options: tuple[tuple[str, str], ...] = ()
    max_inflight: int = 0  # 0: no limit
    pause_reason: str = ""
    drain_mode: str = ""
    drain_timeout_s: float = 0.0
    drain_started_ns: int = 0
    queued: int = 0
    parked: int = 0  # tasks that wait for credits
    sent: int = 0  # with a worker, not begun
    running: int = 0
    queued_ns: int = 0  # expected work that waits, on one slot
    wait_ns: int = -1  # until a task accepted now would begin; -1: not known
    reservations: int = 0  # active ones of it
    held: HeldCapacity = HeldCapacity()  # of those, for tasks that have no worker yet
    in_flight: HeldCapacity = HeldCapacity()  # and for tasks that have one
    wait_off_by: float = 0.0  # typical factor between such waits and real ones; 0: not known
    wait_age_ns: int = 0  # since the forecast was made


MAX_ENTRIES, MAX_OWNED = 1_000, 50  # of the calendar; planned reservations of one owner
MIN_EVERY_S, MAX_EVERY_S = 60.0, 366 * 86_400.0
MAX_LENGTH_S = 366 * 86_400.0
DAY_S = 86_400.0


class CalendarEntry(msgspec.Struct, frozen=True):
    """A planned maintenance of nodes, or a planned reservation. Times are in seconds since 1970.
    `ask`: the reservation to make at `begin_s`; None: a maintenance."""

    begin_s: float  # of the first occurrence
    length_s: float
    every_s: float = 0.0  # from the begin of one occurrence to that of the next; 0: there is one
    node: Text = ""  # of a maintenance; "": all nodes
    reason: Text = ""
    ask: ReservationRequest | None = None
    owner: Text = ""  # of a reservation; "": the environment's own user
    id: int = 0  # 0: not stored yet
    # Whole days are counted by the clocks of this time zone, a name of the IANA's: an occurrence
    # begins at the same local time in summer and in winter. "": by seconds.
    zone: Text = ""
    # End of the last occurrence that was granted, rejected or missed, or of a maintenance during
    # which the nodes `released` were used again.
    decided_s: float = 0.0
    released: Annotated[tuple[Text, ...], msgspec.Meta(max_length=10_000)] = ()

    @property
    def kind(self) -> str:
        """`maintenance` or `reservation`."""
        return "maintenance" if self.ask is None else "reservation"

    def occurrence(self, now_s: float) -> tuple[float, float] | None:
        """Return the begin and the end of the occurrence that is under way or comes next; None if
        all are over."""
        number = self._next(now_s)
        if number and not self.every_s:
            return None
        begin_s = self._begin_s(number)
        return begin_s, begin_s + self.length_s

    def due(self, now_s: float) -> tuple[ReservationRequest, float] | None:
        """Return the request for the rest of the occurrence that is under way and not decided yet,
        and the end of this occurrence; None if there is none, or it is of a maintenance."""
        found = self.occurrence(now_s)
        if found is None or self.ask is None:
            return None
        begin_s, end_s = found
        if now_s < begin_s or self.decided_s >= end_s:
            return None
        left_ns = round((end_s - now_s) * 1e9)
        number = f"calendar-{self.id}-{begin_s:.0f}"
        replace = msgspec.structs.replace
        ask = replace(self.ask, request_id=number, ttl_ns=left_ns, walltime_ns=left_ns)
        return ask, end_s

    def last_end_s(self, now_s: float) -> float:
        """Return the end of the last occurrence that is over; 0: none is."""
        number = self._next(now_s)
        return self._begin_s(number - 1) + self.length_s if number else 0.0

    def _next(self, now_s: float) -> int:
        """Return the number of the first occurrence that is not over, from 0."""
        number = 0
        if self.every_s:  # a change of the clocks moves an occurrence by less than one interval
            number = max(0, int((now_s - self.begin_s) // self.every_s) - 1)
        while now_s >= self._begin_s(number) + self.length_s and (self.every_s or not number):
            number += 1
        return number

    def _begin_s(self, number: int) -> float:
        if not number or not self.zone or self.every_s % DAY_S:
            return self.begin_s + number * self.every_s
        return _local_begin_s(self.begin_s, number * self.every_s, self.zone)


@lru_cache(16_384)
def _local_begin_s(begin_s: float, later_s: float, zone: str) -> float:
    """Return the time at which the clocks of a zone show `later_s` more than at `begin_s`: after
    the gap for a time that they skip, and the first of two."""
    known = time_zone(zone)
    if known is None:  # it was when the entry was made
        return begin_s + later_s
    return (datetime.fromtimestamp(begin_s, known) + timedelta(seconds=later_s)).timestamp()


@lru_cache(256)
def time_zone(name: str) -> tzinfo | None:
    """Return a time zone by its name of the IANA's; None if this machine does not know it."""
    if name == "UTC":  # which needs no data
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
