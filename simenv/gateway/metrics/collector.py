"""The environment's metrics for Prometheus: a collector of prometheus-client.

Invariant: a scrape asks the service once, and at most once in CACHE_S, whoever scrapes; a service
that does not answer gives `simenv_up 0` and no other metric of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from math import isnan
from typing import NamedTuple

from prometheus_client import Metric as Family
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Sample,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import BucketSpan, NativeHistogram

from simenv.errors import SimenvError
from simenv.wire.messages.metrics import LEAST_EXPONENT, DurationHistogram, Metrics

CACHE_S = 1.0
# Bounds of the classic histograms: 2^-14 s, which is 61 us, to 2^14 s, which is 4.6 hours.
_LEAST, _MOST = -14, 14
_ENDS = ("done", "failed", "cancelled", "expired")
Row = tuple[tuple[str, ...], float | DurationHistogram]


class MetricSpec(NamedTuple):
    """A metric: full name as in queries, kind, names of labels, help, and its values."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    text: str
    rows: Callable[[Metrics], Iterable[Row]]


def _one(value: Callable[[Metrics], float | DurationHistogram]) -> Callable[[Metrics], list[Row]]:
    return lambda m: [((), value(m))]


def _each(part: str, label: str, field: str, factor: float = 1.0) -> Callable[[Metrics], list[Row]]:
    """Return the rows of a field of all pools, nodes, devices or accounts; unknown values, NaN or
    -1, are left out."""

    def rows(m: Metrics) -> list[Row]:
        result: list[Row] = []
        for each in getattr(m, part):
            value = getattr(each, field)
            if isinstance(value, DurationHistogram):
                result.append(((getattr(each, label),), value))
            elif not isnan(value) and value != -1:
                result.append(((getattr(each, label),), value * factor))
        return result

    return rows


def _pools(field: str) -> Callable[[Metrics], list[Row]]:
    return _each("pools", "name", field)


def _nodes(field: str) -> Callable[[Metrics], list[Row]]:
    return _each("nodes", "name", field)


def _devices(field: str, factor: float = 1.0) -> Callable[[Metrics], list[Row]]:
    return _each("devices", "name", field, factor)


def _parts(granted: str, total: str) -> Callable[[Metrics], list[Row]]:
    """Return the granted and free parts of a resource of each node."""

    def rows(m: Metrics) -> list[Row]:
        return [
            ((node.name, state), value)
            for node in m.nodes
            for state, value in (
                ("granted", getattr(node, granted)),
                ("free", getattr(node, total) - getattr(node, granted)),
            )
        ]

    return rows


def _slots(m: Metrics) -> list[Row]:
    granted: list[Row] = [((pool.name, "granted"), pool.slots_granted) for pool in m.pools]
    free = sum(node.slots - node.slots_granted for node in m.nodes if node.state == "up")
    return [*granted, (("", "free"), free)]


def _calibrated(m: Metrics) -> list[Row]:
    known = [device for device in m.devices if device.calibrated_s]
    return [((each.name,), m.service.at_s - each.calibrated_s) for each in known]


