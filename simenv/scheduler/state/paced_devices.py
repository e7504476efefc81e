"""Timelines of paced devices.

A paced device is as slow as the machine that it emulates: its tasks are simulated ahead of its
clock, and their results are held until the device's time for them is over. A run is a task's
interval on the device: it begins at the end of the run before it, and not before the task was sent.
Invariants: the intervals of a device never overlap, are in the order in which the scheduler sent
their tasks first, and end in that order. If a run is withdrawn, later runs move up; a withdrawn run
that had begun has used the device until then. Times are monotonic nanoseconds; `offset_ns` converts
them to wall-clock times.
"""

from __future__ import annotations

import copy

import msgspec

from simenv.model import Timing
from simenv.scheduler.core import TaskRecord

LOOKAHEAD_NS = 200_000_000
FORCED_NS = 1_000_000_000  # a run of at least this length keeps its place after a power failure too
NEVER_NS = 2**63 - 1


class DeviceRun(msgspec.Struct, eq=False):
    """Interval of one task on a device. `timing`: of its simulation, once it has a result."""

    record: TaskRecord
    length_ns: int
    earliest_ns: int
    begin_ns: int = 0
    slots: float = 0
    ran_us: int = 0  # of its simulation, to charge
    timing: Timing | None = None

    @property
    def end_ns(self) -> int:
        return self.begin_ns + self.length_ns


class StoredRun(msgspec.Struct, frozen=True):
    """Stored run, so that a restart keeps its place. `place` grows along the runs of a device.
    `earliest_ns`: earliest begin by the wall clock; the begin itself once the device has begun the
    run."""

    device: str
    place: int
    earliest_ns: int


class PacedDevice:
    """Runs of one device that are not over, in their order."""

    def __init__(self, lookahead_ns: int = LOOKAHEAD_NS) -> None:
        """Create an idle device. `lookahead_ns`: the next task is sent this long before the device
        is free. 0 for a device whose runs must begin when they are sent: one task is sent at a
        time."""
        self.lookahead_ns = lookahead_ns
        self.runs: dict[int, DeviceRun] = {}  # by task
        self.waiting: set[int] = set()  # tasks of runs that must be sent again
        self.free_ns = 0  # end of the last run
        self._over_ns = 0  # end of the last completed run

    def copy(self) -> PacedDevice:
        result = PacedDevice(self.lookahead_ns)
        result.runs = {number: copy.copy(run) for number, run in self.runs.items()}
        result.waiting, result.free_ns, result._over_ns = (
            {*self.waiting},
            self.free_ns,
            self._over_ns,
        )
        return result

    def reserve(self, record: TaskRecord, length_ns: int, now_ns: int) -> None:
        """Add a run at the end; the run that a task of a lost worker already has stays."""
        if record.number in self.runs:
            self.waiting.discard(record.number)
            return
        run = DeviceRun(record, length_ns, now_ns, max(self.free_ns, now_ns))
        self.runs[record.number] = run
        self.free_ns = run.end_ns

    def is_open(self, now_ns: int) -> bool:
        """Return whether the device is free soon, so that another task may be sent."""
        return self.free_ns - now_ns <= self.lookahead_ns

    def withdraw(self, number: int, now_ns: int) -> None:
        """Remove the run of a task that ended without a result to hold; later runs move up."""
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
        """Remove and return the runs that are not over at `at_ns`."""
        results = [run for run in self.runs.values() if run.end_ns > at_ns]
        for run in results:
            del self.runs[run.record.number]
            self.waiting.discard(run.record.number)
        self.arrange()
        return results

    def pop_over(self, now_ns: int) -> list[DeviceRun]:
        """Remove and return the runs that are over and have their result, in their order."""
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
        """Recompute the begin of each run."""
        free_ns = self._over_ns
        for run in self.runs.values():
            run.begin_ns = max(free_ns, run.earliest_ns)
            free_ns = run.end_ns
        self.free_ns = free_ns

    def current(self, now_ns: int) -> DeviceRun | None:
        """Return the run that the device executes at `now_ns`; None if there is none."""
        for run in self.runs.values():
            if run.begin_ns <= now_ns < run.end_ns:
                return run
        return None


class PacedDevices:
    """All paced devices, by the name of their pool."""

    def __init__(self) -> None:
        self.all: dict[str, PacedDevice] = {}
        self.held: dict[int, PacedDevice] = {}  # device by task, for tasks whose result is held
        self.offset_ns = 0  # from a monotonic time to the wall clock
        self.now_ns = 0  # time of the present assignments
        self.changes: dict[int, StoredRun | None] = {}  # changes that are not stored yet, by task
        self.is_forced = False  # the changes must be on disk before a client sees them
        self.stored: dict[int, StoredRun] = {}  # all runs by task, with those in `changes`
        self._places = 0

    def copy(self) -> PacedDevices:
        """Return a copy with runs of its own, which refer to the same tasks."""
        result = PacedDevices()
        result.all = {name: device.copy() for name, device in self.all.items()}
        own = {number: device for device in result.all.values() for number in device.runs}
        result.held = {number: own[number] for number in self.held}
        result.stored, result._places = self.stored.copy(), self._places
        result.offset_ns, result.now_ns = self.offset_ns, self.now_ns
        return result

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def next_ns(self) -> int:
        """Time at which the next held result is due; NEVER_NS if none is held."""
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
        """Add a run at the end of a device's timeline; see `PacedDevice.reserve`."""
        device = self.all[name]
        is_new = record.number not in device.runs
        device.reserve(record, length_ns, now_ns)
        if is_new:
            self._places += 1
            earliest_ns = now_ns + self.offset_ns
            self._store(device.runs[record.number], StoredRun(name, self._places, earliest_ns))

    def forget(self, number: int) -> None:
        """Remove the stored run of a task."""
        if self.stored.pop(number, None) is not None:
            self.changes[number] = None

    def note_current(self, now_ns: int) -> None:
        """Store the begin of the runs that devices execute at `now_ns`."""
        for device in self.all.values():
            run = device.current(now_ns)
            if run is None:
                continue
            number, begun_ns = run.record.number, run.begin_ns + self.offset_ns
            stored = self.stored[number]
            if stored.earliest_ns != begun_ns:
                self._store(run, StoredRun(stored.device, stored.place, begun_ns))

    def take_changes(self) -> dict[int, StoredRun | None]:
        """Return the changes to be stored; they count as stored from now on."""
        changes, self.changes, self.is_forced = self.changes, {}, False
        return changes

    def restore(self, number: int, stored: StoredRun, record: TaskRecord, length_ns: int) -> None:
        """Add a run that was stored before a restart; called in the order of their places."""
        device = self.all[stored.device]
        device.reserve(record, length_ns, stored.earliest_ns - self.offset_ns)
        device.waiting.add(number)
        self.stored[number] = stored
        self._places = stored.place

    def _store(self, run: DeviceRun, stored: StoredRun) -> None:
        number = run.record.number
        self.stored[number] = self.changes[number] = stored
        self.is_forced |= run.length_ns >= FORCED_NS
