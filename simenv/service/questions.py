"""What a client may ask, and the answers; asked after the commit, so that they see all of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import msgspec
import psutil

from simenv import __version__
from simenv.config import Config
from simenv.model import ServiceInfo, TaskInfo, TaskState
from simenv.scheduler.state import State
from simenv.service import api
from simenv.service.checkpoint import Checkpointer
from simenv.service.completions import Completions
from simenv.service.journal import Journal
from simenv.wire import codec
from simenv.wire import messages as m

COMPLETION_GROUPS = 64  # packed messages in one page
PAGE_BYTES = 16 * 2**20


class Facts(msgspec.Struct, frozen=True):
    """What is true for the whole life of this process."""

    node: str
    max_qubits: int  # the widest program that fits here in double precision
    ended_before: dict[TaskState, int]


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
    def checkpointer(self) -> Checkpointer: ...
    @property
    def started_ns(self) -> int: ...
    @property
    def next_event(self) -> int: ...
    @property
    def lags_ns(self) -> Iterable[int]: ...
    @property
    def trouble(self) -> str: ...
    def drain(self, *, now: bool) -> None: ...


class Questions:
    """Reads the daemon's parts, changes nothing but who watches what and who shuts down."""

    def __init__(self, subject: Subject) -> None:
        self._d = subject
        self._past = api.Past(subject.journal, subject.completions)
        self._process = psutil.Process()

    def answer(self, peer: bytes, q: m.FromClient) -> list[bytes]:
        """The packed answers to one question."""
        if isinstance(q, m.Hello):
            return [codec.encode(self._hello(q))]
        if isinstance(q, m.Watch):
            return self._watch(peer, q)
        answer = self._one(q)
        return [codec.encode(answer)]

    def _one(self, q: m.FromClient) -> m.ToClient:
        d = self._d
        match q:
            case m.Ping():
                return m.Pong(q.request, d.state.epoch)
            case m.GetStatus():
                return m.Status(q.request, self.status())
            case m.GetQueue():
                return self._queue(q)
            case m.GetTasks():
                found = [info for number in q.tasks if (info := self._task(number)) is not None]
                return m.Queue(q.request, len(found), found)
            case m.GetWorkers():
                return m.Workers(q.request, *api.workers_view(d.state))
            case m.GetEvents():
                limit = min(max(0, q.limit), api.MAX_LISTED)
                events = d.journal.records.events(q.since, limit)
                return m.Events(q.request, events, d.next_event - 1)
            case m.GetCompletions():
                return self._page(q)
            case m.Ack() | m.GetCursor():
                return m.Acked(q.request, d.journal.records.cursor_at(q.cursor))
            case m.Shutdown():
                held = sum(len(worker.held) for worker in d.state.workers.values())
                d.drain(now=q.now)
                return m.Stopping(q.request, held, len(d.state.tasks) - held)
        return m.Refused(0, [m.Refusal("protocol", f"{type(q).__name__} is not a question")])

    def _hello(self, q: m.Hello) -> m.ToClient:
        if q.protocol != m.PROTOCOL:
            words = (
                f"client {q.version} speaks protocol {q.protocol}, service {__version__} speaks "
                f"{m.PROTOCOL}"
            )
            hint = "use one simenv version for both"
            return m.Refused(0, [m.Refusal("version", words, hint)])
        return m.Welcome(self._d.state.epoch, __version__, self._d.config.name)

    def _watch(self, peer: bytes, q: m.Watch) -> list[bytes]:
        answers = []
        unknown = []
        for number in q.tasks:
            if number in self._d.state.tasks:
                self._d.completions.watch(number, peer)
                continue
            found = self._d.completions.find(number)
            if found is not None:
                answers.append(codec.encode(found[0]))
            else:
                unknown.append(number)
        answers.append(codec.encode(m.Unknown(q.request, unknown)))
        return answers

    def _queue(self, q: m.GetQueue) -> m.Queue:
        limit = min(max(0, q.limit), api.MAX_LISTED)
        if q.done:
            return m.Queue(q.request, self._d.completions.newest, self._past.newest(limit))
        return m.Queue(q.request, *api.queue_view(self._d.state, limit, time.monotonic_ns()))

    def _task(self, number: int) -> TaskInfo | None:
        record = self._d.state.tasks.get(number)
        if record is not None:
            return api.task_view(self._d.state, record, time.monotonic_ns())
        return self._past.task(number)

    def _page(self, q: m.GetCompletions) -> m.CompletionPage:
        groups: list[m.Completed] = []
        taken = size = 0
        for body in self._d.journal.records.finished_since(q.since, COMPLETION_GROUPS):
            group = codec.to_client(body)
            assert isinstance(group, m.Completed)
            if group.first_seq + len(group.results) - 1 <= q.since:
                continue
            if groups and size + len(body) > PAGE_BYTES:
                break
            groups.append(group)
            taken += len(group.results)
            size += len(body)
            if taken >= q.limit:
                break
        return m.CompletionPage(q.request, groups, self._d.completions.newest)

    def word(self, number: int, word: str) -> str:
        """Cancel's word for a task the machine does not hold."""
        if word == "unknown" and self._d.completions.find(number) is not None:
            return "final"
        return word

    def status(self) -> ServiceInfo:
        d = self._d
        state, now_ns = d.state, time.monotonic_ns()
        waiting = [pool.queue.head() for pool in state.pools.values()]
        oldest = min((r.batch.accepted_ns for r in waiting if r is not None), default=now_ns)
        slowest = d.journal.records.slowest_cursor()
        lags = sorted(d.lags_ns)
        return ServiceInfo(
            name=d.config.name,
            version=__version__,
            pid=self._process.pid,
            node=d.facts.node,
            epoch=state.epoch,
            up_s=(now_ns - d.started_ns) / 1e9,
            durability=d.config.durability,
            queued=len(state.tasks) - state.running,
            running=state.running,
            done=d.facts.ended_before[TaskState.DONE] + state.ended[TaskState.DONE],
            failed=d.facts.ended_before[TaskState.FAILED] + state.ended[TaskState.FAILED],
            cancelled=d.facts.ended_before[TaskState.CANCELLED] + state.ended[TaskState.CANCELLED],
            expired=d.facts.ended_before[TaskState.EXPIRED] + state.ended[TaskState.EXPIRED],
            lost_attempts=state.lost_attempts,
            unread=0 if slowest is None else d.completions.newest - slowest,
            oldest_s=(now_ns - oldest) / 1e9,
            slots=state.limits.slots,
            slots_granted=state.limits.slots - state.free_slots,
            memory_bytes=state.limits.memory_bytes,
            max_qubits=d.facts.max_qubits,
            rss_bytes=self._process.memory_info().rss,
            loop_lag_p99_ms=lags[len(lags) * 99 // 100] / 1e6 if lags else 0.0,
            pools=tuple(pool.info() for pool in state.pools.values()),
            warnings=api.warnings(list(state.pools.values()), [d.trouble, d.checkpointer.error]),
        )
