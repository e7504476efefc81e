"""Workers that serve one account at a time: `isolation = "account"`.

A worker serves the account of its first task until it ends. The task that the queue chooses runs on
an idle worker of its account, else on one that has run nothing yet. If there is neither, the pool
grows; a pool that cannot grow restarts a worker of another account: it is retired, and started
anew. Meanwhile the queue's next choice of another account is tried, so that no account waits for
the restart of another one's worker.

Restarts are bounded. An account keeps a worker while its tasks follow one another within KEEP_NS;
from QUANTUM_NS on it loses the worker, once that holds no task, to an account that has none, or two
fewer. So a worker that is always busy is restarted once in QUANTUM_NS at most, and an account
without a worker waits for the running task and QUANTUM_NS at most. Short tasks wait for a worker
that their account has, unless more than GROW_BACKLOG_US of work waits for each.

Without configured accounts each owner is an account. A worker that holds a machine serves all of
them: what it runs there is no code of theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from simenv.model import WorkerState
from simenv.scheduler.core import AssignTasks, TaskRecord
from simenv.scheduler.state import nodes, pools, scheduler_state

REASON = "serves another account now"
KEEP_NS = 1_000_000_000  # a start takes as long
QUANTUM_NS = 10_000_000_000  # restarts take a tenth of a worker's time at most
SENT_AHEAD_US = 50_000.0  # a busy worker of its account is sent a shorter task ahead
MAX_ACCOUNTS = 16  # heads that are tried at a time, of associations that wait for a worker

Assign = Callable[[scheduler_state.SchedulerState, pools.Pool, int], AssignTasks | None]


def account_of(record: TaskRecord) -> str:
    """Return the account whose worker a task needs, or its owner; no owner's name has a slash."""
    batch = record.batch
    return f"{batch.account}/" if batch.account else batch.owner


def serves(state: scheduler_state.SchedulerState, worker: nodes.Worker, record: TaskRecord) -> bool:
    """Return whether a worker may run a task without a restart."""
    if not state.limits.isolates_accounts or worker.dedication.account is None:
        return True
    return (
        worker.dedication.account == account_of(record)
        or state.cluster.pools[worker.pool].is_exclusive
    )


def begin_account(
    state: scheduler_state.SchedulerState, worker: nodes.Worker, record: TaskRecord, now_ns: int
) -> None:
    """Note the account of the task that a worker gets."""
    if state.limits.isolates_accounts and worker.dedication.account is None:
        worker.dedication.account, worker.dedication.serving_since_ns = account_of(record), now_ns


def assign_by_account(
    state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int, assign: Assign
) -> AssignTasks | None:
    """Return the first assignment that `assign` can make: for the queue's choice, or, while that
    waits for a worker of its account, for the next choice among the other associations."""
    queue = pool.queue
    held_back = frozenset(queue.lanes.held_back)
    pool.awaited_accounts = 0
    assignment = last = None
    for _ in range(MAX_ACCOUNTS):
        record = queue.head()
        if record is None or record is last:  # lanes of reservations are not held back
            break
        last = record
        assignment = assign(state, pool, now_ns)
        if assignment is not None or not make_room(state, pool, record, now_ns):
            break
        queue.lanes.hold_back(frozenset((*queue.lanes.held_back, record.batch.association)))
    leaf = "" if assignment is None else assignment.records[0].batch.association
    if assignment is None or not state.shares.slot_limits(leaf):  # else computed anew
        queue.lanes.hold_back(held_back)
    return assignment


def make_room(
    state: scheduler_state.SchedulerState, pool: pools.Pool, record: TaskRecord, now_ns: int
) -> bool:
    """Let the pool grow for a task that was not assigned, or restart a worker for it. Returns False
    if a worker of its account is idle: then slots or memory are missing, for which it waits."""
    account = account_of(record)
    workers = [w for w in pool.workers.values() if w.is_live and not w.dedication.reservation]
    if any(w.state == WorkerState.IDLE and serves(state, w, record) for w in workers):
        return False
    counts = Counter(worker.dedication.account for worker in workers)
    if _waits_for_own(pool, record, counts[account]):
        return True
    pool.awaited_accounts += 1
    if pool.workers.live() < pool.spec.max and not pool.shortage:
        return True
    awaited = (WorkerState.STARTING, WorkerState.DRAINING)
    if pool.awaited_accounts > sum(w.state in awaited for w in pool.workers.values()):
        worker = _to_restart(workers, counts, counts[account], now_ns)
        if worker is not None and worker.state == WorkerState.IDLE:
            pool.switches_account = True
            state.begin_retirement(worker, REASON, now_ns)
        elif worker is not None and not any(w.leaving for w in pool.workers.values() if w.held):
            pool.workers.leave(worker, REASON)  # it ends when it holds no task
    return True


def _to_restart(
    workers: list[nodes.Worker], counts: Mapping[str | None, int], own: int, now_ns: int
) -> nodes.Worker | None:
    """Return the worker to restart for an account that has `own` others, none of which is idle;
    None while other accounts keep theirs. `counts`: of workers by account."""
    others = [
        w
        for w in workers
        if w.dedication.account is not None and not _is_kept(w, counts, own, now_ns)
    ]
    idle = [worker for worker in others if worker.state == WorkerState.IDLE]
    if idle:
        return min(idle, key=lambda worker: worker.since_ns)
    return min(others, key=lambda worker: worker.held.cost_us, default=None)


def _is_kept(worker: nodes.Worker, counts: Mapping[str | None, int], own: int, now_ns: int) -> bool:
    """Return whether the account of a worker keeps it, from one that has `own` workers."""
    if worker.state == WorkerState.IDLE and now_ns - worker.since_ns >= KEEP_NS:
        return False
    is_new = now_ns - worker.dedication.serving_since_ns < QUANTUM_NS
    return is_new or counts[worker.dedication.account] < (own + 2 if own else 1)


def _waits_for_own(pool: pools.Pool, record: TaskRecord, own: int) -> bool:
    """Return whether a task should wait for one of the `own` workers of its account."""
    if not own or record.cost_us > SENT_AHEAD_US:
        return False
    return pool.queue.backlog_us <= own * pools.GROW_BACKLOG_US
