"""Expected starts of tasks for clients, with their age and their typical error.

The starts come from a `SimulatedCluster`, which runs in another thread of the service while
somebody asks: so rarely that it takes a part of a processor, of many tasks at most once in
REFRESH_NS.
Starts that were foretold for some tasks are compared with the real ones, and each pool keeps the
mean of the logarithm of their ratio.

A wait is in microseconds from now; UNKNOWN (-1): not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from itertools import islice

import msgspec

from simenv.model import PoolInfo
from simenv.scheduler import core
from simenv.scheduler.core import Phase, TaskRecord
from simenv.scheduler.forecast import simulated_cluster
from simenv.scheduler.forecast.simulated_cluster import Pause, SimulatedCluster, Starts
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.scheduler.views import cluster_info, run_times
from simenv.scheduler.views.run_times import UNKNOWN

PASS_AGE_NS = 100_000  # starts may be so old for each simulated pass, which takes about 50 us,
MOST_AGE_NS = 30_000_000_000  # at most;
# for tasks that they contain also OFTEN times that, between these bounds.
LEAST_NS, REFRESH_NS, OFTEN = 20_000_000, 1_000_000_000, 4
SHARED_FROM = 64  # passes of a simulation, from which on it is not begun for each new task
LONG_FROM = 1_000  # passes, from which on answers use older starts rather than wait for it
WATCH_NS = 1_000_000_000  # between two times at which new tasks are foretold unasked
USABLE_NS = 10_000_000_000  # older starts are not used while a simulation is under way
FAILED_NS = 30_000_000_000  # after an error in a simulation nothing is simulated for so long
MAX_OWNERS = 8  # for whom new tasks are simulated
OWNER_NS = 10_000_000_000  # after the last question of an owner, that is
MAX_SAMPLES = 256  # tasks whose foretold start is kept
NEW_SAMPLES = 4  # of them, tasks at a time that nobody asked about
SAMPLE_NS = 4_000_000  # between two times for each waiting task and worker
LOOKED_AT = 64  # newest tasks among which these are chosen
LONG_WAIT_US = 1e6  # the errors of shorter waits are not counted
MIN_WAIT_US = 50_000.0  # a shorter wait counts as this in a ratio
MAX_OFF = math.log(20.0)  # larger errors count as this
LEARNING_RATE = 0.05
PRIOR = 5.0  # weight of the assumption that waits are as simulated
DECADE = 2  # classes of waits whose errors are learned apart; from one second
CLASSES = 5 * DECADE + 1


class ForetoldStart(msgspec.Struct, frozen=True):
    """Wait that was foretold for a task at a time."""

    record: TaskRecord
    at_ns: int
    simulated_us: float
    wait_us: float  # corrected


class StoredErrors(msgspec.Struct, frozen=True, array_like=True):
    """Learned errors of the waits of one pool, see `WaitErrors`."""

    bias: list[float]
    weights: list[float]
    off: float
    count: int


class WaitErrors:
    """Errors of the waits of one pool. The mean of ln(real wait / simulated wait) is learned by the
    length of the wait, and corrects later ones: while a task waits for long, others come that go
    first, and of many runs one ends earlier than expected."""

    def __init__(self, stored: StoredErrors | None = None) -> None:
        """`stored`: continue from these, unless they are of other classes of waits."""
        self._bias = [0.0] * CLASSES
        self._weights = [PRIOR] * CLASSES
        self._off = 0.0  # mean of |ln(real wait / foretold wait)|
        self._count = 0
        if stored is not None and len(stored.bias) == len(stored.weights) == CLASSES:
            self._bias, self._weights = list(stored.bias), list(stored.weights)
            self._off, self._count = stored.off, stored.count

    def stored(self) -> StoredErrors:
        return StoredErrors(list(self._bias), list(self._weights), self._off, self._count)

    @property
    def off_by(self) -> float:
        """Typical factor between foretold and real waits; 0.0: none was compared."""
        return math.exp(self._off) if self._count else 0.0

    def corrected_us(self, simulated_us: float) -> float:
        parts = _classes(simulated_us)
        return simulated_us * math.exp(sum(self._bias[index] * part for index, part in parts))

    def learn(self, foretold: ForetoldStart, waited_us: float) -> None:
        """Learn from one task, with larger weights for later ones."""
        self._count += 1
        off = min(MAX_OFF, abs(math.log(waited_us / foretold.wait_us)))
        self._off += max(LEARNING_RATE, 1 / self._count) * (off - self._off)
        error = math.log(waited_us / foretold.simulated_us)
        for index, part in _classes(foretold.simulated_us):
            self._weights[index] += part
            rate = part * max(LEARNING_RATE, 1 / self._weights[index])
            step = max(-MAX_OFF, min(MAX_OFF, error)) - self._bias[index]
            self._bias[index] += rate * step


def _classes(wait_us: float) -> tuple[tuple[int, float], ...]:
    """Return the two classes nearest to a wait, with their parts of it."""
    place = DECADE * math.log10(max(wait_us, LONG_WAIT_US) / LONG_WAIT_US)
    low = min(int(place), CLASSES - 2)
    part = min(1.0, place - low)
    return (low, 1 - part), (low + 1, part)


Run = Callable[[Callable[[Pause], Starts]], "Future[Starts]"]


def at_once(simulate: Callable[[Pause], Starts]) -> Future[Starts]:
    """Simulate in the caller's thread."""
    done: Future[Starts] = Future()
    done.set_result(simulate(lambda: None))
    return done


