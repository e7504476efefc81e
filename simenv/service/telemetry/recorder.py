"""Samples of an environment's metrics, taken by its service and written by one thread.

The service writes them itself, and not the gateway: it is there whether or not a gateway is, it has
the numbers at hand, and it is the only process that may write to the environment's home. Everybody
else reads through it. Invariant: the loop waits for no disk; while the thread is behind, samples
are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import nan
from pathlib import Path

from simenv.errors import JournalError, NotFoundError, SimenvError
from simenv.service.journal.telemetry_store import DEVICE, SAMPLE_S, TelemetryStore
from simenv.wire.messages.metrics import (
    DurationHistogram,
    GetSeries,
    Metrics,
    PoolMetrics,
    Series,
    SetDeviceFigure,
)

Sample = dict[str, tuple[float, str]]  # value and unit by name of the series
_FIGURES = {
    "t1_us": "us", "t2_us": "us", "error_1q": "", "error_2q": "", "readout_error": "",
}  # fmt: skip
RECORDED = ("certified", "score")  # figures of devices that SetDeviceFigure records
_ENDED = ("done", "failed", "cancelled", "expired")


def sample(now: Metrics, before: Metrics | None) -> Sample:
    """Return the values to store. `before`: the metrics at the last sample, for rates and means
    over the time since then; None: there was none in this start of the service."""
    service, seconds = now.service, 0.0
    if before is not None:
        seconds = now.service.at_s - before.service.at_s
    values: Sample = {
        "running": (service.running, "tasks"),
        "service_memory": (service.resident_bytes, "bytes"),
        "disk_free": (service.disk_free_bytes, "bytes"),
    }
    old_pools = {} if before is None else {pool.name: pool for pool in before.pools}
    totals: dict[str, list[float]] = {}
    for pool in now.pools:
        for name, value, unit in _of_pool(pool, old_pools.get(pool.name), seconds):
            values[f"pool/{pool.name}/{name}"] = value, unit
            totals.setdefault(name, []).append(value)
    for name, unit in (
        ("queue", "tasks"), ("workers", "workers"), ("slots_granted", "slots"),
        ("slots_used", "slots"), ("done_per_s", "1/s"), ("unsuccessful_per_s", "1/s"),
    ):  # fmt: skip
        values[name] = sum(totals.get(name, ())), unit
    values["oldest"] = max((pool.oldest_s for pool in now.pools), default=0.0), "s"
    if before is not None and seconds > 0:
        old = before.service
        values["service_cpu"] = (service.cpu_s - old.cpu_s) / seconds, "cores"
        values["journal_commit"] = _mean_s(service.commit, old.commit), "s"
        values["loop_pass"] = _mean_s(service.loop_pass, old.loop_pass), "s"
    for node in now.nodes:
        values[f"node/{node.name}/up"] = node.state == "up", ""
        values[f"node/{node.name}/slots_granted"] = node.slots_granted, "slots"
        values[f"node/{node.name}/memory_granted"] = node.memory_granted_bytes, "bytes"
    for device in now.devices:
        for name, unit in _FIGURES.items():
            values[f"{DEVICE}{device.name}/{name}"] = getattr(device, name), unit
    return values


def _of_pool(
    pool: PoolMetrics, old: PoolMetrics | None, seconds: float
) -> Iterator[tuple[str, float, str]]:
    yield "queue", pool.waiting, "tasks"
    yield "oldest", pool.oldest_s, "s"
    yield "workers", sum(pool.workers.get(state, 0) for state in ("IDLE", "BUSY")), "workers"
    yield "slots_granted", pool.slots_granted, "slots"
    if old is None or seconds <= 0:
        return
    done, *others = (getattr(pool, name) - getattr(old, name) for name in _ENDED)
    yield "done_per_s", done / seconds, "1/s"
    yield "unsuccessful_per_s", sum(others) / seconds, "1/s"
    yield "slots_used", _slots_used(pool, old, seconds), "slots"
    yield "wait", _mean_s(pool.wait, old.wait), "s"
    yield "run", _mean_s(pool.run, old.run), "s"


def _slots_used(pool: PoolMetrics, old: PoolMetrics, seconds: float) -> float:
    """Return the mean number of slots that tasks had in the time between two moments: a sample of
    the slots in use misses tasks that are shorter than its interval."""
    used_s = pool.slot_s - old.slot_s
    # Nothing is charged for an attempt that was lost with its worker: the time that it had used is
    # counted no more, and the present number is all that is known.
    return used_s / seconds if used_s >= 0.0 else float(pool.slots_granted)


def _mean_s(now: DurationHistogram, before: DurationHistogram) -> float:
    """Return the mean of the durations between two moments; NaN if there were none."""
    count = sum(now.counts) - sum(before.counts)
    return (now.sum_s - before.sum_s) / count if count else nan


class TelemetryRecorder:
    """Sampler of one service. Used from the loop's thread; `error` says why nothing is stored."""

    def __init__(self, path: Path) -> None:
        """`path`: of the store; its file is made with the first sample."""
        self.error = ""
        self.figures: dict[str, dict[str, float]] = {}  # RECORDED ones, by device
        self._path = path
        self._thread = ThreadPoolExecutor(1, "telemetry")
        self._store: TelemetryStore | None = None  # used by the thread
        self._before: Metrics | None = None
        self._next_ns = 0
        self._pending: Future[object] | None = None
        if path.exists():  # figures of devices are shown before the first sample
            self._pending = self._thread.submit(self._load)

    @property
    def is_due(self) -> bool:
        """True if the next sample should be taken now."""
        return time.monotonic_ns() >= self._next_ns

    def record(self, now: Metrics) -> None:
        """Store a sample."""
        self._next_ns = time.monotonic_ns() + SAMPLE_S * 10**9
        if self._pending is not None and not self._pending.done():
            return
        before, self._before = self._before, now
        values, at = sample(now, before), int(now.service.at_s)
        self._pending = self._thread.submit(self._add, at, values, False)

    def set_figure(self, message: SetDeviceFigure) -> Future[Series]:
        """Record a figure of a device; the Future has the answer."""
        name = f"{DEVICE}{message.device}/{message.figure}"
        self.figures.setdefault(message.device, {})[message.figure] = message.value
        at = time.time()
        self._thread.submit(self._add, int(at), {name: (message.value, "")}, True)
        return self.series(GetSeries(message.request, name, at))

    def series(self, message: GetSeries) -> Future[Series]:
        """Read a series; the Future has the answer, or raises NotFoundError, JournalError."""
        return self._thread.submit(self._read, message)

    def close(self) -> None:
        """Wait for what is being written, and close the file."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    # --- in the thread ----------------------------------------------------------------------------

    def _opened(self) -> TelemetryStore:
        if self._store is None:
            self._store = TelemetryStore(self._path)
        return self._store

    def _load(self) -> None:
        try:
            stored = self._opened().figures()
            self.figures = {
                device: {name: each[name] for name in RECORDED if name in each}
                for device, each in stored.items()
            }
        except SimenvError as error:
            self.error = error.message

    def _add(self, at: int, values: Sample, forced: bool) -> None:
        try:
            self._opened().add(at, values, forced=forced)
            self.error = ""
        except JournalError as error:
            self.error = error.message

    def _read(self, message: GetSeries) -> Series:
        return read(self._opened() if self._path.exists() else None, message)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()


def read(store: TelemetryStore | None, message: GetSeries) -> Series:
    """Answer a request from a store, None if there is none yet. Raises NotFoundError,
    JournalError."""
    if store is None:
        if not message.name:
            return Series(message.request, "", "", [], [], [], [])
        text = f"there is no series {message.name[:80]!r}: nothing has been sampled yet"
        raise NotFoundError(text, hint=f"the first sample comes after {SAMPLE_S} s")
    found = store.read(message.name, message.since_s, message.until_s, message.step_s, time.time())
    return Series(
        message.request, found.name, found.unit, found.at_s, found.mean, found.least, found.most,
        found.names,
    )  # fmt: skip
