"""One message at a time: a lock around the two functions by which DEFw sends.

A message of DEFw's is two writes, and any thread may send. Two at once mix their bytes up, and both
sides wait for ever. The lock is needed in every process that sends: a service and its clients.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from simenv.frontends.qfw import host

SENDERS = ("defw_send_req", "defw_send_rsp")
MARK = "simenv_send_lock"  # of the module that has the lock already

_installing = threading.Lock()


def install() -> bool:
    """Put it there, once a process; False where DEFw is not up, or has not these functions."""
    workers = host.loaded("defw_workers")
    if workers is None or not all(callable(getattr(workers, name, None)) for name in SENDERS):
        return False
    with _installing:
        if getattr(workers, MARK, None) is None:
            _wrap(workers, threading.Lock())
    return True


def _wrap(workers: ModuleType, lock: threading.Lock) -> None:
    for name in SENDERS:
        setattr(workers, name, _locked(getattr(workers, name), lock))
    setattr(workers, MARK, lock)


def _locked(send: Callable[..., Any], lock: threading.Lock) -> Callable[..., Any]:
    @functools.wraps(send)
    def sent(*given: Any, **named: Any) -> Any:
        with lock:
            return send(*given, **named)

    return sent
