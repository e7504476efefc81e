"""Answers to queries about tasks: what waits, runs and has ended, completions, cancellations."""

from __future__ import annotations

import time
from typing import Any

from simenv.model import TaskInfo, task_name
from simenv.scheduler.core import Action, Phase, TaskRecord
from simenv.service.queries import task_views
from simenv.service.queries.forecast_thread import refresh_starts
from simenv.service.queries.history import Log
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.service import ServiceComponents
from simenv.wire import codec
from simenv.wire.messages import base, client as m
from simenv.wire.messages.history import App, GetApp, GetHistory, GetSpec, History
from simenv.wire.rights import Identity

COMPLETION_GROUPS = 64  # packed messages in one page
PAGE_BYTES = 4 * 2**20  # of completions, unless one alone is larger
PAGE_NS = 2_000_000  # for a page of history: less than a slice of the loop
TASKS_PER_CLOCK_CHECK = 16  # entries of an answer between two checks of the clock


class Cancelling(m.Cancel, frozen=True):
    """A Cancel that was executed; `words`: one for each task, as from `Scheduler.cancel`."""

    words: list[str]


def newest_completion(service: ServiceComponents, scope: str) -> int:
    """Return the number of the newest completion in a scope."""
    records = service.journal.records
    return records.finished.newest_of(scope) if scope else service.completions.newest


class TaskQueries:
    """Answers about tasks. They change nothing but watched tasks and stored results."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._final_tasks = task_views.FinalTasks(service.journal, service.completions)
        self._log = Log(service.journal, service.completions, service.state)

    def watch(self, message: m.WatchResults, identity: Identity, peer: bytes) -> ReplySteps:
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
        owner = self._service.journal.records.accepted.owner_of(number)
        return owner is None or scope in ("", owner)

    def queue(self, message: m.GetQueue, identity: Identity, _peer: bytes) -> ReplySteps:
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
                total = self._service.journal.records.finished.count_of(scope)
        else:
            yield from refresh_starts(self._service.starts, identity.owner)
            total, listed = task_views.listed(self._service.state, scope, limit)
            for count, (record, turn) in enumerate(listed):
                if record.phase != Phase.FINAL:
                    infos.append(self._view(record, turn))
                if not count % TASKS_PER_CLOCK_CHECK:
                    yield None
        yield codec.encode(m.Queue(message.request, total, infos))

    def tasks(self, message: m.GetTasks, identity: Identity, _peer: bytes) -> ReplySteps:
        records = (self._service.state.tasks.get(number) for number in message.tasks)
        waiting = [r.number for r in records if r is not None and r.phase == Phase.WAITING]
        if waiting:
            yield from refresh_starts(self._service.starts, identity.owner, max(waiting))
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

    def page(self, message: m.GetCompletions, scope: str) -> ReplySteps:
        """Answer GetCompletions; records are read one by one, since all may exceed a page."""
        groups: list[m.Completed] = []
        since, size, count = message.since, 0, 0
        while count < message.limit and len(groups) < COMPLETION_GROUPS:
            yield None
            body = self._service.journal.records.finished.after(since, scope)
            if body is None or (groups and size + len(body) > PAGE_BYTES):
                break
            group = codec.completed(body)
            since = group.first_seq + len(group.results) - 1
            remaining = self._service.completions.without_withdrawn(group)
            groups += remaining
            count += sum(len(each.results) for each in remaining)
            size += len(body) if remaining else 0
        yield codec.encode(
            m.CompletionPage(message.request, groups, newest_completion(self._service, scope))
        )

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

    def cancelled(self, message: Cancelling, identity: Identity, peer: bytes) -> ReplySteps:
        """Answer a Cancel after the commit, with ended tasks looked up in the journal."""
        scope = identity.scope
        service = self._service
        absent = [index for index, outcome in enumerate(message.words) if outcome == "unknown"]
        for count, index in enumerate(absent, 1):
            number = message.tasks[index]
            ended = service.completions.first_seq_of(number) is not None
            if ended and scope in ("", service.journal.records.accepted.owner_of(number)):
                message.words[index] = "final"
            if not count % TASKS_PER_CLOCK_CHECK:
                yield None
        answer = codec.encode(m.Cancelled(message.request, message.words))
        if service.journal.pending:  # a commit has failed: answer when it is stored
            service.executor.outbox.append((peer, answer))
        else:
            yield answer

    def cursor(self, message: m.Ack | m.GetCursor, identity: Identity, _peer: bytes) -> m.Acked:
        records = self._service.journal.records
        return m.Acked(message.request, records.cursor_at(identity.owner, message.cursor))

    def history(self, message: GetHistory, scope: str) -> History:
        return self._log.page(message, scope, time.monotonic_ns() + PAGE_NS)

    def spec(self, message: GetSpec, scope: str) -> base.ServiceMessage:
        return self._log.submitted(message, scope) or _unknown(message)

    def app(self, message: GetApp, scope: str) -> App:
        return App(message.request, self._service.journal.records.accepted.last_app(scope))

    def stored_results(self, message: Any, identity: Identity, peer: bytes) -> None:
        """Let the file worker answer."""
        self._service.result_requests.handle(peer, identity, message)


def _unknown(message: GetSpec) -> m.Refused:
    text = f"no task {task_name(message.task)} here"
    return m.Refused(message.request, [m.Refusal("not_found", text, "simenv history lists them")])
