"""Limits: the most that a subject may use of a resource.

Subjects, from the one whose limit is asked first: the owner of a key or certificate; a class of
service, for each of its users; an account, for all its users and the accounts below it together.
Slurm has the same three: limits of an association of a user (MaxSubmitJobs), of a QOS
(MaxSubmitJobsPerUser) and of an account (GrpSubmitJobs).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from simenv.errors import OptionError
from simenv.model.task_rules import MAX_PRIORITY


class Limits(msgspec.Struct, frozen=True):
    """The most that one subject may use. 0 means no limit, but for `max_priority`."""

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


class ResourceUse(msgspec.Struct, frozen=True):
    """Present use by one subject of what `Limits` bounds."""

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
    limits: Limits
    use: ResourceUse


UNLIMITED = Limits()
CLIENT_LIMITS = Limits(
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


_QUEUED = ("max_queued_tasks", "max_queued_bytes")


class SubjectKind(enum.Enum):
    """Kinds of subjects."""

    OWNER = ("", "limits", Limits.__struct_fields__)
    ACCOUNT = ("account ", "accounts", (*_QUEUED, "max_running_slots", "max_priority", "max_run_s"))
    QOS = ("a user in class ", "qos", (*_QUEUED, "max_priority"))  # `Qos` has a run time of its own

    def __init__(self, text: str, command: str, resources: tuple[str, ...]) -> None:
        self.text = text  # before a name in messages
        self.command = command  # by which an admin sets limits
        self.resources = resources  # that can be limited


class Subject(NamedTuple):
    """Who has limits."""

    kind: SubjectKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.text}{self.name!r}"

    def way_out(self, resource: str) -> str:
        """Return the hint of a refusal: how an admin raises the limit of a resource."""
        return f"an admin can raise it: simenv {self.kind.command} set {self.name} {resource}=..."


def owner_of(name: str) -> Subject:
    """Return the owner of a key or certificate as a subject."""
    return Subject(SubjectKind.OWNER, name)


def merged(base: Limits, values: Mapping[str, int]) -> Limits:
    """Return limits with some of their values replaced. Raises OptionError, which names the key or
    the value that is not allowed."""
    names = Limits.__struct_fields__
    for key, value in values.items():
        if key not in names:
            raise OptionError(f"there is no limit {key[:64]!r}", hint=f"one of: {', '.join(names)}")
        check_value(key, value)
    return Limits(**{key: values.get(key, getattr(base, key)) for key in names})


def check_value(key: str, value: int) -> None:
    """Check the value of a limit. Raises OptionError if it is not allowed."""
    maximum = {"max_reserved_percent": 100, "max_priority": MAX_PRIORITY}.get(key, 2**50)
    if not 0 <= value <= maximum:
        hint = f"a whole number, 0 to {maximum}" + (
            "" if key == "max_priority" else "; 0: no limit"
        )
        raise OptionError(f"{key} = {value}", hint=hint)
