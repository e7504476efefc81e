"""A standby: a service that waits until it may lead an environment whose journal is in PostgreSQL.

It checks when it begins, and for each new leader, what it will need: the same version and settings
as the leader, a launcher that works on its node, free ports, and compiled kernels. What it lacks is
in the state of the environment. Invariant: it opens nothing of the service before it may lead.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.base import LaunchError
from launcher.process.children import LocalLauncher
from simenv import config as configs
from simenv._version import __version__
from simenv.config import Config, EnvironmentPaths
from simenv.errors import ConfigError, SimenvError, VersionMismatchError
from simenv.service.bootstrap import RunningService, build_service, check_node, check_ports
from simenv.service.journal.database import PostgresPlace, place_of
from simenv.service.workers.endpoints import standby_address
from simenv.service.workers.processes import start_compilers
from simulators.compiler import warmup

if TYPE_CHECKING:
    from simenv.service.journal.leadership import LeaderRow

RETRY_S = 5.0  # after a start that failed, while nobody leads
log = logging.getLogger("simenv.service")


class StandbyService:
    """A standby on this node. Used in a `with` block, which ends its processes."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], is_ended: Callable[[], bool]
    ) -> None:
        """`path`: of the configuration; `is_ended`: polled, True ends the wait."""
        self._path, self._environ, self._is_ended = path, environ, is_ended
        self._kernels = configs.kernel_folder(environ)
        self._compilers = LocalLauncher()
        self._compiling = 0
        self._epoch = -1  # of the leader that it was compared with
        self._problem: SimenvError | None = None

    def __enter__(self) -> StandbyService:
        return self

    def __exit__(self, *_: object) -> None:
        self._compilers.close()

    def build(self, ready: Callable[[], None] | None) -> RunningService | None:
        """Wait, then build the service; None if it is not needed any more. `ready`: called when it
        waits and lacks nothing; None: nobody waits for that, and whatever it lacks may come. Raises
        SimenvError if it cannot begin to wait."""
        from simenv.service.journal import leadership

        config, node = configs.read(self._path), os.uname().nodename
        place = self._place(config)
        address = standby_address(config.listen, self._paths(config).server_key, node)
        log.info("a standby of %s on %s", place, node)
        while leadership.wait_to_lead(place, address, self._is_ended, self._lacks, ready):
            ready, config = None, configs.read(self._path)
            try:
                return build_service(config, self._path.parent, self._environ, standby=True)
            except SimenvError as error:  # another standby was faster, or something is broken here
                log.warning("cannot lead: %s", error)
                time.sleep(RETRY_S)
        return None

    def _place(self, config: Config) -> PostgresPlace:
        place = place_of(config, self._path, standby=True)
        assert isinstance(place, PostgresPlace)
        return place

    def _paths(self, config: Config) -> EnvironmentPaths:
        home = self._path.parent
        return EnvironmentPaths(home, configs.state_folder(config, home, self._environ))

    def _lacks(self, leader: LeaderRow) -> str:
        """Return or raise what it lacks to follow a leader; "": nothing."""
        if leader.epoch != self._epoch:
            self._epoch, self._problem = leader.epoch, None
            try:
                self._check(leader)
            except SimenvError as error:
                log.warning("cannot lead: %s", error)
                self._problem = error
        if self._problem is not None:
            raise self._problem
        if self._compiling:
            self._compiling -= len(self._compilers.poll_exits())
        return "compiling kernels, once on this machine" if self._compiling else ""

    def _check(self, leader: LeaderRow) -> None:
        config = configs.read(self._path)
        paths = self._paths(config)
        if leader.state == "leads":
            if leader.version != __version__:
                text = (
                    f"the service on {leader.node} has version {leader.version}, this standby "
                    f"{__version__}"
                )
                raise VersionMismatchError(text, hint="install the same version on both nodes")
            if leader.settings != self._place(config).settings:
                text = f"{self._path} has other settings than the service on {leader.node}"
                hint = "do both nodes see the same SIMENV_HOME? Then start the service again"
                raise ConfigError(text, hint=hint)
        check_node(config, paths, self._environ)
        if not (leader.state == "leads" and leader.node == os.uname().nodename):
            check_ports(config, paths)  # else they are free when the leader has ended
        if not (self._compiling or warmup.is_compiled(self._kernels)):
            try:
                self._compiling = start_compilers(
                    self._compilers, self._kernels, paths.home, self._environ
                )
            except LaunchError as error:
                raise ConfigError(f"kernels cannot be compiled: {error}") from error
