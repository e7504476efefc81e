"""Nodes: granted, reserved and claimed resources of each, and whether the node is in use.

Slots are granted to running tasks; memory to running tasks, or to workers that reserve it as long
as they live. Resident ranks need no slots and may outnumber them. Workers made on demand never have
more ranks than could run at once. A node's slots have one claim at a time: freed slots are withheld
from others until the claim is met. If a long task delays that, short tasks may use the claimed
slots meanwhile (backfill).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from launcher.base import Node, Share
from launcher.placement import NodeResources
from simenv.scheduler.core.types import ClusterLimits, nodes_of

_FIRST = 10_000  # more than the ranks a node may have
WORKERS_PER_SLOT = 32  # resident ranks at a time: an idle worker uses memory and no slot
WORKER_BYTES = 128 * 2**20  # unshared memory of an idle worker of one rank; measured: 76 to 126 MiB
AVOID_NS = 60_000_000_000  # time for which a node with a failed start is the last choice


class NodeState(msgspec.Struct, eq=False):
    """Present state of one node."""

    node: Node
    free_slots: int
    free_memory: int
    reserved: int = 0  # memory that workers reserve as long as they live
    ranks: int = 0  # of all workers here
    ganged: int = 0  # ranks of workers of several ranks
    on_demand: int = 0  # ranks of workers made on demand, never more than slots
    claimed_slots: int = 0
    claimed_memory: int = 0
    backfill_slots: int = 0  # claimed by a gang; short tasks may use them
    backfill_memory: int = 0  # claimed memory, in the same way
    drained: str = ""  # reason; "": not drained
    lost: str = ""  # reason; "": not lost
    avoid_until_ns: int = 0
    free_gpus: list[str] = msgspec.field(default_factory=list)  # as in `Node.gpu_names`

    @property
    def is_up(self) -> bool:
        return not (self.drained or self.lost)

    @property
    def state(self) -> str:
        """The state as NodeInfo names it."""
        return "lost" if self.lost else "drained" if self.drained else "up"

    @property
    def granted(self) -> int:
        """Memory in bytes that running tasks have beyond the reservations of their workers."""
        return self.node.memory_bytes - self.reserved - self.free_memory

    def available_resources(self, memory_bytes: int, slots: int, own: int = 0) -> NodeResources:
        """Return the node as placement sees it, with this memory and these slots available.

        Placement spreads a pool by its own workers (`own`) and by gangs, which will need slots;
        other workers only break ties.
        """
        return NodeResources(
            self.node.name,
            slots,
            memory_bytes,
            self.node.memory_bytes,
            len(self.free_gpus),
            self.node.gpus,
            ranks=(own + self.ganged) * _FIRST + self.ranks,
            block=self.node.block,
            features=self.node.features,
            usable=self.is_up,
            reason=f"{self.state}: {self.lost or self.drained}" if not self.is_up else "",
        )

    def take_gpus(self, count: int) -> tuple[str, ...]:
        """Grant the first free GPUs to ranks of a worker, as long as it lives."""
        granted_gpus, self.free_gpus = self.free_gpus[:count], self.free_gpus[count:]
        return tuple(granted_gpus)

    def return_gpus(self, gpus: Iterable[str]) -> None:
        """Free the GPUs of a worker that is gone, in the node's order."""
        free = {*self.free_gpus, *gpus}
        self.free_gpus = [name for name in self.node.gpu_names if name in free]


HostRanks = tuple[tuple[NodeState, int], ...]  # hosts with the number of a worker's ranks


def take_gpus(host_ranks: HostRanks, each: int) -> tuple[str, ...]:
    """Grant `each` free GPUs of its host to each rank of a new worker, in their order."""
    return tuple(gpu for host, ranks in host_ranks for gpu in host.take_gpus(ranks * each))


def gpus_by_host(
    host_ranks: HostRanks, gpus: tuple[str, ...]
) -> Iterator[tuple[NodeState, list[str]]]:
    """Yield the hosts of a worker with its GPUs there, which `take_gpus` has granted."""
    each = len(gpus) // sum(ranks for _, ranks in host_ranks)
    rest = iter(gpus)
    for host, ranks in host_ranks:
        yield host, list(islice(rest, ranks * each))


class NodeTable:
    """Table of all nodes, by name."""

    def __init__(self, limits: ClusterLimits) -> None:
        self.hosts = {
            node.name: NodeState(
                node, node.slots, node.memory_bytes, free_gpus=list(node.gpu_names)
            )
            for node in nodes_of(limits)
        }
        self.version = 0  # grows when a node comes into use or goes out of use

    @property
    def free_slots(self) -> int:
        return sum(host.free_slots for host in self.hosts.values())

    @property
    def free_memory(self) -> int:
        return sum(host.free_memory for host in self.hosts.values())

    def up(self) -> list[NodeState]:
        return [host for host in self.hosts.values() if host.is_up]

    def host_ranks(self, shares: Iterable[Share]) -> HostRanks:
        return tuple((self.hosts[share.node], share.ranks) for share in shares)

    def forget_claims(self) -> None:
        """Clear claims on memory; waiting tasks renew theirs."""
        for host in self.hosts.values():
            host.claimed_memory = host.backfill_memory = 0

    def forget_slot_claims(self) -> None:
        """Clear claims on slots; waiting tasks renew theirs."""
        for host in self.hosts.values():
            host.claimed_slots = host.backfill_slots = 0


def most_resident(node: Node, rank_bytes: int = 0) -> int:
    """Return the most ranks of resident workers on a node.

    The bound is WORKERS_PER_SLOT for each slot, as far as the memory holds idle workers, and at
    least one for each slot. `rank_bytes`: reservation of each rank; it counts only if it is less
    than the memory of an idle rank, as placement bounds reserved memory.
    """
    by_memory = node.memory_bytes // min(rank_bytes or WORKER_BYTES, WORKER_BYTES)
    return max(node.slots, min(WORKERS_PER_SLOT * node.slots, by_memory))


def occupy(host_ranks: HostRanks, rank_bytes: int, on_demand: bool) -> None:
    """Place a worker; `rank_bytes` are reserved for each of its ranks."""
    _count(host_ranks, 1, on_demand)
    reserve(host_ranks, rank_bytes)


def vacate(host_ranks: HostRanks, rank_bytes: int, on_demand: bool) -> None:
    """Remove a worker that `occupy` placed."""
    _count(host_ranks, -1, on_demand)
    reserve(host_ranks, -rank_bytes)


def _count(host_ranks: HostRanks, sign: int, on_demand: bool) -> None:
    several = sum(ranks for _, ranks in host_ranks) > 1
    for host, ranks in host_ranks:
        host.ranks += sign * ranks
        host.ganged += sign * ranks * several
        host.on_demand += sign * ranks * on_demand


def reserve(host_ranks: HostRanks, rank_bytes: int) -> None:
    """Reserve more memory for each rank of a worker."""
    for host, ranks in host_ranks:
        host.free_memory -= ranks * rank_bytes
        host.reserved += ranks * rank_bytes
