"""What stands against a reservation beside capacity: its device, the workers and the bound asked.

Pure looks at the machine; None where nothing does.
"""

from __future__ import annotations

from simenv.model import Code, ReservationAsk
from simenv.scheduler import kept
from simenv.scheduler.books import Books
from simenv.scheduler.policy import DELAYED, REJECTED, Verdict

LEAST_BOUND_NS = 20_000_000


def veto(books: Books, ask: ReservationAsk) -> Verdict | None:
    """Why a `sound` ask cannot be accepted, whatever credits or rate there are."""
    pool = books.pools.get(ask.device)
    if ask.device and (pool is None or pool.base):
        told = ", ".join(name for name, each in books.pools.items() if not each.base)
        words = f"there is no device {ask.device[:64]!r}; pools: {told}"
        return Verdict(REJECTED, Code.DEVICE_NOT_FOUND, words)
    if pool is not None and pool.is_quarantined:
        words = f"pool {pool.spec.name} is quarantined: {pool.reason}"
        return Verdict(DELAYED, Code.DEVICE_UNAVAILABLE, words)
    if books.steers.why_closed(ask.device, begins=False):
        words = f"{ask.device or 'the environment'} is draining and accepts nothing new"
        return Verdict(DELAYED, Code.DEVICE_UNAVAILABLE, words)
    if ask.bound_ns and not ask.workers:
        words = "a bound on the begin of tasks needs workers of one's own: ask for workers=1"
        return Verdict(REJECTED, Code.UNSUPPORTED, words)
    if ask.bound_ns and ask.bound_ns < LEAST_BOUND_NS:
        words = f"bound_ns = {ask.bound_ns} cannot be promised: {LEAST_BOUND_NS} is the least"
        return Verdict(REJECTED, Code.UNSUPPORTED, words)
    return kept.veto(books, ask) if ask.workers else None