C, G, H = "counter", "gauge", "histogram"
METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("simenv_info", G, ("version",), "1, with the version of the service",
               lambda m: [((m.service.version,), 1)]),
    MetricSpec("simenv_start_time_seconds", G, (), "Start of the service, since 1970",
               _one(lambda m: m.service.started_s)),
    MetricSpec("simenv_tasks_total", C, ("pool", "state"), "Ended tasks by state",
               lambda m: [((p.name, s), getattr(p, s)) for p in m.pools for s in _ENDS]),
    MetricSpec("simenv_tasks_accepted_total", C, (), "Accepted tasks, earlier starts included",
               _one(lambda m: m.service.accepted)),
    MetricSpec("simenv_submissions_refused_total", C, (), "Refused submissions",
               _one(lambda m: m.service.refused)),
    MetricSpec("simenv_client_requests_total", C, (), "Requests of clients, without pings",
               _one(lambda m: m.service.client_requests)),
    MetricSpec("simenv_internal_errors_total", C, (), "Faults of the service, see its log",
               _one(lambda m: m.service.internal_errors)),
    MetricSpec("simenv_attempts_lost_total", C, (), "Attempts whose worker was lost",
               _one(lambda m: m.service.lost_attempts)),
    MetricSpec("simenv_tasks_running", G, (), "Tasks that are known to run",
               _one(lambda m: m.service.running)),
    MetricSpec("simenv_queue_tasks", G, ("pool",), "Waiting tasks", _pools("waiting")),
    MetricSpec("simenv_queue_oldest_seconds", G, ("pool",), "Wait of the oldest waiting task",
               _pools("oldest_s")),
    MetricSpec("simenv_queue_bytes", G, (), "Memory of unfinished tasks",
               _one(lambda m: m.service.queued_bytes)),
    MetricSpec("simenv_task_wait_seconds", H, ("pool",),
               "Time from acceptance of an ended task until it was sent to its worker",
               _pools("wait")),
    MetricSpec("simenv_task_run_seconds", H, ("pool",), "Run time of ended tasks", _pools("run")),
    MetricSpec("simenv_slots", G, ("pool", "state"),
               "Slots granted to a pool; free ones are of no pool", _slots),
    MetricSpec("simenv_workers", G, ("pool", "state"), "Workers by state",
               lambda m: [((p.name, s.lower()), n) for p in m.pools for s, n in p.workers.items()]),
    MetricSpec("simenv_workers_lost_total", C, ("pool",), "Workers that ended unexpectedly",
               _pools("workers_lost")),
    MetricSpec("simenv_workers_resident_memory_bytes", G, ("pool",), "Memory of the workers",
               _pools("workers_bytes")),
    MetricSpec("simenv_workers_cpu_seconds", G, ("pool",), "Processor time of present workers",
               _pools("workers_cpu_s")),
    MetricSpec("simenv_journal_commit_seconds", H, (), "Duration of a commit of the journal",
               _one(lambda m: m.service.commit)),
    MetricSpec("simenv_journal_up", G, (), "1 if the journal can be written",
               _one(lambda m: m.service.journal_works)),
    MetricSpec("simenv_loop_pass_seconds", H, (), "Duration of a pass of the event loop",
               _one(lambda m: m.service.loop_pass)),
    MetricSpec("simenv_disk_bytes", G, (), "Size of the file system of the journal",
               _one(lambda m: m.service.disk_bytes)),
    MetricSpec("simenv_disk_free_bytes", G, (), "Free space of the file system of the journal",
               _one(lambda m: m.service.disk_free_bytes)),
    MetricSpec("simenv_device_t1_seconds", G, ("device",), "Median T1", _devices("t1_us", 1e-6)),
    MetricSpec("simenv_device_t2_seconds", G, ("device",), "Median T2", _devices("t2_us", 1e-6)),
    MetricSpec("simenv_device_one_qubit_error", G, ("device",), "Median error of one-qubit gates",
               _devices("error_1q")),
    MetricSpec("simenv_device_two_qubit_error", G, ("device",), "Median error of two-qubit gates",
               _devices("error_2q")),
    MetricSpec("simenv_device_readout_error", G, ("device",), "Median readout error",
               _devices("readout_error")),
    MetricSpec("simenv_device_snapshot_age_seconds", G, ("device",), "Age of the calibration",
               _calibrated),
    MetricSpec("simenv_device_certified_ratio", G, ("device",),
               "Part of the claims that the last certificate confirmed", _devices("certified")),
    MetricSpec("simenv_device_score_ratio", G, ("device",), "Last score against measured counts",
               _devices("score")),
    MetricSpec("simenv_account_usage_slot_seconds_total", C, ("account",),
               "Slot time of ended tasks", _each("accounts", "name", "slot_s")),
    MetricSpec("simenv_account_month_units", G, ("account",),
               "Billing units of this month, accounts below included",
               _each("accounts", "name", "month_units")),
    MetricSpec("simenv_account_budget_units", G, ("account",), "Budget of a month; 0: none",
               _each("accounts", "name", "budget_units")),
    MetricSpec("simenv_node_up", G, ("node",), "1 if the node is neither drained nor lost",
               lambda m: [((node.name,), node.state == "up") for node in m.nodes]),
    MetricSpec("simenv_node_slots", G, ("node", "state"), "Granted and free slots",
               _parts("slots_granted", "slots")),
    MetricSpec("simenv_node_memory_bytes", G, ("node", "state"), "Memory for tasks",
               _parts("memory_granted_bytes", "memory_bytes")),
    MetricSpec("simenv_node_gpus", G, ("node", "state"), "GPUs of workers, and free ones",
               _parts("gpus_granted", "gpus")),
    MetricSpec("simenv_node_cpu_seconds_total", C, ("node",), "Busy time of all processors",
               _nodes("cpu_s")),
    MetricSpec("simenv_node_memory_used_bytes", G, ("node",), "Memory in use, by whomever",
               _nodes("memory_used_bytes")),
    MetricSpec("simenv_service_cpu_seconds_total", C, (), "Processor time of the service",
               _one(lambda m: m.service.cpu_s)),
    MetricSpec("simenv_service_resident_memory_bytes", G, (), "Memory of the service",
               _one(lambda m: m.service.resident_bytes)),
    MetricSpec("simenv_service_open_files", G, (), "Open files of the service",
               _one(lambda m: m.service.open_files)),
    MetricSpec("simenv_service_threads", G, (), "Threads of the service",
               _one(lambda m: m.service.threads)),
)  # fmt: skip
UP = ("simenv_up", "1 if the service answers")


