"""Parts of a running service, which its event loop and the handlers of messages share."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from simenv.config import Config
from simenv.model import TaskState
from simenv.scheduler.scheduler import Scheduler
from simenv.service.admission.submissions import SubmitQueue
from simenv.service.control.admin_commands import KeyCommands, PoolCommands
from simenv.service.control.audit import AuditLog
from simenv.service.control.owner_limits import Owners
from simenv.service.control.reservations import ReservationCommands
from simenv.service.control.results import ResultRequests
from simenv.service.journal.background import JournalBackup, WalCheckpointer
from simenv.service.journal.writer import Journal
from simenv.service.queries.devices import DeviceRecords
from simenv.service.results.completions import Completions
from simenv.service.support.loop_times import PassTimes
from simenv.service.support.ownership import ConnectionFileLease
from simenv.service.workers.action_executor import ActionExecutor
from simenv.service.workers.processes import WorkerProcesses
from simenv.wire.transport.zmq_transport import Listener


class RuntimeFacts(msgspec.Struct, frozen=True):
    """Facts that stay the same for the whole life of this process."""

    node: str
    ended_before: dict[TaskState, int]
    resumed: str = ""  # journal from which it started, as text
    launcher: str = ""  # the chosen launcher, with the reason
    allocation: str = ""  # source of the nodes, as text
    end_s: float = 0.0  # wall clock of the end of the allocation; 0: never
    exposure: str = ""  # reason why other users can run programs through the launcher; "": none


@dataclass(eq=False, repr=False)
class ServiceComponents:
    """Parts of a service. `backup`: None if the journal is not copied (private environments)."""

    config: Config
    listener: Listener
    journal: Journal
    scheduler: Scheduler
    submit_queue: SubmitQueue
    completions: Completions
    workers: WorkerProcesses
    checkpointer: WalCheckpointer
    backup: JournalBackup | None
    key_commands: KeyCommands
    result_requests: ResultRequests
    lease: ConnectionFileLease
    facts: RuntimeFacts
    devices: DeviceRecords

    def __post_init__(self) -> None:
        scheduler, journal, devices = self.scheduler, self.journal, self.devices
        self.state = scheduler.state
        self.started_ns = time.monotonic_ns()
        self.pass_times = PassTimes()
        self.store_error = ""  # reason why the journal cannot be written; "": it can
        self.stop_at_ns = 0  # when a drain ends by force; 0: not draining
        self.stopped = False
        self._next_tick_ns = 0
        self.executor = ActionExecutor(
            *(scheduler, journal, self.listener, self.workers, self.completions),
            devices.documents,
            self.result_requests.file_worker.remove,
            devices.drifting,
        )
        self.audit = AuditLog(self.executor, self.listener.origin)
        self.pool_commands = PoolCommands(
            self.config, scheduler, journal, self.workers.recheck_node
        )
        self.reservation_commands = ReservationCommands(
            scheduler, journal, self.executor, self.audit, devices.reading
        )
        self.owners = Owners(self.config.limits, scheduler, journal, self.result_requests.bytes_of)
        self.submit_queue.disk_refusal = self.result_requests.disk_refusal

    def drain(self, *, now: bool) -> None:
        """Let running tasks end, keep waiting tasks, then stop; `now`: queue running ones again."""
        deadline_ns = 0 if now else round(self.config.drain_timeout_s * 1e9)
        end_ns = time.monotonic_ns() + deadline_ns
        self.stop_at_ns = min(self.stop_at_ns, end_ns) if self.stop_at_ns else end_ns
        actions = self.scheduler.begin_drain(self.config.name)
        self.executor.execute(actions)
        if actions and self.backup is not None:
            self.backup.request_copy()
        self._next_tick_ns = 0
