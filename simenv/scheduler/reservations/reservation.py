"""One reservation and its tasks: the units that they hold, spend and wait for.

Invariant: spent + held + free = units, none of them negative. Each unfinished task under the
reservation holds its estimate or is parked, in order of acceptance, and no task overtakes a parked
one. Units are counted once and rates are derived from them, so that no rounding is lost between
tasks.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter, OrderedDict

import msgspec

from simenv import model
from simenv.scheduler.core import Phase, TaskRecord
from simenv.scheduler.reservations import policies

NO_LIMIT = -1
PARTS = 1_000_000  # of a unit: tasks of a device without a profile may take less than a unit


class Grant(msgspec.Struct, frozen=True):
    """Fixed part of a reservation: the terms granted at its creation."""

    id: int
    owner: str
    ask: model.ReservationRequest
    created_ns: int
    one_ns: int  # a unit: time of the device's baseline circuit at the grant
    total_ns: int  # estimate of the requested workload
    credits: int = 0
    rate: int = 0
    span_ns: int = 0  # time span of the rate
    bound_ns: int = 0
    # Parts of a unit in which its tasks are counted. 1: the times of a profile. PARTS: the times of
    # a cost model, which price the ends of tasks, too.
    parts: int = 1

    @property
    def is_modelled(self) -> bool:
        """True if a cost model prices its tasks, not a profile."""
        return self.parts > 1

    def parts_of(self, total_ns: int) -> int:
        """Return a time in parts of a unit: at least 1. Whole units are rounded up. Smaller parts
        are rounded down, so that the sum over tasks is at most the reserved time."""
        if self.is_modelled:
            return min(policies.MOST, max(1, total_ns * self.parts // self.one_ns))
        return policies.units_of(total_ns, self.one_ns)

    @property
    def units(self) -> int:
        """Units that the tasks may take in total; NO_LIMIT if there is no bound."""
        limits = [self.credits] if self.credits else []
        if self.rate:
            limits.append(self.rate * policies.budget_ns(self.ask) // self.span_ns)
        return min(limits, default=NO_LIMIT)


class Progress(msgspec.Struct, frozen=True):
    """Changing part of a reservation. The journal stores it with the grant and the tasks'
    estimates."""

    state: model.ReservationState
    expires_ns: int
    over_ns: int = 0  # time of its end; 0: it is live
    why: str = ""
    spent: int = 0  # parts of units of tasks that have ended
    returned: int = 0  # parts that ended tasks held and did not spend
    actual_ns: int = 0  # run time of ended tasks


class ReservationEntry:
    """Present state of a reservation."""

    def __init__(self, grant: Grant, progress: Progress) -> None:
        self.grant = grant
        self.units = grant.units * (grant.parts if grant.units > 0 else 1)  # in parts
        self.state = progress.state
        self.expires_ns = progress.expires_ns
        self.over_ns = progress.over_ns
        self.why = progress.why
        self.spent = progress.spent
        self.returned = progress.returned
        self.actual_ns = progress.actual_ns
        self.held = 0  # parts of units
        self.holds: dict[int, int] = {}  # parts by task
        # By task, with its estimate, in order. There may be very many, so no method scans all.
        self.parked: OrderedDict[int, tuple[TaskRecord, int]] = OrderedDict()
        self.parked_in: Counter[str] = Counter()  # by pool

    def copy_without_parked(self) -> ReservationEntry:
        """Return a copy without the tasks that wait for its units."""
        result = ReservationEntry(self.grant, self.progress)
        result.held, result.holds = self.held, self.holds.copy()
        return result

    @property
    def progress(self) -> Progress:
        """The changing part, as it is stored."""
        counted = self.spent, self.returned, self.actual_ns
        return Progress(self.state, self.expires_ns, self.over_ns, self.why, *counted)

    @property
    def is_over(self) -> bool:
        return self.state is not model.ReservationState.ACTIVE

    @property
    def free(self) -> int:
        """Units that are neither spent nor held; NO_LIMIT if there is no bound."""
        return NO_LIMIT if self.units < 0 else self.units - self.spent - self.held

    def covers(self, pool: str, base: str) -> bool:
        """Return whether the reservation holds for tasks of this pool. `base`: the pool for which
        it was made on demand."""
        return self.grant.ask.device in ("", pool, base)

    def can_never_fit(self, units: int) -> tuple[int, str] | None:
        """Return why the task can never have its units, as code and text; None if it can. The
        answer assumes that all held units are returned unspent."""
        if self.units < 0 or units <= self.units - self.spent:
            return None
        code = model.AdmissionReason.INSUFFICIENT_RATE
        if self.grant.credits:
            code = model.AdmissionReason.INSUFFICIENT_CREDITS
        if units > self.units:
            code = model.AdmissionReason.TOO_LARGE
        has, spent, needs = (self._as_text(each) for each in (self.units, self.spent, units))
        units_text = f"has {has} units, {spent} of them spent"
        return code, f"reservation {self.grant.id} {units_text}; this takes {needs}"

    def take(self, record: TaskRecord, units: int) -> bool:
        """Let a new task hold its units, or park it and return False. At a replay the reservation
        may be over: a task that had not started is then parked, to be ended."""
        if self.is_over:
            parked = not record.attempts
        else:
            parked = bool(self.parked) or 0 <= self.units < self.spent + self.held + units
        if parked:
            self.parked[record.number] = (record, units)
            self.parked_in[record.route.pool] += 1
            record.phase = Phase.PARKED
            return False
        self._hold(record.number, units)
        return True

    def settle(self, task: int, ran_ns: int, *, done: bool) -> int:
        """Release the units of a task that ended; return those not spent. `ran_ns` 0: it never
        ran. A task that is `done` spends its price if a cost model gave it, so that compilation of
        kernels, a cold start and a loaded machine cost nothing."""
        units = self.holds.pop(task, None)
        if units is None:
            self.parked_in[self.parked.pop(task)[0].route.pool] -= 1
            return 0
        spent = min(units, self.grant.parts_of(ran_ns)) if ran_ns else 0
        if done and self.grant.is_modelled:
            spent = units
        self.held -= units
        # Unbounded for a reservation without a limit.
        self.spent = min(policies.MOST, self.spent + spent)
        self.returned = min(policies.MOST, self.returned + units - spent)
        self.actual_ns = min(policies.MOST, self.actual_ns + ran_ns)
        return units - spent

    def release_parked(self, max_count: int) -> tuple[list[TaskRecord], list[TaskRecord]]:
        """Return parked tasks whose units are free now, and those that can never have theirs. At
        most `max_count` tasks are checked."""
        ready: list[TaskRecord] = []
        infeasible: list[TaskRecord] = []
        for number, (record, units) in itertools.islice(self.parked.items(), max_count):
            if self.can_never_fit(units) is not None:
                infeasible.append(record)  # it leaves `parked` when it is ended
                continue
            if 0 <= self.units < self.spent + self.held + units:
                break
            self._hold(number, units)
            record.phase = Phase.WAITING
            ready.append(record)
        for record in ready:
            del self.parked[record.number]
            self.parked_in[record.route.pool] -= 1
        return ready, infeasible

    def park_for_cancellation(self, waiting: list[TaskRecord]) -> None:
        """Park tasks of a closed reservation that hold units and have not started, to be ended."""
        for record in reversed(waiting):  # tasks that hold units came before parked ones
            units = self.holds.pop(record.number)
            self.held -= units
            self.parked[record.number] = (record, units)
            self.parked.move_to_end(record.number, last=False)
            self.parked_in[record.route.pool] += 1
            record.phase = Phase.PARKED

    def _hold(self, task: int, units: int) -> None:
        self.holds[task] = units
        self.held += units

    def reserved(self, device: str, scale: policies.UnitScale) -> tuple[int, int]:
        """Return the credits and the rate that it has of a device with that scale. Once the
        reservation is over, only the units of tasks that still run count. For its own device the
        units of the grant are used."""
        grant, total_ns = self.grant, self.grant.total_ns
        one_ns = self._unit_ns(device, scale)
        if self.is_over:
            if not self.held:
                return 0, 0
            total_ns = min(total_ns, -(-self.held * grant.one_ns // grant.parts))
        units = policies.units_of(total_ns, one_ns)
        return units if grant.credits else 0, self._rate(units, scale.span_ns)

    def held_capacity(
        self, units: int, device: str, scale: policies.UnitScale
    ) -> model.HeldCapacity:
        """Return parts of its units as capacity of a device; see `reserved`."""
        grant = self.grant
        held_ns = -(-units * grant.one_ns // grant.parts)
        device_units = units and policies.units_of(held_ns, self._unit_ns(device, scale))
        return model.HeldCapacity(
            device_units,
            device_units if self.grant.credits else 0,
            self._rate(device_units, scale.span_ns),
        )

    def _whole(self, parts: int) -> int:
        """Return units for display, rounded up."""
        return -(-parts // self.grant.parts)

    def _as_text(self, parts: int) -> str:
        return f"{parts / self.grant.parts:.4g}" if self.grant.is_modelled else str(parts)

    def _unit_ns(self, device: str, scale: policies.UnitScale) -> int:
        return self.grant.one_ns if device == self.grant.ask.device else scale.one_ns

    def _rate(self, units: int, span_ns: int) -> int:
        grant = self.grant
        if not grant.rate:
            return 0
        return policies.rate_of(units, span_ns or grant.span_ns, policies.budget_ns(grant.ask))

    def info(self, running: int, kept: int = 0) -> model.ReservationInfo:
        """Return the reservation as clients see it; `running`: tasks with a worker, `kept`:
        dedicated workers."""
        grant, request = self.grant, self.grant.ask
        consumed = self._whole(self.spent + self.held)
        return model.ReservationInfo(
            id=grant.id,
            request_id=request.request_id,
            device=request.device,
            scope=request.scope,
            owner=grant.owner,
            user=request.user,
            job=request.job,
            workload_kind=request.workload_kind,
            state=self.state,
            created_ns=grant.created_ns,
            expires_ns=self.expires_ns,
            credits_reserved=grant.credits,
            credits_consumed=consumed if grant.credits else 0,
            credits_held=self._whole(self.held) if grant.credits else 0,
            rate_reserved=grant.rate,
            rate_consumed=self._rate(consumed, grant.span_ns),
            quantum_budget_ns=max(0, policies.budget_ns(request)),
            estimated_total_ns=grant.total_ns,
            actual_total_ns=self.actual_ns,
            workers=request.workers,
            workers_kept=kept,
            bound_ns=grant.bound_ns,
            parked=len(self.parked),
            waiting=len(self.holds) - running,
            running=running,
            metadata=request.metadata,
            account=request.account,
        )


def units_for(
    reservation: ReservationEntry,
    work: model.Workload,
    terms: policies.DeviceTerms,
    modelled_ns: int | None = None,
) -> tuple[int, str]:
    """Return the parts of units of its reservation that a task takes, and "" or the reason why the
    device cannot run it. `work`: sizes of all its circuits. `modelled_ns`: its time if that does
    not follow from the profile."""
    profile, shots = terms.profile, work.shots
    if profile.max_qubits and work.qubits > profile.max_qubits:
        return 0, f"{work.qubits} qubits; the device takes {profile.max_qubits}"
    if profile.max_shots and shots > profile.max_shots:
        return 0, f"{shots} shots; the device takes {profile.max_shots}"
    total_ns = policies.circuits_ns(work, profile) if modelled_ns is None else modelled_ns
    if total_ns > policies.MOST:
        return 0, f"it would take {total_ns} ns; the most is {policies.MOST}"
    return reservation.grant.parts_of(total_ns), ""


REQUESTED = -1  # in place of a reservation number: held for a repeated request


class DedicatedWorker(msgspec.Struct):
    """Number of workers of a pool for one reservation; `until_ns`: monotonic, for a request
    only. `held_us`: for which it had them, all together, and is not charged yet."""

    pool: str
    workers: int
    account: str
    owner: str
    until_ns: int = 0
    held_us: float = 0.0
    device_ns: int = 0  # paid for time on a paced device that its tasks have not used

    def taken_ns(self, needed_ns: int) -> int:
        """Take paid time on the device for a task, as far as there is."""
        taken_ns = min(needed_ns, self.device_ns)
        self.device_ns -= taken_ns
        return taken_ns


class DedicatedWorkers:
    """Workers that reservations should have, and requests for workers."""

    def __init__(self) -> None:
        self.all: dict[int, DedicatedWorker] = {}  # by reservation
        self.requests: dict[str, DedicatedWorker] = {}  # by pool

    def copy(self) -> DedicatedWorkers:
        result = DedicatedWorkers()
        result.all = {number: copy.copy(each) for number, each in self.all.items()}
        result.requests = {pool: copy.copy(each) for pool, each in self.requests.items()}
        return result

    def __bool__(self) -> bool:
        return bool(self.all or self.requests)

    def of(self, pool: str) -> list[tuple[int, DedicatedWorker]]:
        """Return what a pool has, each with its reservation or REQUESTED."""
        pairs = [(number, each) for number, each in self.all.items() if each.pool == pool]
        request = self.requests.get(pool)
        return [*pairs, (REQUESTED, request)] if request is not None else pairs
