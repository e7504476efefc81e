"""Workers in an order of preference, for passes of assignments.

A pass assigns up to a chunk to each worker, so it must not look at all workers for each chunk: it
makes a heap of candidates when it first asks, which serves until its end, and a large one for some
passes. An entry has the key that its worker had when it was pushed; one whose worker has another
key by now is dropped when it comes up. Invariant: a worker with a key has an entry with this key,
if `changed` is told of each change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from simenv.model import WorkerState
from simenv.scheduler.state import nodes

Key = tuple[float, ...]
KeyOf = Callable[[nodes.Worker], Key | None]  # None: not a candidate
KEEP_FROM = 256  # candidates; fewer are found again in each pass
KEEP_NS = 500_000_000


class Candidates:
    """The candidates of one pool in one order. `count`: how many there are."""

    def __init__(self, workers: Iterable[nodes.Worker], key_of: KeyOf, now_ns: int) -> None:
        self._key_of = key_of
        self._made_ns = now_ns
        keys = ((key_of(worker), worker) for worker in workers)
        self._heap = [(key, worker.start, worker) for key, worker in keys if key is not None]
        self._names = {worker.name for _, _, worker in self._heap}
        heapify(self._heap)
        self.count = len(self._heap)

    def serves(self, now_ns: int) -> bool:
        """Return whether a pass at this time need not find the candidates again."""
        return self.count >= KEEP_FROM and 0 <= now_ns - self._made_ns < KEEP_NS

    def best(self) -> nodes.Worker | None:
        heap = self._heap
        while heap:
            key, _, worker = heap[0]
            if self._key_of(worker) == key:
                return worker
            heappop(heap)
        return None

    def changed(self, worker: nodes.Worker, *, counted: bool = True) -> None:
        """Note that a worker was given a chunk or became idle, or that its node has other free
        slots. `counted`: `count` is that of candidates."""
        key, name = self._key_of(worker), worker.name
        if key is not None:
            heappush(self._heap, (key, worker.start, worker))
        if counted and (key is not None) != (name in self._names):
            self.count += 1 if key is not None else -1
            (self._names.discard if key is None else self._names.add)(name)

    def changed_on(self, host: nodes.NodeState, pool: str, worker: nodes.Worker) -> None:
        """Note a change of a worker, and thereby of the idle ones of a pool on its node."""
        for other in host.workers.values():
            if other.pool == pool and (other is worker or other.state is WorkerState.IDLE):
                self.changed(other)
