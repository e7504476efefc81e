"""Answers of the scheduler binding; `envelopes.plain` converts them to plain data."""

from __future__ import annotations

from typing import Any

import msgspec


class SchedulerControl(msgspec.Struct, frozen=True):
    """Pause and drain state of a device. `dispatch_depth`: tasks that are assigned to workers."""

    paused: bool
    draining: bool
    drain_mode: str | None
    drain_timeout_s: float | None
    drain_started_at_ns: int | None
    pause_reason: str | None
    dispatch_depth: int


class SchedulerPolicy(msgspec.Struct, frozen=True):
    """Queue policy of a device."""

    policy_name: str
    options: dict[str, str]


class DispatchLimits(msgspec.Struct, frozen=True):
    """Limits of dispatch. `max_inflight`: tasks assigned to workers at a time; 0: no limit."""

    max_inflight: int


class SchedulerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_scheduler_status`. Counts cover all callers: `task_count` unfinished tasks, of
    these `pending_capacity_count` tasks that wait for credits and `runtime_task_count` all others;
    of the tasks with a worker, `selected_task_count` have not started and `provider_inflight_count`
    have."""

    target_id: str
    state: str
    scheduler_available: bool
    threading_mode: str
    policy: SchedulerPolicy
    control: SchedulerControl
    versions: dict[str, int]
    task_count: int
    pending_capacity_count: int
    runtime_task_count: int
    selected_task_count: int
    provider_inflight_count: int
    dispatch_limits: DispatchLimits


class Steered(msgspec.Struct, frozen=True):
    """Answer of pause, resume and drain."""

    status: str
    version: int
    target_id: str
    control: SchedulerControl


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_scheduler_queue_state`: envelopes of the tasks that came through this QPM,
    with `include_restricted` also of others that its owner may see."""

    target_id: str
    include_restricted: bool
    pending_capacity: list[dict[str, Any]]
    scheduler_task_count: int
    selected_qtask_ids: list[int]
    provider_inflight_qtask_ids: list[int]
    dispatch_limits: DispatchLimits
    runtime_tasks: list[dict[str, Any]]
