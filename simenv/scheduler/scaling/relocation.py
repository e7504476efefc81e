"""Relocation of workers whose node has no slots or memory for the waiting tasks.

A pool below its maximum gets a worker elsewhere; else an idle one is evicted for it. Workers that
reserve memory are not relocated: their need is decided when they start.
"""

from __future__ import annotations

from launcher.placement import NodeResources, matches
from simenv.model import WorkerState
from simenv.scheduler.core.actions import Action
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.state.nodes import NodeState
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState

PATIENCE_NS = 1_000_000_000  # resources expected to be free sooner are waited for


def nodes_for_head(state: SchedulerState, pool: Pool, now_ns: int) -> list[NodeState]:
    """Return nodes where the first waiting task could start at once.

    The list is empty if the task should wait, or can run on a node of its pool's workers.
    """
    head = pool.queue.head()
    live = [w for w in pool.workers.values() if w.is_live]
    if head is None or not live or pool.spec.ranks > 1 or pool.spec.memory_bytes:
        return []
    if pool.is_exclusive:
        return []  # a worker that holds hardware needs no slot
    idle = bool(pool.idle())
    if any(w.state == WorkerState.STARTING or _serves(w, head, idle) for w in live):
        return []
    wide_enough = any(w.host.node.memory_bytes >= head.route.memory_bytes for w in live)
    if wide_enough and now_ns - head.batch.accepted_ns < PATIENCE_NS:
        return []
    return [
        host
        for host in state.nodes.up()
        if host.free_slots > host.claimed_slots
        and host.free_memory - _claimed(host, head) >= head.route.memory_bytes
        and matches(pool.spec.nodes, NodeResources.of(host.node))
    ]


def _claimed(host: NodeState, head: TaskRecord) -> int:
    """Return the memory of a node that is claimed and not for this task."""
    return host.claimed_memory + host.backfill_memory * (head.cost_us > LONG_US)


def _serves(worker: Worker, head: TaskRecord, idle: bool) -> bool:
    """Return whether the task should wait for this worker.

    False if the worker is busy for long while another is idle, which could be relocated.
    """
    host = worker.host
    if head.route.memory_bytes > host.node.memory_bytes:
        return False
    if worker.state == WorkerState.BUSY:
        return not idle or worker.held_us * 1e3 <= PATIENCE_NS
    return host.free_slots > host.claimed_slots


def evict_idle(state: SchedulerState, pool: Pool, now_ns: int) -> list[Action]:
    """Retire an idle worker of a full pool, so that another can be started elsewhere."""
    idle = pool.idle()
    if not idle:
        return []
    worker = min(idle, key=lambda w: w.since_ns)
    return state.retire(worker, f"pool {pool.spec.name} needs one on another node", now_ns)


def memory_for_head(
    state: SchedulerState, pool: Pool, reclaimable: list[Worker], now_ns: int
) -> list[Action]:
    """Retire idle workers whose memory the first waiting task needs on its pool's nodes.

    The workers retire at once if the task fits nowhere else, otherwise after PATIENCE_NS of idling.
    """
    head = pool.queue.head()
    if head is None:
        return []
    required_bytes = head.route.memory_bytes
    hosts = {w.host.node.name: w.host for w in pool.workers.values() if w.is_live}
    lacking = [
        host for host in hosts.values() if required_bytes > host.free_memory - _claimed(host, head)
    ]
    urgent = len(lacking) == len(hosts)
    for host in lacking:
        evictable = [
            w
            for w in reclaimable
            if (urgent or now_ns - w.since_ns > PATIENCE_NS)
            and any(h is host for h, _ in w.host_ranks)
        ]
        freed = sum(n * w.reserved for w in evictable for h, n in w.host_ranks if h is host)
        has_slot = host.free_slots > host.claimed_slots
        if has_slot and required_bytes <= host.free_memory - _claimed(host, head) + freed:
            reason = f"its node's memory is needed by pool {pool.spec.name}"
            return [action for w in evictable for action in state.retire(w, reason, now_ns)]
    return []
