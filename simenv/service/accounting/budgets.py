"""Budgets of accounts: what is left in this calendar month (UTC), refusals, and ends by a budget.

What is not left: the billing units that were spent, the forecasts of unfinished tasks, and the time
of this month for which reservations have workers. Of a reservation the larger of the two counts:
its time, or the forecast of its tasks, which run on other workers of the pool, too. A reservation
that lasts into later months needs a part of their budgets, of which nothing is spent.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from simenv import errors
from simenv.model import ReservationRequest, ReservationState, TaskSpec
from simenv.model.accounts import SLOT_HOUR, Used
from simenv.model.views import base_of
from simenv.scheduler import core
from simenv.scheduler.admission.task_limits import below
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.policies import MAX_TTL_NS
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.pools import Pool
from simenv.service.accounting.usage import month_of

CUT_NS = 1_000_000_000  # between two looks at the budgets that end tasks
ENDED_PER_TICK = 250  # tasks, so that the event loop is not blocked


class _Claim(NamedTuple):
    """Billing units that tasks and dedicated workers will use."""

    rate: float  # of the workers, a second
    end_ns: int  # of their time, by the wall clock
    tasks: float  # forecast of unfinished tasks, without what has run on these workers

    def units(self, span_ns: tuple[int, int], is_present: bool) -> float:
        """Return those in a month, or what is left of the present one."""
        held = self.rate * max(0, min(self.end_ns, span_ns[1]) - span_ns[0]) / 1e9
        return max(held, self.tasks) if is_present else held


_NOTHING = _Claim(0.0, 0, 0.0)
_NEW = -1  # in place of a reservation's number


class Budgets:
    """Budgets of all accounts. Used from the loop's thread."""

    def __init__(self, scheduler: Scheduler, spent_units: Callable[[str], float]) -> None:
        """`spent_units`: returns the billing units that an account and those below it spent in this
        calendar month (UTC)."""
        self.spent_units = spent_units
        self._scheduler = scheduler
        self._state = scheduler.state
        self._next_cut_ns = 0

    def _path(self, account: str) -> tuple[str, ...]:
        """Return an account and those above it."""
        return self._state.shares.accounts.path(account)

    def of(self, account: str) -> float:
        """Return the billing units of a month; 0: no budget."""
        entry = self._state.shares.accounts.accounts.get(account)
        return 0.0 if entry is None else entry.budget_slot_h * SLOT_HOUR

    def left(self) -> dict[str, float]:
        """Return the billing units of this month that are not spent, by account with a budget."""
        accounts = self._state.shares.accounts.accounts
        return {
            name: budget - self.spent_units(name) for name in accounts if (budget := self.of(name))
        }

    # --- refusals --------------------------------------------------------------------------------

    def error(
        self, path: tuple[str, ...], needed: float, reservation: int = 0
    ) -> errors.LimitExceededError | None:
        """Return the refusal of tasks that need more billing units than an account of the path has
        left in this month. `reservation`: the one under which they run, 0: none."""
        now_ns = time.time_ns()
        span_ns = now_ns, _month_end_ns(now_ns)
        for name in filter(self.of, reversed(path)):
            claims = self._claims(name)
            number = reservation if reservation in claims else 0
            own = claims[number]
            asked = {**claims, number: own._replace(tasks=own.tasks + needed)}
            advice = "fewer shots or bindings"
            error = self._error(name, needed, span_ns, claims, asked, advice, number)
            if error is not None:
                return error
        return None

    def _error_of_workers(
        self,
        path: tuple[str, ...],
        pool: Pool,
        workers: int,
        length_ns: int,
        reservation: int,
        advice: str,
    ) -> errors.LimitExceededError | None:
        """Return the refusal of workers for a time from now, which a reservation (0: a new one) has
        instead of its own: each month has a budget of its own."""
        begin_ns, rate = time.time_ns(), workers * self._price(pool)
        end_ns = begin_ns + min(length_ns, MAX_TTL_NS)  # what is longer is refused in any case
        names = list(filter(self.of, reversed(path)))
        claims = {name: self._claims(name) for name in names}
        while begin_ns < end_ns and names:
            span_ns = begin_ns, _month_end_ns(begin_ns)
            needed = rate * (min(end_ns, span_ns[1]) - begin_ns) / 1e9
            for name in names:
                number = reservation or _NEW
                own = claims[name].get(number, _NOTHING)
                asked = {**claims[name], number: own._replace(rate=rate, end_ns=end_ns)}
                error = self._error(name, needed, span_ns, claims[name], asked, advice, reservation)
                if error is not None:
                    return error
            begin_ns = span_ns[1]
        return None

    def _error(
        self,
        name: str,
        needed: float,
        span_ns: tuple[int, int],
        claims: Mapping[int, _Claim],
        asked: Mapping[int, _Claim],
        advice: str,
        reservation: int,
    ) -> errors.LimitExceededError | None:
        """Return the refusal by the budget of one account in a month. `span_ns`: that month, or
        what is left of the present one, by the wall clock; `asked`: the claims with the request."""
        budget, is_present = self.of(name), span_ns[0] <= time.time_ns()
        spent = self.spent_units(name) if is_present else 0.0
        units = {n: each.units(span_ns, is_present) for n, each in claims.items()}
        before = spent + sum(units.values())
        after = spent + sum(each.units(span_ns, is_present) for each in asked.values())
        own = units.get(reservation, 0.0)
        # What a reservation has already is its tasks', unless others have spent the budget.
        is_own = bool(reservation) and after <= before and before - own <= budget
        if is_own or (after <= budget and (before < budget or reservation)):
            return None
        begin = "" if is_present else f"from {_day(span_ns[0])} "
        free = max(0.0, round(budget - after + needed, 9))
        text = f"{name}: {_hours(free)} slot-h left {begin}until {_day(span_ns[1])}, this"
        text += f" needs about {_hours(needed)}"
        hint = f"{advice}, another account (account=), or ask an admin:"
        hint += f" simenv accounts set {name} --budget-slot-h ..."
        queued = units[0]
        reserved = sum(each for n, each in units.items() if n not in (0, reservation))
        if reserved > 0.0:
            hint = f"its reservations hold {_hours(reserved)} more; {hint}"
        if queued > 0.0:
            hint = f"its unfinished tasks need about {_hours(queued)} more; {hint}"
        return errors.LimitExceededError(text, hint=hint)

    def _claims(self, name: str) -> dict[int, _Claim]:
        """Return what unfinished tasks and reservations of an account and those below it will use,
        by reservation; 0: tasks under none that has workers."""
        live, dedicated = self._state.reservations.live, self._state.dedicated.all
        tasks = {0: 0.0}
        for use in below(self._state, name):
            entry = dedicated.get(use.reservation)
            number = use.reservation if entry and name in self._path(entry.account) else 0
            tasks[number] = tasks.get(number, 0.0) + use.units
        claims = {0: _Claim(0.0, 0, tasks[0])}
        for number, each in dedicated.items():
            if name in self._path(each.account):
                pool, left = self._state.cluster.pools[each.pool], tasks.get(number, 0.0)
                if left:
                    left -= dedicated_workers.paid_units(
                        self._state, pool, number, lambda account: name in self._path(account)
                    )
                rate = each.workers * self._price(pool)
                claims[number] = _Claim(rate, live[number].expires_ns, max(0.0, left))
        return claims

    def reservation_error(
        self, account: str, request: ReservationRequest
    ) -> errors.LimitExceededError | None:
        """Return the refusal of a request for dedicated workers by a budget."""
        terms = self._state.reservations.terms(request.device)
        ttl_ns = request.ttl_ns or terms.profile.default_ttl_ns
        pool = self._state.cluster.pools.get(dedicated_workers.pool_name(self._state, request))
        path = self._path(account)
        if pool is None or not request.workers or not any(map(self.of, path)):
            return None
        advice = "fewer workers, a shorter time (for_s=)"
        return self._error_of_workers(path, pool, request.workers, ttl_ns, 0, advice)

    def renewal_error(
        self, reservation: ReservationEntry, ttl_ns: int
    ) -> errors.LimitExceededError | None:
        """Return the refusal of a renewal by a budget: `ttl_ns` from now instead of what is left of
        its time."""
        dedicated = self._state.dedicated.all.get(reservation.grant.id)
        if dedicated is None:
            return None
        path, pool = self._path(dedicated.account), self._state.cluster.pools[dedicated.pool]
        number, advice = reservation.grant.id, "a shorter time (for_s=)"
        return self._error_of_workers(path, pool, dedicated.workers, ttl_ns, number, advice)

    def _price(self, pool: Pool) -> float:
        """Return the billing units of a dedicated worker for a second."""
        return dedicated_workers.charge_of(self._state, pool, 1_000_000)[1]

    def forecast(self, routes: Sequence[core.Route], specs: Sequence[TaskSpec]) -> float:
        """Return the billing units that tasks will need, without the factor of their class."""
        total, units, last, key = 0.0, 0.0, None, (-1, -1)
        for route, spec in zip(routes, specs, strict=True):
            if route is not last or (spec.shots, spec.count) != key:
                last, key = route, (spec.shots, spec.count)
                run_us = self._state.estimator.cost_us(route, spec)
                device_us = core.expected_ns(route, spec) / 1e3
                units = self._units(route, run_us, route.ranks, device_us)
            total += units
        return total

    def _units(self, route: core.Route, run_us: float, slots: int, device_us: float = 0.0) -> float:
        """Return the billing units of a run with `slots` slots on all ranks together."""
        pool = self._state.cluster.pools.get(base_of(route.pool) or route.pool)
        gpus = 0 if pool is None else core.rank_gpus(pool.spec)
        used = Used(
            round(run_us * slots),
            round(run_us * gpus * route.ranks),
            round(run_us * route.memory_bytes * route.ranks / 2**30),
            round(device_us),
        )
        return self._state.shares.billing.units(used, base_of(route.pool) or route.pool)

    # --- ends ------------------------------------------------------------------------------------

    def cut(self, now_ns: int) -> list[core.Action]:
        """End tasks and reservations of accounts that say so and whose budget is spent; some tasks
        in each call, once a second."""
        actions: list[core.Action] = []
        if now_ns < self._next_cut_ns:
            return actions
        self._next_cut_ns = now_ns + CUT_NS
        for name, account in self._state.shares.accounts.accounts.items():
            if account.cut and account.budget_slot_h:
                actions += self._cut(name, now_ns)
        return actions

    def _cut(self, name: str, now_ns: int) -> list[core.Action]:
        uses, budget, state = below(self._state, name), self.of(name), self._state
        dedicated = state.dedicated.all.items()
        reserved = [number for number, each in dedicated if name in self._path(each.account)]
        if not (uses or reserved):
            return []
        spent = self.spent_units(name) + self._running_units(name, now_ns)
        if spent < budget:
            return []
        until = _day(_month_end_ns(time.time_ns()))
        text = f"{name}: the budget of {_hours(budget)} slot-h until {until} is spent:"
        text += f" {_hours(spent)} slot-h are used"
        accounts = {(each.account, each.owner) for each in uses}
        owners = {each.owner for each in uses}
        all_tasks = state.tasks.values()
        records = (
            record
            for owner in sorted(owners)
            for record in (state.tasks.by_owner.of(owner) if owner else all_tasks)
            if (record.batch.account, owner) in accounts
            and record.batch.owner == owner
            and not record.stop.reason
        )
        numbers = [record.number for record in islice(records, ENDED_PER_TICK)]
        actions = self._scheduler.end_early(numbers, "limit", text, now_ns)
        for number in reserved:
            entry, ended = state.reservations.all[number], ReservationState.RELEASED
            actions += self._scheduler.close_reservation(entry, ended, text, time.time_ns(), now_ns)
        return actions

    def _running_units(self, name: str, now_ns: int) -> float:
        """Return the billing units that running tasks of an account have used so far."""
        total = 0.0
        for worker in self._state.cluster.workers.values():
            record = next(iter(worker.held.values()), None)
            if record is None or record.phase != core.RUNNING:
                continue
            if name in self._path(record.batch.account):
                run_us, slots = (now_ns - record.started_ns) // 1000, worker.slots // worker.ranks
                paid = dedicated_workers.paid_us(worker, record, now_ns), 0
                use = dedicated_workers.use_of(self._state, record, slots, run_us, 0, paid)
                total += use[1]
        return total


def _hours(units: float) -> str:
    return f"{units / SLOT_HOUR:.3g}"


def _month_end_ns(wall_ns: int) -> int:
    return month_of(wall_ns / 1e9)[1] * 10**9


def _day(wall_ns: int) -> str:
    """Return the day (UTC) of a time as text, without its year."""
    date = time.gmtime(wall_ns // 10**9)
    return f"{date.tm_mday} {calendar.month_name[date.tm_mon]}"
