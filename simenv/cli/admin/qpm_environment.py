"""Environment of `simenv qpm check defw`: private, and killed and restarted by the kit.

Invariant: no process, socket or folder of it is left after `close`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from simenv import config
from simenv.client.environments import launch
from simenv.config import EnvironmentPaths
from simenv.model import PoolSpec


class Restartable:
    """`target.Outage` of a service that is killed, and started again from its journal."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="simenv-local-"))
        self._paths = EnvironmentPaths(self._home, self._home)
        settings = {"name": "local", "durability": "process", "pools": (PoolSpec(min=1, max=1),)}
        self._config = config.convert(settings, source="simenv qpm check")
        self._lifeline = -1
        self._start()

    @property
    def service(self) -> Path:
        """The connection file of the service."""
        return self._paths.connection

    def begin(self) -> None:
        """Kill the service with SIGKILL."""
        self._service.process.kill()
        self._service.process.wait()
        self._close_lifeline()

    def end(self) -> None:
        """Start the service again; return when it is ready."""
        launch.clear(self._sockets, self.service)
        self._start()

    def close(self) -> None:
        """End the service and remove all its files."""
        try:
            self._close_lifeline()
            launch.end(self._service.process)
            launch.clear(self._sockets, self.service)
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def _close_lifeline(self) -> None:
        """Close the lifeline of the service, once.

        The descriptor is forgotten first: after a failed restart, another file may have its number.
        """
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)

    def _start(self) -> None:
        self._service = launch.start(self._config, self._paths, private=True)
        self._lifeline = self._service.lifeline
        self._sockets = self._socket_folder()

    def _socket_folder(self) -> Path:
        from simenv.client.connection.address import read

        return Path(read(self.service).sockets)
