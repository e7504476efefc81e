"""Read-only views of scheduler state and journal: tasks, workers, warnings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from simenv import model
from simenv.scheduler.core import (
    DEPENDENT,
    RUNS,
    UNSENT,
    Phase,
    Route,
    TaskRecord,
    unpack_routes,
)
from simenv.scheduler.forecast.expected_starts import ExpectedStarts
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.views.pending_reasons import pending_reason
from simenv.scheduler.views.run_times import run_forecast
from simenv.service.accounting.usage import device_of
from simenv.service.journal import accepted, writer
from simenv.service.results.completions import Completions, end_reason
from simenv.wire import codec
from simenv.wire.messages.client import STATES, Completed, Completion, Submit

MAX_LISTED = 10_000
END_WARNING_S = 900.0  # before the end of the allocation: `simenv status` shows a warning


def listed(
    state: SchedulerState, scope: str, limit: int
) -> tuple[int, list[tuple[TaskRecord, int]]]:
    """Return the number of unfinished tasks, and the first of them with their turns (0: not
    stated): running, prefetched, waiting in order, then those that wait for units or other tasks.
    `scope`: the only owner whose tasks may be seen, see Identity. Such a listing has no turns,
    because they would require a search through the whole queue."""
    running = [r for w in state.cluster.workers.values() for r in w.held.values()]
    running += [state.tasks[number] for number in state.devices.paced.held]
    running = [r for r in running if scope in ("", r.batch.owner)]
    running.sort(key=lambda r: (-r.phase, r.number))
    results = [(record, 0) for record in running[:limit]]
    remaining = limit - len(results)
    if scope:
        own_tasks = state.tasks.by_owner.of(scope)
        waiting = (r for r in own_tasks if r.phase in UNSENT)
        return len(own_tasks), results + [
            (record, 0) for record in itertools.islice(waiting, remaining)
        ]
    queued = itertools.chain.from_iterable(pool.queue for pool in state.cluster.pools.values())
    turns = enumerate(itertools.islice(queued, remaining), 1)
    results += [(record, turn) for turn, record in turns]
    results += _parked(state, limit - len(results))
    return len(state.tasks), results + _dependent(state, limit - len(results))


def _parked(state: SchedulerState, limit: int) -> list[tuple[TaskRecord, int]]:
    """Return tasks that wait for units of their reservations, with their turns there."""
    each = (
        enumerate(reservation.parked.values(), 1)
        for reservation in state.reservations.live.values()
    )
    first = itertools.islice(itertools.chain.from_iterable(each), limit)
    return [(record, turn) for turn, (record, _) in first]


def _dependent(state: SchedulerState, limit: int) -> list[tuple[TaskRecord, int]]:
    """Return tasks that wait only for other tasks."""
    each = (group.tasks[number] for number, group in state.tasks.dependencies.by_task.items())
    return [(r, 0) for r in itertools.islice((r for r in each if r.phase == DEPENDENT), limit)]


def task_view(
    state: SchedulerState,
    record: TaskRecord,
    now_ns: int,
    turn: int = 0,
    starts: ExpectedStarts | None = None,
) -> model.TaskInfo:
    """Return the view of one unfinished task. `turn`: its turn in the queue; 0: not known."""
    running = record.phase in RUNS
    worker = state.cluster.workers.get(record.worker)
    left_us, outrun = run_forecast(state, record, now_ns)
    wait_us = starts.task_us(record, now_ns) if starts is not None else -1.0
    return model.TaskInfo(
        id=model.task_name(record.number),
        name=record.batch.terms.name,
        pool=record.route.pool,
        state=model.TaskState.RUNNING if running else model.TaskState.QUEUED,
        attempt=max(1, record.attempts + (record.phase == Phase.WAITING)),
        time_s=(now_ns - record.batch.accepted_ns) / 1e9,
        num_qubits=record.route.num_qubits,
        shots=record.spec.shots,
        worker=record.worker,
        reason=_reason(state, record, now_ns, turn),
        owner=record.batch.owner,
        wait_us=wait_us,
        parked=turn or _reservation_turn(state, record) if record.phase == Phase.PARKED else 0,
        reservation=record.batch.terms.reservation,
        progress=worker.report.progress_of(record.number)
        if running and worker is not None
        else None,
        wait_off_by=starts.off_by(record.route.pool) if starts is not None else 0.0,
        wait_age_us=starts.age_us(wait_us, now_ns) if starts is not None else 0.0,
        left_us=left_us,
        outrun=outrun,
        engine=record.route.engine,
        device=device_of(record.batch.terms, record.route),
    )


def _reservation_turn(state: SchedulerState, record: TaskRecord) -> int:
    """Return the turn of a task among those that wait for units of its reservation."""
    return list(state.reservations.by_task[record.number].parked).index(record.number) + 1


def _reason(state: SchedulerState, record: TaskRecord, now_ns: int, turn: int) -> str:
    reason = pending_reason(state, record, now_ns)
    if record.stop.reason or record.phase not in UNSENT:
        return reason
    if turn:
        reason += f", {_ordinal(turn)} in line"
    attempt = f"attempt {record.attempts + 1}" if record.attempts else ""
    return "; ".join(filter(None, (reason, attempt)))


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else suffix}"


def workers_view(state: SchedulerState, scope: str) -> list[model.WorkerInfo]:
    """Return the views of all workers. `scope`: the only owner whose tasks may be named, see
    Identity."""
    workers = []
    for worker in state.cluster.workers.values():
        running, record = next(iter(worker.held.items()), (0, None))
        if record is not None and scope not in ("", record.batch.owner):
            running = 0
        workers.append(
            model.WorkerInfo(
                name=worker.name,
                pool=worker.pool,
                state=worker.state,
                node=worker.process.node,
                pid=worker.process.pid,
                ranks=worker.ranks,
                slots=worker.slots,
                task=model.task_name(running) if running else "",
                tasks=worker.process.tasks,
                restarts=worker.process.restarts,
                memory_bytes=worker.report.rss_bytes,
                nodes=tuple(share.node for share in worker.shares),
            )
        )
    return workers


def warnings(
    pools: list[model.PoolInfo], nodes: list[model.NodeInfo], problems: list[str]
) -> tuple[str, ...]:
    """Return the warnings of `simenv status`: problems, unusable nodes and pools."""
    lines = [text for text in problems if text]
    lines += [f"node {node.name} is {node.state}: {node.reason}" for node in nodes if node.reason]
    for info in pools:
        if info.closed or info.state in ("degraded", "quarantined"):
            lines.append(f"pool {info.name} is {info.state}: {info.reasons}".removesuffix(": "))
    return tuple(lines)


def ending(end_ns: int, now_ns: int) -> str:
    """Return a warning that the allocation ends soon, or "". `end_ns` 0: it never ends."""
    left_s = (end_ns - now_ns) / 1e9
    if not end_ns or left_s > END_WARNING_S:
        return ""
    left = f"{left_s / 60:.0f} min" if left_s > 120 else f"{max(0.0, left_s):.0f} s"
    return f"the allocation ends in {left}: what cannot end before then waits for the next start"


def exposed(exposure: str, others: Sequence[int]) -> str:
    """Return a warning that other users can run programs through the launcher; "" if there are no
    such users."""
    if not exposure or not others:
        return ""
    count = f"{len(others)} other user{'s' * (len(others) != 1)}"
    identity = f"{count} of this node can run programs as you through the launcher of MPI"
    return f"{identity}: {exposure} (docs/reference/security.md, Several nodes)"


class FinalTasks:
    """Views of ended tasks, from the journal."""

    def __init__(self, journal: writer.Journal, completions: Completions) -> None:
        self._journal = journal
        self._completions = completions
        self._last: tuple[accepted.AcceptedRow, Submit, list[Route]] | None = None

    def task(self, number: int, scope: str) -> model.TaskInfo | None:
        result = self._completions.find(number, scope)
        return None if result is None else self._view(*result)

    def newest(self, limit: int, scope: str) -> Iterator[model.TaskInfo | None]:
        """Yield the views of ended tasks, the newest first; None after a step without a view."""
        left, below = limit, self._completions.next_seq
        while left > 0:
            result = self._journal.records.finished.before(below, scope)
            if result is None:
                return
            below, completed = result[0], codec.completed(result[1])
            yield None
            for group in reversed(self._completions.without_withdrawn(completed)):
                for completion in reversed(group.results[-left:]):
                    left -= 1
                    yield self._view(completed, completion)
                    if not left:
                        return

    def waiting(self, number: int, reason: str) -> model.TaskInfo | None:
        """Return the view of an accepted task without a stored end, for readers of a journal
        without a scheduler; None if the task was never accepted."""
        row = self._journal.records.accepted.of(number)
        if row is None:
            return None
        terms, shots, route, owner = self._submitted(number)
        return model.TaskInfo(
            id=model.task_name(number),
            name=terms.name,
            pool=route.pool if route is not None else "",
            state=model.TaskState.QUEUED,
            attempt=1,
            time_s=max(0.0, time.time() - row.at),
            num_qubits=route.num_qubits if route is not None else 0,
            shots=shots,
            worker="",
            reason=reason,
            owner=owner,
            reservation=terms.reservation,
            engine=route.engine if route is not None else "",
            device=device_of(terms, route) if route is not None else "",
        )

    def _view(self, completed: Completed, completion: Completion) -> model.TaskInfo:
        terms, shots, route, owner = self._submitted(completion.task)
        timing = completion.timing
        return model.TaskInfo(
            id=model.task_name(completion.task),
            name=terms.name,
            pool=route.pool if route is not None else "",
            state=STATES[completion.state],
            attempt=completion.attempts,
            time_s=(timing.queued_us + timing.sent_us + timing.run_us) / 1e6,
            num_qubits=route.num_qubits if route is not None else 0,
            shots=shots,
            worker=completed.origin.worker,
            reason=end_reason(completion),
            owner=owner,
            reservation=terms.reservation,
            engine=route.engine if route is not None else "",
            device=device_of(terms, route) if route is not None else "",
        )

    def _submitted(self, task: int) -> tuple[model.TaskOptions, int, Route | None, str]:
        """Return options, shots, route and owner of a task. The last Submit is cached, because
        neighbouring tasks mostly share it."""
        if self._last is None or not 0 <= task - self._last[0].first < self._last[0].count:
            row = self._journal.records.accepted.of(task)
            if row is None:
                return model.TaskOptions(), 0, None, ""
            submit = codec.submit(row.body)
            self._last = (row, submit, unpack_routes(row.routes))
        row, submit, routes = self._last
        index = task - row.first
        return submit.terms, submit.tasks[index].shots, routes[index], row.owner
