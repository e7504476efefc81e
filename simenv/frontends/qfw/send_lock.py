"""Send lock: one message at a time to each peer, by a lock around the two functions by which DEFw
sends.

A message of DEFw's is two writes, and any thread may send. Two concurrent messages to one peer mix
their bytes, and both sides wait for ever. The locks are needed in every process that sends: a
service and its clients. Each peer has its own lock, so that a peer that does not read delays no
other.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

from simenv.frontends.qfw import defw

SENDERS = ("defw_send_req", "defw_send_rsp")
MARK = "simenv_send_lock"  # attribute of a module with the locks

_installing = threading.Lock()


class Locks:
    """Locks by peer, kept while they are in use."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._known: WeakValueDictionary[str, _PeerLock] = WeakValueDictionary()

    def of(self, args: tuple[Any, ...]) -> _PeerLock:
        """Lock of a peer. `args`: a sender's arguments, of which the first names the peer; calls
        without arguments share one lock."""
        peer = str(args[0]) if args else ""
        with self._looking:
            result = self._known.get(peer)
            if result is None:
                result = self._known[peer] = _PeerLock()
            return result


class _PeerLock:
    """Lock that supports weak references."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def install() -> bool:
    """Install the locks, once a process; False if DEFw is not up, or lacks these functions."""
    workers = defw.loaded("defw_workers")
    if workers is None or not all(callable(getattr(workers, name, None)) for name in SENDERS):
        return False
    with _installing:
        if getattr(workers, MARK, None) is None:
            _wrap(workers, Locks())
    return True


def _wrap(workers: ModuleType, locks: Locks) -> None:
    for name in SENDERS:
        setattr(workers, name, _locked(getattr(workers, name), locks))
    setattr(workers, MARK, locks)


def _locked(send: Callable[..., Any], locks: Locks) -> Callable[..., Any]:
    @functools.wraps(send)
    def sent(*args: Any, **named: Any) -> Any:
        peer = locks.of(args)  # kept until it is sent
        with peer.lock:
            return send(*args, **named)

    return sent
