"""What a launcher promises. Implementations: `local` (children of this process)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class LaunchError(Exception):
    """A process could not be started; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """One process to start. The environment is complete: nothing is inherited beside it."""

    name: str
    argv: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    log: Path  # stdout and stderr are appended here
    cwd: Path


@dataclass(frozen=True, slots=True)
class Exit:
    """A process of ours is gone."""

    name: str
    pid: int
    code: int  # as subprocess gives it: negative is the signal's number
    words: str = field(default="")  # "exit 1", "signal 9 (SIGKILL)"


class Launcher(Protocol):
    """Starting never waits for the child; ends are learned from `exited`."""

    def start(self, command: Command) -> int:
        """Start a process and return its pid; LaunchError if that is impossible."""

    def exited(self) -> list[Exit]:
        """Processes that have ended since the last call."""

    def kill(self, name: str) -> None:
        """End one process at once; without effect if it is gone."""

    def terminate(self, name: str) -> None:
        """Ask one process to end (SIGTERM)."""

    def running(self) -> list[str]:
        """Names of the processes that have not been reported by `exited`."""

    def close(self) -> None:
        """End all that still run, and wait for them."""
