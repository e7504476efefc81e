"""Session of a client: its connection to the service, and what shares it.

Requests and their answers (`OpenRequests`), Submits (`Submits`), tasks and their ends
(`TaskSubscriptions`), awaits and callbacks (`AsyncioBridge`) share one channel, whose lock guards
their state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from simenv.client.connection.address import Address
from simenv.client.connection.asyncio_bridge import AsyncioBridge
from simenv.client.connection.channel import LOST_S, Handler, ServiceChannel
from simenv.client.connection.loop_reader import LoopReader
from simenv.client.connection.requests import OpenRequests
from simenv.client.connection.submits import Submits
from simenv.client.connection.subscriptions import TaskSubscriptions
from simenv.client.connection.task_handle import ClientTimings
from simenv.errors import OptionError, SimenvError
from simenv.model import TaskInfo
from simenv.wire.messages import base, client as m
from simenv.wire.messages.base import A, ClientRequest

PEEK_S = 0.5


class ServiceSession:
    """Session of one Client with its service. Thread-safe."""

    def __init__(
        self, address: Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        self.results_of_gateway: Path | None = None  # see `readable_results`
        self.as_client = as_client
        self.timings = ClientTimings()
        self.channel = ServiceChannel(address, as_client=as_client)
        self.requests = OpenRequests(self.channel)
        self.tasks = TaskSubscriptions(self, self.channel)
        self.submits = Submits(self, self.requests, self.tasks)
        self.bridge = AsyncioBridge(self.tasks)
        self.loop_reader = LoopReader(self.requests)
        self.channel.attach(self)
        self.channel.start(timeout_s)

    def handlers(self) -> Mapping[type, Handler]:
        handlers: dict[type, Handler] = dict.fromkeys(
            base.kinds(base.Reply), self.requests.answered
        )
        return handlers | {
            m.Completed: self.tasks.completed,
            m.Accepted: self.submits.accepted,
            m.Refused: self.requests.refused,
            m.UnknownTasks: self.tasks.unknown,
        }

    def renew(self) -> None:
        self.requests.renew()
        self.tasks.renew()

    def reset(self) -> None:
        parts = self.timings, self.requests, self.tasks, self.submits, self.bridge, self.loop_reader
        for part in parts:
            part.reset()

    def unread(self) -> None:
        self.loop_reader.no_thread_reads()

    def close(self) -> None:
        self.channel.close()
        self.loop_reader.close()
        self.bridge.join()

    def __reduce__(self) -> NoReturn:
        """Raise OptionError: a connection belongs to its process, and so does a client."""
        hint = "simenv.connect() in the other process; results and ids of tasks can be pickled"
        raise OptionError("the connection of a client cannot be pickled", hint=hint)

    def request(self, message: ClientRequest[A], timeout_s: float | None = None) -> A:
        """Send a message and return the answer, see `OpenRequests.request`."""
        return self.requests.request(message, timeout_s)

    def task_infos(
        self, task_numbers: Sequence[int], timeout_s: float | None = None
    ) -> list[TaskInfo]:
        """Return the service's information on these tasks; unknown tasks are left out."""
        results: list[TaskInfo] = []
        for part in _parts(task_numbers):
            results += self.request(m.GetTasks(0, tasks=part), timeout_s).tasks
        return results

    def try_task_infos(self, number: int) -> list[TaskInfo]:
        """Like `task_infos` for displays: short timeout, and [] if the service does not answer."""
        try:
            return self.task_infos([number], PEEK_S)
        except SimenvError:
            return []

    @property
    def results_folder(self) -> Path | None:
        """The service's results folder; None: not visible from this process."""
        return self.channel.service.results

    @property
    def readable_results(self) -> Path | None:
        """The results folder, also for a gateway that acts for a user of another host."""
        return self.channel.service.results or self.results_of_gateway

    def cancel(self, task_numbers: Sequence[int]) -> list[str]:
        """Cancel tasks; return one word for each, see `Cancelled`."""
        outcomes: list[str] = []
        for part in _parts(task_numbers):
            outcomes += self.request(m.Cancel(0, tasks=part)).words
        return outcomes

    def cancel_unwanted(self, task_numbers: Sequence[int]) -> None:
        """Cancel tasks that nobody waits for; never waits."""
        with self.channel.lock:
            for part in _parts(task_numbers):
                self.channel.send(m.Cancel(0, part))


def _parts(task_numbers: Sequence[int]) -> Iterable[list[int]]:
    for start in range(0, len(task_numbers), m.MAX_QUESTION_TASKS):
        yield list(task_numbers[start : start + m.MAX_QUESTION_TASKS])
