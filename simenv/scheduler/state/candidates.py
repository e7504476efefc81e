"""Workers in an order of preference, during one pass of assignments.

A pass assigns up to a chunk to each worker, so it must not look at all workers for each chunk: it
makes a heap of candidates when it first asks, and drops it at its end. An entry has the key that
its worker had when it was pushed; one whose worker has another key by now is dropped when it comes
up. Invariant: a worker with a key has an entry with this key, if `changed` is told of each change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from simenv.scheduler.state import pools

Key = tuple[float, ...]
KeyOf = Callable[[pools.Worker], Key | None]  # None: not a candidate


class Candidates:
    """The candidates of one pool in one order. `count`: how many there are."""

    def __init__(self, workers: Iterable[pools.Worker], key_of: KeyOf) -> None:
        self._key_of = key_of
        keys = ((key_of(worker), worker) for worker in workers)
        self._heap = [(key, worker.start, worker) for key, worker in keys if key is not None]
        heapify(self._heap)
        self.count = len(self._heap)

    def best(self) -> pools.Worker | None:
        heap = self._heap
        while heap:
            key, _, worker = heap[0]
            if self._key_of(worker) == key:
                return worker
            heappop(heap)
        return None

    def changed(self, worker: pools.Worker, *, counted: bool = True) -> None:
        """Note that a candidate was given a chunk, or that its node has fewer slots. `counted`: it
        was a candidate before."""
        key = self._key_of(worker)
        if key is not None:
            heappush(self._heap, (key, worker.start, worker))
        elif counted:
            self.count -= 1
