"""How devices are steered: paused, drained, bounded, and in which order their tasks go.

A device is a pool with those made on demand for it, or "", which is all of them together: what is
said of "" holds beside what is said of each; only its order gives way to a pool's own. Paused:
nothing new is begun. Draining: nothing new is accepted, what was accepted still ends; once the time
it was given is over, nothing more is begun. Wall-clock ns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.errors import NotFound, OptionError
from simenv.model import TargetInfo
from simenv.scheduler import holdings
from simenv.scheduler.gangs import base_of
from simenv.scheduler.orders import Order, order_of
from simenv.scheduler.values import Action, Note, Phase, Route

if TYPE_CHECKING:
    from simenv.scheduler.books import Books
    from simenv.scheduler.pools import Pool

ACTIVE, PAUSED, DRAINING = "active", "paused", "draining"
MOST_INFLIGHT = 2**31 - 1
MAX_DRAIN_S = 10**7
_MANY = 2**31


class Steer(msgspec.Struct, frozen=True):
    """What was said of a device; all of it is kept. `policy` "": nothing."""

    state: str = ACTIVE
    version: int = 1
    policy: str = ""
    options: tuple[tuple[str, str], ...] = ()
    max_inflight: int = 0
    reason: str = ""
    mode: str = ""
    timeout_s: float = 0.0
    started_ns: int = 0
    drained: bool = False  # nothing of it is left


_AS_EVER = Steer()


class Steers:
    """Of all devices that anything was said of. `tight`: may less be sent than there is?"""

    def __init__(self) -> None:
        self.all: dict[str, Steer] = {}
        self.changes: dict[str, None] = {}  # to be stored
        self.tight = False
        self.wall_ns = 0  # at the last tick
        self._left: dict[str, int] = {}

    def of(self, device: str) -> Steer:
        return self.all.get(device, _AS_EVER)

    def put(self, device: str, steer: Steer) -> None:
        self.all[device] = steer
        self.changes[device] = None

    def why_closed(self, device: str, *, begins: bool = True) -> str:
        """Which state keeps the device from taking tasks; `begins`: also from beginning them."""
        for name in (device, ""):
            state = self.of(name).state
            if state == DRAINING or (begins and state == PAUSED):
                return state
        return ""

    def order(self, device: str) -> Order:
        said = self.of(device) if self.of(device).policy else self.of("")
        return order_of(said.policy, said.options) if said.policy else Order()

    # --- while tasks are sent -------------------------------------------------------------------

    def count(self, books: Books) -> None:
        """How many tasks may go to each device's workers now."""
        self._left = {}
        for device in {*self.all, *books.reservations.devices}:
            most = limit(books, device)
            if self._is_shut(device):
                self._left[device] = 0
            elif most:
                self._left[device] = most - sum(_held(books, device))

    def is_shut(self, device: str) -> bool:
        """Does the device begin nothing, however few its workers have?"""
        return any(self._is_shut(name) for name in (device, ""))

    def _is_shut(self, device: str) -> bool:
        told = self.of(device)
        late = told.timeout_s and self.wall_ns > told.started_ns + told.timeout_s * 1e9
        return told.state == PAUSED or (told.state == DRAINING and bool(late))

    def room(self, pool: Pool) -> int:
        """How many of its tasks may be sent."""
        if not self.tight:
            return _MANY
        left = self._left
        return max(0, min(left.get(pool.device, _MANY), left.get("", _MANY)))

    def took(self, pool: Pool, count: int) -> None:
        for device in (pool.device, ""):
            if device in self._left:
                self._left[device] -= count


def tighten(books: Books) -> None:
    """To be called when anything was changed that bounds what is sent."""
    steers = books.steers
    devices = {*steers.all, *books.reservations.devices}
    steers.tight = any(steers.of(d).state != ACTIVE or limit(books, d) for d in devices)


def limit(books: Books, device: str) -> int:
    """Tasks it may have with workers at a time; 0: any number."""
    depth = books.reservations.terms(device).profile.max_provider_queue_depth
    return min((n for n in (books.steers.of(device).max_inflight, depth) if n), default=0)


def why_refused(books: Books, routes: list[Route]) -> str:
    """Which draining device one of these would go to, in words; "" if none."""
    if books.steers.tight:
        for name in {route.pool for route in routes}:
            device = base_of(name) or name
            if books.steers.why_closed(device, begins=False):
                what = f"pool {device}" if books.steers.of(device).state == DRAINING else "it all"
                return f"{what} is draining and accepts nothing new"
    return ""


# --- what is said -------------------------------------------------------------------------------


def steer(
    books: Books, device: str, verb: str, reason: str, mode: str, timeout_s: float, wall_ns: int
) -> bool:
    """False if it was so; NotFound, OptionError."""
    check_device(books, device)
    old = books.steers.of(device)
    plain = msgspec.structs.replace(
        old, state=ACTIVE, reason="", mode="", timeout_s=0.0, started_ns=0, drained=False
    )
    if verb == "pause":
        new = msgspec.structs.replace(plain, state=PAUSED, reason=reason)
    elif verb == "drain":
        _check_drain(mode, timeout_s)
        new = msgspec.structs.replace(
            plain,
            state=DRAINING,
            reason=reason,
            mode=mode or "graceful",
            timeout_s=timeout_s,
            started_ns=old.started_ns if old.state == DRAINING else wall_ns,
            drained=old.drained,
        )
    elif verb == "resume":
        new = plain
    else:
        raise OptionError(f"{verb[:64]!r} is no way to steer", hint="pause, resume or drain")
    return _change(books, device, old, new)


