"""What is asked about: a running service, as far as answers are made from it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from simenv.config import Config
from simenv.model import TaskState
from simenv.scheduler.state import State
from simenv.service.checkpoint import Checkpointer
from simenv.service.completions import Completions
from simenv.service.copying import Copier
from simenv.service.devices import Devices
from simenv.service.hands import Hands
from simenv.service.intake import Intake
from simenv.service.journal import Journal
from simenv.service.keeping import Keeping
from simenv.service.owners import Owners
from simenv.service.pass_times import PassTimes
from simenv.service.people import People
from simenv.service.reserving import Reserving
from simenv.wire.connection import Doors


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
