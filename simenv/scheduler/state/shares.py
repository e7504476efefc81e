"""Shares of users and accounts: limits, usage, budgets and prices.

Usage of the fair share is stored in the journal; limits, accounts and classes come from its tables,
by events. Invariant: what the fair share expects of an association is what its assigned tasks are
expected to use.
"""

from __future__ import annotations

from collections.abc import Mapping

from simenv.model.accounts import AccountTree, Billing, Qos
from simenv.scheduler.core import SubmitBatch, TaskRecord
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.state.limit_table import LimitTable, SlotLimits
from simenv.scheduler.state.pools import Meter, Pool

MAX_METERS = 32  # of a pool


class ShareState:
    """What each user and account may use, has used, and pays."""

    def __init__(self) -> None:
        self.limits = LimitTable()
        self.fair_share = FairShare()
        self.qos: Mapping[str, Qos] = {}

    def copy(self) -> ShareState:
        result = ShareState()
        result.limits, result.fair_share = self.limits.copy(), self.fair_share.copy()
        result.qos = self.qos
        return result

    @property
    def accounts(self) -> AccountTree:
        return self.fair_share.tree

    @property
    def billing(self) -> Billing:
        return self.fair_share.billing

    def set_accounts(self, tree: AccountTree, billing: Billing, qos: Mapping[str, Qos]) -> None:
        """Replace accounts, weights of billing units and classes of service."""
        self.qos = qos
        self.fair_share.set(tree, billing)
        self.limits.set_accounts(tree.accounts, qos)

    # --- billing units ----------------------------------------------------------------------------

    def set_rate(self, pool: Pool) -> None:
        """Set the billing units of a microsecond of expected work in a pool."""
        weights, spec = self.billing, pool.spec
        each = weights.slot_s + weights.gpu_s * pool.rank_gpus
        on_device = weights.device_s.get(pool.device, 0.0) if spec.pace or spec.provider else 0.0
        pool.meters.clear()
        pool.queue.rate = (each * max(1, spec.ranks) + on_device) / 1e6

    def meter(self, pool: Pool, record: TaskRecord, slots: float) -> Meter:
        """Return what attempts like this one use on `slots` of each rank."""
        route, factor = record.route, record.batch.usage_factor
        return self.meter_of(pool, (route.ranks, route.memory_bytes, slots, factor))

    def meter_of(self, pool: Pool, key: tuple[int, int, float, float]) -> Meter:
        """Return what ranks with so many bytes and slots use, in a class with this factor."""
        if key not in pool.meters:
            if len(pool.meters) >= MAX_METERS:
                pool.meters.clear()
            pool.meters[key] = Meter(pool, self.billing, *key)
        return pool.meters[key]

    def charge_ended(
        self, pool: Pool, batch: SubmitBatch, count: int, cost_us: float, units: float
    ) -> None:
        """Charge ended tasks of one batch. `cost_us`: their expected work; `units`: what they
        used."""
        expected = cost_us * pool.queue.rate * batch.usage_factor
        self.fair_share.ended(batch.association, count, expected, units)

    # --- running slots ----------------------------------------------------------------------------

    def slot_limits(self, leaf: str) -> SlotLimits:
        """Return the limits of running slots of an association's user and accounts."""
        known = self.limits.slot_limits
        if leaf not in known:
            owner = self.fair_share.user(leaf)
            limits = {f"@{owner}": self.limits.of(owner).max_running_slots}
            for each in self.fair_share.path(leaf)[:-1]:
                limits[each] = self.limits.of_account(each).max_running_slots
            known[leaf] = tuple((node, limit) for node, limit in limits.items() if limit)
            for node, limit in known[leaf]:
                self.limits.limited.setdefault(node, (limit, set()))[1].add(leaf)
        return known[leaf]
