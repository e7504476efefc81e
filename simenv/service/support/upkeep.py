"""Maintenance in the event loop: retention, index of completions, delayed syncs, estimates.

Invariant: it runs in bounded slices, whenever the loop is idle and at least once in
UPKEEP_PERIOD_NS of a busy loop, so that no client can prevent it by continuous messages.
"""

from __future__ import annotations

import time

from simenv.errors import JournalError
from simenv.process import release_memory, resident_bytes
from simenv.service.journal.tables import estimate_statements
from simenv.service.journal.writer import SYNC_DELAY_S
from simenv.service.service import ServiceComponents

UPKEEP_PERIOD_NS = 50_000_000
MEMORY_NS = 500_000_000  # between two looks at the memory of this process
GROWTH_BYTES = 256 * 2**20  # after which garbage is collected
FULL_NS = 5_000_000_000  # between two collections above the limit of the memory
ESTIMATES_NS = 5_000_000_000  # estimates learned since then are lost in a crash of the service


class Upkeep:
    """Maintenance of one event loop. Used from the loop's thread, once a pass."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._estimator = service.state.estimator
        self._memory_ns = 0  # time of the next look at the memory
        self._collected_bytes = 0  # least resident memory since the last collection
        self._collected_ns = 0
        self._estimates_ns = 0  # time at which estimates are stored next
        self._next_ns = 0  # monotonic time at which a slice is due though the loop is busy
        self._unsynced_ns = 0  # time of the oldest commit without fsync; 0: there is none

    def run(self, *, idle: bool) -> None:
        """Run one slice of the work that is due, and set or clear the service's `store_error`."""
        now_ns = time.monotonic_ns()
        due = idle or now_ns >= self._next_ns
        if due:
            self._next_ns = now_ns + UPKEEP_PERIOD_NS
        try:
            if due or self._service.completions.is_backlogged:
                self._service.completions.index_slice()  # first, because retention needs the index
            self._service.result_requests.process_completed(now_ns, idle=due)
            self._store_estimates(now_ns)
            if now_ns >= self._memory_ns:
                self._watch_memory(now_ns)
            if self._service.journal.unsynced or self._unsynced_ns:
                self._sync(now_ns)
            if self._service.store_error and due and not self._service.journal.pending:
                self._service.journal.sync()  # without other commits, this tests the journal again
                self._service.store_error = ""
        except JournalError as error:
            self._service.store_error = error.message

    def _watch_memory(self, now_ns: int) -> None:
        """Collect garbage after a growth of the memory; tell the scheduler how much is used."""
        self._memory_ns = now_ns + MEMORY_NS
        used_bytes = resident_bytes()
        self._collected_bytes = min(self._collected_bytes or used_bytes, used_bytes)
        limit = self._service.scheduler.state.limits.service_bytes
        is_due = 0 < limit < used_bytes and now_ns - self._collected_ns > FULL_NS
        if is_due or used_bytes - self._collected_bytes > GROWTH_BYTES:
            self._collected_bytes = used_bytes = release_memory()
            self._collected_ns = now_ns
        self._service.executor.execute(self._service.scheduler.service_memory(used_bytes))

    def _store_estimates(self, now_ns: int) -> None:
        """Put changed estimates into the next commit, every ESTIMATES_NS."""
        if self._estimator.changed and now_ns >= self._estimates_ns:
            self._estimates_ns = now_ns + ESTIMATES_NS
            changes = self._estimator.take_changes()
            self._service.journal.put(estimate_statements(changes), forced=False)

    def _sync(self, now_ns: int) -> None:
        """Force commits to disk that are older than SYNC_DELAY_S."""
        if not self._service.journal.unsynced:
            self._unsynced_ns = 0
            return
        self._unsynced_ns = self._unsynced_ns or now_ns
        if now_ns - self._unsynced_ns >= SYNC_DELAY_S * 1e9:
            self._service.journal.sync()
            self._unsynced_ns = 0
