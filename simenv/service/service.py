"""Parts of a running service, which its event loop and the handlers of messages share."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from pathlib import Path

import msgspec

from launcher.base import Exit
from simenv.config import Config
from simenv.model import TaskState, WorkerState
from simenv.scheduler.events.workers import memory_bound
from simenv.scheduler.forecast.expected_starts import ExpectedStarts
from simenv.scheduler.scheduler import Scheduler
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.accounting.owner_limits import Owners
from simenv.service.accounting.usage import UsageLedger
from simenv.service.admission.submissions import SubmitQueue
from simenv.service.control.accepted_keys import KeyCommands
from simenv.service.control.calendar import CalendarCommands
from simenv.service.control.pool_commands import PoolCommands
from simenv.service.control.reservations import ReservationCommands
from simenv.service.control.results import ResultRequests
from simenv.service.devices.calibration_log import CalibrationLog
from simenv.service.durations import DurationBuckets
from simenv.service.internal_errors import InternalErrors
from simenv.service.jobs.store import JobStore
from simenv.service.journal import checkpoints, copying, tables, writer
from simenv.service.ownership import ConnectionFileLease
from simenv.service.queries.devices import DeviceRecords
from simenv.service.queries.forecast_thread import ForecastThread
from simenv.service.results.completions import Completions
from simenv.service.telemetry.recorder import TelemetryRecorder
from simenv.service.workers.action_executor import ActionExecutor, AuditLog
from simenv.service.workers.processes import WorkerProcesses
from simenv.wire.messages import client as m
from simenv.wire.transport.zmq_transport import Listener

SAMPLES = 4_096  # passes with messages
# Not EXIT_RANK: the task may have killed the rank. A function can end its worker with these codes,
# too: they are believed of workers that the service did not hear (`SchedulerState`).
INFRASTRUCTURE_EXITS = (m.EXIT_LEASE, m.EXIT_ORPHAN)
log = logging.getLogger("simenv.service")
SIZES_NS = 10_000_000_000  # between two looks at the folders of isolated workers
LOG_LINE_CHARS = 300  # characters of a log's last line that become a reason


class RuntimeFacts(msgspec.Struct, frozen=True):
    """Facts that stay the same for the whole life of this process."""

    node: str
    ended_before: dict[TaskState, int]
    resumed: str = ""  # journal from which it started, as text
    launcher: str = ""  # the chosen launcher, with the reason
    allocation: str = ""  # source of the nodes, as text
    end_s: float = 0.0  # wall clock of the end of the allocation; 0: never
    exposure: str = ""  # reason why other users can run programs through the launcher; "": none


class PassTimes:
    """Durations of the event loop's passes in nanoseconds; no client is answered during a pass. A
    pass lasts from the arrival of a message, or a due time, until the loop waits again; work
    between two passes belongs to the first. Passes without messages count only for the longest
    pass, so that an idle service does not hide the others. Used from the loop's thread."""

    def __init__(self) -> None:
        self._samples_ns: deque[int] = deque(maxlen=SAMPLES)
        self._begin_ns = 0
        self.had_messages = False  # whether the present pass handles messages
        self.longest_ns = 0
        self.histogram = DurationBuckets()  # of passes with messages

    def wait_begins(self) -> None:
        """End the present pass; called before the loop waits."""
        if not self._begin_ns:
            return
        took_ns = time.monotonic_ns() - self._begin_ns
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
        if self.had_messages:
            self._samples_ns.append(took_ns)
            self.histogram.add(took_ns // 1000)
        self._begin_ns = 0

    def wait_ends(self) -> int:
        """Begin a pass. Returns the present monotonic time in ns."""
        self._begin_ns = time.monotonic_ns()
        return self._begin_ns

    def restart(self) -> None:
        """Forget the longest pass and the present one: start-up is over."""
        self._begin_ns = self.longest_ns = 0

    def p99_ms(self) -> float:
        """99th percentile of the durations of the last SAMPLES passes with messages, in ms."""
        ordered = sorted(self._samples_ns)
        return ordered[len(ordered) * 99 // 100] / 1e6 if ordered else 0.0

    def longest_ms(self) -> float:
        """Duration of the longest pass since `restart`, in ms."""
        return self.longest_ns / 1e6


@dataclass(slots=True, eq=False)
class ServiceLifecycle:
    """Start, drain and end of the service, and what prevents its work meanwhile."""

    lease: ConnectionFileLease
    started_ns: int
    store_error: str = ""  # reason why the journal cannot be written; "": it can
    stop_at_ns: int = 0  # when a drain ends by force; 0: not draining
    stopped: bool = False

    def stop_by(self, end_ns: int) -> None:
        """Let a drain end by then at the latest."""
        self.stop_at_ns = min(self.stop_at_ns, end_ns) if self.stop_at_ns else end_ns


@dataclass(slots=True, eq=False)
class Monitoring:
    """What the service measures of itself."""

    internal_errors: InternalErrors
    pass_times: PassTimes
    telemetry: TelemetryRecorder | None = None  # None: nothing is sampled
    client_requests: int = 0  # that were read, without pings


@dataclass(slots=True, eq=False)
class JournalMaintenance:
    """Threads that maintain a journal of SQLite."""

    checkpointer: checkpoints.WalCheckpointer | None = None  # None: the database does it
    backup: copying.JournalBackup | None = None  # None: as of a private environment


@dataclass(slots=True, eq=False, frozen=True)
class Accounting:
    """Who may use how much, and what was used."""

    accounts: AccountRegistry
    owners: Owners
    usage: UsageLedger


@dataclass(slots=True, eq=False, frozen=True)
class ServiceCommands:
    """Changes that clients request, and the log of them."""

    keys: KeyCommands
    pools: PoolCommands
    reservations: ReservationCommands
    calendar: CalendarCommands
    audit: AuditLog


@dataclass(eq=False, repr=False)
class ServiceComponents:
    """Parts of a service."""

    config: Config
    listener: Listener
    journal: writer.Journal
    scheduler: Scheduler
    submit_queue: SubmitQueue
    completions: Completions
    workers: WorkerProcesses
    maintenance: JournalMaintenance
    key_commands: InitVar[KeyCommands]
    result_requests: ResultRequests
    lease: InitVar[ConnectionFileLease]
    facts: RuntimeFacts
    devices: DeviceRecords

    def __post_init__(self, key_commands: KeyCommands, lease: ConnectionFileLease) -> None:
        scheduler, journal, devices = self.scheduler, self.journal, self.devices
        results, accounts = self.result_requests, self.submit_queue.accounts
        self.state = scheduler.state
        devices.known = CalibrationLog(journal)
        self.lifecycle = ServiceLifecycle(lease, time.monotonic_ns())
        self.monitoring = Monitoring(InternalErrors(), PassTimes())
        self.forecasts = ForecastThread()
        self.starts = ExpectedStarts(self.state, self.forecasts.run, self._forecast_failed)
        self.starts.restore(tables.WAIT_ERRORS.read(journal.records))
        self.executor = ActionExecutor(
            *(scheduler, journal, self.listener, self.workers, self.completions),
            devices.documents,
            results.file_worker.remove,
            devices.drifting,
        )
        audit = AuditLog(self.executor, self.listener.origin)
        self.commands = ServiceCommands(
            key_commands,
            PoolCommands(self.config, scheduler, journal, self.workers.recheck_node),
            ReservationCommands(
                *(scheduler, self.starts, accounts, journal, self.executor, audit),
                devices.reading,
            ),
            CalendarCommands(scheduler, accounts, journal, audit),
            audit,
        )
        has_users = self.config.identity.has_users
        self.accounting = Accounting(
            accounts,
            Owners(self.config.limits, scheduler, journal, results.bytes_of, has_users=has_users),
            UsageLedger(journal, self.state),
        )
        self.completions.usage = self.accounting.usage
        accounts.budgets.spent_units = self.accounting.usage.month_units
        self.jobs = JobStore(journal, self.config.gateway.keep_days, results.disk_refusal)
        self.submit_queue.reserve = results.reserve
        self.submit_queue.disk_refusal = results.disk_refusal

    def _forecast_failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.monitoring.internal_errors.record(error, "a forecast of starts")

    def drain(self, *, now: bool) -> None:
        """Let running tasks end, keep waiting tasks, then stop; `now`: queue running ones again."""
        deadline_ns = 0 if now else round(self.config.drain_timeout_s * 1e9)
        now_ns = time.monotonic_ns()
        self.lifecycle.stop_by(now_ns + deadline_ns)
        actions = self.scheduler.begin_drain(self.config.name, now_ns)
        self.executor.execute(actions)
        if actions and self.maintenance.backup is not None:
            self.maintenance.backup.request_copy()


class WorkerEvents:
    """Reports of ended processes, and of nodes that the launcher has lost or recovered, to the
    scheduler. Used from the loop's thread."""

    def __init__(self, service: ServiceComponents, is_taking: Callable[[str], bool]) -> None:
        """`is_taking`: returns whether files of a worker are being taken over; its end waits."""
        self._service = service
        self._is_taking = is_taking
        self._ended: list[Exit] = []  # ends that wait
        self._next_sizes_ns = 0
        self._quiet_ns = round(service.config.worker_lease_s / 2 * 1e9)

    def report(self, now_ns: int) -> None:
        """Report the events since the last tick to the scheduler, and execute its actions."""
        self._report_exits(now_ns)
        self._report_memory(now_ns)
        isolation = self._service.workers.isolation
        if isolation is not None and now_ns >= self._next_sizes_ns:
            self._next_sizes_ns = now_ns + SIZES_NS
            file_worker = self._service.result_requests.file_worker
            file_worker.list_sizes(isolation.folder, isolation.pids(), self._end_large)
        for event in self._service.workers.launcher_events():
            if event.kind == "node.lost":
                actions = self._service.scheduler.node_lost(event.subject, event.message, now_ns)
                self._service.executor.execute(actions)
            elif event.kind == "node.back":
                self._service.executor.execute(self._service.scheduler.node_back(event.subject))
            elif event.kind == "dvm.lost":
                actions = self._service.scheduler.launcher_lost(
                    event.subject, event.message, now_ns
                )
                self._service.executor.execute(actions)
            elif event.kind == "dvm.started":
                actions = self._service.scheduler.launcher_started(event.subject, event.message)
                self._service.executor.execute(actions)
            else:
                self._service.executor.record_event(event.kind, event.subject, event.message)

    def _report_memory(self, now_ns: int) -> None:
        """Report what was measured since the last tick, and set the bounds of the next."""
        watch, scheduler = self._service.workers.memory_watch, self._service.scheduler
        measured = watch.take()
        for (name, start), found in measured.items():
            figures = found.used_bytes, found.processes
            actions = scheduler.worker_measured(name, start, *figures, now_ns)
            self._service.executor.execute(actions)
        for name, _ in measured:
            worker = scheduler.state.cluster.workers.get(name)
            if worker is not None:
                watch.set_bound(name, memory_bound(worker), has_tasks=bool(worker.held))

    def _end_large(self, sizes: object) -> None:
        """End isolated workers whose files take more than all results may."""
        service, isolation = self._service, self._service.workers.isolation
        assert isolation is not None
        max_bytes = int(service.config.results.keep_gib * 2**30)
        for worker, reason in isolation.above_limit(sizes, max_bytes).items():
            now_ns = time.monotonic_ns()
            service.executor.execute(service.scheduler.worker_over_disk(worker, reason, now_ns))

    def _remove_folder(self, outcome: Path | Exception) -> None:
        """Remove the folder of a worker that has ended and whose checkpoints are taken."""
        if isinstance(outcome, Path):
            self._service.result_requests.file_worker.remove_folder(outcome)
        else:
            log.error("checkpoints of a worker cannot be taken", exc_info=outcome)

    def _report_exits(self, now_ns: int) -> None:
        ends, self._ended = self._ended + self._service.workers.exited(), []
        for end in ends:
            if self._is_taking(end.name):  # its results came before its end
                self._ended.append(end)
                continue
            self._service.result_requests.file_worker.unfinished(f"{end.name}.{end.start}")
            tail = self._service.workers.log_tail(end.name) if end.code else ""
            blame = not end.infrastructure_failure and not (
                end.code in INFRASTRUCTURE_EXITS
                and self._service.state.may_be_cut_off(end.name, now_ns, self._quiet_ns)
            )
            worker, message = (
                self._service.scheduler.state.cluster.workers.get(end.name),
                end.reason,
            )
            isolation = self._service.workers.isolation
            if isolation is not None:
                if isolation.is_out_of_memory(end.name):
                    message += ": it used more memory than it was granted"
                take = isolation.ended(end.name, end.start)
                if take is not None:
                    self._service.workers.file_jobs.run(take, self._remove_folder)
            if tail and worker is not None and worker.state is WorkerState.STARTING:
                # The only trace of the cause.
                message += f": {tail.splitlines()[-1][:LOG_LINE_CHARS]}"
            actions = self._service.scheduler.worker_lost(
                end.name, end.start, message, now_ns, tail, blame=blame
            )
            self._service.executor.execute(actions)
