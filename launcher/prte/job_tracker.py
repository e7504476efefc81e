"""Live jobs of a DVM, from two sources that can each fail: events and lists of namespaces. Pure.

The event of a short job's end may be lost, or come before the response to its spawn. A job whose
spawn was given up may run nevertheless.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.pmix.protocol import HelperResponse

CONFIRMATIONS = 2  # consecutive lists that must agree, as an event may be in transit
_MAX_EARLY_ENDS = 256
UNKNOWN_END = "it ended, and PRTE did not report how"


class JobTracker:
    """Namespaces of jobs that are known to run."""

    def __init__(self) -> None:
        # Jobs known to run: number of lists without the job.
        self._missing_lists: dict[str, int] = {}
        self._unknown: dict[str, int] = {}  # unknown jobs: number of lists with the job
        self._early_ends: dict[str, HelperResponse] = {}  # ends of jobs that are unknown, or over

    def started(self, namespace: str) -> list[HelperResponse]:
        """Record the response to a spawn; return the job's end if it has already come."""
        end = self._early_ends.pop(namespace, None)
        if end is not None:
            return [end]
        self._missing_lists[namespace] = 0
        return []

    def ended(self, end: HelperResponse) -> list[HelperResponse]:
        """Record the event of an end; return it once for each known job."""
        if self._missing_lists.pop(end.namespace, None) is not None:
            return [end]
        self._early_ends[end.namespace] = end
        while len(self._early_ends) > _MAX_EARLY_ENDS:
            del self._early_ends[next(iter(self._early_ends))]
        return []

    def listed(
        self, namespaces: Sequence[str], pending: bool
    ) -> tuple[list[HelperResponse], list[str]]:
        """Record a list of live namespaces; return the ends of jobs that are over, and orphaned
        jobs.

        No job counts as orphaned while spawns are `pending`.
        """
        live = set(namespaces)
        self._missing_lists = {n: 0 if n in live else k + 1 for n, k in self._missing_lists.items()}
        over = [name for name, count in self._missing_lists.items() if count >= CONFIRMATIONS]
        for name in over:
            del self._missing_lists[name]
        jobs = [name for name in namespaces if "@" in name and name not in self._missing_lists]
        self._unknown = {
            name: self._unknown.get(name, 0) + 1
            for name in jobs
            if not pending and name not in self._early_ends
        }
        orphaned = [name for name, count in self._unknown.items() if count >= CONFIRMATIONS]
        ends = [
            HelperResponse("ended", namespace=name, code=1, message=UNKNOWN_END) for name in over
        ]
        return ends, orphaned
