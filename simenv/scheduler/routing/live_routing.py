"""Routing on the nodes that are up.

A program that fits only with a node that is not up is refused with the node's name, or waits for it
(see `capacity`).
"""

from __future__ import annotations

import msgspec

from simenv.errors import InfeasibleError, SimenvError
from simenv.model import PoolSpec, TaskOptions
from simenv.scheduler.core.types import Route
from simenv.scheduler.routing import preferences
from simenv.scheduler.routing.capacity import Capacity
from simenv.scheduler.routing.engine_choice import EngineCandidate
from simenv.scheduler.routing.engine_support import RoutingSnapshot
from simulators.circuit.analysis.profile import Profile


def route(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> Route:
    """Return the route of `preferences.route` on the nodes that are up.

    A program with a `queue_timeout_s` that fits only with all nodes gets that route. Otherwise
    InfeasibleError names the missing nodes.
    """
    try:
        return preferences.route(profile, terms, pools, capacity.limits, snapshot)
    except SimenvError as error:
        route_later = _later(profile, terms, pools, capacity, snapshot)
        if route_later is None:
            raise
        if terms.queue_timeout_s:
            return msgspec.structs.replace(
                route_later, reason=f"{route_later.reason}; waits for a node: {capacity.away}"
            )
        raise _unavailable(error, capacity) from error


def consider(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> list[EngineCandidate]:
    """Return the candidates of `preferences.consider` on the nodes that are up.

    An objection names the missing nodes if the program would fit with all nodes.
    """
    candidates = preferences.consider(profile, terms, pools, capacity.limits, snapshot)
    first = candidates[0]
    if (
        first.objection is not None
        and _later(profile, terms, pools, capacity, snapshot) is not None
    ):
        error = _unavailable(first.objection, capacity)
        text = f"{first.text}; {capacity.away}"
        candidates[0] = msgspec.structs.replace(first, objection=error, text=text)
    return candidates


def _later(
    profile: Profile,
    terms: TaskOptions,
    pools: tuple[PoolSpec, ...],
    capacity: Capacity,
    snapshot: RoutingSnapshot,
) -> Route | None:
    """Return the route that the program would have with all nodes up; None if there is none."""
    if capacity.is_whole:
        return None
    try:
        return preferences.route(profile, terms, pools, capacity.configured, snapshot)
    except SimenvError:
        return None


def _unavailable(error: SimenvError, capacity: Capacity) -> InfeasibleError:
    hint = "it fits once that node is back: queue_timeout_s=SECONDS waits so long for it"
    return InfeasibleError(f"{error.message}; {capacity.away}", hint=hint)
