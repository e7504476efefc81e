"""One environment of a test process, for modules that run tasks and look at nothing else."""

from contextlib import suppress

import psutil

import simenv
from simenv.client.client import Client
from simenv.errors import SimenvError


class SharedEnvironment:
    """Two workers; started when a module asks, and again after a failure has ended them."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._pid = 0

    def client(self) -> Client:
        if self._client is None or not self._is_up():
            self._client = simenv.local(workers=2)
            self._pid = self._client.status().pid
        return self._client

    def _is_up(self) -> bool:
        try:
            return bool(psutil.Process(self._pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def close(self) -> None:
        if self._client is not None:
            with suppress(SimenvError):
                self._client.close()
