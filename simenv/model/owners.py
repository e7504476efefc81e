"""Limits of an owner of tasks, and the owner's present usage.

An owner is the name of a key; "" is the environment's own user, who has no limits. Terms are those
of Slurm's QOS limits and Kubernetes' ResourceQuota. An older client ignores unknown fields of a
newer service, since both are encoded as maps.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from simenv.errors import OptionError
from simenv.model.task_rules import MAX_PRIORITY


class OwnerLimits(msgspec.Struct, frozen=True):
    """The most that one owner may use. 0 means no limit, but for `max_priority`."""

    max_queued_tasks: int = 0  # unfinished tasks, running tasks included
    max_queued_bytes: int = 0  # of programs and parameter values of unfinished tasks
    max_running_slots: int = 0  # slots of running tasks
    max_kept_bytes: int = 0  # of stored results
    max_reservations: int = 0  # active reservations at a time
    max_reservation_s: int = 0  # from creation or renewal of a reservation to its expiry
    max_reserved_percent: int = 0  # reserved share of the workers of a pool
    max_priority: int = MAX_PRIORITY  # of a task
    max_run_s: int = 0  # of one task, also without run_timeout_s
    max_messages_per_s: int = 0  # of all connections; twice as many in a burst
    max_state_bytes: int = 0  # of states that workers keep between parts of circuits


class OwnerUse(msgspec.Struct, frozen=True):
    """Present usage of one owner."""

    queued_tasks: int = 0
    queued_bytes: int = 0
    running_slots: int = 0
    kept_bytes: int = 0
    reservations: int = 0
    reserved_workers: int = 0
    state_bytes: int = 0


class OwnerReport(msgspec.Struct, frozen=True):
    """The limits and the use of one owner. `role` is "" for the owner of a revoked key."""

    owner: str
    role: str
    limits: OwnerLimits
    use: OwnerUse


UNLIMITED = OwnerLimits()
CLIENT_LIMITS = OwnerLimits(
    max_queued_tasks=250_000,
    max_queued_bytes=256 * 2**20,
    max_kept_bytes=10 * 2**30,
    max_reservations=64,
    max_reservation_s=86_400,
    max_reserved_percent=50,
    max_priority=100,
    max_run_s=86_400,
    max_messages_per_s=5_000,
)
"""Defaults of the role client: far above what one user needs, and small enough that an environment
of 2 GB of memory outlives a client who uses all of it."""


def merged(base: OwnerLimits, values: Mapping[str, int]) -> OwnerLimits:
    """Return limits with some of their values replaced. Raises OptionError, which names the key or
    the value that is not allowed."""
    names = OwnerLimits.__struct_fields__
    for key, value in values.items():
        if key not in names:
            raise OptionError(f"there is no limit {key[:64]!r}", hint=f"one of: {', '.join(names)}")
        check_value(key, value)
    return OwnerLimits(**{key: values.get(key, getattr(base, key)) for key in names})


def check_value(key: str, value: int) -> None:
    """Check the value of a limit. Raises OptionError if it is not allowed."""
    maximum = {"max_reserved_percent": 100, "max_priority": MAX_PRIORITY}.get(key, 2**50)
    if not 0 <= value <= maximum:
        hint = f"a whole number, 0 to {maximum}" + (
            "" if key == "max_priority" else "; 0: no limit"
        )
        raise OptionError(f"{key} = {value}", hint=hint)
