"""Budgets of accounts: what is left in this calendar month (UTC), refusals, and ends by a budget.

What is not left: the billing units that were spent, the forecasts of unfinished tasks, and the time
for which workers are dedicated to reservations, which is charged whether tasks run or not.
"""

from __future__ import annotations

import calendar
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice

from simenv import errors
from simenv.model import ReservationRequest, ReservationState, TaskSpec
from simenv.model.accounts import SLOT_HOUR, Used
from simenv.model.views import base_of
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.task_index import AssociationUse

ENDED_PER_TICK = 250  # tasks, so that the event loop is not blocked


class Budgets:
    """Budgets of all accounts. Used from the loop's thread."""

    def __init__(self, scheduler: Scheduler, spent_units: Callable[[str], float]) -> None:
        """`spent_units`: returns the billing units that an account and those below it spent in this
        calendar month (UTC)."""
        self.spent_units = spent_units
        self._scheduler = scheduler
        self._state = scheduler.state

    def _path(self, account: str) -> tuple[str, ...]:
        """Return an account and those above it."""
        return self._state.accounts.path(account)

    def below(self, account: str) -> list[AssociationUse]:
        """Return the use of an account and of the accounts below it."""
        uses = self._state.use_by_association
        return [each for each in uses if account in self._path(each.account)]

    def of(self, account: str) -> float:
        """Return the billing units of a month; 0: no budget."""
        entry = self._state.accounts.accounts.get(account)
        return 0.0 if entry is None else entry.budget_slot_h * SLOT_HOUR

    # --- refusals --------------------------------------------------------------------------------

    def error(
        self, path: tuple[str, ...], needed: float, reservation: int = 0
    ) -> errors.LimitExceededError | None:
        """Return the refusal of tasks that need more billing units than an account of the path has
        left. `reservation`: the one under which they run, whose time they use first; 0: none."""
        return self._error(path, needed, reservation, "fewer shots or bindings", are_tasks=True)

    def _error(
        self,
        path: tuple[str, ...],
        needed: float,
        reservation: int,
        advice: str,
        *,
        are_tasks: bool = False,
    ) -> errors.LimitExceededError | None:
        """Return the refusal of tasks, or of the whole time of a reservation (0: a new one)."""
        for name in reversed(path):
            budget = self.of(name)
            if not budget:
                continue
            claims, held = defaultdict[int, float](float), self._held_units(name)
            for use in self.below(name):
                claims[use.reservation] += use.units
            unfinished = claims[reservation] if are_tasks and reservation else 0.0
            for number, units in held.items():  # of which its tasks use what they need
                claims[number] = max(units, claims[number])
            own = claims.pop(reservation, 0.0) if reservation else 0.0
            reserved = sum(units for number, units in claims.items() if number in held)
            queued = sum(units for number, units in claims.items() if number not in held)
            left = budget - self.spent_units(name) - queued - reserved - own
            free = max(0.0, left) + own - unfinished
            if needed > free or (left <= 0.0 and not reservation):
                text = f"{name}: {_hours(free)} slot-h left until {_next_month()}, this"
                text += f" needs about {_hours(needed)}"
                hint = f"{advice}, another account (account=), or ask an admin:"
                hint += f" simenv accounts set {name} --budget-slot-h ..."
                if reserved > 0.0:
                    hint = f"its reservations hold {_hours(reserved)} more; {hint}"
                if queued > 0.0:
                    hint = f"its unfinished tasks need about {_hours(queued)} more; {hint}"
                return errors.LimitExceededError(text, hint=hint)
        return None

    def reservation_error(
        self, account: str, request: ReservationRequest
    ) -> errors.LimitExceededError | None:
        """Return the refusal of a request for dedicated workers by a budget."""
        terms = self._state.reservations.terms(request.device)
        ttl_ns = request.ttl_ns or terms.profile.default_ttl_ns
        pool = self._state.pools.get(dedicated_workers.pool_name(self._state, request))
        path = self._path(account)
        if pool is None or not request.workers or not any(map(self.of, path)):
            return None
        needed = dedicated_workers.charge_of(self._state, pool, request.workers * ttl_ns // 1000)[1]
        return self._error(path, needed, 0, "fewer workers, a shorter time (for_s=)")

    def renewal_error(
        self, reservation: ReservationEntry, ttl_ns: int
    ) -> errors.LimitExceededError | None:
        """Return the refusal of a renewal by a budget: `ttl_ns` from now instead of what is left of
        its time."""
        dedicated = self._state.dedicated.all.get(reservation.grant.id)
        if dedicated is None:
            return None
        path, pool = self._path(dedicated.account), self._state.pools[dedicated.pool]
        needed = dedicated_workers.charge_of(self._state, pool, dedicated.workers * ttl_ns // 1000)
        return self._error(path, needed[1], reservation.grant.id, "a shorter time (for_s=)")

    def _held_units(self, name: str) -> dict[int, float]:
        """Return the billing units for which each reservation of an account will have workers."""
        held, ledger, wall_ns = dict[int, float](), self._state.reservations, time.time_ns()
        for number, dedicated in self._state.dedicated.all.items():
            if name in self._path(dedicated.account):
                left_us = max(0, ledger.all[number].expires_ns - wall_ns) // 1000
                pool = self._state.pools[dedicated.pool]
                worker_us = dedicated.workers * left_us
                held[number] = dedicated_workers.charge_of(self._state, pool, worker_us)[1]
        return held

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
        pool = self._state.pools.get(base_of(route.pool) or route.pool)
        gpus = 0 if pool is None else core.rank_gpus(pool.spec)
        used = Used(
            round(run_us * slots),
            round(run_us * gpus * route.ranks),
            round(run_us * route.memory_bytes * route.ranks / 2**30),
            round(device_us),
        )
        return self._state.billing.units(used, base_of(route.pool) or route.pool)

    # --- ends ------------------------------------------------------------------------------------

    def cut(self, now_ns: int) -> list[core.Action]:
        """End tasks and reservations of accounts that say so and whose budget is spent; some tasks
        in each call."""
        actions: list[core.Action] = []
        for name, account in self._state.accounts.accounts.items():
            if account.cut and account.budget_slot_h:
                actions += self._cut(name, now_ns)
        return actions

    def _cut(self, name: str, now_ns: int) -> list[core.Action]:
        uses, budget, state = self.below(name), self.of(name), self._state
        dedicated = state.dedicated.all.items()
        reserved = [number for number, each in dedicated if name in self._path(each.account)]
        if not (uses or reserved):
            return []
        spent = self.spent_units(name) + self._running_units(name, now_ns)
        if spent < budget:
            return []
        text = f"{name}: the budget of {_hours(budget)} slot-h until {_next_month()} is spent:"
        text += f" {_hours(spent)} slot-h are used"
        accounts = {(each.account, each.owner) for each in uses}
        owners = {each.owner for each in uses}
        all_tasks = state.tasks.values()
        records = (
            record
            for owner in sorted(owners)
            for record in (state.tasks_by_owner.of(owner) if owner else all_tasks)
            if (record.batch.account, owner) in accounts
            and record.batch.owner == owner
            and not record.stopping
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
        for worker in self._state.workers.values():
            record = next(iter(worker.held.values()), None)
            if record is None or record.phase != core.RUNNING:
                continue
            if name in self._path(record.batch.account):
                run_us = (now_ns - record.started_ns) / 1e3
                units = self._units(record.route, run_us, worker.slots)
                total += units * record.batch.usage_factor
        return total


def _hours(units: float) -> str:
    return f"{units / SLOT_HOUR:.3g}"


def _next_month() -> str:
    """Return the first day of the next calendar month (UTC), as text."""
    return f"1 {calendar.month_name[time.gmtime().tm_mon % 12 + 1]}"
