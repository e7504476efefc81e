"""Drifting devices of pools: the snapshot that is the noise of each task, and the published one.

Two snapshots are in force at each time: the noise, for tasks that start then, and the published
calibration, which clients read and compile for. A replay publishes each snapshot when it comes into
force; a walk publishes the noise on a request for calibration. Times are wall-clock nanoseconds.
Invariant: the snapshot of a task follows from the time of its start and from the journal, so that a
restart does not change it. Used from the loop's thread.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.config.pools import DriftSpec, drift_of
from simenv.errors import InsufficientError, OptionError
from simenv.model import PoolSpec, TaskOptions, options, views
from simenv.scheduler.core import Action, RecordEvent, TaskRecord
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.devices.registry import DeviceRegistry, EmulatedDevice, emulated
from simenv.service.journal import tables, writer

if TYPE_CHECKING:
    from noise_models.drift import Drift

CALIBRATION, FLUCTUATION, OUTAGE = "calibration-update", "noise-fluctuation", "outage"
MAX_EVENTS = 1_000  # of one pool in one pass; only the last ones are recorded
MAX_SNAPSHOTS = 64  # snapshots in memory, of one pool
MAX_DATES = 1_000  # of one answer
FIRST_POLL_NS = 20_000_000
NEVER_NS = 2**63 - 1
MAX_BODIES = 256
MAX_STARTS = 100_000


class DriftingDevice:
    """The drifting device of one pool."""

    def __init__(
        self,
        pool: PoolSpec,
        state: tables.DriftState,
        drift_future: Future[Drift],
        reported_ns: int,
    ) -> None:
        """`reported_ns`: only later changes are reported."""
        self.pool = pool.name
        self.device = pool.device
        self.state = state
        self.spec: DriftSpec = drift_of(pool.drift, pool.name)
        self._drift_future = drift_future
        self._device_of_step: dict[tuple[bool, Any], EmulatedDevice] = {}
        self._reported_ns = reported_ns  # time up to which changes were reported

    @property
    def is_ready(self) -> bool:
        """True if its snapshots have been read."""
        return self._drift_future.done() and self._drift_future.exception() is None

    @property
    def built(self) -> Future[Drift]:
        return self._drift_future

    def noise(self, wall_ns: int) -> EmulatedDevice:
        """Return the snapshot that is the noise at a time."""
        return self._at(self._drift.step(self._device_s(wall_ns)))

    def first(self) -> EmulatedDevice:
        """Return the first snapshot, by which tasks are admitted."""
        return self._at(self._drift.step(self._drift.origin_s))

    def published(self, wall_ns: int) -> EmulatedDevice:
        """Return the calibration that is published at a time."""
        return self._at(self._published_step(wall_ns), published=True)

    def dates_s(self, wall_ns: int) -> list[float]:
        """Return the times of the last MAX_DATES publications, in seconds since 1970."""
        begun_ns = self.state.begun_ns
        if self.spec.kind == "replay":
            last = self._published_step(wall_ns)
            steps = range(max(0, last - MAX_DATES + 1), last + 1)
            times_ns = [self._wall_ns(self._drift.published.begin_s(step)) for step in steps]
        else:
            times_ns = [begun_ns, *self.state.calibrated_ns][-MAX_DATES:]
        return [time_ns * 1e-9 for time_ns in times_ns]

    def calibrated(self, wall_ns: int) -> tuple[EmulatedDevice, RecordEvent]:
        """Publish the present noise as calibration. Raises InsufficientError while the snapshots
        are being read."""
        if not self.is_ready:
            raise InsufficientError(f"the snapshots of pool {self.pool} are being read")
        self.state = msgspec.structs.replace(
            self.state, calibrated_ns=(*self.state.calibrated_ns, wall_ns)
        )
        result = self.published(wall_ns)
        return result, self._event(CALIBRATION, result, wall_ns)

    def changes(self, wall_ns: int) -> Iterator[RecordEvent]:
        """Yield the events since the last call."""
        since_ns, self._reported_ns = self._reported_ns, wall_ns
        drift, until_s = self._drift, self._device_s(wall_ns)
        before = drift.step(self._device_s(since_ns))
        steps: deque[Any] = deque(maxlen=MAX_EVENTS)
        step = drift.after(before)
        while drift.begin_s(step) <= until_s:
            steps.append(step)
            step = drift.after(step)
        digest = self._at(before).digest if steps else ""
        for step in steps:
            begin_s = drift.begin_s(step)
            kind, device = self._kind(begin_s), self._at(step)
            if kind == CALIBRATION or device.digest != digest:
                yield self._event(kind, device, self._wall_ns(begin_s))
            digest = device.digest
        for begin_ns, end_ns in self._outages():
            if since_ns < begin_ns <= wall_ns:
                yield RecordEvent(OUTAGE, self.pool, f"begins, until {_text(end_ns / 1e9)}")
            if since_ns < end_ns <= wall_ns:
                yield RecordEvent(OUTAGE, self.pool, "ends")

    def _kind(self, begin_s: float) -> str:
        """Kind of the change at a time: a replay publishes its snapshots, but not jumps."""
        published = self._drift.published
        is_published = published.begin_s(published.step(begin_s)) == begin_s
        return CALIBRATION if self.spec.kind == "replay" and is_published else FLUCTUATION

    def outage_ns(self, wall_ns: int) -> int | None:
        """Return the begin of the present outage; None if there is none."""
        for begin_ns, end_ns in self._outages():
            if begin_ns <= wall_ns < end_ns:
                return begin_ns
        return None

    def next_ns(self, wall_ns: int) -> int:
        """Return the time of the device's next change."""
        drift = self._drift
        following = drift.after(drift.step(self._device_s(wall_ns)))
        times = [self._wall_ns(drift.begin_s(following))]
        times += [time_ns for pair in self._outages() for time_ns in pair]
        return min((time_ns for time_ns in times if time_ns > wall_ns), default=NEVER_NS)

    @property
    def _drift(self) -> Drift:
        return self._drift_future.result()

    def _device_s(self, wall_ns: int) -> float:
        """Convert a wall-clock time to the device's time, in seconds since 1970."""
        age_s = (wall_ns - self.state.begun_ns) * 1e-9
        return self._drift.origin_s + self.spec.factor * age_s

    def _wall_ns(self, device_s: float) -> int:
        if math.isinf(device_s):
            return NEVER_NS
        age_s = (device_s - self._drift.origin_s) / self.spec.factor
        return self.state.begun_ns + math.ceil(age_s * 1e9)

    def _outages(self) -> list[tuple[int, int]]:
        begun_ns, factor = self.state.begun_ns, self.spec.factor
        ends = [(begin, begin + length) for begin, length in self.spec.outages]
        return [
            (begun_ns + round(begin * 1e9 / factor), begun_ns + round(end * 1e9 / factor))
            for begin, end in ends
        ]

    def _published_step(self, wall_ns: int) -> Any:
        drift = self._drift.published
        if self.spec.kind == "replay":
            return drift.step(self._device_s(wall_ns))
        index = bisect_right(self.state.calibrated_ns, wall_ns)
        if not index:
            return drift.step(drift.origin_s)
        return drift.step(self._device_s(self.state.calibrated_ns[index - 1]))

    def _at(self, step: Any, *, published: bool = False) -> EmulatedDevice:
        key = published, step
        result = self._device_of_step.get(key)
        if result is None:
            if len(self._device_of_step) >= MAX_SNAPSHOTS:
                del self._device_of_step[next(iter(self._device_of_step))]
            drift = self._drift.published if published else self._drift
            result = self._device_of_step[key] = emulated(self.device, drift.snapshot(step))
        return result

    def _event(self, kind: str, device: EmulatedDevice, wall_ns: int) -> RecordEvent:
        when = _text(self._device_s(wall_ns))
        return RecordEvent(kind, self.pool, f"{device.digest} at {when}")


