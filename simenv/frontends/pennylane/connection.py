"""Shared connection of devices without an `env`: one client for each process.

Invariant: a private environment is started only if no environment is up, and ends with the process.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import simenv
from simenv.errors import NoServiceError

if TYPE_CHECKING:
    from simenv.client.client import Client

_lock = threading.Lock()
_clients: dict[tuple[int, str], Client] = {}


def shared_client() -> Client:
    """Return the client of the environment that SIMENV_SERVICE names, else of `default`, else of a
    private one that is started now. Raises SimenvError if SIMENV_SERVICE names one that does not
    answer."""
    named = os.environ.get("SIMENV_SERVICE", "")
    key = (os.getpid(), named)
    with _lock:
        result = _clients.get(key)
        if result is None:
            result = _clients[key] = _opened(named)
        return result


def _opened(named: str) -> Client:
    try:
        return simenv.connect()
    except NoServiceError:
        if named:
            raise
    return simenv.local()