def bound(books: Books, device: str, max_inflight: int) -> bool:
    """False if it was so; NotFound, OptionError."""
    check_device(books, device)
    if not 0 <= max_inflight <= MOST_INFLIGHT:
        raise OptionError(f"max_inflight = {max_inflight}", hint="0 or more; 0: no limit")
    old = books.steers.of(device)
    return _change(books, device, old, msgspec.structs.replace(old, max_inflight=max_inflight))


def reorder(books: Books, device: str, policy: str, options: tuple[tuple[str, str], ...]) -> bool:
    """Another order, for what waits too; False if it was so. NotFound, OptionError."""
    check_device(books, device)
    old = books.steers.of(device)
    if order_of(policy, options) == books.steers.order(device):
        return False
    return _change(books, device, old, msgspec.structs.replace(old, policy=policy, options=options))


def restore(books: Books, device: str, told: Steer) -> None:
    """As it was stored; nothing of a pool that is not there now."""
    books.steers.all[device] = told
    _arrange(books)


def check_device(books: Books, device: str) -> None:
    """NotFound if there is none of that name."""
    told = [name for name, pool in books.pools.items() if not pool.base]
    if device and device not in told:
        words = f"there is no device {device[:64]!r}"
        raise NotFound(words, hint=f"pools: {', '.join(told)}; '' for all together")


def _check_drain(mode: str, timeout_s: float) -> None:
    if mode not in ("", "graceful"):
        raise OptionError(f"mode {mode[:64]!r} of a drain", hint="graceful: what was accepted ends")
    if not 0 <= timeout_s <= MAX_DRAIN_S:  # False for a NaN too
        raise OptionError(f"timeout_s = {timeout_s}", hint=f"0 to {MAX_DRAIN_S} s; 0: none")


def _change(books: Books, device: str, old: Steer, new: Steer) -> bool:
    if new == old:
        return False
    books.steers.put(device, msgspec.structs.replace(new, version=old.version + 1))
    _arrange(books)
    return True


def _arrange(books: Books) -> None:
    for pool in books.pools.values():
        pool.queue.arrange(books.steers.order(pool.device))
    tighten(books)


# --- what people read ---------------------------------------------------------------------------


def tick(books: Books, wall_ns: int) -> list[Action]:
    """Notes about devices that draining has emptied."""
    books.steers.wall_ns = wall_ns
    found: list[Action] = []
    for device, told in list(books.steers.all.items()):
        if told.state == DRAINING and not told.drained and not _left(books, device):
            books.steers.put(device, msgspec.structs.replace(told, drained=True))
            found.append(Note("device.drained", device or "all", "nothing of it is left"))
    return found


def info(books: Books, device: str) -> TargetInfo:
    """How it is steered, and what is there. NotFound."""
    check_device(books, device)
    told, order = books.steers.of(device), books.steers.order(device)
    there = pools_of(books, device)
    sent, running = _held(books, device)
    live, held, in_flight = holdings.of(books, device)
    options = told.options if told.policy else books.steers.of("").options
    return TargetInfo(
        device=device,
        state=told.state,
        version=told.version,
        policy=order.policy,
        options=options,
        max_inflight=told.max_inflight,
        pause_reason=told.reason if told.state == PAUSED else "",
        drain_mode=told.mode,
        drain_timeout_s=told.timeout_s,
        drain_started_ns=told.started_ns,
        queued=sum(len(pool.queue) for pool in there),
        parked=_parked(books, device),
        sent=sent,
        running=running,
        queued_ns=round(sum(pool.queue.backlog_us for pool in there) * 1e3),
        reservations=live,
        held=held,
        in_flight=in_flight,
    )


def pools_of(books: Books, device: str) -> list[Pool]:
    return [pool for pool in books.pools.values() if device in ("", pool.device)]


def _held(books: Books, device: str) -> tuple[int, int]:
    """Tasks with its workers: those they have not begun, and those they have."""
    held = [
        record
        for pool in pools_of(books, device)
        for worker in pool.workers.values()
        for record in worker.held.values()
    ]
    running = sum(record.phase == Phase.RUNNING for record in held)
    return len(held) - running, running


def _parked(books: Books, device: str) -> int:
    """Also for pools that are made on demand, which are gone while nothing waits in them."""
    there = [one.parked_in for one in books.reservations.all.values() if one.parked]
    return sum(
        count
        for parked in there
        for name, count in parked.items()
        if device in ("", base_of(name) or name)
    )


def _left(books: Books, device: str) -> int:
    waiting = sum(len(pool.queue) for pool in pools_of(books, device))
    return waiting + sum(_held(books, device)) + _parked(books, device)
