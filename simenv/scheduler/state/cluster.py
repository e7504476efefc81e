"""State of the cluster: nodes, pools and workers, and the bookkeeping of what workers are granted.

Invariants: granted slots never exceed those of a node, and what a worker reserves or its tasks are
granted is released exactly once. The journal stores bounds of pools and drained nodes; workers are
known to the launcher alone, and start anew with the service.
"""

from __future__ import annotations

import msgspec

from simenv.errors import NotFoundError
from simenv.model import WorkerState
from simenv.model.views import base_of
from simenv.scheduler import core
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.routing import live_routing
from simenv.scheduler.state import deadlines, nodes as state_nodes, pools as state_pools

HEARTBEATS_PER_S = 1_000  # of all workers; each takes about 50 us of the service
SILENT_BEATS = 2.5  # heartbeats in `silent_ns`, however many workers there are


class ClusterState:
    """All nodes, pools and workers. `next_start` is the number of the next worker start: no start
    of an earlier epoch has one of these numbers."""

    def __init__(self, limits: core.ClusterLimits, epoch: int) -> None:
        self.limits = limits
        self.nodes = state_nodes.NodeTable(limits)
        self.capacity = live_routing.all_nodes(limits)  # of the nodes that are up
        self.pools: dict[str, state_pools.Pool] = {}
        self.gangs: list[state_pools.Pool] = []  # pools whose workers have several ranks
        self.workers: dict[str, state_nodes.Worker] = {}
        # Workers whose task may give slots back, see `gang_scheduling`.
        self.multi_slot_workers: dict[str, state_nodes.Worker] = {}
        self.state_keepers: dict[str, state_nodes.Worker] = {}  # with a grant for kept states
        self.unreaped_workers: dict[str, int] = {}  # start of lost workers that may still run
        # By name of a lost worker: its task, charged if the launcher reports the worker's own end.
        self.uncharged: dict[str, core.TaskRecord] = {}
        self.next_start = (epoch << core.START_BITS) + 1
        self.starts_left = 0  # workers that may still be started in this tick
        self.lacks_workers = False  # since the last tick a task came to a pool without workers
        self.lost_launchers: set[str] = set()  # DVMs that are lost and not started again yet
        self.lost_workers: dict[str, int] = {}  # by configured pool, since the start
        self._rerouted: dict[core.Route, core.Route] = {}

    def copy(self, epoch: int, fair_share: FairShare, max_tasks: int) -> ClusterState:
        """Return a copy with nodes, pools and workers of its own. `fair_share` and `max_tasks`: see
        `PoolQueue.copy`."""
        result = ClusterState(self.limits, epoch)
        result.nodes, result.capacity = self.nodes.copy(), self.capacity
        for name, pool in self.pools.items():
            own = result.pools[name] = pool.copy(result.nodes.hosts, fair_share, max_tasks)
            result.workers.update(own.workers)
            if pool.spec.ranks > 1:
                result.gangs.append(own)
        for name in self.multi_slot_workers:
            result.multi_slot_workers[name] = result.workers[name]
        for name in self.state_keepers:
            result.state_keepers[name] = result.workers[name]
        result.unreaped_workers, result.next_start = self.unreaped_workers.copy(), self.next_start
        return result

    # --- nodes ------------------------------------------------------------------------------------

    def nodes_changed(self) -> None:
        """Compute the capacity again, because a node came into use or went out of use."""
        limits, hosts = self.limits, list(self.nodes.hosts.values())
        up = [host.node for host in hosts if host.is_up or host.job is not None]
        has_jobs = any(host.job is not None for host in hosts)
        if not up or (len(up) == len(hosts) and not has_jobs):
            self.capacity = live_routing.all_nodes(limits)
            return
        away = [
            f"{h.node.name} is {h.state}: {h.lost or h.drained}"
            for h in hosts
            if not (h.is_up or h.job is not None)
        ]
        present = msgspec.structs.replace(
            limits,
            nodes=tuple(up),
            slots=sum(node.slots for node in up),
            memory_bytes=sum(node.memory_bytes for node in up),
        )
        self.capacity = live_routing.Capacity(limits, present, "; ".join(away))

    def unplaceable_reason(self, route: core.Route) -> str:
        """Return why a route fits none of the nodes that are up; "" if it fits, or if no node is
        up."""
        capacity = self.capacity
        pool = self.pools.get(base_of(route.pool) or route.pool)
        if capacity.is_whole or pool is None or pool.is_exclusive:
            return ""
        return live_routing.unplaceable_reason(capacity, pool.spec, route)

    def reroute(self, route: core.Route) -> core.Route:
        """Return the route, on this start's pools and nodes, of a task accepted before. Raises
        ConfigError."""
        cached = self._rerouted.get(route)
        if cached is None:
            pools = tuple(pool.spec for pool in self.pools.values() if not pool.base)
            cached = self._rerouted[route] = live_routing.reroute_after_restart(
                route, pools, self.limits
            )
        return cached

    # --- pools ------------------------------------------------------------------------------------

    def pools_of(self, device: str) -> list[state_pools.Pool]:
        """Return the pools of a device; of all devices for ""."""
        return [pool for pool in self.pools.values() if device in ("", pool.device)]

    def check_device(self, device: str) -> None:
        """Raise NotFoundError if there is no device of that name."""
        names = [name for name, pool in self.pools.items() if not pool.base]
        if device and device not in names:
            hint = f"pools: {', '.join(names)}; '' for all together"
            raise NotFoundError(f"there is no device {device[:64]!r}", hint=hint)

    def inflight(self, device: str) -> tuple[int, int]:
        """Return the numbers of tasks that the workers of a device hold: not started, and
        running."""
        held = [
            record
            for pool in self.pools_of(device)
            for worker in pool.workers.values()
            for record in worker.held.values()
        ]
        running = sum(record.phase == core.Phase.RUNNING for record in held)
        return len(held) - running, running

    def close_pool(self, pool: state_pools.Pool) -> None:
        """Remove a pool made on demand that has no tasks and no workers."""
        del self.pools[pool.spec.name]
        self.gangs.remove(pool)
        self.nodes.forget_slot_claims()  # waiting tasks claim again

    # --- workers ----------------------------------------------------------------------------------

    @property
    def heartbeat_intervals_s(self) -> tuple[float, float]:
        """Least and most seconds between two heartbeats of one worker, or of one agent."""
        longest_s = self.limits.silent_ns / 1e9 / SILENT_BEATS
        return min(len(self.workers) / HEARTBEATS_PER_S, longest_s), longest_s

    def running_slots(self) -> dict[str, int]:
        """Return the slots granted to the tasks of each owner, see `nodes.served`."""
        slots: dict[str, int] = {}
        for worker in self.workers.values():
            if worker.slots:
                for owner in {batch.owner for batch in state_nodes.served(worker)}:
                    slots[owner] = slots.get(owner, 0) + worker.slots
        return slots

    def state_bytes(self, owner: str) -> int:
        """Return the memory granted to states between the parts of an owner's circuits."""
        return sum(w.kept.bytes for w in self.state_keepers.values() if w.kept.owner == owner)

    def grace_ns(self, record: core.TaskRecord) -> int:
        """Return the time in ns within which a worker must stop a task after a stop request."""
        held = self.pools[record.route.pool].is_exclusive
        return deadlines.HARDWARE_GRACE_NS if held else deadlines.STOP_GRACE_NS

    def kill(self, worker: state_nodes.Worker, reason: str) -> list[core.Action]:
        """End a worker's processes; no task is charged with its loss."""
        worker.killed = reason
        return [core.KillWorker(worker.name, reason, worker.start)]

    def retire(self, worker: state_nodes.Worker, reason: str, now_ns: int) -> list[core.Action]:
        """Assign nothing more to a worker; it ends when it holds no task, at once if it is idle."""
        pool = self.pools[worker.pool]
        pool.workers.leave(worker, worker.leaving or reason)
        self.release_from_reservation(worker)
        if worker.state != WorkerState.IDLE:
            return []
        pool.workers.move(worker, WorkerState.DRAINING)
        worker.since_ns = now_ns
        return [core.RetireWorker(worker.name, worker.leaving, worker.start)]

    def release_from_reservation(self, worker: state_nodes.Worker) -> None:
        """Take a worker from its reservation; an idle one releases its slot. Its task runs on: what
        of it the reservation has paid is not charged again."""
        first, number = next(iter(worker.held.values()), None), worker.dedication.reservation
        if first and first.phase == core.RUNNING and first.batch.terms.reservation == number != 0:
            since_ns = max(first.started_ns, worker.dedication.since_ns)
            _, on_device_ns = first.prepaid or (0, 0)
            first.prepaid = max(0, worker.dedication.counted_ns - since_ns) // 1000, on_device_ns
        self.pools[worker.pool].workers.dedicate(worker, 0)
        if worker.slots and not worker.held:
            self.release_resources(worker)

    def release_resources(self, worker: state_nodes.Worker) -> None:
        """Free the slots and memory granted to a worker; a dedicated one retains a slot."""
        host, retained = worker.host, 0
        if worker.held.granted_slots:
            worker.held.granted_slots, worker.held.resized = 0, False
            worker.held.slot_ns = worker.held.sized_ns = 0
            self.multi_slot_workers.pop(worker.name, None)
        if worker.ranks == 1:
            retained = min(worker.slots, 1) if worker.dedication.reservation else 0
            host.free_slots += worker.slots - retained
        elif worker.slots:
            for host, ranks in worker.host_ranks:
                host.free_slots += ranks
        host.free_memory += worker.memory_bytes
        worker.slots, worker.memory_bytes = retained, 0

    def release_kept_states(self, worker: state_nodes.Worker) -> None:
        """Free the memory granted to states that a worker keeps between tasks."""
        worker.host.free_memory += worker.kept.bytes
        worker.kept.bytes = worker.kept.until_ns = 0
        self.state_keepers.pop(worker.name, None)
        worker.kept.owner, worker.kept.lifetime_s = "", 0.0

    def remove_worker(self, worker: state_nodes.Worker) -> None:
        """Remove a worker that is gone and free all its resources."""
        del self.workers[worker.name]
        pool = self.pools[worker.pool]
        pool.workers.remove(worker)
        pool.starts.names_below = 0
        for host, _ in worker.host_ranks:
            del host.workers[worker.name]
        pool.assigned -= len(worker.held)
        worker.held.clear()
        self.release_resources(worker)
        self.release_kept_states(worker)
        state_nodes.vacate(worker.host_ranks, worker.reserved, bool(pool.base))
        for place, gpus in state_nodes.gpus_by_host(worker.host_ranks, worker.gpus):
            place.return_gpus(gpus)
