"""Value types of QRMI. The task status is the package's own if that is installed, so that a
comparison with `qrmi.TaskStatus.Completed` holds; its other classes cannot be constructed from
outside, and have the same attributes here."""

from __future__ import annotations

import enum
import importlib
import importlib.util
from functools import lru_cache
from typing import Any

import msgspec

from simenv.model import TaskState


class Payload(msgspec.Struct, frozen=True):
    """Payload with the fields of `qrmi.Payload.QiskitPrimitive`, which is accepted too: JSON, and
    "sampler"."""

    input: str
    program_id: str


class TaskResult(msgspec.Struct, frozen=True):
    """Result of a task. `value`: JSON."""

    value: str


class Target(msgspec.Struct, frozen=True):
    """Target of a resource. `value`: JSON."""

    value: str


class TaskStatus(enum.Enum):
    """Task status if the package `qrmi` is not installed."""

    Queued = "queued"
    Running = "running"
    Completed = "completed"
    BundleFailure = "failed"
    Cancelled = "cancelled"


NAMES = {
    TaskState.QUEUED: "Queued",
    TaskState.RUNNING: "Running",
    TaskState.DONE: "Completed",
    TaskState.FAILED: "Failed",
    TaskState.EXPIRED: "Failed",
    TaskState.CANCELLED: "Cancelled",
}
# Status of several circuits: the first of these that one of them has.
ORDER = ("Failed", "Cancelled", "Running", "Queued", "Completed")


@lru_cache(1)
def statuses() -> Any:
    """Class of task statuses."""
    if importlib.util.find_spec("qrmi") is None:
        return TaskStatus
    return importlib.import_module("qrmi").TaskStatus
