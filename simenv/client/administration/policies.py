"""Queue and admission policies of pools."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.errors import OptionError
from simenv.model import AdmissionPolicy
from simenv.model.views import base_of
from simenv.wire.messages import admin

ALL = "all"  # the whole environment, in place of a pool


class PoolPolicies(msgspec.Struct, frozen=True):
    """The policies of one pool, or of "all". A figure that the policy does not have is 0."""

    pool: str
    queue: str
    keys: tuple[str, ...]
    max_inflight: int  # tasks with workers at a time; 0: no limit
    admission: str
    credits: int
    rate: int
    span_s: float


class PolicySettings:
    """Requests for the policies of pools. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> list[PoolPolicies]:
        """Return the policies of the whole environment, then of each pool."""
        pools = self._session.request(admin.GetPools(0)).pools
        names = (pool.name for pool in pools if not base_of(pool.name))
        return [self.of(name) for name in (ALL, *names)]

    def of(self, pool: str) -> PoolPolicies:
        """Return the policies of one pool, or of "all". Raises NotFoundError."""
        device = _device(pool)
        target = self._session.request(admin.GetTarget(0, device=device)).info
        policy = self._session.request(admin.GetPolicy(0, device=device)).policy
        keys = dict(target.options).get("keys", "")
        return PoolPolicies(
            pool,
            target.policy,
            tuple(key.strip() for key in keys.split(",")) if keys else (),
            target.max_inflight,
            policy.name,
            policy.total_credits,
            policy.device_rate,
            policy.time_span_ns / 1e9,
        )

    def set_queue(self, pool: str, policy: str, keys: Sequence[str] = ()) -> PoolPolicies:
        """Set the queue policy, for waiting tasks too: priority, fair_share, fifo, round_robin,
        or ordered by `keys`. Raises NotFoundError, OptionError, NotAllowedError."""
        options = (("keys", ",".join(keys)),) if keys else ()
        self._session.request(admin.SetOrder(0, _device(pool), policy, options))
        return self.of(pool)

    def set_admission(
        self, pool: str, policy: str, *, total_credits: int = 0, rate: int = 0, span_s: float = 0.0
    ) -> PoolPolicies:
        """Set the admission policy: "unlimited" accepts all reservations, "credit" up to
        `total_credits` units, "rate" up to `rate` units in each `span_s` seconds.

        Raises NotFoundError, OptionError, NotAllowedError, and InsufficientError if live
        reservations exceed the new limit.
        """
        if min(total_credits, rate, span_s) < 0:
            message = f"total_credits={total_credits}, rate={rate}, span_s={span_s}"
            raise OptionError(message, hint="0 or more")
        device = _device(pool)
        old = self._session.request(admin.GetPolicy(0, device=device)).policy
        new = AdmissionPolicy(policy, old.baseline, total_credits, rate, round(span_s * 1e9))
        self._session.request(admin.SetPolicy(0, device, new))
        return self.of(pool)


def _device(pool: str) -> str:
    return "" if pool == ALL else pool
