"""The metrics of an environment at one moment, read from the state of its service.

Invariant: reading changes nothing, and takes less than a slice of the event loop: of the waiting
tasks only the first MAX_CHECKED are looked at, and the figures of a device are computed once for
each of its calibrations.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from math import isnan, nan
from statistics import median
from typing import TYPE_CHECKING

from simenv._version import __version__
from simenv.model import DeviceInfo, views
from simenv.model.accounts import SLOT_HOUR
from simenv.model.availability import BROKEN, Availability
from simenv.process import resident_bytes
from simenv.scheduler.core import WAITING, Phase
from simenv.wire.messages import metrics

if TYPE_CHECKING:
    from simenv.scheduler.state.nodes import NodeState, Worker
    from simenv.scheduler.state.pools import Pool
    from simenv.service.service import ServiceComponents
    from simenv.service.telemetry.counters import PoolCounters

MAX_CHECKED = 10_000  # unfinished tasks looked at for the oldest one that waits


class MetricsReader:
    """Reader of a service's metrics. Used from the loop's thread."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        # By pool: the description that the figures were computed of, and these.
        self._devices: dict[str, tuple[DeviceInfo, metrics.DeviceMetrics]] = {}

    def read(self, request: int = 0) -> metrics.Metrics:
        """Return the present metrics as the answer to a request."""
        state = self._service.state
        return metrics.Metrics(
            request,
            self._of_service(),
            self._pools(),
            [
                _node(host)
                for host in islice(state.cluster.nodes.hosts.values(), metrics.MAX_LABELS)
            ],
            self._measured(),
            self._accounts(),
        )

    def _of_service(self) -> metrics.ServiceMetrics:
        service, now_s = self._service, time.time()
        state = service.state
        disk = shutil.disk_usage(service.result_requests.folder)
        return metrics.ServiceMetrics(
            version=__version__,
            at_s=now_s,
            started_s=now_s - (time.monotonic_ns() - service.lifecycle.started_ns) / 1e9,
            accepted=state.tasks.next_number - 1,
            refused=service.accounting.usage.counters.refused,
            running=state.tasks.running,
            lost_attempts=state.tasks.lost_attempts,
            queued_bytes=state.tasks.queued_bytes,
            cpu_s=time.process_time(),
            resident_bytes=resident_bytes(),
            open_files=_open_files(),
            threads=threading.active_count(),
            disk_bytes=disk.total,
            disk_free_bytes=disk.free,
            journal_works=not service.lifecycle.store_error,
            draining=state.draining,
            commit=service.journal.commit_times.histogram(),
            loop_pass=service.monitoring.pass_times.histogram.histogram(),
            internal_errors=service.monitoring.internal_errors.count,
            client_requests=service.monitoring.client_requests,
        )

    def _pools(self) -> list[metrics.PoolMetrics]:
        """Return the configured pools, each with the pools made on demand for it."""
        by_device: dict[str, list[Pool]] = {}
        for pool in self._service.state.cluster.pools.values():
            by_device.setdefault(pool.device, []).append(pool)
        oldest_ns = self._oldest_ns()
        now_ns = time.monotonic_ns()
        return [
            self._pool(name, pools, max(0, now_ns - oldest_ns.get(name, now_ns)), now_ns)
            for name, pools in islice(by_device.items(), metrics.MAX_LABELS)
        ]

    def _pool(
        self, name: str, pools: list[Pool], oldest_ns: int, now_ns: int
    ) -> metrics.PoolMetrics:
        service = self._service
        counters = service.accounting.usage.counters.pool(name)
        workers = [worker for pool in pools for worker in pool.workers.values()]
        return metrics.PoolMetrics(
            name=name,
            done=counters.done,
            failed=counters.failed,
            cancelled=counters.cancelled,
            expired=counters.expired,
            waiting=sum(len(pool.queue) for pool in pools),
            oldest_s=oldest_ns / 1e9,
            slots_granted=sum(worker.slots for worker in workers),
            workers=dict(Counter(str(worker.state) for worker in workers)),
            workers_lost=service.state.cluster.lost_workers.get(name, 0),
            workers_bytes=sum(worker.report.rss_bytes for worker in workers),
            workers_cpu_s=sum(worker.report.cpu_ms for worker in workers) / 1e3,
            wait=counters.wait.histogram(),
            run=counters.run.histogram(),
            slot_s=slot_s([counters], workers, now_ns),
        )

    def _oldest_ns(self) -> dict[str, int]:
        """Return when the oldest waiting task of each configured pool was accepted."""
        state = self._service.state
        lacking = {pool.device for pool in state.cluster.pools.values() if len(pool.queue)}
        result: dict[str, int] = {}
        for record in islice(state.tasks.values(), MAX_CHECKED):  # in the order of acceptance
            if not lacking:
                return result
            name = views.base_of(record.route.pool) or record.route.pool
            if record.phase == WAITING and name in lacking:
                lacking.remove(name)
                result[name] = record.batch.accepted_ns
        for pool in state.cluster.pools.values():
            head = pool.queue.head() if pool.device in lacking else None
            if head is not None:
                result[pool.device] = head.batch.accepted_ns
        return result

    def _measured(self) -> list[metrics.DeviceMetrics]:
        telemetry = self._service.monitoring.telemetry
        result = []
        for name, info in islice(self._service.devices.measured(), metrics.MAX_LABELS):
            known = self._devices.get(name)
            if known is None or known[0] is not info:
                known = self._devices[name] = info, figures(name, info)
            found = {} if telemetry is None else telemetry.figures.get(name, {})
            result.append(metrics.with_figures(known[1], found))
        return result

    def _accounts(self) -> list[metrics.AccountMetrics]:
        usage, tree = self._service.accounting.usage, self._service.state.shares.accounts.accounts
        names = dict.fromkeys((*usage.counters.slot_us, *tree))
        rows = []
        for name in islice(names, metrics.MAX_LABELS + 1):  # with OTHER
            account = tree.get(name)
            rows.append(
                metrics.AccountMetrics(
                    name,
                    usage.counters.slot_us.get(name, 0) / 1e6,
                    usage.month_units(name),
                    account.budget_slot_h * SLOT_HOUR if account is not None else 0.0,
                )
            )
        return rows


