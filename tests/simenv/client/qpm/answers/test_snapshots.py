"""Forecasts of a device: told where they are known, and of the moment they are told at."""

from __future__ import annotations

import msgspec

from simenv.client.qpm.answers import snapshots
from simenv.client.qpm.answers.snapshots import DeviceSnapshot
from simenv.model import HeldCapacity, NodeInfo, PoolInfo, ServiceInfo, TargetInfo

NODE = NodeInfo("n1", "up", "", 4, 1, 1_000, 300, 2, 2)
POOLS = (
    PoolInfo("main", "any", 2, 2, 1, 3, "up", "", held_us=250.0),
    PoolInfo("main.x2", "any", 0, 0, 0, 0, "quarantined", "broken", on_demand=True),
)
TARGET = TargetInfo(
    "main", "active", 3, "fifo", (), 5,
    queued=3, parked=2, sent=1, running=1, queued_ns=9_000, wait_ns=7_000_000,
    reservations=1, held=HeldCapacity(6, 6, 0), in_flight=HeldCapacity(2, 2, 0),
)  # fmt: skip
SERVICE = ServiceInfo(
    "env", "1", 1, "n1", 1, 1.0, "process", 5, 1, 0, 0, 0, 0, 0, 0, 0.0, 4, 1, 1_000, 20, 0, 0.0,
    POOLS, (), nodes=(NODE,),
)  # fmt: skip
SEEN = DeviceSnapshot(
    "env", "env/main", "operator", 1_000_000_000, SERVICE, POOLS, TARGET,
    {"name": "credit"}, 40, begins=True,
)  # fmt: skip


def test_known_wait_and_start_are_estimated() -> None:
    metrics = snapshots.queue(SEEN)
    assert (metrics.wait_estimate.available, metrics.wait_estimate.estimated_ns) == (
        True,
        7_000_000,
    )
    assert metrics.estimated_start.estimated_ns == 1_007_000_000
    assert metrics.estimated_start.reason is None
    assert metrics.estimated_queued_device_time.estimated_ns == 9_000


def test_unknown_wait_is_unavailable_with_reason() -> None:
    lost = msgspec.structs.replace(SEEN, target=msgspec.structs.replace(TARGET, wait_ns=-1))
    for estimate in (snapshots.wait(lost), snapshots.start(lost)):
        assert (estimate.available, estimate.estimated_ns) == (False, None)
        assert estimate.reason == "telemetry-unavailable"


def test_held_in_flight_and_available_capacity_are_counted_apart() -> None:
    snapshot = snapshots.capacity(SEEN, "s")
    held, flying = snapshot.held_capacity, snapshot.in_flight_capacity
    assert (held.qtask_count, held.estimated_ns, held.baseline_units, held.credits) == (
        3, 9_000, 6, 6,
    )  # fmt: skip
    assert (flying.qtask_count, flying.estimated_ns, flying.credits) == (2, 250_000, 2)
    assert (snapshot.pending_qtask_count, snapshot.scheduler_task_count) == (2, 5)
    available_capacity = snapshot.available_capacity
    assert (
        available_capacity.slots,
        available_capacity.workers,
        available_capacity.memory_bytes,
        available_capacity.credits,
    ) == (3, 1, 700, 40)
    assert msgspec.to_builtins(available_capacity).keys() >= {"credits"}
    assert "rate_units" not in msgspec.to_builtins(available_capacity)


def test_device_that_starts_no_tasks_is_not_available() -> None:
    assert SEEN.is_available
    assert not msgspec.structs.replace(SEEN, begins=False).is_available
    paused = msgspec.structs.replace(TARGET, state="paused")
    assert not snapshots.begins(TARGET, paused)
    assert not msgspec.structs.replace(SEEN, pools=POOLS[1:]).is_available
