"""Split launcher: workers of one rank are plain processes, others go through an MPI launcher.

The MPI launcher is created when the first worker of several ranks is started, so that an
environment of small workers runs no DVM.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.base import Command, Exit, Launcher, LauncherEvent
from launcher.process.local import LocalLauncher


class SplitLauncher:
    """Implementation of launcher.base.Launcher over two launchers.

    If `create_mpi` raises LaunchError, the start that needed it fails.
    """

    def __init__(
        self,
        local: LocalLauncher,
        create_mpi: Callable[[], Launcher],
        name: str,
        description: str,
        max_ranks: int,
        exposure: str = "",
    ) -> None:
        self.name = name
        self.description = description
        self.max_ranks = max_ranks
        self.exposure = exposure
        self._local = local
        self._create_mpi = create_mpi
        self._mpi: Launcher | None = None

    def start(self, command: Command) -> int:
        if command.ranks == 1:
            return self._local.start(command)
        if self._mpi is None:
            self._mpi = self._create_mpi()
        return self._mpi.start(command)

    def poll_exits(self) -> list[Exit]:
        return [end for launcher in self._launchers() for end in launcher.poll_exits()]

    def poll_events(self) -> list[LauncherEvent]:
        return [event for launcher in self._launchers() for event in launcher.poll_events()]

    def recheck_node(self, node: str) -> bool:
        return sum(launcher.recheck_node(node) for launcher in self._launchers()) > 0  # ask all

    def kill(self, name: str) -> None:
        for launcher in self._launchers():
            if name in launcher.running():
                launcher.kill(name)

    def terminate(self, name: str) -> None:
        for launcher in self._launchers():
            if name in launcher.running():
                launcher.terminate(name)

    def running(self) -> list[str]:
        return [name for launcher in self._launchers() for name in launcher.running()]

    def close(self) -> None:
        try:
            if self._mpi is not None:
                self._mpi.close()
        finally:
            self._local.close()

    def _launchers(self) -> tuple[Launcher, ...]:
        return (self._local,) if self._mpi is None else (self._local, self._mpi)
