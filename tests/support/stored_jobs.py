"""Jobs of some users in a journal of this process, without a service around it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from simenv.client.jobs import JobRecords
from simenv.service.handlers.queries import QUERIES
from simenv.service.jobs.store import JobStore
from simenv.service.journal.database import PostgresPlace
from simenv.service.journal.writer import Journal
from simenv.wire import codec
from simenv.wire.messages.base import ClientRequest, Reply, ServiceMessage, answer_of
from simenv.wire.rights import Identity, Role

T = TypeVar("T")
A = TypeVar("A", bound=Reply)


class StoredJobs:
    """The store of a service, and the thread that has its journal."""

    def __init__(self, place: Path | PostgresPlace, keep_days: float = 30.0) -> None:
        self.place, self._keep_days = place, keep_days
        self._thread = ThreadPoolExecutor(1, "stored-jobs")
        self.call(self._open)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns in the thread."""
        return self._thread.submit(function, *arguments).result()

    def _open(self) -> None:
        self.journal = Journal(self.place, "process")
        self.jobs = JobStore(self.journal, self._keep_days)

    def restart(self) -> None:
        """As after a crash of the service."""
        self.call(self.journal.database.abandon)
        self.call(self._open)

    def of(self, user: str = "ana", reservation: int = 0) -> JobRecords:
        """What a client of the user has as `client.jobs`, with rights bound to a reservation."""
        identity = Identity(user, Role.CLIENT, reservation=reservation)
        session: Any = SimpleNamespace(request=partial(self._ask, identity))
        return JobRecords(session)

    def _ask(self, identity: Identity, message: ClientRequest[A]) -> A:
        answer = self.call(self._answer, identity, codec.from_client(codec.encode(message)))
        assert isinstance(answer, answer_of(type(message)))
        return answer

    def _answer(self, identity: Identity, message: Any) -> Any:
        handlers: Any = SimpleNamespace(service=self)
        answer = QUERIES[type(message)](handlers, message, identity, b"")
        if isinstance(answer, ServiceMessage):
            return answer
        assert answer is not None
        (packed,) = [each for each in answer if isinstance(each, bytes)]
        return codec.to_client(packed)

    def close(self) -> None:
        self.call(self.journal.close)
        self._thread.shutdown()
