"""Answers of the admission bindings; `envelopes.plain` converts them to plain data.

Ids are whole numbers from 1 on; times ending in `_ns` are ns since 1970, or durations. A name that
was not given is None: these fields are always present.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.model import AdmissionReason, ReservationState

DECISIONS = {"accepted": 1, "delayed": 2, "rejected": 3}
STATE_CODES: dict[ReservationState, int] = {
    ReservationState.PENDING: 1,
    ReservationState.ACTIVE: 2,
    ReservationState.RELEASED: 3,
    ReservationState.EXPIRED: 4,
    ReservationState.CANCELLED: 5,
}


def reason_text(code: int) -> str:
    """Text of a reason code for hosts: `accepted`, or `reason-7`. The code is formatted as a plain
    number: in a process that initialises Python twice, as DEFw does, the text of an IntEnum is its
    repr."""
    return (
        "accepted"
        if code in (AdmissionReason.NONE, AdmissionReason.ACCEPTED)
        else f"reason-{int(code):d}"
    )


class AdmissionDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer of `evaluate` and `reserve`. `reservation_id`: set by an accepted `reserve` only.
    `state`: state of the service if that is the reason of a rejection. `bound_ns`: a task of the
    reservation starts within this time after its acceptance; 0: no bound."""

    status: str
    decision: int
    request_id: str | None
    device_id: str
    scope_id: str | None
    reservation_id: int | None
    reason: str
    reason_code: int
    credits_required: int
    rate_required: int
    capacity_available: int
    estimated_total_ns: int
    estimated_start_ns: int
    estimated_finish_ns: int
    retry_after_ns: int
    message: str
    bound_ns: int = 0
    state: str | None = None


class ReservationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_reservation`. `*_consumed`: spent units and units held for unfinished
    tasks."""

    reservation_id: int
    request_id: str | None
    device_id: str
    scope_id: str | None
    user_id: str | None
    job_id: str | None
    workload_kind: str
    state: ReservationState
    state_code: int
    credits_reserved: int
    credits_consumed: int
    rate_reserved: int
    rate_consumed: int
    quantum_budget_ns: int
    estimated_total_ns: int
    actual_total_ns: int
    created_at_ns: int
    expires_at_ns: int
    request_metadata: dict[str, str]


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `renew`, `release` and `cancel`. The status "pending" means that tasks of the
    reservation have not ended; `pending_qtask_ids` lists those that came through this QPM."""

    status: str
    reservation_id: int
    reason: str | None = None
    pending_qtask_ids: list[int] | None = None


class ProfileRecord(msgspec.Struct, frozen=True):
    """Answer of `get_device_profile`; `configure_device_profile` adds a status."""

    version: int
    device_profile: dict[str, Any]


class Policy(msgspec.Struct, frozen=True):
    """Answer of `get_admission_policy`; `set_admission_policy` adds a status."""

    version: int
    configuration: dict[str, Any]
