"""Pools and nodes as people read them."""

from __future__ import annotations

from simenv.model import NodeInfo, PoolInfo, WorkerState
from simenv.scheduler import capacity, sizing
from simenv.scheduler.books import Books
from simenv.scheduler.nodes import Host
from simenv.scheduler.pools import Pool


def pool_info(books: Books, pool: Pool) -> PoolInfo:
    spec, workers = pool.spec, list(pool.workers.values())
    ready = sum(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in workers)
    busy = sum(w.state == WorkerState.BUSY for w in workers)
    reason = pool.reason or pool.short
    if pool.is_quarantined:
        state = "quarantined"
    elif pool.failures:
        state = "degraded"
    else:
        state = "up" if ready >= spec.min else "starting"
    return PoolInfo(
        name=spec.name,
        engine=spec.engine,
        workers=ready,
        target=max(spec.min, pool.live()),
        busy=busy,
        waiting=len(pool.queue),
        state=state,
        reason=reason,
        backlog_us=pool.queue.backlog_us,
        held_us=sum(worker.held_us for worker in workers),
        ranks=spec.ranks,
        least=spec.min,
        most=spec.max,
        max_qubits=pool.machine_qubits or sizing.widest_of(spec, capacity.of(books).limits),
        nodes=tuple(dict.fromkeys(h.node.name for w in workers for h, _ in w.places)),
        on_demand=bool(pool.base),
        kept=pool.kept(),
    )


def node_info(books: Books, host: Host) -> NodeInfo:
    node = host.node
    there = [w for w in books.workers.values() if any(h is host for h, _ in w.places)]
    return NodeInfo(
        name=node.name,
        state=host.state,
        reason=host.lost or host.drained,
        slots=node.slots,
        slots_granted=node.slots - host.free_slots,
        memory_bytes=node.memory_bytes,
        memory_granted=node.memory_bytes - host.free_memory,
        workers=len(there),
        ranks=host.ranks,
        gpus=node.gpus,
        features=node.features,
    )