def _raise(error: BaseException) -> None:
    raise error


class ExpectedStarts:
    """Expected starts of the tasks of one state. Used from the thread of the state."""

    def __init__(
        self,
        state: scheduler_state.SchedulerState,
        run: Run = at_once,
        report: Callable[[BaseException], object] = _raise,
    ) -> None:
        """`run`: calls a function, in another thread, and returns the Future of its result.
        `report`: is called with an error in a simulation."""
        self._state, self._run, self._report = state, run, report
        self._asked_ns = {"": 0}  # last question of each owner for whom new tasks are simulated
        self._last: Starts | None = None
        self._next: Future[Starts] | None = None  # under way
        self._failed_ns = -FAILED_NS  # when the last simulation raised an error
        self._foretold: dict[int, ForetoldStart] = {}
        self._sampled_ns = 0
        self._errors: dict[str, WaitErrors] = {}  # by pool
        self.changed: set[str] = set()  # pools whose errors changed since `take_changes`

    def refresh(
        self, now_ns: int, owner: str = "", newest: int = 0, asked_ns: int = 0
    ) -> Future[Starts] | None:
        """Begin a simulation, unless one is under way or the starts are recent. Those of few tasks
        must also contain the task `newest` and a new one of `owner`; else the starts of other new
        tasks stand for theirs. Return the Future of the one under way if they are not recent.
        `asked_ns`: time of the question, for which later starts are recent; 0: now."""
        if owner:
            self._add_owner(owner, now_ns)
        self._take(now_ns)
        if (
            self._is_recent(asked_ns or now_ns, owner, newest)
            or now_ns - self._failed_ns < FAILED_NS
        ):
            return None
        if self._next is None:
            simulation = SimulatedCluster(self._state, now_ns, self._asked_ns)
            self._next = self._run(simulation.run)
            self._take(now_ns)
        return self._next

    def _take(self, now_ns: int) -> None:
        """Take the result of a simulation that is over, or report its error."""
        if self._next is not None and self._next.done():
            result, self._next = self._next, None
            error = result.exception()
            if error is None:
                self._last = result.result()
            else:
                self._failed_ns = now_ns
                self._report(error)

    def is_usable(self, now_ns: int, newest: int = 0) -> bool:
        """Return whether an answer may use the last starts, rather than wait for the next ones:
        these take a while, and the last ones are not old and contain the task `newest`."""
        last = self._last
        if last is None or last.passes < LONG_FROM or newest >= last.next_task:
            return False
        return now_ns - last.now_ns < max(USABLE_NS, 2 * last.passes * PASS_AGE_NS)

    def age_us(self, wait_us: float, now_ns: int) -> float:
        """Return how old the forecast of a wait is; 0.0 if that is not known."""
        if self._last is None or wait_us < 0:
            return 0.0
        return (now_ns - self._last.now_ns) / 1e3

    def _is_recent(self, now_ns: int, owner: str, newest: int) -> bool:
        last = self._last
        if last is None:
            return False
        age_ns = min(last.passes * PASS_AGE_NS, MOST_AGE_NS)
        if newest < last.next_task and owner in last.owners:
            age_ns = max(age_ns, min(REFRESH_NS, max(LEAST_NS, OFTEN * age_ns)))
        elif last.passes < SHARED_FROM:
            return False
        return now_ns - last.now_ns <= age_ns

    def _add_owner(self, owner: str, now_ns: int) -> None:
        recent = {
            each: at_ns
            for each, at_ns in self._asked_ns.items()
            if each and each != owner and now_ns - at_ns < OWNER_NS
        }
        kept = list(recent.items())[2 - MAX_OWNERS :]
        self._asked_ns = {"": 0, **dict(kept), owner: now_ns}

    # --- waits ------------------------------------------------------------------------------------

    def task_us(self, record: TaskRecord, now_ns: int) -> float:
        """Return the time until a waiting or sent task starts; UNKNOWN for others."""
        pool = self._state.cluster.pools.get(record.route.pool)
        if pool is None or record.stop.reason or record.phase in core.UNQUEUED:
            return UNKNOWN
        if pool.spec.pace and (
            run := self._state.devices.paced.all[pool.device].runs.get(record.number)
        ):
            wait_ns = run.begin_ns - now_ns
            return wait_ns / 1e3 if wait_ns > 0 else UNKNOWN
        if record.phase == Phase.SENT:
            return self._sent_us(pool, record, now_ns)
        last = self._last
        if (
            record.phase != Phase.WAITING
            or last is None
            or not run_times.starts_tasks(self._state, pool)
        ):
            return UNKNOWN
        start_us = last.tasks_us.get(record.number)
        if start_us is None:  # it may have come since then
            is_new = record.number >= last.next_task
            return self.new_us(pool, now_ns, record.batch.owner) if is_new else UNKNOWN
        simulated_us = _from(last, start_us, now_ns)
        wait_us = self._corrected_us(pool, simulated_us)
        delayed_us = self._state.calendar.delayed_us(now_ns, wait_us, record.cost_us)
        if wait_us > LONG_WAIT_US and delayed_us == wait_us:  # of maintenance nothing is learned
            self._foretell(ForetoldStart(record, now_ns, simulated_us, wait_us))
        return delayed_us

    def _sent_us(self, pool: pools.Pool, record: TaskRecord, now_ns: int) -> float:
        """Return the time until a task that its worker holds starts."""
        worker, ahead_us = self._state.cluster.workers[record.worker], 0.0
        first, *others = worker.held.values()
        if first is record:
            return 0.0
        for other in others:
            if other is record:
                break
            cost_us = self._state.estimator.cost_us(other.route, other.spec)
            ahead_us += run_times.work_us(self._state, pool, other, cost_us)
        cost_us = self._state.estimator.cost_us(first.route, first.spec)
        running_us = run_times.running_us(self._state, worker, first, cost_us, now_ns)
        return running_us + ahead_us / nodes.speedup_slots(worker)

    def new_us(self, pool: pools.Pool, now_ns: int, owner: str = "") -> float:
        """Return the time until a task of priority 0 that an owner submits now would start."""
        last = self._last
        if last is None or not run_times.starts_tasks(self._state, pool):
            return UNKNOWN
        name = pool.spec.name
        start_us = last.new_us.get((name, owner), last.new_us.get((name, ""), UNKNOWN))
        if start_us < 0:
            return UNKNOWN
        if last.read[name] >= simulated_cluster.MAX_TASKS:  # more wait than were simulated
            start_us *= max(1.0, len(pool.queue) / last.read[name])
        wait_us = self._corrected_us(pool, _from(last, start_us, now_ns))
        run_us = pool.queue.backlog_us / max(1, len(pool.queue))
        return self._state.calendar.delayed_us(now_ns, wait_us, run_us)

    def _corrected_us(self, pool: pools.Pool, simulated_us: float) -> float:
        errors = self._errors.get(pool.spec.name)
        return simulated_us if errors is None else errors.corrected_us(simulated_us)

    def device_ns(self, device: str, now_ns: int, owner: str = "") -> int:
        """Return the time in ns until a task accepted now for a device would start, the least of
        all its pools; -1 if unknown."""
        each = [pool for pool in self._state.cluster.pools.values() if not pool.base]
        matching = [
            pool for pool in each if pool.spec.name == device or not (device or pool.is_exclusive)
        ]
        waits_us = [us for pool in matching if (us := self.new_us(pool, now_ns, owner)) >= 0]
        return round(min(waits_us) * 1e3) if waits_us else -1

    def pool_infos(self, now_ns: int, owner: str = "") -> list[PoolInfo]:
        """Return all pools with the wait of a new task of an owner."""
        infos = list[PoolInfo]()
        for info in cluster_info.pool_infos(self._state):
            wait_us = self.new_us(self._state.cluster.pools[info.name], now_ns, owner)
            infos.append(
                msgspec.structs.replace(
                    info,
                    wait_us=wait_us,
                    wait_off_by=self.off_by(info.name),
                    wait_age_us=self.age_us(wait_us, now_ns),
                )
            )
        return infos

    # --- errors -----------------------------------------------------------------------------------

    def restore(self, stored: Mapping[str, StoredErrors]) -> None:
        """Continue from the stored errors of pools."""
        self._errors = {pool: WaitErrors(each) for pool, each in stored.items()}

    def take_changes(self) -> dict[str, StoredErrors]:
        """Return the errors that changed since the last call, by pool."""
        changes = {pool: self._errors[pool].stored() for pool in sorted(self.changed)}
        self.changed.clear()
        return changes

    def off_by(self, pool: str) -> float:
        """Return the typical factor between foretold and real waits above a second in a pool; 0.0:
        none was compared."""
        errors = self._errors.get(pool)
        return 0.0 if errors is None else errors.off_by

    def watch(self, now_ns: int) -> None:
        """Compare foretold starts with real ones, and foretell those of a few new tasks. Called
        often: it does nothing while no task waits."""
        for number, foretold in list(self._foretold.items()):
            start_ns = self._started_ns(foretold.record, now_ns)
            if start_ns is not None:
                del self._foretold[number]
                if start_ns:
                    errors = self._errors.setdefault(foretold.record.route.pool, WaitErrors())
                    self.changed.add(foretold.record.route.pool)
                    errors.learn(foretold, max(MIN_WAIT_US, (start_ns - foretold.at_ns) / 1e3))
        waiting = sum(len(pool.queue) for pool in self._state.cluster.pools.values())
        age_ns = max(WATCH_NS, (waiting + len(self._state.cluster.workers)) * SAMPLE_NS)
        if not waiting or now_ns - self._sampled_ns < age_ns:
            return
        if self.refresh(now_ns) is not None:
            return
        self._sampled_ns, left = now_ns, NEW_SAMPLES
        for number in islice(reversed(self._state.tasks), LOOKED_AT):
            if left and number not in self._foretold:
                left -= self.task_us(self._state.tasks[number], now_ns) > LONG_WAIT_US

    def _foretell(self, foretold: ForetoldStart) -> None:
        number = foretold.record.number
        if len(self._foretold) < MAX_SAMPLES or number in self._foretold:
            self._foretold[number] = foretold

    def _started_ns(self, record: TaskRecord, now_ns: int) -> int | None:
        """Return when a task started; 0: it ended without a start; None: it has not started."""
        if record.phase in (Phase.WAITING, Phase.SENT, *core.UNQUEUED):
            return None
        pool = self._state.cluster.pools.get(record.route.pool)
        if pool is not None and pool.spec.pace:
            run = self._state.devices.paced.all[pool.device].runs.get(record.number)
            if run is not None:
                return run.begin_ns if run.begin_ns <= now_ns else None
        return record.started_ns or record.sent_ns


def _from(simulation: Starts, time_us: float, now_ns: int) -> float:
    """Return the time from now until a time of a simulation, at least 0."""
    return max(0.0, time_us - (now_ns - simulation.now_ns) / 1e3)
