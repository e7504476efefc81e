"""The options of a submit as one value, for calls that take the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex, TypedDict

from simenv.client import orders
from simenv.client.options import Seed, checked_key
from simenv.client.options import options as checked
from simenv.client.reservations import Reservation
from simenv.client.sending import Order


class SubmitOptions(TypedDict, total=False):
    """The options of `Client.submit`, for those who hand them on."""

    shots: SupportsIndex | float | None
    seed: Seed | None
    outputs: Sequence[str] | str
    observables: Any
    bindings: Any
    binding: SupportsIndex
    engine: str
    precision: str
    pool: str | None
    priority: SupportsIndex
    queue_timeout_s: float | None
    run_timeout_s: float | None
    options: Mapping[str, float] | None
    ranks: SupportsIndex | None
    reservation: Reservation | SupportsIndex | None
    prefer: Sequence[str] | str | None
    name: str | None
    key: str | None


def prepared(
    circuit: Any,
    *,
    shots: SupportsIndex | float | None = 1024,
    seed: Seed | None = None,
    outputs: Sequence[str] | str = ("counts",),
    observables: Any = None,
    bindings: Any = None,
    binding: SupportsIndex = 0,
    engine: str = "auto",
    precision: str = "double",
    pool: str | None = None,
    priority: SupportsIndex = 0,
    queue_timeout_s: float | None = None,
    run_timeout_s: float | None = None,
    options: Mapping[str, float] | None = None,
    ranks: SupportsIndex | None = None,
    reservation: Reservation | SupportsIndex | None = None,
    prefer: Sequence[str] | str | None = None,
    name: str | None = None,
    key: str | None = None,
) -> Order:
    """One task, checked and packed; see `Client.submit` for the options."""
    chosen = checked(
        shots,
        outputs,
        engine,
        precision,
        pool,
        priority,
        queue_timeout_s,
        run_timeout_s,
        name,
        options,
        ranks,
        reservation,
        prefer,
    )
    key = None if key is None else checked_key(key)
    return orders.one(circuit, bindings, observables, chosen, seed, key, binding)
