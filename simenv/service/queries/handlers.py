"""Answers to read-only queries, computed after the commit of a pass.

Invariant: a long answer is computed in steps, between which the event loop does its other work; no
step requires that state stays unchanged until the next step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

import msgspec

from launcher.process.network_namespace import other_users
from simenv._version import __version__
from simenv.config import known_gateway
from simenv.errors import NotFoundError, OptionError
from simenv.model import PoolInfo, ServiceInfo, StandbyInfo, TaskInfo, TaskState, task_name
from simenv.model.accounts import SLOT_HOUR
from simenv.process import resident_bytes
from simenv.scheduler.core import Action, Phase, TaskRecord
from simenv.scheduler.routing import ranks
from simenv.scheduler.views.cluster_info import node_infos
from simenv.service.accounting.receipts import ReceiptReader
from simenv.service.accounting.usage import usage_report
from simenv.service.jobs.store import JobStore
from simenv.service.queries import task_views
from simenv.service.queries.devices import described, routing_snapshot, store_noise
from simenv.service.queries.history import Log
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.service import ServiceComponents
from simenv.service.telemetry.recorder import RECORDED
from simenv.service.telemetry.snapshot import MetricsReader, slot_s
from simenv.service.tokens import TokenCommands
from simenv.wire import codec
from simenv.wire.keyfiles import Identity
from simenv.wire.messages import accounting, admin, client as m, jobs, metrics, queries

COMPLETION_GROUPS = 64  # packed messages in one page
PAGE_BYTES = 4 * 2**20  # of completions, unless one alone is larger
PAGE_NS = 2_000_000  # for a page of history: less than a slice of the loop
MOST_EVENTS = 1_000
OTHER_USERS_NS = 60 * 10**9  # age at which the list of other users is read again from /proc
TASKS_PER_CLOCK_CHECK = 16  # entries of an answer between two checks of the clock


class Cancelling(m.Cancel, frozen=True):
    """A Cancel that was executed; `words`: one for each task, as from `Scheduler.cancel`."""

    words: list[str]


class QueryHandlers:
    """Answers to queries of clients. They change nothing but watched tasks, stored noise documents,
    results and jobs, and the service's drain on a Shutdown."""

    def __init__(self, service: ServiceComponents, tokens: TokenCommands) -> None:
        self._service = service
        self._tokens = tokens
        self._other_users: tuple[int, ...] = ()
        self._next_others_ns = 0
        self._final_tasks = task_views.FinalTasks(service.journal, service.completions)
        self._log = Log(service.journal, service.completions, service.state)
        self._receipts = ReceiptReader(service.journal.records, service.completions)
        self.metrics = MetricsReader(service)

    def is_ready(self, message: m.FromClient) -> bool:
        """Return whether a query can be answered now; some need modules that are still loading."""
        return self._service.submit_queue.admission is not None or not isinstance(
            message, queries.Explain | queries.GetEngines
        )

    def can_answer(self, peer: bytes, identity: Identity) -> bool:
        """Return whether an answer can be sent to a connection, and files be read for its owner."""
        return self._service.listener.can_send(peer) and self._service.result_requests.can_read(
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
        if isinstance(answer, queries.ServiceMessage):
            yield codec.encode(answer)
        elif answer is not None:
            yield from answer

    def _explain(self, message: queries.Explain, identity: Identity, _peer: bytes) -> ReplySteps:
        # This module imports numpy and kernels, which are loaded in a thread.
        from simenv.service.queries.engines import explain

        service = self._service
        while True:
            now = service.state.cluster.capacity
            result = explain(
                message,
                identity.owner,
                service.config.pools,
                now,
                routing_snapshot(service.state, service.devices),
                service.devices.emulated,
                service.state.estimator,
            )
            if not isinstance(result, Future):
                break
            yield result
        if isinstance(result, queries.Explained):
            yield from self._refresh_starts(identity)
            result = self._with_waits(result, identity)
        yield codec.encode(result)

    def _with_waits(self, result: queries.Explained, identity: Identity) -> queries.Explained:
        """Return an explanation with the time for which the task would wait now."""
        choices = []
        for each in result.explanation.engines:
            pool = self._service.state.cluster.pools.get(each.pool)
            if pool is not None:
                now_ns = time.monotonic_ns()
                us = self._service.starts.new_us(pool, now_ns, identity.owner)
                each = msgspec.structs.replace(
                    each,
                    wait_s=us / 1e6 if us >= 0 else us,
                    wait_off_by=self._service.starts.off_by(each.pool),
                    wait_age_s=self._service.starts.age_us(us, now_ns) / 1e6,
                )
            choices.append(each)
        explanation = queries.Explanation(result.explanation.sizes, choices)
        return queries.Explained(result.request, explanation)

    def _refresh_starts(self, identity: Identity, newest: int = 0) -> ReplySteps:
        """Bring the expected starts up to date, also those of `newest` and earlier tasks."""
        starts, asked_ns = self._service.starts, time.monotonic_ns()
        while True:
            now_ns = time.monotonic_ns()
            simulation = starts.refresh(now_ns, identity.owner, newest, asked_ns)
            if simulation is None or starts.is_usable(now_ns, newest):
                return
            yield simulation

    def _workers(self, message: m.GetWorkers, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from self._refresh_starts(identity)
        workers = task_views.workers_view(self._service.state, identity.scope)
        yield codec.encode(m.Workers(message.request, workers, self._pool_infos(identity)))

    def _pool_infos(self, identity: Identity) -> list[PoolInfo]:
        service = self._service
        return service.starts.pool_infos(time.monotonic_ns(), identity.owner)

    def _events(self, message: m.GetEvents, scope: str) -> m.Events:
        service, limit = self._service, min(message.limit, MOST_EVENTS)
        events = service.journal.records.events(message.since, limit, scope)
        return m.Events(message.request, events, service.executor.next_event - 1)

    def _cursor(self, message: m.Ack | m.GetCursor, identity: Identity, _peer: bytes) -> m.Acked:
        records = self._service.journal.records
        return m.Acked(message.request, records.cursor_at(identity.owner, message.cursor))

    def _engines(self, message: queries.GetEngines) -> queries.Engines:
        # This module imports numpy and kernels, which are loaded in a thread.
        from simenv.service.queries.engines import engines_view

        service = self._service
        limits = service.state.cluster.capacity.limits
        return queries.Engines(message.request, engines_view(service.config.pools, limits))

    def _pong(self, message: m.Ping) -> m.Pong:
        return m.Pong(message.request, self._service.state.epoch, self._standbys())

    def _standbys(self) -> tuple[str, ...]:
        waiting = self._service.journal.database.standbys
        return tuple(each.address for each in waiting if each.address)

    def _status(self, message: m.GetStatus, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from self._refresh_starts(identity)
        yield codec.encode(m.Status(message.request, self.status()))

    def _limits(
        self, message: admin.GetLimits, identity: Identity, _peer: bytes
    ) -> admin.OwnerReports:
        return admin.OwnerReports(message.request, self._service.owners.reports(identity))

    def _accounts(
        self, message: accounting.GetAccounts, identity: Identity, _peer: bytes
    ) -> accounting.Accounts:
        return self._service.accounts.view(message.request, identity.scope)

    def _devices(self, message: queries.GetDevices) -> ReplySteps:
        service = self._service
        return described(service.devices, service.state.cluster.capacity.limits, message)

    def _noise(self, message: queries.StoreNoise, identity: Identity, _peer: bytes) -> ReplySteps:
        service = self._service
        return store_noise(service.devices, service.journal, identity.owner, message)

    def _history(self, message: queries.GetHistory, scope: str) -> queries.History:
        return self._log.page(message, scope, time.monotonic_ns() + PAGE_NS)

    def _spec(self, message: queries.GetSpec, scope: str) -> queries.ServiceMessage:
        return self._log.submitted(message, scope) or _unknown(message)

    def _app(self, message: queries.GetApp, scope: str) -> queries.App:
        return queries.App(message.request, self._service.journal.records.last_app(scope))

    def _sees(self, identity: Identity) -> Callable[[str, str], bool]:
        """Return whether the sender may see the usage of an account and user."""
        if not identity.scope:
            return lambda _account, _user: True
        seen = self._service.usage.tree.sees(identity.owner)
        return lambda account, user: user == identity.owner or account in seen

    def _usage(self, message: accounting.GetUsage, identity: Identity, _peer: bytes) -> ReplySteps:
        service, sees = self._service, self._sees(identity)
        for answer in usage_report(service.journal, service.usage.names, message, sees):
            yield None if answer is None else codec.encode(answer)

    def _shares(
        self, message: accounting.GetShares, identity: Identity, _peer: bytes
    ) -> accounting.Shares:
        usage, sees = self._service.usage, self._sees(identity)
        rows = self._service.state.shares.fair_share.rows(time.monotonic_ns())
        accounts = usage.tree.accounts_of(identity.owner)
        own = {name for each in accounts for name in usage.tree.path(each)}
        result = []
        for row in rows:
            is_account = not (row.user or row.rank)  # the own user has no name, but a rank
            if sees(row.account, row.user) or (is_account and row.account in own):
                account = usage.tree.accounts.get(row.account)
                if account is not None and account.budget_slot_h and is_account:
                    left = SLOT_HOUR * account.budget_slot_h - usage.month_units(row.account)
                    row = msgspec.structs.replace(row, left_units=max(0.0, left))
                result.append(row)
        return accounting.Shares(message.request, result)

    def _get_receipts(
        self, message: accounting.GetReceipts, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        sees, result = self._sees(identity), []
        for count, number in enumerate(message.tasks, 1):
            receipt = self._receipts.receipt(number)
            if receipt is not None and sees(receipt.account, receipt.user):
                result.append(receipt)
            if not count % TASKS_PER_CLOCK_CHECK:
                yield None
        yield codec.encode(accounting.Receipts(message.request, result))

    def _series(self, message: metrics.GetSeries) -> ReplySteps:
        telemetry = self._service.telemetry
        if telemetry is None:
            raise NotFoundError("this environment stores no series")
        future = telemetry.series(message)
        while not future.done():
            yield future
        yield codec.encode(future.result())

    def _figure(
        self, message: metrics.SetDeviceFigure, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        service = self._service
        known = [pool.name for pool in service.config.pools if pool.device or pool.provider]
        if message.device not in known or service.telemetry is None:
            hint = f"pools with a device: {', '.join(known) or 'none'}"
            raise NotFoundError(f"there is no device {message.device[:64]!r}", hint=hint)
        if message.figure not in RECORDED or not 0.0 <= message.value <= 1.0:
            text = f"figure {message.figure[:64]!r} = {message.value}"
            raise OptionError(text, hint=f"{' or '.join(RECORDED)}, from 0 to 1")
        detail = f"{message.figure} = {message.value:.4f}"
        service.audit.write(identity, "device.figure", message.device, detail)
        future = service.telemetry.set_figure(message)
        while not future.done():
            yield future
        yield codec.encode(future.result())

    def _reservations(
        self, message: admin.GetReservations, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        return self._service.reservation_commands.listed(identity, message)

    def _stored_results(self, message: Any, identity: Identity, peer: bytes) -> None:
        """Let the file worker answer."""
        self._service.result_requests.handle(peer, identity, message)

    def _pools(self, message: admin.GetPools, identity: Identity, _peer: bytes) -> ReplySteps:
        yield from self._refresh_starts(identity)
        nodes = node_infos(self._service.state)
        yield codec.encode(admin.Pools(message.request, self._pool_infos(identity), nodes))

    def _device_terms(
        self,
        message: admin.GetProfile | admin.GetPolicy | admin.GetTarget,
        identity: Identity,
        _peer: bytes,
    ) -> ReplySteps:
        if isinstance(message, admin.GetTarget):
            yield from self._refresh_starts(identity)
        yield codec.encode(self._service.reservation_commands.answer(identity, message))

    def _shutdown(self, message: m.Shutdown) -> ReplySteps:
        """Store the end for standbys, answer, then drain, which may end the service at once."""
        state = self._service.state
        database = self._service.journal.database
        try:
            database.end_standbys()
        except database.errors as error:  # a standby would undo it
            text = f"the end of the environment cannot be stored: {error}"
            yield codec.encode(
                m.Refused(message.request, [m.Refusal("journal", text, database.hint)])
            )
            return
        held = sum(len(worker.held) for worker in state.cluster.workers.values())
        yield codec.encode(m.Stopping(message.request, held, len(state.tasks) - held))
        self._service.drain(now=message.now)

    def _hello(self, message: m.Hello, identity: Identity, peer: bytes) -> m.ToClient:
        if message.protocol != m.PROTOCOL:
            text = (
                f"client {message.version} speaks protocol {message.protocol}, "
                f"service {__version__} speaks {m.PROTOCOL}"
            )
            hint = "use one simenv version for both"
            return m.Refused(0, [m.Refusal("version", text, hint)])
        results = "" if identity.scope else str(self._service.result_requests.root)
        epoch, name = self._service.state.epoch, self._service.config.name
        newest = self.newest(identity.scope)
        limit = self._service.listener.message_bytes(peer)
        node, standbys = self._service.facts.node, self._standbys()
        return m.Welcome(epoch, __version__, name, node, results, newest, limit, standbys)

    def _watch(self, message: m.WatchResults, identity: Identity, peer: bytes) -> ReplySteps:
        scope = identity.scope
        state, completions = self._service.state, self._service.completions
        ended: dict[int, list[int]] = {}  # by the message that holds their ends
        unknown = []
        for number in message.tasks:
            yield None
            record = state.tasks.get(number)
            first_seq = None
            if record is None:
                first_seq = completions.first_seq_of(number)
            elif scope in ("", record.batch.owner):
                completions.watch(number, peer)
                continue
            if first_seq is None:
                unknown.append(number)
            else:
                ended.setdefault(first_seq, []).append(number)
        for first_seq, task_numbers in ended.items():
            yield None
            result = completions.ends(first_seq, set(task_numbers), scope)
            yield from map(codec.encode, result)
            ended_numbers = {completion.task for group in result for completion in group.results}
            # Clients repeat the query for ends that are not committed yet or were withdrawn.
            unknown += [
                number
                for number in task_numbers
                if number not in ended_numbers and number not in state.tasks
                if completions.is_stored(number)
            ]
        pruned = [number for number in unknown if self._is_pruned(number, scope)]
        yield codec.encode(m.UnknownTasks(message.request, unknown, pruned))

    def _is_pruned(self, number: int, scope: str) -> bool:
        """Return whether an id was used, is visible in `scope`, and its end is no longer kept."""
        if not 0 < number < self._service.state.tasks.next_number:
            return False
        owner = self._service.journal.records.owner_of(number)
        return owner is None or scope in ("", owner)

    def _queue(self, message: m.GetQueue, identity: Identity, _peer: bytes) -> ReplySteps:
        scope = identity.scope
        limit = min(message.limit, task_views.MAX_LISTED)
        infos: list[TaskInfo] = []
        if message.done:
            for info in self._final_tasks.newest(limit, scope):
                if info is not None:
                    infos.append(info)
                yield None
            total = self._service.completions.newest
            if scope:
                total = self._service.journal.records.count_of(scope)
        else:
            yield from self._refresh_starts(identity)
            total, listed = task_views.listed(self._service.state, scope, limit)
            for count, (record, turn) in enumerate(listed):
                if record.phase != Phase.FINAL:
                    infos.append(self._view(record, turn))
                if not count % TASKS_PER_CLOCK_CHECK:
                    yield None
        yield codec.encode(m.Queue(message.request, total, infos))

    def _tasks(self, message: m.GetTasks, identity: Identity, _peer: bytes) -> ReplySteps:
        records = (self._service.state.tasks.get(number) for number in message.tasks)
        waiting = [r.number for r in records if r is not None and r.phase == Phase.WAITING]
        if waiting:
            yield from self._refresh_starts(identity, max(waiting))
        infos = []
        for number in message.tasks:
            infos.append(self._task(number, identity.scope))
            yield None
        entries = [info for info in infos if info is not None]
        yield codec.encode(m.Queue(message.request, len(entries), entries))

    def _task(self, number: int, scope: str) -> TaskInfo | None:
        record = self._service.state.tasks.get(number)
        if record is None:
            return self._final_tasks.task(number, scope)
        if scope not in ("", record.batch.owner):
            return None
        return self._view(record)

    def _view(self, record: TaskRecord, turn: int = 0) -> TaskInfo:
        service = self._service
        now_ns = time.monotonic_ns()
        return task_views.task_view(service.state, record, now_ns, turn, service.starts)

    def _page(self, message: m.GetCompletions, scope: str) -> ReplySteps:
        """Answer GetCompletions; records are read one by one, since all may exceed a page."""
        groups: list[m.Completed] = []
        since, size, count = message.since, 0, 0
        while count < message.limit and len(groups) < COMPLETION_GROUPS:
            yield None
            body = self._service.journal.records.finished_after(since, scope)
            if body is None or (groups and size + len(body) > PAGE_BYTES):
                break
            group = codec.completed(body)
            since = group.first_seq + len(group.results) - 1
            remaining = self._service.completions.without_withdrawn(group)
            groups += remaining
            count += sum(len(each.results) for each in remaining)
            size += len(body) if remaining else 0
        yield codec.encode(m.CompletionPage(message.request, groups, self.newest(scope)))

    def newest(self, scope: str) -> int:
        """Return the number of the newest completion in a scope."""
        records = self._service.journal.records
        return records.newest_of(scope) if scope else self._service.completions.newest

    def cancel(self, message: Cancelling, scope: str) -> list[Action]:
        """Cancel unfinished tasks; returns the actions. Tasks out of scope count as unknown."""
        tasks = self._service.state.tasks
        records = [r for r in map(tasks.get, message.tasks) if r is not None]
        own_numbers = {r.number for r in records if scope in ("", r.batch.owner)}
        text, actions = self._service.scheduler.cancel(
            [number if number in own_numbers else 0 for number in message.tasks],
            time.monotonic_ns(),
        )
        message.words.extend(text)
        return actions

    def _cancelled(self, message: Cancelling, identity: Identity, peer: bytes) -> ReplySteps:
        """Answer a Cancel after the commit, with ended tasks looked up in the journal."""
        scope = identity.scope
        service = self._service
        absent = [index for index, outcome in enumerate(message.words) if outcome == "unknown"]
        for count, index in enumerate(absent, 1):
            number = message.tasks[index]
            ended = service.completions.first_seq_of(number) is not None
            if ended and scope in ("", service.journal.records.owner_of(number)):
                message.words[index] = "final"
            if not count % TASKS_PER_CLOCK_CHECK:
                yield None
        answer = codec.encode(m.Cancelled(message.request, message.words))
        if service.journal.pending:  # a commit has failed: answer when it is stored
            service.executor.outbox.append((peer, answer))
        else:
            yield answer

    def _users_of_node(self, now_ns: int) -> tuple[int, ...]:
        """Ids of other users with processes on this node; empty if the launcher is not exposed.
        /proc is read at most once in OTHER_USERS_NS, however often clients query the status."""
        if self._service.facts.exposure and now_ns >= self._next_others_ns:
            self._next_others_ns = now_ns + OTHER_USERS_NS
            self._other_users = other_users()
        return self._other_users

    def status(self) -> ServiceInfo:
        service = self._service
        state, now_ns = service.state, time.monotonic_ns()
        waiting = [pool.queue.head() for pool in state.cluster.pools.values()]
        oldest = min((r.batch.accepted_ns for r in waiting if r is not None), default=now_ns)
        slowest = service.journal.records.slowest_cursor()
        pools, nodes = service.starts.pool_infos(now_ns), node_infos(state)
        present = state.cluster.capacity.limits
        problems = [
            service.store_error,
            service.checkpointer.error if service.checkpointer else "",
            service.backup.error if service.backup else "",
        ]
        emulated = service.devices.emulated
        problems += [] if emulated is None else emulated.problems()
        problems.append(service.telemetry.error if service.telemetry else "")
        problems += [] if service.refreshes is None else service.refreshes.problems()
        config = service.config
        has_users = bool(config.listen or config.identity.has_users or config.gateway.listen)
        problems += service.result_requests.disk_problems(has_users=has_users)
        problems += [] if service.executor.hooks is None else service.executor.hooks.problems()
        problems.append(task_views.ending(state.limits.end_ns, now_ns))
        problems.append(task_views.exposed(service.facts.exposure, self._users_of_node(now_ns)))
        return ServiceInfo(
            name=service.config.name,
            version=__version__,
            pid=os.getpid(),
            node=service.facts.node,
            epoch=state.epoch,
            up_s=(now_ns - service.started_ns) / 1e9,
            durability=service.config.durability,
            queued=len(state.tasks) - state.tasks.running,
            running=state.tasks.running,
            done=service.facts.ended_before[TaskState.DONE] + state.tasks.ended[TaskState.DONE],
            failed=service.facts.ended_before[TaskState.FAILED]
            + state.tasks.ended[TaskState.FAILED],
            cancelled=service.facts.ended_before[TaskState.CANCELLED]
            + state.tasks.ended[TaskState.CANCELLED],
            expired=service.facts.ended_before[TaskState.EXPIRED]
            + state.tasks.ended[TaskState.EXPIRED],
            lost_attempts=state.tasks.lost_attempts,
            unread=0 if slowest is None else service.completions.newest - slowest,
            oldest_s=(now_ns - oldest) / 1e9,
            slots=present.slots,
            slots_granted=sum(node.slots_granted for node in nodes),
            memory_bytes=present.memory_bytes,
            max_qubits=ranks.widest(service.config.pools, present),
            rss_bytes=resident_bytes(),
            loop_lag_p99_ms=service.pass_times.p99_ms(),
            pools=tuple(pools),
            warnings=task_views.warnings(pools, nodes, problems),
            resumed=service.facts.resumed,
            launcher=service.facts.launcher,
            allocation=service.facts.allocation,
            nodes=tuple(nodes),
            max_ranks=ranks.most_ranks_of_all(present),
            end_s=service.facts.end_s,
            longest_pass_ms=service.pass_times.longest_ms(),
            isolation=service.config.isolation,
            standbys=tuple(
                StandbyInfo(each.node, each.state) for each in service.journal.database.standbys
            ),
            gateway=known_gateway(config.gateway, service.key_commands.path.parent),
            slot_s=slot_s(
                service.usage.counters.pools.values(), state.cluster.workers.values(), now_ns
            ),
        )


def _unknown(message: queries.GetSpec) -> m.Refused:
    text = f"no task {task_name(message.task)} here"
    return m.Refused(message.request, [m.Refusal("not_found", text, "simenv history lists them")])


Answer: TypeAlias = queries.ServiceMessage | ReplySteps | None  # None: it is sent later
Handler = Callable[[QueryHandlers, Any, Identity, bytes], Answer]


def _alone(method: Callable[[QueryHandlers, Any], Answer]) -> Handler:
    """Return the handler of a query whose answer is the same for all."""
    return lambda handlers, message, _identity, _peer: method(handlers, message)


def _scoped(method: Callable[[QueryHandlers, Any, str], Answer]) -> Handler:
    """Return the handler of a query about the tasks in a scope."""
    return lambda handlers, message, identity, _peer: method(handlers, message, identity.scope)


def _of_jobs(method: Callable[[JobStore, Identity, Any], Answer]) -> Handler:
    """Return the handler of a message about the sender's jobs. It is answered in its own commit."""
    return lambda handlers, message, identity, _peer: method(
        handlers._service.jobs, identity, message
    )


# The handler of each query, by the kind of its message.
QUERIES: dict[type, Handler] = {
    m.Hello: QueryHandlers._hello,
    m.Ping: _alone(QueryHandlers._pong),
    m.GetStatus: QueryHandlers._status,
    m.GetQueue: QueryHandlers._queue,
    m.GetTasks: QueryHandlers._tasks,
    m.GetWorkers: QueryHandlers._workers,
    m.GetEvents: _scoped(QueryHandlers._events),
    m.GetCompletions: _scoped(QueryHandlers._page),
    m.GetCursor: QueryHandlers._cursor,
    m.Ack: QueryHandlers._cursor,
    m.WatchResults: QueryHandlers._watch,
    Cancelling: QueryHandlers._cancelled,
    m.Shutdown: _alone(QueryHandlers._shutdown),
    admin.GetPools: QueryHandlers._pools,
    admin.GetKeys: _alone(lambda self, message: self._service.key_commands.answer(message)),
    admin.GetLimits: QueryHandlers._limits,
    admin.GetCalendar: lambda self, message, identity, _peer: self._service.calendar.listed(
        identity, message
    ),
    admin.GetTokens: lambda self, message, identity, _peer: self._tokens.listed(identity, message),
    accounting.GetAccounts: QueryHandlers._accounts,
    queries.GetEngines: _alone(QueryHandlers._engines),
    queries.Explain: QueryHandlers._explain,
    queries.GetDevices: _alone(QueryHandlers._devices),
    queries.StoreNoise: QueryHandlers._noise,
    queries.GetHistory: _scoped(QueryHandlers._history),
    queries.GetSpec: _scoped(QueryHandlers._spec),
    queries.GetApp: _scoped(QueryHandlers._app),
    accounting.GetUsage: QueryHandlers._usage,
    accounting.GetShares: QueryHandlers._shares,
    accounting.GetReceipts: QueryHandlers._get_receipts,
    admin.GetReservations: QueryHandlers._reservations,
    **dict.fromkeys(
        (admin.GetProfile, admin.GetPolicy, admin.GetTarget), QueryHandlers._device_terms
    ),
    metrics.GetMetrics: _alone(lambda self, message: self.metrics.read(message.request)),
    metrics.GetSeries: _alone(QueryHandlers._series),
    metrics.SetDeviceFigure: QueryHandlers._figure,
    queries.FetchResult: QueryHandlers._stored_results,
    queries.VerifyResult: QueryHandlers._stored_results,
    queries.CollectGarbage: QueryHandlers._stored_results,
    jobs.PutJob: _of_jobs(JobStore.put),
    jobs.AppendJobBlob: _of_jobs(JobStore.append),
    jobs.GetJob: _of_jobs(JobStore.get),
    jobs.ListJobs: _of_jobs(JobStore.listed),
    jobs.DeleteJob: _of_jobs(JobStore.remove),
    jobs.ReadJobBlob: _of_jobs(JobStore.blob),
}
