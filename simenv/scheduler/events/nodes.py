"""Events of pools and nodes: scale, drain, resume, lost, back."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec

from simenv.errors import NotFoundError, OptionError
from simenv.model import WorkerState
from simenv.scheduler.core.actions import Action, KillWorker, RecordEvent
from simenv.scheduler.core.types import Phase, Route
from simenv.scheduler.events import workers
from simenv.scheduler.state.nodes import NodeState
from simenv.scheduler.state.pools import Worker
from simenv.scheduler.state.state import SchedulerState

_PROBED = "; it is looked for"
MAX_CHECKED = 10_000  # waiting tasks checked when a node is lost; takes 10 ms of the event loop


def scale(
    state: SchedulerState,
    name: str,
    min_workers: int,
    max_workers: int,
    *,
    overcommit: bool = False,
) -> list[Action]:
    """Set the bounds of a pool's size; `overcommit`: also beyond the capacity of its nodes.

    Raises OptionError, NotFoundError.
    """
    pool = state.pools.get(name)
    if pool is None or pool.base:
        names = [n for n, p in state.pools.items() if not p.base]
        hint = f"pools: {', '.join(names)}"
        if pool is None:
            raise NotFoundError(f"there is no pool {name[:64]!r}", hint=hint)
        message = f"pool {name!r} is made on demand and has as many workers as its tasks need"
        raise OptionError(message, hint=hint)
    if not 0 <= min_workers <= max_workers:
        raise OptionError(
            f"pool {name!r}: {min_workers} to {max_workers} workers is not a range",
            hint="0 <= min_workers <= max_workers",
        )
    pool.spec = msgspec.structs.replace(pool.spec, min=min_workers, max=max_workers)
    pool.overcommit = overcommit
    return [RecordEvent("pool.scaled", name, f"{min_workers} to {max_workers} workers")]


def drain(state: SchedulerState, name: str, reason: str, now_ns: int) -> list[Action]:
    """Start nothing more on a node; its workers end when idle and are replaced elsewhere.

    Raises NotFoundError.
    """
    host = _host(state, name)
    host.drained = reason or "no reason given"
    state.nodes.version += 1
    actions: list[Action] = [RecordEvent("node.drained", name, host.drained)]
    for worker in _workers_on(state, host):
        actions += state.retire(worker, f"node {name} is drained", now_ns)
    return actions + record_unplaceable(state)


def resume(state: SchedulerState, name: str, is_probed: bool = False) -> list[Action]:
    """Use a drained or lost node, or a quarantined pool, again.

    `is_probed`: the launcher cannot start anything on the node and still looks for it, so the node
    stays lost until it is back.
    """
    pool = state.pools.get(name)
    if pool is not None and name not in state.nodes.hosts:
        pool.record_success()
        return [RecordEvent("pool.resumed", name, "its workers are started again")]
    host = _host(state, name)
    host.drained = ""
    state.nodes.version += 1
    host.avoid_until_ns = 0
    if is_probed:
        host.lost = (host.lost or "lost").removesuffix(_PROBED) + _PROBED
        return [RecordEvent("node.resumed", name, f"once it is back ({host.lost})")]
    host.lost = ""
    return [RecordEvent("node.resumed", name, "workers may be placed there again")]


def lost(state: SchedulerState, name: str, reason: str, now_ns: int) -> list[Action]:
    """Declare a node and its workers lost; neither their pools nor their tasks are charged."""
    host = state.nodes.hosts.get(name)
    if host is None or host.lost:
        return []
    host.lost = reason or "lost"
    state.nodes.version += 1
    actions: list[Action] = [RecordEvent("node.lost", name, host.lost)]
    for worker in _workers_on(state, host):
        actions.append(KillWorker(worker.name, f"node {name} was lost", worker.start))
        actions += workers.declare_worker_lost(
            state, worker, f"node {name} was lost: {host.lost}", now_ns, blame=False
        )
        pool = state.pools[worker.pool]
        pool.next_start_ns = pool.pauses = 0  # other nodes are sound
    return actions + record_unplaceable(state)


def back(state: SchedulerState, name: str) -> list[Action]:
    """Use a lost node again, because the launcher reports it back."""
    host = state.nodes.hosts.get(name)
    if host is None or not host.lost:
        return []
    host.lost = ""
    state.nodes.version += 1
    host.avoid_until_ns = 0
    return [RecordEvent("node.back", name, f"drained: {host.drained}" if host.drained else "")]


def detect_silent_nodes(state: SchedulerState, now_ns: int) -> list[Action]:
    """Declare silent workers lost, and a node lost if all its workers are silent."""
    actions: list[Action] = []
    for host in state.nodes.hosts.values() if len(state.nodes.hosts) > 1 else ():
        on_node = _workers_on(state, host)
        ready = [w for w in on_node if w.state in (WorkerState.IDLE, WorkerState.BUSY)]
        silent = [w for w in ready if now_ns - w.heard_ns > state.limits.silent_ns]
        if len(silent) > 1 and len(silent) == len(ready):
            reason = f"all its {len(silent)} workers are silent"
            actions += lost(state, host.node.name, reason, now_ns)
    return actions + workers.expire_silent_workers(state, now_ns)


def _host(state: SchedulerState, name: str) -> NodeState:
    host = state.nodes.hosts.get(name)
    if host is None and name in state.pools:
        raise NotFoundError(
            f"{name!r} is a pool, and only nodes are drained",
            hint=f"nodes: {', '.join(state.nodes.hosts)}; to empty a pool: simenv scale {name} 0",
        )
    if host is None:
        nodes, pools = ", ".join(state.nodes.hosts), ", ".join(state.pools)
        raise NotFoundError(
            f"there is no node or pool {name[:64]!r}", hint=f"nodes: {nodes}; pools: {pools}"
        )
    return host


def _workers_on(state: SchedulerState, host: NodeState) -> list[Worker]:
    return [w for w in state.workers.values() if any(h is host for h, _ in w.host_ranks)]


def record_unplaceable(state: SchedulerState) -> list[RecordEvent]:
    """Return an event for each pool with waiting tasks that fit no node now.

    Called when a node was lost or drained. Only the first MAX_CHECKED unfinished tasks are checked.
    """
    if state.capacity().is_whole:
        return []
    by_route: dict[Route, str] = {}
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in itertools.islice(state.tasks.values(), MAX_CHECKED):
        if record.phase != Phase.WAITING:
            continue
        reason = by_route.get(record.route)
        if reason is None:
            reason = by_route[record.route] = state.unplaceable_reason(record.route)
        if reason:
            counts[record.route.pool] += 1
            reasons.setdefault(record.route.pool, reason)
    suffix = " or more" if len(state.tasks) > MAX_CHECKED else ""
    return [
        RecordEvent(
            "task.unplaceable", pool, f"{count}{suffix} waiting tasks fit no node: {reasons[pool]}"
        )
        for pool, count in counts.items()
    ]