def families(m: Metrics) -> Iterator[Family]:
    """Yield all metrics for prometheus-client."""
    for spec in METRICS:
        if spec.kind == H:
            yield _histogram(spec, m)
            continue
        kind = CounterMetricFamily if spec.kind == C else GaugeMetricFamily
        family = kind(spec.name, spec.text, labels=spec.labels)
        for labels, value in spec.rows(m):
            assert not isinstance(value, DurationHistogram)
            family.add_metric(labels, value)
        yield family


def _histogram(spec: MetricSpec, m: Metrics) -> Family:
    """Return a histogram in the classic form, and in the native form for scrapers that understand
    it: powers of 2 in seconds are the buckets of its schema 0."""
    family = HistogramMetricFamily(spec.name, spec.text, labels=spec.labels)
    for labels, value in spec.rows(m):
        assert isinstance(value, DurationHistogram)
        totals = list(accumulate(value.counts))
        bounds = [
            (repr(2.0**exponent), float(totals[exponent - LEAST_EXPONENT]))
            for exponent in range(_LEAST, _MOST + 1)
        ]
        family.add_metric(labels, [*bounds, ("+Inf", float(totals[-1]))], value.sum_s)
        names = dict(zip(spec.labels, labels, strict=True))
        family.samples.append(Sample(spec.name, names, 0.0, None, None, native(value)))
    return family


def native(value: DurationHistogram) -> NativeHistogram:
    """Return a native histogram of schema 0."""
    filled = [index for index, count in enumerate(value.counts) if count]
    count, total_s = sum(value.counts), value.sum_s
    if not filled:
        return NativeHistogram(count, total_s, 0, 0.0, 0)
    present = value.counts[filled[0] : filled[-1] + 1]
    deltas = [now - before for now, before in zip(present, (0, *present), strict=False)]
    spans = [BucketSpan(filled[0] + LEAST_EXPONENT, len(present))]
    return NativeHistogram(count, total_s, 0, 0.0, 0, spans, None, deltas)


class SimenvCollector(Collector):
    """Collector of the metrics of one environment. Thread-safe."""

    def __init__(self, read: Callable[[], Metrics]) -> None:
        """`read`: asks the service."""
        self._read = read
        self._lock = threading.Lock()
        self._last: Metrics | None = None
        self._read_s = -CACHE_S

    def collect(self) -> Iterator[Family]:
        """Yield all metrics."""
        with self._lock:
            if time.monotonic() - self._read_s >= CACHE_S:
                try:
                    self._last = self._read()
                except SimenvError:
                    self._last = None
                self._read_s = time.monotonic()
            metrics = self._last
        yield GaugeMetricFamily(*UP, value=float(metrics is not None))
        if metrics is not None:
            yield from families(metrics)


class ClassicCollector(Collector):
    """What another collector yields, without the samples that are native histograms."""

    def __init__(self, source: Collector) -> None:
        """`source`: all metrics."""
        self._source = source

    def collect(self) -> Iterator[Family]:
        """Yield all metrics."""
        for family in self._source.collect():
            family.samples = [each for each in family.samples if each.native_histogram is None]
            yield family
