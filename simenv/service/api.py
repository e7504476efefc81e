"""Answers to questions about the environment: read-only views of the machine and the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from simenv.model import (
    PoolInfo,
    TaskInfo,
    TaskState,
    WorkerInfo,
    WorkerState,
    task_name,
)
from simenv.scheduler.pools import Pool
from simenv.scheduler.queue import LONG_US
from simenv.scheduler.state import State
from simenv.scheduler.values import Phase, Record, Route
from simenv.service.completions import Completions
from simenv.service.journal import Journal
from simenv.service.records import AcceptedRow
from simenv.wire import codec
from simenv.wire.messages import STATES, Completed, Completion, Failure, Submit

MAX_LISTED = 10_000
_ROUTES = msgspec.msgpack.Decoder(tuple[list[Route], list[int]])


def pack_routes(routes: list[Route]) -> bytes:
    """The routes of a Submit's tasks, each different one written once."""
    table: dict[Route, int] = {}
    index = [table.setdefault(route, len(table)) for route in routes]
    return msgspec.msgpack.encode((list(table), index))


def unpack_routes(packed: bytes) -> list[Route]:
    table, index = _ROUTES.decode(packed)
    return [table[k] for k in index]


def listed(state: State, scope: str, limit: int) -> tuple[int, list[tuple[Record, int]]]:
    """How many tasks there are, and the first of them with their turns (0: not told): running, then
    sent ahead, then waiting in their order. `scope`: whose they must be, see Identity.

    An owner is not told her turn among everybody's: finding it out means looking through the whole
    queue.
    """
    held = [r for w in state.workers.values() for r in w.held.values()]
    held = [r for r in held if scope in ("", r.batch.owner)]
    held.sort(key=lambda r: (-r.phase, r.number))
    found = [(record, 0) for record in held[:limit]]
    left = limit - len(found)
    if scope:
        mine = state.owned.of(scope)
        waiting = (r for r in mine if r.phase == Phase.WAITING)
        return len(mine), found + [(record, 0) for record in itertools.islice(waiting, left)]
    queued = itertools.chain.from_iterable(pool.queue for pool in state.pools.values())
    turns = enumerate(itertools.islice(queued, left), 1)
    return len(state.tasks), found + [(record, turn) for turn, record in turns]


def task_view(state: State, record: Record, now_ns: int, place: int = 0) -> TaskInfo:
    """One unfinished task; `place` is its turn in the queue if known."""
    running = record.phase == Phase.RUNNING
    return TaskInfo(
        id=task_name(record.number),
        name=record.batch.terms.name,
        pool=record.route.pool,
        state=TaskState.RUNNING if running else TaskState.QUEUED,
        attempt=max(1, record.attempts + (record.phase == Phase.WAITING)),
        time_s=(now_ns - record.batch.accepted_ns) / 1e9,
        num_qubits=record.route.num_qubits,
        shots=record.spec.shots,
        worker=record.worker,
        reason=_why(state, record, place),
        owner=record.batch.owner,
    )


def _why(state: State, record: Record, place: int) -> str:
    if record.stopping:
        return f"stopping: {record.stopping}"
    if record.phase == Phase.RUNNING:
        return ""
    if record.phase == Phase.SENT:
        return f"next on {record.worker}"
    pool = state.pools[record.route.pool]
    if state.draining:
        why = "the service is shutting down"
    elif pool.is_quarantined:
        why = f"pool {pool.spec.name} is quarantined: {pool.reason}"
    elif not any(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in pool.workers.values()):
        why = f"pool {pool.spec.name} is starting"
        if pool.failures:
            why = f"pool {pool.spec.name} retries after: {pool.reason}"
    elif record.route.memory_bytes > state.free_memory:
        why = "waiting for memory"
    elif not pool.idle():
        why = "waiting for a worker"
    elif state.free_slots and record.cost_us > LONG_US:
        why = "the last slot is kept for short tasks for now"
    else:
        why = "waiting for a slot"
    if place:
        why += f", {_ordinal(place)} in line"
    return f"{why}; attempt {record.attempts + 1}" if record.attempts else why


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else suffix}"


def workers_view(state: State, scope: str) -> tuple[list[WorkerInfo], list[PoolInfo]]:
    """`scope`: whose tasks may be named; see Identity."""
    workers = []
    for worker in state.workers.values():
        running, record = next(iter(worker.held.items()), (0, None))
        if record is not None and scope not in ("", record.batch.owner):
            running = 0
        workers.append(
            WorkerInfo(
                name=worker.name,
                pool=worker.pool,
                state=worker.state,
                node=worker.node,
                pid=worker.pid,
                ranks=1,
                slots=worker.slots,
                task=task_name(running) if running else "",
                tasks=worker.tasks,
                restarts=worker.restarts,
                memory_bytes=worker.rss_bytes,
            )
        )
    return workers, [pool.info() for pool in state.pools.values()]


def warnings(pools: Iterator[Pool] | list[Pool], trouble: list[str]) -> tuple[str, ...]:
    """What an operator should know, in words."""
    lines = [text for text in trouble if text]
    for pool in pools:
        info = pool.info()
        if info.state in ("degraded", "quarantined"):
            lines.append(f"pool {info.name} is {info.state}: {info.reason}")
    return tuple(lines)


class Past:
    """Views of tasks that are final."""

    def __init__(self, journal: Journal, completions: Completions) -> None:
        self._journal = journal
        self._completions = completions
        self._last: tuple[AcceptedRow, Submit, list[Route]] | None = None

    def task(self, number: int, scope: str) -> TaskInfo | None:
        found = self._completions.find(number, scope)
        return None if found is None else self._view(*found)

    def newest(self, limit: int, scope: str) -> Iterator[TaskInfo | None]:
        """The newest first; None where a step brought nothing."""
        left, below = limit, self._completions.next_seq
        while left > 0:
            found = self._journal.records.finished_before(below, scope)
            if found is None:
                return
            below, completed = found[0], codec.to_client(found[1])
            assert isinstance(completed, Completed)
            yield None
            for group in reversed(self._completions.standing(completed)):
                for completion in reversed(group.results[-left:]):
                    left -= 1
                    yield self._view(completed, completion)
                    if not left:
                        return

    def _view(self, completed: Completed, completion: Completion) -> TaskInfo:
        name, shots, route, owner = self._asked(completion.task)
        state = STATES[completion.state]
        reason = ""
        if state is not TaskState.DONE:
            failure: Failure = codec.failure(completion.payload)
            reason = f"{failure.reason}: {failure.message}"
        timing = completion.timing
        return TaskInfo(
            id=task_name(completion.task),
            name=name,
            pool=route.pool if route is not None else "",
            state=state,
            attempt=completion.attempts,
            time_s=(timing.queued_us + timing.sent_us + timing.run_us) / 1e6,
            num_qubits=route.num_qubits if route is not None else 0,
            shots=shots,
            worker=completed.origin.worker,
            reason=reason,
            owner=owner,
        )

    def _asked(self, task: int) -> tuple[str, int, Route | None, str]:
        """Name, shots, route and owner of a task. Neighbours come from one Submit: the last is
        kept."""
        if self._last is None or not 0 <= task - self._last[0].first < self._last[0].count:
            row = self._journal.records.accepted_of(task)
            if row is None:
                return "", 0, None, ""
            submit = codec.from_client(row.body)
            assert isinstance(submit, Submit)
            self._last = (row, submit, unpack_routes(row.routes))
        row, submit, routes = self._last
        place = task - row.first
        return submit.terms.name, submit.tasks[place].shots, routes[place], row.owner
