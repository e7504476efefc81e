"""Messages about metrics and telemetry series.

Metrics are counted since the start of the service; series are samples of them that the service has
stored. Neither has data of a task or of a user. Tags from 60.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model.program import Text
from simenv.wire.messages.base import AdminRequest, ClientRequest, Reply
from simenv.wire.messages.credentials import Time

# Bucket i of a histogram has the durations above 2^(i - 1 + LEAST) s, up to 2^(i + LEAST) s; the
# first one also has shorter, the last one also longer ones. About 1 us to 194 days.
LEAST_EXPONENT = -20
BUCKETS = 45
OTHER = "other"  # label in place of those beyond MAX_LABELS
MAX_LABELS = 200  # values of one label
MAX_POINTS = 5_000  # of an answer to GetSeries


class DurationHistogram(msgspec.Struct, frozen=True, array_like=True):
    """Durations in buckets, see LEAST_EXPONENT. `counts`: not cumulative, BUCKETS numbers."""

    counts: tuple[int, ...]
    sum_s: float


class PoolMetrics(msgspec.Struct, frozen=True):
    """A configured pool, with the pools made on demand for it. Counts of tasks, workers and
    refusals are since the start of the service."""

    name: str
    done: int
    failed: int
    cancelled: int
    expired: int
    waiting: int
    oldest_s: float  # wait of the waiting task that was accepted first; 0: none waits
    slots_granted: int
    workers: dict[str, int]  # by state
    workers_lost: int
    workers_bytes: int  # resident memory, by their last heartbeats
    workers_cpu_s: float  # processor time of the present workers, by their last heartbeats
    wait: DurationHistogram  # from acceptance until a task that ended was sent to its worker
    run: DurationHistogram
    slot_s: float = 0.0  # that tasks used, on all their slots; of running ones up to now


class NodeMetrics(msgspec.Struct, frozen=True):
    """A node. `cpu_s` and `memory_used_bytes` are of the whole node, by the heartbeats of workers
    on it; -1: not known."""

    name: str
    state: str  # up, drained or lost
    slots: int
    slots_granted: int
    memory_bytes: int  # for tasks
    memory_granted_bytes: int
    gpus: int
    gpus_granted: int
    cpu_s: float = -1.0  # busy time of all processors since the node's start
    memory_used_bytes: int = -1


class DeviceMetrics(msgspec.Struct, frozen=True):
    """Medians over the qubits or gates of a device; NaN: not known."""

    name: str  # the pool's
    t1_us: float
    t2_us: float
    error_1q: float
    error_2q: float
    readout_error: float
    calibrated_s: float  # seconds since 1970; 0: not known
    certified: float = float("nan")  # share of claims that the last certificate confirmed
    score: float = float("nan")  # of the last comparison with counts


def with_figures(device: DeviceMetrics, found: dict[str, float]) -> DeviceMetrics:
    """Return a device with figures that were recorded by SetDeviceFigure."""
    return msgspec.structs.replace(device, **found) if found else device


class AccountMetrics(msgspec.Struct, frozen=True):
    """Usage of an account by tasks that ended since the start of the service."""

    name: str  # "": tasks without an account
    slot_s: float
    month_units: float  # of this calendar month, with the accounts below
    budget_units: float  # of a month; 0: no limit


class ServiceMetrics(msgspec.Struct, frozen=True):
    """The service's process and disk. Counts are since its start."""

    version: str
    at_s: float  # wall clock, seconds since 1970
    started_s: float
    accepted: int  # tasks, since ever
    refused: int  # submissions
    running: int
    lost_attempts: int
    queued_bytes: int
    cpu_s: float
    resident_bytes: int
    open_files: int
    threads: int
    disk_bytes: int  # of the file system of the journal
    disk_free_bytes: int
    journal_works: bool
    draining: bool
    commit: DurationHistogram  # of the journal
    loop_pass: DurationHistogram  # of the event loop, with messages
    internal_errors: int = 0  # faults of the service, each with a traceback in its log
    client_requests: int = 0  # submissions and others, of all clients, without pings


class GetMetrics(AdminRequest["Metrics"], frozen=True, tag=60):
    """Request the metrics of the environment; answered by Metrics. A gateway may send it, too."""


class Metrics(Reply, frozen=True, tag=60):
    service: ServiceMetrics
    pools: list[PoolMetrics]
    nodes: list[NodeMetrics]
    devices: list[DeviceMetrics]
    accounts: list[AccountMetrics]


class GetSeries(ClientRequest["Series"], frozen=True, tag=61):
    """Request a stored series; answered by Series. `name`: "" requests the names alone. `since_s`,
    `until_s`: seconds since 1970; 0: no bound. `step_s`: distance of the points, which is enlarged
    where only coarser samples are kept or more than MAX_POINTS would be needed; 0: chosen by the
    service."""

    name: Text = ""
    since_s: Time = 0.0
    until_s: Time = 0.0
    step_s: Time = 0.0


class SetDeviceFigure(AdminRequest["Series"], frozen=True, tag=62):
    """Record a figure of a device that a comparison with counts has found; answered by Series, with
    that figure alone, when stored."""

    device: Text
    figure: Text  # certified or score
    value: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]  # 0 to 1, which the handler checks


class Series(Reply, frozen=True, tag=61):
    """Points of a series in the order of time: the begin of each step, in seconds since 1970, with
    mean, least and largest sample in it. Steps without samples are left out."""

    name: str
    unit: str
    at_s: list[float]
    mean: list[float]
    least: list[float]
    most: list[float]
    names: list[str] = msgspec.field(default_factory=list)  # all series, if `name` is ""
