"""Which jobs of a DVM live, out of witnesses that each can fail: events and lists of namespaces.

The event of a short job's end may never come, or before the answer to its spawn; a job whose spawn
was given up may live nevertheless. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from launcher.pmix.protocol import Answer

LOOKS = 2  # so often must a list say the same: an answer may be on its way
_EARLY_MAX = 256
UNTOLD = "it ended, and PRTE did not tell how"


class JobsAlive:
    """Namespaces known to run."""

    def __init__(self) -> None:
        self._missed: dict[str, int] = {}  # known to run: in how many lists it was not
        self._strange: dict[str, int] = {}  # in lists, but not known
        self._early: dict[str, Answer] = {}  # ends of jobs not known, or over

    def begun(self, namespace: str) -> list[Answer]:
        """A spawn was answered; its end, if that has come already."""
        end = self._early.pop(namespace, None)
        if end is not None:
            return [end]
        self._missed[namespace] = 0
        return []

    def ended(self, end: Answer) -> list[Answer]:
        """An event; once for each job that is known."""
        if self._missed.pop(end.namespace, None) is not None:
            return [end]
        self._early[end.namespace] = end
        while len(self._early) > _EARLY_MAX:
            del self._early[next(iter(self._early))]
        return []

    def listed(self, alive: Sequence[str], pending: bool) -> tuple[list[Answer], list[str]]:
        """A list of what lives: jobs that are over, and jobs that nobody waits for any more.

        Nothing is strange while spawns are `pending`.
        """
        there = set(alive)
        self._missed = {n: 0 if n in there else k + 1 for n, k in self._missed.items()}
        over = [name for name, missed in self._missed.items() if missed >= LOOKS]
        for name in over:
            del self._missed[name]
        jobs = [name for name in alive if "@" in name and name not in self._missed]
        known = self._early.keys()
        self._strange = {
            name: self._strange.get(name, 0) + 1
            for name in jobs
            if not pending and name not in known
        }
        strange = [name for name, seen in self._strange.items() if seen >= LOOKS]
        return [Answer("ended", namespace=name, code=1, words=UNTOLD) for name in over], strange