class DriftingDevices:
    """The drifting devices of all pools, by the pool's name."""

    def __init__(
        self,
        pools: tuple[PoolSpec, ...],
        registry: DeviceRegistry,
        folder: Path,
        journal: writer.Journal,
        state: SchedulerState,
    ) -> None:
        """`folder`: the devices folder, with the dated snapshots of DEVICE in DEVICE.d."""
        self._journal = journal
        self._state = state
        self._bodies: dict[str, bytes] = {}  # of the documents of tasks sent lately, by digest
        self._starts: dict[int, int] = {}  # wall clock of the first start of each task
        stored = tables.DRIFT.read(journal.records)
        self.all: dict[str, DriftingDevice] = {}
        self._changed: dict[str, tables.DriftState] = {}
        # Of each device: whether its snapshots have been read, and the begin of the present outage.
        self._outages: dict[str, tuple[bool, int | None]] = {}
        for pool in pools:
            if not pool.drift:
                continue
            begun, now_ns = stored.get(pool.name), time.time_ns()
            if begun is None or begun.drift != pool.drift:
                begun = self._changed[pool.name] = tables.DriftState(pool.drift, now_ns)
            built = registry.drift(pool.device, drift_of(pool.drift, pool.name), folder)
            self.all[pool.name] = DriftingDevice(pool, begun, built, now_ns)

    def of(self, pool: str) -> DriftingDevice | None:
        """Return the drifting device of a pool; None if the pool does not drift. Raises OptionError
        if its snapshots cannot be read."""
        result = self.all.get(pool)
        if result is not None and result.built.done() and result.built.exception() is not None:
            raise OptionError(f"pool {pool}: {result.built.exception()}")
        return result

    def tick(self, wall_ns: int, scheduler: Scheduler) -> Iterator[Action]:
        """Yield the actions of changes and outages. A device whose snapshots are not read yet
        counts as an outage: it starts no task."""
        if self._changed:
            changes, self._changed = self._changed, {}
            self._journal.put(tables.DRIFT.statements(changes), forced=True)
        for name, device in self.all.items():
            if device.is_ready:
                yield from device.changes(wall_ns)
            state = device.is_ready, device.outage_ns(wall_ns) if device.is_ready else None
            before = self._outages.get(name, (True, None))
            if state == before:
                continue
            self._outages[name] = is_ready, begun_ns = state
            if is_ready and begun_ns is None:
                yield from scheduler.end_outage(name)
                continue
            if begun_ns is not None:
                self._forget_starts(name)
            yield from scheduler.begin_outage(name, begun_ns)

    def _forget_starts(self, pool: str) -> None:
        """Forget the starts of a pool's tasks, because an outage has interrupted them."""
        tasks = self._state.tasks
        self._starts = {
            number: start_ns
            for number, start_ns in self._starts.items()
            if number in tasks and _base(tasks[number]) != pool
        }

    def next_ns(self, wall_ns: int) -> int:
        """Return the time of the next change of any device."""
        times = [
            device.next_ns(wall_ns) if device.is_ready else wall_ns + FIRST_POLL_NS
            for device in self.all.values()
        ]
        return min(times, default=NEVER_NS)

    def calibrate(self, pool: str, wall_ns: int) -> tuple[EmulatedDevice, RecordEvent]:
        """Publish the present noise as the calibration of a pool's device. Raises OptionError if
        the pool does not drift, InsufficientError while its snapshots are being read."""
        device = self.of(pool)
        if device is None:
            hint = f"pools that do: {', '.join(self.all) or 'none'}"
            raise OptionError(f"pool {pool[:64]!r} does not drift", hint=hint)
        result, event = device.calibrated(wall_ns)
        self._journal.put(tables.DRIFT.statements({pool: device.state}), forced=True)
        return result, event

    def in_force(self, record: TaskRecord) -> TaskOptions:
        """Return the options of a task to send: with the noise at its start, and marked stale if it
        was compiled for another calibration than the one published then."""
        terms = record.batch.terms
        name = _base(record)
        device = self.all.get(name)
        noise, published = terms.snapshot, terms.snapshot
        if device is not None:
            start_ns = self._start_ns(name, record)
            result = device.noise(start_ns)
            noise, published = result.digest, device.published(start_ns).digest
            if noise not in self._bodies:
                if len(self._bodies) >= MAX_BODIES:
                    self._bodies.clear()
                self._bodies[noise] = result.body
        stale = ""
        if terms.compiled_for not in ("", published):
            stale = options.REFUSED if terms.stale == options.REFUSE else options.STALE
        if (noise, stale) == (terms.snapshot, terms.stale):
            return terms
        return msgspec.structs.replace(terms, snapshot=noise, stale=stale)

    def body(self, digest: str) -> bytes:
        """Return a noise document of a task that was sent lately; b"": not one of them."""
        return self._bodies.get(digest, b"")

    def _start_ns(self, name: str, record: TaskRecord) -> int:
        """Return the start of a task: on a paced device its begin there, else the time at which it
        was sent first."""
        offset_ns = self._state.devices.paced.offset_ns
        paced = self._state.devices.paced.all.get(name)
        if paced is not None:
            return paced.runs[record.number].begin_ns + offset_ns
        if len(self._starts) >= MAX_STARTS:
            self._starts = {n: s for n, s in self._starts.items() if n in self._state.tasks}
        return self._starts.setdefault(record.number, record.sent_ns + offset_ns)


def _base(record: TaskRecord) -> str:
    """Return the configured pool of a task."""
    return views.base_of(record.route.pool) or record.route.pool


def _text(time_s: float) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_s:.3f} s"