def slot_s(pools: Iterable[PoolCounters], workers: Iterable[Worker], now_ns: int) -> float:
    """Return the time that the tasks of some pools have used, on all their slots: of those that
    ended as it was charged, and of those that run since their begin."""
    running_ns = 0
    for worker in workers:
        first = next(iter(worker.held.values()), None)
        if first is not None and first.phase == Phase.RUNNING:
            running_ns += worker.slots * max(0, now_ns - first.started_ns)
    return sum(pool.slot_us for pool in pools) / 1e6 + running_ns / 1e9


def _node(host: NodeState) -> metrics.NodeMetrics:
    node = host.node
    return metrics.NodeMetrics(
        name=node.name,
        state=host.state,
        slots=node.slots,
        slots_granted=node.slots - host.free_slots,
        memory_bytes=node.memory_bytes,
        memory_granted_bytes=node.memory_bytes - host.free_memory,
        gpus=node.gpus,
        gpus_granted=node.gpus - len(host.free_gpus),
        cpu_s=host.busy_ms / 1e3 if host.busy_ms else -1.0,
        memory_used_bytes=host.used_bytes or -1,
    )


def figures(name: str, info: DeviceInfo) -> metrics.DeviceMetrics:
    """Return the medians over the qubits and gates of a device. A frame change, which takes no time
    and has no error, does not count, nor does a gate that does not work, nor the pair of a link."""
    info = Availability(info).inside_modules
    real = [
        each
        for each in info.operations
        if (each.error or each.duration_ns) and not each.error >= BROKEN
    ]
    gates = [(info.width(each), each.error) for each in real]
    return metrics.DeviceMetrics(
        name=name,
        t1_us=_median(qubit.t1_us for qubit in info.qubits),
        t2_us=_median(qubit.t2_us for qubit in info.qubits),
        error_1q=_median(error for width, error in gates if width == 1),
        error_2q=_median(error for width, error in gates if width == 2),
        readout_error=_median(qubit.readout_error for qubit in info.qubits),
        calibrated_s=info.calibrated_s,
    )


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return median(known) if known else nan


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
