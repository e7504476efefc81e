"""Why the tasks of a queue wait, integrated over time.

After each assignment the queue has one reason why its next task was not assigned. That time counts
for the association that goes first by this reason; for the others, who would need the same slot, it
is time in which others went first (SHARE). A device that starts nothing, nodes that are down, or
workers that are being started, delay all alike. So a change costs constant time for any number of
tasks, and a task's wait is the difference of two readings: when its association's tasks before it
were assigned, and when it was itself.
"""

from __future__ import annotations

from collections.abc import Collection

from simenv.model.accounts import WaitReason, Waits

# They delay all associations alike.
_OF_ALL = (WaitReason.DEVICE, WaitReason.STARTING, WaitReason.NODES)
_STEP_NS = 1_000_000  # readings are that exact
_Times = dict[int, int]  # reason -> ns
_NO_TIMES: _Times = {}
_SHARE = int(WaitReason.SHARE)


class WaitClock:
    """Times for which the tasks of one queue have waited, by reason and association."""

    def __init__(self) -> None:
        self.runs = False  # True while tasks wait
        self._at_ns = self._noted_ns = 0  # up to here time is counted; time of the last `note`
        self._reason = WaitReason.SLOTS  # since then
        self._first = ""  # association that goes first since then
        self._held: Collection[str] = ()  # associations at their limit of slots since then
        self._removed: Collection[str] = ()  # those of them whose users may not enter any more
        self._of_all: _Times = {}  # replaced at each change, as readings keep it
        self._capacity_ns = 0  # sum of the time in which somebody lacked slots
        self._of: dict[str, _Times] = {}  # by association, since its last reading
        self._read: dict[str, tuple[_Times, int]] = {}  # last reading by association

    def arrived(self, leaf: str) -> None:
        """Begin to read for an association that has waiting tasks now and had none, or whose first
        task is assigned."""
        self._of.pop(leaf, None)
        self._read[leaf] = self._of_all, self._capacity_ns

    def is_current(self, now_ns: int) -> bool:
        """Return whether a reason was noted so shortly before that another is not worth it."""
        return self.runs and now_ns - self._noted_ns < _STEP_NS

    def note(
        self,
        reason: WaitReason,
        first: str,
        held: Collection[str],
        now_ns: int,
        removed: Collection[str] = (),
    ) -> None:
        """Count the time since the last call, and note why the next task waits from now on."""
        self._count(now_ns)
        self.runs, self._noted_ns = True, now_ns
        self._reason, self._first, self._held, self._removed = reason, first, held, removed

    def stop(self) -> None:
        """Begin anew with the next `note`, because nothing waits."""
        if self.runs:
            self.runs = False
            self._capacity_ns = 0
            self._of_all = {}
            self._of.clear()
            self._read.clear()

    def _count(self, now_ns: int) -> None:
        if self.runs and now_ns <= self._at_ns:
            return  # it is counted
        passed_ns = now_ns - self._at_ns if self.runs else 0
        self._at_ns = now_ns
        if passed_ns <= 0:
            return
        if self._reason in _OF_ALL:
            spent_ns = self._of_all.get(self._reason, 0) + passed_ns
            self._of_all = {**self._of_all, self._reason: spent_ns}
            return
        self._capacity_ns += passed_ns
        for leaf in self._held:
            is_removed = leaf in self._removed
            self._add(leaf, WaitReason.REMOVED if is_removed else WaitReason.LIMIT, passed_ns)
        if self._first not in self._held:
            self._add(self._first, self._reason, passed_ns)

    def _add(self, leaf: str, reason: WaitReason, passed_ns: int) -> None:
        times = self._of.setdefault(leaf, {})
        times[reason] = times.get(reason, 0) + passed_ns

    def read(self, leaf: str, now_ns: int, *, assigned: bool = True) -> Waits:
        """Return why the first tasks of an association have waited since those before them were
        assigned. `assigned`: they are assigned now, so the next reading begins here."""
        self._count(now_ns)
        all_before, capacity_before = self._read.get(leaf) or (_NO_TIMES, 0)
        waits: list[tuple[int, int]] = []
        share_ns = self._capacity_ns - capacity_before
        for reason, ns in self._of_all.items():
            waited_ns = ns - all_before.get(reason, 0)
            if waited_ns >= 1000:
                waits.append((int(reason), waited_ns // 1000))
        for reason, waited_ns in self._of.get(leaf, _NO_TIMES).items():
            if reason == _SHARE:
                continue  # a part of what is left
            share_ns -= waited_ns
            if waited_ns >= 1000:
                waits.append((int(reason), waited_ns // 1000))
        if share_ns >= 1000:
            waits.append((_SHARE, share_ns // 1000))
        if assigned:
            self.arrived(leaf)
        return tuple(waits)
