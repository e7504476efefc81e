"""Answers to read-only queries, computed after the commit of a pass.

Invariant: a long answer is computed in steps, between which the event loop does its other work; no
step requires that state stays unchanged until the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from simenv.service.handlers.environment import EnvironmentQueries
from simenv.service.handlers.metrics import MetricsReader
from simenv.service.handlers.tasks import Cancelling, TaskQueries
from simenv.service.handlers.usage import UsageQueries
from simenv.service.jobs.store import JobStore
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.service import ServiceComponents
from simenv.service.tokens import TokenCommands
from simenv.wire import codec
from simenv.wire.messages import (
    accounting,
    admin,
    base,
    client as m,
    credentials,
    jobs,
    metrics,
    queries,
)
from simenv.wire.messages.explain import Explain
from simenv.wire.messages.history import GetApp, GetHistory, GetSpec
from simenv.wire.rights import Identity


class QueryHandlers:
    """Answers to queries of clients, by subject, and changes of jobs."""

    def __init__(self, service: ServiceComponents, tokens: TokenCommands) -> None:
        self.service, self.tokens = service, tokens
        self.tasks, self.usage = TaskQueries(service), UsageQueries(service)
        self.environment, self.metrics = EnvironmentQueries(service), MetricsReader(service)

    def is_ready(self, message: m.FromClient) -> bool:
        """Return whether a query can be answered now; some need modules that are still loading."""
        return self.service.submit_queue.admission is not None or not isinstance(
            message, Explain | queries.GetEngines
        )

    def can_answer(self, peer: bytes, identity: Identity) -> bool:
        """Return whether an answer can be sent to a connection, and files be read for its owner."""
        return self.service.listener.can_send(peer) and self.service.result_requests.can_read(
            identity.owner
        )

    def answer(self, peer: bytes, identity: Identity, message: m.FromClient) -> ReplySteps:
        """Yield the packed answers to one query, with the data that `identity` may see."""
        handler = QUERIES.get(type(message))
        if handler is None:
            refused = m.Refusal("protocol", f"{type(message).__name__} is not a question")
            yield codec.encode(m.Refused(0, [refused]))
            return
        answer = handler(self, message, identity, peer)
        if isinstance(answer, base.ServiceMessage):
            yield codec.encode(answer)
        elif answer is not None:
            yield from answer


Answer: TypeAlias = base.ServiceMessage | ReplySteps | None  # None: it is sent later
Handler = Callable[[QueryHandlers, Any, Identity, bytes], Answer]
Part = TypeVar("Part")


def _alone(method: Callable[[Part, Any], Answer]) -> Callable[[Part, Any, Identity, bytes], Answer]:
    """Return the handler of a query whose answer is the same for all."""
    return lambda part, message, _identity, _peer: method(part, message)


def _scoped(
    method: Callable[[Part, Any, str], Answer],
) -> Callable[[Part, Any, Identity, bytes], Answer]:
    """Return the handler of a query about the tasks in a scope."""
    return lambda part, message, identity, _peer: method(part, message, identity.scope)


def _of_part(
    part: Callable[[QueryHandlers], Part],
    table: Mapping[type, Callable[[Part, Any, Identity, bytes], Answer]],
) -> dict[type, Handler]:
    def handler(method: Callable[[Part, Any, Identity, bytes], Answer]) -> Handler:
        return lambda handlers, message, identity, peer: method(
            part(handlers), message, identity, peer
        )

    return {kind: handler(method) for kind, method in table.items()}


def _of_jobs(method: Callable[[JobStore, Identity, Any], Answer]) -> Handler:
    """Return the handler of a message about the sender's jobs. It is answered in its own commit."""
    return lambda handlers, message, identity, _peer: method(
        handlers.service.jobs, identity, message
    )


# The handler of each query, by the kind of its message.
QUERIES: dict[type, Handler] = {
    **_of_part(
        lambda handlers: handlers.tasks,
        {
            m.GetQueue: TaskQueries.queue,
            m.GetTasks: TaskQueries.tasks,
            m.GetCompletions: _scoped(TaskQueries.page),
            m.GetCursor: TaskQueries.cursor,
            m.Ack: TaskQueries.cursor,
            m.WatchResults: TaskQueries.watch,
            Cancelling: TaskQueries.cancelled,
            GetHistory: _scoped(TaskQueries.history),
            GetSpec: _scoped(TaskQueries.spec),
            GetApp: _scoped(TaskQueries.app),
            queries.FetchResult: TaskQueries.stored_results,
            queries.VerifyResult: TaskQueries.stored_results,
            queries.CollectGarbage: TaskQueries.stored_results,
        },
    ),
    **_of_part(
        lambda handlers: handlers.environment,
        {
            m.Hello: EnvironmentQueries.hello,
            m.Ping: _alone(EnvironmentQueries.pong),
            m.GetStatus: EnvironmentQueries.get_status,
            m.GetWorkers: EnvironmentQueries.workers,
            m.GetEvents: _scoped(EnvironmentQueries.events),
            m.Shutdown: _alone(EnvironmentQueries.shutdown),
            admin.GetPools: EnvironmentQueries.pools,
            queries.GetEngines: _alone(EnvironmentQueries.engines),
            Explain: EnvironmentQueries.explain,
            queries.GetDevices: _alone(EnvironmentQueries.devices),
            queries.StoreNoise: EnvironmentQueries.noise,
            admin.GetReservations: EnvironmentQueries.reservations,
            admin.GetProfile: EnvironmentQueries.device_terms,
            admin.GetPolicy: EnvironmentQueries.device_terms,
            admin.GetTarget: EnvironmentQueries.device_terms,
            metrics.GetSeries: _alone(EnvironmentQueries.series),
            metrics.SetDeviceFigure: EnvironmentQueries.figure,
        },
    ),
    **_of_part(
        lambda handlers: handlers.usage,
        {
            accounting.GetLimits: UsageQueries.limits,
            accounting.GetAccounts: UsageQueries.accounts,
            accounting.GetUsage: UsageQueries.usage,
            accounting.GetShares: UsageQueries.shares,
            accounting.GetReceipts: UsageQueries.receipts,
        },
    ),
    credentials.GetKeys: lambda handlers, message, _identity, _peer: (
        handlers.service.commands.keys.answer(message)
    ),
    admin.GetCalendar: lambda handlers, message, identity, _peer: (
        handlers.service.commands.calendar.listed(identity, message)
    ),
    credentials.GetTokens: lambda handlers, message, identity, _peer: handlers.tokens.listed(
        identity, message
    ),
    metrics.GetMetrics: lambda handlers, message, _identity, _peer: handlers.metrics.read(
        message.request
    ),
    jobs.PutJob: _of_jobs(JobStore.put),
    jobs.AppendJobBlob: _of_jobs(JobStore.append),
    jobs.GetJob: _of_jobs(JobStore.get),
    jobs.ListJobs: _of_jobs(JobStore.listed),
    jobs.DeleteJob: _of_jobs(JobStore.remove),
    jobs.ReadJobBlob: _of_jobs(JobStore.blob),
}
