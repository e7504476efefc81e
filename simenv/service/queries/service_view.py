"""Interface of the running service for the computation of answers to queries."""

from __future__ import annotations

from typing import Protocol

import msgspec

from simenv.config import Config
from simenv.model import TaskState
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.state import SchedulerState
from simenv.service.admission.submissions import SubmitQueue
from simenv.service.control.admin_commands import KeyCommands
from simenv.service.control.owner_limits import Owners
from simenv.service.control.reservations import ReservationCommands
from simenv.service.control.results import ResultRequests
from simenv.service.journal.background import JournalBackup, WalCheckpointer
from simenv.service.journal.writer import Journal
from simenv.service.queries.devices import DeviceRecords
from simenv.service.results.completions import Completions
from simenv.service.support.loop_times import PassTimes
from simenv.service.workers.action_executor import ActionExecutor
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


class ServiceView(Protocol):
    """The parts of a running service from which answers to queries are computed."""

    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> RuntimeFacts: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def state(self) -> SchedulerState: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def completions(self) -> Completions: ...
    @property
    def submit_queue(self) -> SubmitQueue: ...
    @property
    def listener(self) -> Listener: ...
    @property
    def key_commands(self) -> KeyCommands: ...
    @property
    def owners(self) -> Owners: ...
    @property
    def checkpointer(self) -> WalCheckpointer: ...
    @property
    def backup(self) -> JournalBackup | None: ...
    @property
    def result_requests(self) -> ResultRequests: ...
    @property
    def reservation_commands(self) -> ReservationCommands: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def executor(self) -> ActionExecutor: ...
    @property
    def devices(self) -> DeviceRecords: ...
    @property
    def pass_times(self) -> PassTimes: ...
    @property
    def store_error(self) -> str: ...
    def drain(self, *, now: bool) -> None: ...
