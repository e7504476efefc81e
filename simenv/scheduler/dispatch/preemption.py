"""Preemption: tasks that end early and run again, for an account below its share.

A task may be preempted if its class of service says so, or if it has run for
`Billing.preempt_running_s`. It is asked to end when the task that goes first in the queue of its
pool, or of a pool of the same device whose workers want its slots, has waited for
`Billing.preempt_after_s`, and the usage of that task's account for its share is far below that of
its own. So a gang ends for tasks of one rank, and these for a gang, one after the other. Its worker
writes a checkpoint where it can; the task waits again, keeps its seed, and returns the same counts.
A task on a machine of a provider is never preempted: its job would be paid twice, with other
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from simenv.model import task_name
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.state import nodes, pools, scheduler_state

FAR = 0.5  # usage for its share of the account that waits, relative to that of the one that runs
EVERY_NS = 5_000_000_000  # at most one task for a pool


def count_overruns(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Count the time of running tasks beyond what was expected, while they run."""
    busy = (w for pool in state.cluster.pools.values() for w in pool.workers.busy.values())
    for worker in busy:
        queue = state.cluster.pools[worker.pool].queue
        record = next(iter(worker.held.values()))
        ran_us = (now_ns - record.sent_ns) / 1e3 * nodes.speedup_slots(worker)
        excess_us = ran_us - record.cost_us - worker.held.overrun_us
        if record.phase == core.Phase.RUNNING and excess_us > 1e6:
            worker.held.overrun_us += excess_us
            units = excess_us * queue.rate * record.batch.usage_factor
            state.shares.fair_share.expect(record.batch.association, units)


def preempt(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    """Ask tasks to end for accounts below their share."""
    after_ns = state.shares.fair_share.billing.preempt_after_s * 1e9
    actions: list[core.Action] = []
    if not after_ns or not state.shares.fair_share.tree:
        return actions
    for pool in state.cluster.pools.values():
        if pool.is_exclusive or dedicated_workers.starts_nothing(state, pool):
            continue
        head = pool.queue.head() if pool.queue.is_shared else None
        if head is None or now_ns - head.batch.accepted_ns < after_ns:
            continue
        if now_ns - pool.preempted_ns < EVERY_NS:
            continue
        victim = _victim(state, _in_the_way(state, pool), head, now_ns)
        if victim is not None:
            pool.preempted_ns = now_ns
            victim.preempted = True
            number, fence = victim.number, victim.fence
            state.tasks.deadlines.stop_by(now_ns, number, fence, state.cluster.grace_ns(victim))
            text = f"it waits again: {head.batch.account} is far below its share"
            actions.append(core.RecordEvent("task.preempted", task_name(number), text))
            actions.append(core.StopAttempt(victim.worker, number, fence, "preempted"))
    return actions


def _in_the_way(state: scheduler_state.SchedulerState, pool: pools.Pool) -> Iterator[nodes.Worker]:
    """Yield the busy workers for whose end the pool's first task waits: its own, and where it has
    an idle one, which lacks slots or memory then, those of the same device on the same nodes."""
    yield from pool.workers.busy.values()
    idle = (each for each in pool.workers.idle.values() if not each.dedication.reservation)
    hosts = {host for worker in idle for host, _ in worker.host_ranks}
    for other in state.cluster.pools.values():
        if other is not pool and other.device == pool.device:
            for worker in other.workers.busy.values():
                if not hosts.isdisjoint(host for host, _ in worker.host_ranks):
                    yield worker


def _victim(
    state: scheduler_state.SchedulerState,
    workers: Iterable[nodes.Worker],
    head: core.TaskRecord,
    now_ns: int,
) -> core.TaskRecord | None:
    """Return the running task of the account with the most usage for its share; None if none may
    be preempted for the task `head`."""
    usage: list[tuple[float, int]] = []
    running: dict[int, core.TaskRecord] = {}
    for worker in workers:
        if worker.dedication.reservation:
            continue
        record = next(iter(worker.held.values()))
        if record.preempted or record.stop.reason:
            return None  # one at a time
        own, other = _ratios(state, head, record)
        may_end = record.phase == core.Phase.RUNNING and _is_preemptible(state, record, now_ns)
        if may_end and own < FAR * other:
            usage.append((other, record.number))
            running[record.number] = record
    return running[max(usage)[1]] if usage else None


def _is_preemptible(
    state: scheduler_state.SchedulerState, record: core.TaskRecord, now_ns: int
) -> bool:
    qos = state.shares.qos.get(record.batch.qos)
    after_ns = state.shares.fair_share.billing.preempt_running_s * 1e9
    return (qos is not None and qos.preempt) or (
        after_ns > 0 and now_ns - record.started_ns > after_ns
    )


def _ratios(
    state: scheduler_state.SchedulerState, head: core.TaskRecord, record: core.TaskRecord
) -> tuple[float, float]:
    """Return the usage for its share of the account that waits and of the one that runs, where
    their paths part; equal ones within one account."""
    shares = state.shares.fair_share
    for own, other in zip(
        shares.path(head.batch.association)[:-1],
        shares.path(record.batch.association)[:-1],
        strict=False,
    ):
        if own != other:
            return shares.ratio(own), shares.ratio(other)
    return 1.0, 1.0
