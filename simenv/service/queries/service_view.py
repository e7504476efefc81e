"""What is asked about: a running service, as far as answers are made from it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from simenv.config import Config
from simenv.model import TaskState
from simenv.scheduler.events.tasks import State
from simenv.service.admission.submissions import Intake
from simenv.service.control.admin import People
from simenv.service.control.owner_limits import Owners
from simenv.service.control.reservations import Reserving
from simenv.service.control.results import Keeping
from simenv.service.journal.background import Checkpointer, Copier
from simenv.service.journal.writer import Journal
from simenv.service.queries.devices import Devices
from simenv.service.results.completions import Completions
from simenv.service.support.loop_times import PassTimes
from simenv.service.workers.action_executor import Hands
from simenv.wire.transport.zmq_ipc import Doors


class Facts(msgspec.Struct, frozen=True):
    """What is true for the whole life of this process."""

    node: str
    ended_before: dict[TaskState, int]
    resumed: str = ""  # from which journal, in words
    launcher: str = ""  # which one, and why
    allocation: str = ""  # whose nodes these are, in words
    end_s: float = 0.0  # wall clock, when the site ends it; 0: never
    exposure: str = ""  # why other users of a node can run programs through the launcher


class Subject(Protocol):
    """What is asked about: the parts of a running service that answers are made from."""

    @property
    def config(self) -> Config: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def state(self) -> State: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def completions(self) -> Completions: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def doors(self) -> Doors: ...
    @property
    def people(self) -> People: ...
    @property
    def owners(self) -> Owners: ...
    @property
    def checkpointer(self) -> Checkpointer: ...
    @property
    def copier(self) -> Copier | None: ...
    @property
    def keeping(self) -> Keeping: ...
    @property
    def reserving(self) -> Reserving: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def hands(self) -> Hands: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def pass_times(self) -> PassTimes: ...
    @property
    def trouble(self) -> str: ...
    def drain(self, *, now: bool) -> None: ...
