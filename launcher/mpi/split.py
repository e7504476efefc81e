"""Two launchers as one: workers of one rank are plain processes, others go through an MPI.

The MPI launcher is made when the first worker of several ranks is wanted: an environment of small
workers runs no DVM.
"""

from __future__ import annotations

from collections.abc import Callable

from launcher.base import Command, Exit, Launcher, News
from launcher.process.local import LocalLauncher


class ByRanks:
    """Implements launcher.base.Launcher. `make` may raise LaunchError; then that start fails."""

    def __init__(
        self,
        plain: LocalLauncher,
        make: Callable[[], Launcher],
        name: str,
        why: str,
        max_ranks: int,
        exposure: str = "",
    ) -> None:
        self.name = name
        self.why = why
        self.max_ranks = max_ranks
        self.exposure = exposure
        self._plain = plain
        self._make = make
        self._mpi: Launcher | None = None

    def start(self, command: Command) -> int:
        if command.ranks == 1:
            return self._plain.start(command)
        if self._mpi is None:
            self._mpi = self._make()
        return self._mpi.start(command)

    def exited(self) -> list[Exit]:
        return [end for launcher in self._both() for end in launcher.exited()]

    def news(self) -> list[News]:
        return [news for launcher in self._both() for news in launcher.news()]

    def look(self, node: str) -> bool:
        return sum(launcher.look(node) for launcher in self._both()) > 0

    def kill(self, name: str) -> None:
        for launcher in self._both():
            if name in launcher.running():
                launcher.kill(name)

    def terminate(self, name: str) -> None:
        for launcher in self._both():
            if name in launcher.running():
                launcher.terminate(name)

    def running(self) -> list[str]:
        return [name for launcher in self._both() for name in launcher.running()]

    def close(self) -> None:
        try:
            if self._mpi is not None:
                self._mpi.close()
        finally:
            self._plain.close()

    def _both(self) -> tuple[Launcher, ...]:
        return (self._plain,) if self._mpi is None else (self._plain, self._mpi)
