"""Timelines of paced devices: a device that is as slow as the machine that it emulates.

Tasks of a paced device are simulated ahead of its clock, and their results are held until the
device's time for them is over. A run is a task's interval on the device: it begins at the end of
the run before it, and not before the task was sent. Invariants: the intervals of a device never
overlap, are in the order in which the scheduler sent their tasks first, and end in that order. A
run that is withdrawn lets those behind it move up; one that had begun has used the device until
then. Times are monotonic nanoseconds; `offset_ns` makes them wall-clock times.
"""

from __future__ import annotations

import msgspec

from simenv.model import Timing
from simenv.scheduler.core.types import TaskRecord

LOOKAHEAD_NS = 200_000_000
FORCED_NS = 1_000_000_000  # a run from here on keeps its place after a power cut too
NEVER_NS = 2**63 - 1


class DeviceRun(msgspec.Struct, eq=False):
    """The interval of one task on a device. `timing`: of its simulation, once it has a result."""

    record: TaskRecord
    length_ns: int
    earliest_ns: int
    begin_ns: int = 0
    slots: int = 0
    timing: Timing | None = None

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.length_ns


class StoredRun(msgspec.Struct, frozen=True):
    """A run that is stored, so that a restart keeps its place. `place`: grows along the runs of a
    device. `earliest_ns`: wall clock of its begin, once the device is in it."""

    device: str
    place: int
    earliest_ns: int


class PacedDevice:
    """The runs of one device that are not over, in their order."""

    def __init__(self, lookahead_ns: int = LOOKAHEAD_NS) -> None:
        """`lookahead_ns`: so long before the device is free its next task is sent; 0 where the
        begin of a run must be known when it is sent, and one task is sent at a time."""
        self.lookahead_ns = lookahead_ns
        self.runs: dict[int, DeviceRun] = {}  # by task
        self.waiting: set[int] = set()  # tasks of runs that must be sent again
        self.free_ns = 0  # when the last run ends, or ended
        self._over_ns = 0  # when the last run that is over ended

    def reserve(self, record: TaskRecord, length_ns: int, now_ns: int) -> None:
        """Add a run at the end; one that a task of a lost worker has already stays."""
        if record.number in self.runs:
            self.waiting.discard(record.number)
            return
        run = DeviceRun(record, length_ns, now_ns, max(self.free_ns, now_ns))
        self.runs[record.number] = run
        self.free_ns = run.end_ns

    def is_open(self, now_ns: int) -> bool:
        """Is the device free soon, so that another task may be sent?"""
        return self.free_ns - now_ns <= self.lookahead_ns

    def withdraw(self, number: int, now_ns: int) -> None:
        """Remove the run of a task that ended otherwise; those behind it move up."""
        run = self.runs.pop(number, None)
        if run is None:
            return
        self.waiting.discard(number)
        if run.begin_ns <= now_ns:
            for other in self.runs.values():
                if other.begin_ns >= run.end_ns:
                    other.earliest_ns = max(other.earliest_ns, min(now_ns, run.end_ns))
                    break
        self.arrange()

    def interrupt(self, at_ns: int) -> list[DeviceRun]:
        """Remove the runs that are not over at a time; their tasks have no time on the device any
        more."""
        results = [run for run in self.runs.values() if run.end_ns > at_ns]
        for run in results:
            del self.runs[run.record.number]
            self.waiting.discard(run.record.number)
        self.arrange()
        return results

    def pop_over(self, now_ns: int) -> list[DeviceRun]:
        """Remove the runs that are over and have their result, in their order."""
        results = []
        for run in self.runs.values():
            if run.timing is None or run.end_ns > now_ns:
                break
            results.append(run)
        for run in results:
            del self.runs[run.record.number]
            self._over_ns = run.end_ns
        return results

    def arrange(self) -> None:
        """Compute anew when each run begins."""
        free_ns = self._over_ns
        for run in self.runs.values():
            run.begin_ns = max(free_ns, run.earliest_ns)
            free_ns = run.end_ns
        self.free_ns = free_ns

    def current(self, now_ns: int) -> DeviceRun | None:
        """The run that the device is in."""
        for run in self.runs.values():
            if run.begin_ns <= now_ns < run.end_ns:
                return run
        return None


class PacedDevices:
    """All paced devices, by the name of their pool."""

    def __init__(self) -> None:
        self.all: dict[str, PacedDevice] = {}
        self.held: dict[int, PacedDevice] = {}  # by task, of those whose result is held
        self.offset_ns = 0  # from a monotonic time to the wall clock
        self.now_ns = 0  # of the present assignments
        self.changes: dict[int, StoredRun | None] = {}  # what is not stored yet, by task
        self.is_forced = False  # the changes must be on the disk before anybody hears of them
        self.stored: dict[int, StoredRun] = {}  # the runs, with what is in `changes`, by task
        self._places = 0

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def next_ns(self) -> int:
        """When the next held result is due; NEVER_NS: none is held."""
        return min(
            (
                run.end_ns
                for device in self.all.values()
                for run in list(device.runs.values())[:1]
                if run.timing is not None
            ),
            default=NEVER_NS,
        )

    def reserve(self, name: str, record: TaskRecord, length_ns: int, now_ns: int) -> None:
        """Add a run at the end of a device's; see `PacedDevice.reserve`."""
        device = self.all[name]
        is_new = record.number not in device.runs
        device.reserve(record, length_ns, now_ns)
        if is_new:
            self._places += 1
            earliest_ns = now_ns + self.offset_ns
            self._store(device.runs[record.number], StoredRun(name, self._places, earliest_ns))

    def forget(self, number: int) -> None:
        """A task has no run any more."""
        if self.stored.pop(number, None) is not None:
            self.changes[number] = None

    def note_current(self, now_ns: int) -> None:
        """Note when the runs in which the devices are have begun."""
        for device in self.all.values():
            run = device.current(now_ns)
            if run is None:
                continue
            number, begun_ns = run.record.number, run.begin_ns + self.offset_ns
            stored = self.stored[number]
            if stored.earliest_ns != begun_ns:
                self._store(run, StoredRun(stored.device, stored.place, begun_ns))

    def take_changes(self) -> dict[int, StoredRun | None]:
        """What is to be stored, which counts as stored from now on."""
        changes, self.changes, self.is_forced = self.changes, {}, False
        return changes

    def restore(self, number: int, stored: StoredRun, record: TaskRecord, length_ns: int) -> None:
        """Add a run that was stored before a restart; in the order of their places."""
        device = self.all[stored.device]
        device.reserve(record, length_ns, stored.earliest_ns - self.offset_ns)
        device.waiting.add(number)
        self.stored[number] = stored
        self._places = stored.place

    def _store(self, run: DeviceRun, stored: StoredRun) -> None:
        number = run.record.number
        self.stored[number] = self.changes[number] = stored
        self.is_forced |= run.length_ns >= FORCED_NS
